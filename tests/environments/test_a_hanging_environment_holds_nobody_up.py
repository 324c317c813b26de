"""An environment that does not return from a call is left there by whoever is told to stop, or whose parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w
from failing_environments import failing_task
from fedpg_common.errors import ExitCode
from fedpg_common.tasks import task_to_fields
from fedpg_lab.runs.folders import load_run
from support.processes import new_tag, wait_until_none_is_left
from support.terminal import command_line, environment

TESTS = Path(__file__).parents[1]
WAIT_AT_MOST_S = 120.0
HUNG = """
import signal, sys
from fedpg_common.cli import hung
from fedpg_client.cli import run_until_signalled
from fedpg_client.process import AgentProcess

class Hung(AgentProcess):
    def run(self):
        for _ in range({presses}):
            signal.raise_signal(signal.{name})
        while True:
            pass

hung.PATIENCE_S = {patience_s}
sys.exit(run_until_signalled(Hung([])))
"""


@pytest.mark.parametrize(
    ("name", "presses", "patience_s", "code"),
    [
        ("SIGINT", 1, 0.5, ExitCode.INTERRUPTED),
        ("SIGTERM", 1, 0.5, ExitCode.TERMINATED),
        ("SIGINT", 2, 3600, ExitCode.INTERRUPTED),
    ],
)
def test_an_agent_that_is_told_to_stop_leaves_it(name: str, presses: int, patience_s: float, code: ExitCode) -> None:
    """Some seconds after the first signal, and at once after the second: the code is that of the signal."""
    program = HUNG.format(name=name, presses=presses, patience_s=patience_s)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code
    assert "does not return" in ended.stderr


CLOSING = """
import sys
from fedpg_common.cli import hung
from fedpg_common.errors import ExitCode
from fedpg_client.cli import run_until_signalled
from fedpg_client.fates import Ended
from fedpg_client.process import AgentOptions, AgentProcess

class Closing(AgentProcess):
    def _take_part(self, options, resources):
        @resources.callback
        def close():
            while True:
                pass
        return Ended(options.index, ExitCode.ENVIRONMENT if options.index == 2 else ExitCode.OK, "it broke")

hung.PATIENCE_S = 0.5
agents = [AgentOptions(index, "nowhere:1") for index in (1, 2)]
sys.exit(run_until_signalled(Closing(agents, on_fate=lambda fate: print(f"{fate.agent}\\n", end="", flush=True))))
"""


def test_agents_that_have_ended_do_not_wait_for_their_environments_to_be_closed() -> None:
    """How they fared is told before; the process ends with the code of the one that failed."""
    ended = subprocess.run([sys.executable, "-c", CLOSING], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ExitCode.ENVIRONMENT
    assert sorted(ended.stdout.split()) == ["1", "2"]
    assert "does not return" in ended.stderr


IN_PROCESS = """
import sys
from pathlib import Path
from types import SimpleNamespace
from fedpg_common.cli import hung
from fedpg_common.federation import Federation
from fedpg_lab.local.in_process.child import run_main
from fedpg_lab.local.in_process.rounds import RunOptions
from support.hanging_parts import gated_task

hung.PATIENCE_S = 0.5
telling = SimpleNamespace(send=lambda message: print(message[0], flush=True))
federation = Federation(gated_task("close"), agents=2)
sys.exit(run_main(RunOptions(Path(sys.argv[1]), federation, observers=()), telling))
"""


def test_a_run_in_one_process_that_has_ended_does_not_wait_either(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IN_PROCESS, str(tmp_path / "run")]
    variables = environment(PYTHONPATH=str(TESTS))
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert ended.stdout.split()[-1] == "ended"
    assert "does not return" in ended.stderr
    assert load_run(tmp_path / "run").is_complete


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_killed_command(tmp_path: Path, number: signal.Signals) -> None:
    """The command alone is killed, as where memory runs out, or all that it has started is told to end."""
    task = tmp_path / "task.toml"
    claims = tmp_path / "claims"
    claims.mkdir()
    task.write_text(tomli_w.dumps(task_to_fields(failing_task(claims, "hang", count=2))))
    tag = new_tag()
    process = subprocess.Popen(
        command_line("fedpg", "train", "--task", task, "--agents", 2, "--name", "run"),
        cwd=tmp_path, env=environment(PYTHONPATH=str(TESTS)) | dict([tag]), stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline_s = time.monotonic() + WAIT_AT_MOST_S
    while len(list(claims.glob("failed-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    process.wait(timeout=WAIT_AT_MOST_S)
    wait_until_none_is_left(tag)
