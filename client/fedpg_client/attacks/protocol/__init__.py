"""Attacks on the protocol: what an agent may do in place of its vote or beside it.

Each class overrides one method of `ProtocolAttack`. Its docstring says what it does; its bounds stand beside it.
"""

from fedpg_client.attacks.protocol.base import AttackerCalls, ProtocolAttack

__all__ = ["AttackerCalls", "ProtocolAttack"]
