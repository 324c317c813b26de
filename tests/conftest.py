"""Settings of the whole suite."""

from __future__ import annotations

import signal
import sys

import pytest
from hypothesis import settings
from support.lab import Command

# No promise here is about time, and a busy machine is not a failure.
settings.register_profile("fedpg", deadline=None)
settings.load_profile("fedpg")

# A shell starts what runs in the background deaf to Ctrl-C, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def fedpg(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the `fedpg` command in this process: its exit code, standard output and standard error."""
    from fedpg_lab.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedpg", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        output = capfd.readouterr()
        return code, output.out, output.err

    return run
