"""SIGTERM ends an agent's process, whichever of its threads the system hands the signal to, and however many come."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from fedpg_client.cli import run_until_signalled
from fedpg_client.process import AgentProcess
from fedpg_common.errors import ExitCode

AGENT = """
import signal, sys, threading, time
from fedpg_client.cli import run_until_signalled
from fedpg_client.process import AgentOptions, AgentProcess

def signal_this_thread():
    while not any(thread.name.startswith("agent_") for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(0.3)  # the main thread waits for the agent by then
    signal.pthread_kill(threading.get_ident(), signal.{name})

threading.Thread(target=signal_this_thread, daemon=True).start()
nowhere = AgentOptions(index=1, server="127.0.0.1:1", connect_patience_s=3600.0)
sys.exit(run_until_signalled(AgentProcess([nowhere])))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", ExitCode.TERMINATED), ("SIGINT", ExitCode.INTERRUPTED)])
def test_an_agent_without_a_server_ends(name: str, code: ExitCode) -> None:
    ended = subprocess.run([sys.executable, "-c", AGENT.format(name=name)], timeout=300, check=False)
    assert ended.returncode == code


class Impatient(threading.Event):
    """An event that is set while another signal comes. Setting it within that would wait for its own lock for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.within, self.deepest = 0, 0

    def set(self) -> None:
        self.within += 1
        self.deepest = max(self.deepest, self.within)
        if self.within == 1:
            signal.raise_signal(signal.SIGINT)
        super().set()
        self.within -= 1


class Signalled(AgentProcess):
    """Is sent SIGINT while it runs."""

    def run(self) -> ExitCode:
        signal.raise_signal(signal.SIGINT)
        return ExitCode.TERMINATED


def test_a_second_signal_while_the_first_is_heeded_does_no_harm() -> None:
    stop = Impatient()
    assert run_until_signalled(Signalled([], stop=stop)) == ExitCode.INTERRUPTED
    assert (stop.is_set(), stop.deepest) == (True, 1)
