"""Errors that a user can act on, each with the exit code of the process that meets it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `fedpg`, `fedpg-server` and `fedpg-agent` (documented in docs/exit-codes.md)."""

    OK = 0
    BUG = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    ADDRESS = 5
    STORAGE = 6
    RENDERING = 7
    VIOLATED = 8
    ENVIRONMENT = 9
    QUORUM_LOST = 10
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class FedPGError(Exception):
    """A failure with one clear sentence for the user. Subclasses fix the exit code."""

    exit_code = ExitCode.BUG


class UsageError(FedPGError):
    """A bad option, task file or federation description."""

    exit_code = ExitCode.USAGE


class UnreachableError(FedPGError):
    """The server did not answer in time."""

    exit_code = ExitCode.UNREACHABLE


class RefusedError(FedPGError):
    """The server refused this agent: membership, identity or configuration. Retrying cannot help."""

    exit_code = ExitCode.REFUSED


class AddressError(FedPGError):
    """An address cannot be parsed or bound, for example a port in use."""

    exit_code = ExitCode.ADDRESS


class StorageError(FedPGError):
    """A folder is not writable, or a store is missing, corrupt or of another run."""

    exit_code = ExitCode.STORAGE


class RenderingError(FedPGError):
    """This machine cannot show or record an environment."""

    exit_code = ExitCode.RENDERING


class InvariantViolatedError(FedPGError):
    """A fault experiment has shown the system break one of its promises, or not reach its end."""

    exit_code = ExitCode.VIOLATED


class EnvironmentFailedError(FedPGError):
    """An environment raised, ended the process, or gave something that is not an observation, a reward or an end."""

    exit_code = ExitCode.ENVIRONMENT


class QuorumLostError(FedPGError):
    """Too few agents are left, or can vote, for a round to close, and nobody will start them again."""

    exit_code = ExitCode.QUORUM_LOST
