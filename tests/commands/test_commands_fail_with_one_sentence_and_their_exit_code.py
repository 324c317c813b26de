"""What goes wrong at a command's start is told in one sentence, without a traceback, and by its exit code."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from fedpg_client import cli as client_cli
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.errors import ExitCode
from fedpg_server import cli as server_cli
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.storage.store import STORE_NAME, Store
from support.lab import Command as LabCommand
from support.protocol import idle_federation, serving_in_a_thread
from support.tls_files import make_identity, write_files

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process: its exit code and what it wrote to standard error."""

    def run_command(main: Callable[[], None], *arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capfd.readouterr().err

    return run_command


@pytest.fixture
def server(run: Command, tmp_path: Path) -> Command:
    """The server's command, on a free port and a folder of its own unless told otherwise."""
    return lambda *arguments: run(server_cli.main, "--listen", "127.0.0.1:0", "--out", tmp_path / "run", *arguments)


@pytest.fixture
def agent(run: Command) -> Command:
    """The agent's command, impatient."""
    defaults = ("--agent", "1", "--connect-timeout", "0.3", "--patience", "0.3", "--log-level", "error")
    return lambda *arguments: run(client_cli.main, *defaults, *arguments)


def assert_told(outcome: tuple[int, str], code: ExitCode, *parts: str) -> None:
    exit_code, error = outcome
    assert exit_code == code, error
    assert "Traceback" not in error
    for part in parts:
        assert part in error


def is_one_sentence(error: str) -> bool:
    lines = [line for line in error.splitlines() if line.startswith(("fedpg-server: ", "fedpg-agent: "))]
    return len(lines) == 1


@contextmanager
def taken_port() -> Iterator[int]:
    """A loopback port on which something listens that never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--task", "Pong-v5"], "unknown task 'Pong-v5': choose one of CartPole-v1"),
        (["--task", "missing.toml"], "task file missing.toml cannot be read"),
        (["--agents", "0"], "a federation needs 1 to 10000 agents, not 0"),
        (["--agents", "-3"], "a federation needs 1 to 10000 agents, not -3"),
        (["--agents", "3", "--byzantine", "4"], "4 Byzantine agents do not fit in a federation of 3"),
        (["--attack", "bribery", "--byzantine", "1"], "unknown attack 'bribery'"),
        (
            ["--algorithm", "ppo"],
            "unknown algorithm 'ppo': choose one of fedpg-br, fedpg-guard, svrpg, gpomdp, res-nharpg, byzpg, or MODULE",
        ),
        (["--trajectories", "0"], "trajectories must be a whole number from 1"),
        (["--sigma", "nan"], "sigma must be a positive number"),
        (["--alpha", "0.5"], "alpha must be at least 0 and below 0.5"),
        (["--seed", "-1"], "the seed must be"),
        (["--round-timeout", "0"], "round_timeout_s must be"),
        (["--federation", "missing.toml"], "federation file missing.toml cannot be read"),
        (["--tls", "nowhere"], "nowhere/ca.pem cannot be read"),
        (["--log-level", "chatty"], "unknown log level 'chatty'"),
        (["--listen", "0.0.0.0:0"], "accept that with --insecure"),
    ],
)
def test_a_bad_option_of_the_server(server: Command, options: list[str], named: str, tmp_path: Path) -> None:
    outcome = server(*options)
    assert_told(outcome, ExitCode.USAGE, named)
    assert is_one_sentence(outcome[1])
    assert not (tmp_path / "run").exists(), "nothing was made"


@pytest.mark.parametrize("main", [server_cli.main, client_cli.main])
def test_an_unknown_option(run: Command, main: Callable[[], None]) -> None:
    assert_told(run(main, "--no-such-option"), ExitCode.USAGE, "--no-such-option")


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none(server: Command, agent: Command, address: str) -> None:
    for outcome in (server("--listen", address), agent("--server", address)):
        assert_told(outcome, ExitCode.USAGE, "is not an address: write HOST:PORT")
        assert is_one_sentence(outcome[1])


def test_a_port_in_use(server: Command) -> None:
    with taken_port() as port:
        outcome = server("--listen", f"127.0.0.1:{port}")
    assert_told(outcome, ExitCode.ADDRESS, f"cannot listen on 127.0.0.1:{port}: is the port in use")
    assert is_one_sentence(outcome[1])


def test_a_folder_that_cannot_be_written(server: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = server("--out", tmp_path / "file" / "run")
    assert_told(outcome, ExitCode.STORAGE, f"{tmp_path / 'file'} is not a folder: choose another --out")
    assert is_one_sentence(outcome[1])


def test_a_run_that_is_there_already(server: Command, tmp_path: Path) -> None:
    zeros = np.zeros(3, np.float32)
    description = federation_to_toml(describe("CartPole-v1"))
    (tmp_path / "run").mkdir()
    Store.create(tmp_path / "run" / STORE_NAME, "run-1", description, fresh(zeros)).close()
    outcome = server()
    assert_told(outcome, ExitCode.STORAGE, "exists already: resume that run, or choose another folder")
    assert is_one_sentence(outcome[1])


def test_a_run_to_resume_that_is_not_there(server: Command, tmp_path: Path) -> None:
    assert_told(server("--resume"), ExitCode.STORAGE, f"there is no run store at {tmp_path / 'run' / STORE_NAME}")


def test_a_store_that_is_truncated(server: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STORE_NAME).write_bytes(b"SQLite format 3\0")
    outcome = server("--resume")
    assert_told(outcome, ExitCode.STORAGE, str(tmp_path / "run" / STORE_NAME))
    assert is_one_sentence(outcome[1])


def test_nobody_listens(agent: Command) -> None:
    with taken_port() as port:
        pass
    outcome = agent("--server", f"127.0.0.1:{port}")
    assert_told(outcome, ExitCode.UNREACHABLE, f"no answer from a FedPG server at 127.0.0.1:{port}")


def test_something_listens_that_never_answers(agent: Command) -> None:
    with taken_port() as port:
        outcome = agent("--server", f"127.0.0.1:{port}")
    assert_told(outcome, ExitCode.UNREACHABLE, f"no answer from a FedPG server at 127.0.0.1:{port}")


def test_a_web_server_listens(agent: Command) -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        outcome = agent("--server", f"127.0.0.1:{web.server_port}")
        web.shutdown()
        thread.join()
    assert_told(outcome, ExitCode.UNREACHABLE, "no answer from a FedPG server")


def test_an_agent_that_the_federation_does_not_have(agent: Command, tmp_path: Path) -> None:
    with serving_in_a_thread(tmp_path, idle_federation(3, 1)) as address:
        outcome = agent("--server", address, "--agent", "4")
    assert_told(outcome, ExitCode.REFUSED, "agent 4 is not in this federation: its agents are 1 to 3")


def test_a_server_whose_policy_is_laid_out_otherwise(agent: Command, tmp_path: Path) -> None:
    with serving_in_a_thread(tmp_path, idle_federation(3, 1)) as address:
        outcome = agent("--server", address)
    assert_told(
        outcome,
        ExitCode.REFUSED,
        "is not laid out like the server's: its environment is observed as 4 numbers, the server's as 8",
    )


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--attack", "bribery"], ExitCode.USAGE, "unknown attack 'bribery'"),
        (["--attack", "fedpg", "--attackers", "1,2"], ExitCode.USAGE, "needs --ring"),
        (["--attack", "fedpg", "--attackers", "2,3", "--ring", "a:1"], ExitCode.USAGE, "not among its own --attackers"),
        (["--attack", "fedpg", "--attackers", "1,x"], ExitCode.USAGE, "takes agent indices such as 1,2,3"),
        (["--attack", "fedpg", "--attackers", "1,2", "--ring", "nowhere"], ExitCode.USAGE, "is not an address"),
        (["--tls", "nowhere"], ExitCode.USAGE, "nowhere/ca.pem cannot be read"),
        (["--log-level", "chatty"], ExitCode.USAGE, "unknown log level 'chatty'"),
        (["--agent", "0"], ExitCode.USAGE, "'--agent'"),
        (["--patience", "-1"], ExitCode.USAGE, "'--patience'"),
    ],
)  # fmt: skip
def test_a_bad_option_of_the_agent(agent: Command, options: list[str], code: ExitCode, named: str) -> None:
    exit_code, error = agent("--server", "127.0.0.1:1", *options)
    assert exit_code == code
    assert named in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error


def test_an_expired_certificate_of_the_agent(agent: Command, tmp_path: Path) -> None:
    authority = make_identity("authority")
    write_files(tmp_path / "tls", authority, make_identity("agent-1", authority, expired=True))
    outcome = agent("--server", "127.0.0.1:1", "--tls", tmp_path / "tls")
    assert_told(outcome, ExitCode.USAGE, "has expired")
    assert is_one_sentence(outcome[1])


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--trajectories", "0"), ExitCode.USAGE, "trajectories must be a whole number from 1"),
        (("--agents", "0"), ExitCode.USAGE, "a federation needs 1 to 10000 agents, not 0"),
        (("--seed", "-1"), ExitCode.USAGE, "the seed must be a whole number from 0"),
        (("--seed", "9" * 30), ExitCode.USAGE, "the seed must be a whole number from 0"),
        (("--runs", "0"), ExitCode.USAGE, "--runs must be at least 1, not 0"),
        (("--runs", "3", "--seed", str(2**63 - 2)), ExitCode.USAGE, "the last seed would be above 2**63 - 1"),
        (("--set", "task.hidden=7"), ExitCode.USAGE, "sizes from 1 to 2147483647, as in [64, 64], not 7"),
        (("--set", "task.hidden={}"), ExitCode.USAGE, "as in [64, 64], not {}"),
        (("--set", "task.hidden=true"), ExitCode.USAGE, "as in [64, 64], not True"),
        (("--set", "task.hidden=64,64"), ExitCode.USAGE, "as in [64, 64], not '64,64'"),
        (("--set", "task.hidden=[64,0]"), ExitCode.USAGE, "as in [64, 64], not [64, 0]"),
        (("--set", "task.hidden=[1.5]"), ExitCode.USAGE, "as in [64, 64], not [1.5]"),
        (("--byzantine", "-1"), ExitCode.USAGE, "-1 Byzantine agents do not fit"),
        (("--round-timeout", "nan"), ExitCode.USAGE, "round_timeout_s must be a positive number"),
        (("--round-timeout", "inf"), ExitCode.USAGE, "round_timeout_s must be a positive number"),
        (("--sigma", "inf"), ExitCode.USAGE, "sigma must be a positive number from 1e-37 to 1e+37, not inf"),
        (("--alpha", "nan"), ExitCode.USAGE, "alpha must be at least 0 and below 0.5, not nan"),
        (("--task", "☃"), ExitCode.USAGE, "unknown task '☃'"),
        (("--task", "\x1b[31m"), ExitCode.USAGE, "unknown task '\\x1b[31m'"),
        (("--task", LONG), ExitCode.USAGE, "xxx…: choose one of CartPole-v1"),
        (("--attack", "bribery", "--byzantine", "1"), ExitCode.USAGE, "'bribery': choose one of random-noise, random-"),
        (("--name", LONG), ExitCode.STORAGE, "File name too long"),
        (("--resume", LONG), ExitCode.STORAGE, "File name too long"),
        (("--resume", "[/b]"), ExitCode.STORAGE, "there is no folder [/b]"),
    ],
)  # fmt: skip
def test_a_bad_option_of_training(
    fedpg: LabCommand, tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, named: str
) -> None:
    ended, output, error = fedpg("train", *arguments, *(() if "--resume" in arguments else ("--out", tmp_path)))
    assert (ended, output) == (code, ""), error
    assert named in error
    assert error.count("\n") == 1
    assert len(error) < 1000
    assert "\x1b" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [("--patience", "nan"), ("--connect-timeout", "inf"), ("--agent", "99999999999"), ("--agent", "1.5")]
)
def test_a_number_that_an_agent_cannot_use(agent: Command, options: tuple[str, str]) -> None:
    exit_code, error = agent("--server", "127.0.0.1:1", *options)
    assert exit_code == ExitCode.USAGE
    assert f"'{options[0]}'" in error
    assert "Traceback" not in error


def test_an_agent_and_a_server_that_differ_about_tls_are_told_so(agent: Command, tmp_path: Path) -> None:
    authority = make_identity("authority")
    for name in ("server", "agent-1"):
        write_files(tmp_path / name, authority, make_identity(name, authority))
    (tmp_path / "open").mkdir()
    with serving_in_a_thread(tmp_path / "open", idle_federation(3, 1)) as address:
        outcome = agent("--server", address, "--tls", tmp_path / "agent-1")
    assert_told(outcome, ExitCode.UNREACHABLE, "what listens there does not use TLS: leave out --tls")
    with closing_listener() as port:
        outcome = agent("--server", f"127.0.0.1:{port}")
    assert_told(
        outcome, ExitCode.UNREACHABLE, "a server that uses TLS closes the connection like this: then give --tls"
    )


@contextmanager
def closing_listener() -> Iterator[int]:
    """A port where whoever comes is heard, and hung up on, as by a server that speaks TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller:
                        caller.recv(1000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("agents", "byzantine", "warned"), [(10, 4, False), (10, 5, True), (1, 1, True), (3, 0, False)]
)
def test_more_attackers_than_are_tolerated(fedpg: LabCommand, agents: int, byzantine: int, warned: bool) -> None:
    ended, output, error = fedpg("compose", "--agents", agents, "--byzantine", byzantine)
    assert ended == ExitCode.OK
    assert output.startswith("#") or "services:" in output
    assert ("more than the fraction α = 0.4 that is tolerated" in error) is warned
    assert error.count("\n") == warned
    if agents == byzantine:
        assert "fedpg: the only agent attacks, more than" in error


def test_attackers_alone_are_called_all_of_them(fedpg: LabCommand) -> None:
    assert "fedpg: all 3 agents attack, more than" in fedpg("compose", "--agents", 3, "--byzantine", 3)[2]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_where_run_folders_are_to_go(
    fedpg: LabCommand, server: Command, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for arguments in (
        ("train",),
        ("experiment", "figure-1"),
        ("faults", "agent-crash"),
        ("compose", "--agents", "3"),
        ("certs", "--agents", "3"),
    ):
        code, _, error = fedpg(*arguments, "--out", place)
        assert (code, error) == (ExitCode.STORAGE, "fedpg: file is not a folder: choose another --out\n")
    assert_told(server("--out", place), ExitCode.STORAGE, "fedpg-server: file is not a folder: choose another --out")


def test_the_exit_codes_are_told_apart() -> None:
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    assert (int(ExitCode.INTERRUPTED), int(ExitCode.TERMINATED)) == (128 + 2, 128 + 15)
