"""The Docker engine: how it is reached, the `docker` command beside the SDK, and errors of both as one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException
from fedpg_common.errors import ExitCode, FedPGError

from fedpg_lab.faults.backend import UnsupportedFaultError

REQUEST_TIMEOUT_S = 120.0
"""No single request takes that long, but for those that wait, which bring a limit of their own."""
COMMAND_TIMEOUT_S = 60.0
ENDS_WITHIN_S = 10.0


class EngineError(FedPGError):
    """The Docker engine or the `docker` command failed; the text says at what."""

    exit_code = ExitCode.UNREACHABLE


def connect() -> Any:
    """A client of the engine that the `docker` command uses. Raises UnsupportedFaultError if there is none."""
    try:
        host = run_docker(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]).strip()
        run_docker(["compose", "version"])
        client = docker.from_env(
            environment={**os.environ, "DOCKER_HOST": host}, timeout=REQUEST_TIMEOUT_S, use_ssh_client=True
        )
        client.ping()
    except (EngineError, DockerException, requests.RequestException) as error:
        raise UnsupportedFaultError(f"a Docker engine with Compose is needed: {one_line(error)}") from error
    return client


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Errors of the SDK become an EngineError that says what was tried."""
    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"{what} failed: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """An error's last line: what Docker says before is about the way to the engine."""
    text = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return last_line(str(text)) or type(error).__name__


def last_line(text: str) -> str:
    """The last line that is not empty, or nothing."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def run_docker(
    arguments: Sequence[str],
    settings: Mapping[str, str] | None = None,
    given: str = "",
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """Run `docker` and return what it prints. `settings` replace the environment, `given` is its input.

    Whatever happens, neither it nor a plugin of it is left running: what it has yet to start would never be removed.
    Raises EngineError.
    """
    command = ["docker", *arguments]
    try:
        process = subprocess.Popen(
            command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace",  # whatever the locale, and whatever a build prints
            start_new_session=True,  # Ctrl-C is ours to handle, and a plugin is to be ended together with it
        )  # fmt: skip
    except OSError as error:
        raise EngineError(f"the command `docker` cannot be run: {error.strerror}") from error
    what = f"`docker {arguments[0]}`" if arguments[0] != "compose" else "`docker compose`"
    try:
        output, errors = process.communicate(given, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _end(process)
        raise EngineError(f"{what} has not ended within {timeout_s:.0f} s") from error
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        said = last_line(errors) or last_line(output) or "no reason given"
        raise EngineError(f"{what} failed with code {process.returncode}: {said}")
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """End a command and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=ENDS_WITHIN_S)  # until nobody holds its output open
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return
