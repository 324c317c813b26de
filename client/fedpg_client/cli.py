"""The `fedpg-agent` command."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common import ending
from fedpg_common.command_line import VERSION, complete, finite, judging_paths
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import AGENTS_MAX, ATTACKS_HELP, Attack, Hostility, choose_attack
from fedpg_common.process import LOG_LEVELS, log_to_stderr, use_one_thread

from fedpg_client.patience import CONNECT_PATIENCE_S, PATIENCE_S
from fedpg_client.trust import names_of

if TYPE_CHECKING:
    from fedpg_client.process import AgentProcess, Ring

ATTACKS = [member.value for kind in (Attack, Hostility) for member in kind]
LOG_LEVELS_SHOWN = [level.lower() for level in LOG_LEVELS]

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
@judging_paths
def agent(
    server: Annotated[
        str, typer.Option(help="The aggregation server, HOST:PORT.", envvar="FEDPG_SERVER", metavar="HOST:PORT")
    ],
    index: Annotated[
        int,
        typer.Option(
            "--agent",
            help="Which agent this is, 1 to K.",
            envvar="FEDPG_AGENT",
            metavar="N",
            min=1,
            max=AGENTS_MAX,
        ),
    ],
    attack: Annotated[
        str,
        typer.Option(
            help=f"Be Byzantine: {ATTACKS_HELP}.",
            envvar="FEDPG_ATTACK",
            metavar="ATTACK",
            autocompletion=complete(ATTACKS),
        ),
    ] = "",
    attackers: Annotated[
        str,
        typer.Option(
            help="For --attack fedpg: all colluding agents, e.g. 1,2,3.", envvar="FEDPG_ATTACKERS", metavar="LIST"
        ),
    ] = "",
    ring: Annotated[
        str,
        typer.Option(
            help="For --attack fedpg: where the colluding agents meet.", envvar="FEDPG_RING", metavar="HOST:PORT"
        ),
    ] = "",
    ring_listen: Annotated[
        str,
        typer.Option(
            help="For --attack fedpg: serve the meeting point here; one of the attackers does.",
            envvar="FEDPG_RING_LISTEN",
            metavar="HOST:PORT",
        ),
    ] = "",
    connect_timeout: Annotated[
        float,
        typer.Option(help="Seconds to wait for the server at the start.", metavar="S", min=0, callback=finite),
    ] = CONNECT_PATIENCE_S,
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds of the server's silence to bear later, before giving up.", metavar="S", min=0, callback=finite
        ),
    ] = PATIENCE_S,
    tls: Annotated[
        Path | None,
        typer.Option(help="Folder with this agent's ca.pem, cert.pem and key.pem.", envvar="FEDPG_TLS", metavar="DIR"),
    ] = None,
    use_proxy: Annotated[
        bool,
        typer.Option(
            "--use-proxy",
            help="Reach the server through the proxy that https_proxy or http_proxy names.",
            metavar="",
        ),
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Trust the server with this module (my_envs) or environment (HalfCheetah-v5); may be repeated.",
            envvar="FEDPG_ALLOW",
            metavar="NAME",
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(help="debug, info, warning or error.", metavar="LEVEL", autocompletion=complete(LOG_LEVELS_SHOWN)),
    ] = "info",
    version: Annotated[bool, VERSION] = False,
) -> None:
    """Take part in a federation as one agent, in this machine's copy of the environment.

    The agent learns the task from the server, samples trajectories each round, submits their gradient, and leaves
    when the run ends. It waits out restarts of the server and failures of the network. It imports no module that the
    server names, unless --allow names it too (in FEDPG_ALLOW, names are separated by commas).

    Exit codes: 0 the run ended; 2 bad option; 3 the server cannot be reached; 4 the server refused this agent, or asked
    for what it does not allow; 5 an address cannot be used; 9 the environment failed; 130 Ctrl-C; 143 terminated.
    """
    log_to_stderr(f"agent-{index}", log_level)
    from fedpg_common.channels import parse_address, tls_files

    parse_address(server)
    from fedpg_client.process import AgentOptions, AgentProcess

    use_one_thread()
    options = AgentOptions(
        index=index,
        server=server,
        attack=choose_attack(attack) if attack else None,
        ring=parse_ring(attackers, ring, ring_listen, index) if attack == Attack.FEDPG else None,
        tls=tls_files(tls),
        connect_patience_s=connect_timeout,
        patience_s=patience,
        use_proxy=use_proxy,
        allow=names_of(allow or []),
    )
    raise typer.Exit(run_until_signalled(AgentProcess([options])))


def parse_ring(attackers: str, address: str, listen: str, index: int) -> Ring:
    """The colluding attackers' meeting point. Raises UsageError for a bad list or address."""
    from fedpg_common.channels import parse_address

    from fedpg_client.process import Ring

    try:
        indices = tuple(sorted({int(part) for part in attackers.split(",")})) if attackers else (index,)
    except ValueError:
        raise UsageError(f"--attackers takes agent indices such as 1,2,3, not {attackers!r}") from None
    if index not in indices:
        raise UsageError(f"agent {index} is not among its own --attackers {attackers}")
    if len(indices) > 1 and not address:
        raise UsageError("--attack fedpg with accomplices needs --ring, the address where they meet")
    for given in filter(None, (address, listen)):
        parse_address(given)
    return Ring(indices, address, listen)


def run_until_signalled(process: AgentProcess) -> ExitCode:
    """Run the agents; SIGINT and SIGTERM end them cleanly."""
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        process.stop.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return ExitCode.INTERRUPTED if signal.SIGINT in received and code == ExitCode.TERMINATED else code


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg-agent", app)
