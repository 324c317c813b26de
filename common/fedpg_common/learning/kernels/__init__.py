"""The inner loops of an agent's round: compiled where they could be, else in numpy, with the same bits.

`library.py` calls the compiled ones (kernels.c, built when FedPG is installed), `reference.py` says in numpy what they
compute. Both give the same bits on every processor; a test holds them equal.
"""

from __future__ import annotations

from fedpg_common.learning.kernels.interface import Kernels, Mlp
from fedpg_common.learning.kernels.library import is_compiled, kernels

__all__ = ["Kernels", "Mlp", "is_compiled", "kernels"]
