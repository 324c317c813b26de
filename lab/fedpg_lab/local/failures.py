"""How a federation on this machine fails as a whole."""

from __future__ import annotations

from fedpg_common.errors import ExitCode, FedPGError, QuorumLostError


class ProcessFailedError(FedPGError):
    """A process of the federation ended with an error that starting it again does not mend."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Take over the failed process's exit code."""
        super().__init__(message)
        self.exit_code = ExitCode(exit_code) if exit_code in list(ExitCode) else ExitCode.BUG


class AgentsLostError(ProcessFailedError, QuorumLostError):
    """So many agents have failed, or cannot vote, that a round cannot close as it should."""
