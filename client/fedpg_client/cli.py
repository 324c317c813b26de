"""The `fedpg-agent` command."""

from __future__ import annotations

import signal
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.bootstrap import LOG_LEVELS, log_to_stderr, use_one_thread
from fedpg_common.choices import Choice, parse_settings
from fedpg_common.cli import ending
from fedpg_common.cli.command_line import VERSION, complete, finite, judging_paths
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.federation import AGENTS_MAX
from fedpg_common.modules import make_folders_importable
from fedpg_common.shipped import AGGREGATORS, ATTACKS, ATTACKS_HELP
from fedpg_common.worlds import World, world_from_settings

from fedpg_client.patience import CONNECT_PATIENCE_S, PATIENCE_S
from fedpg_client.trust import names_of

if TYPE_CHECKING:
    from fedpg_client.process import AgentProcess, Collusion

SETTINGS_OF_THE_SERVER = ("aggregator.", "algorithm.", "task.")
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
            help=f"Be Byzantine: {ATTACKS_HELP}; or MODULE:NAME of your own. Or a table of name and settings, as TOML.",
            envvar="FEDPG_ATTACK",
            metavar="ATTACK",
            autocompletion=complete(list(ATTACKS.shipped)),
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the attack, such as factor=-1 or starts_at=500; repeat for several. Of those of the "
            "server, aggregator.faulty=3 tells an attack that colludes about its rule; others are passed over.",
            envvar="FEDPG_SET",
            metavar="NAME=VALUE",
        ),
    ] = None,
    attackers: Annotated[
        str,
        typer.Option(
            help="For an attack that colludes: all agents that do, e.g. 1,2,3.",
            envvar="FEDPG_ATTACKERS",
            metavar="LIST",
        ),
    ] = "",
    ring: Annotated[
        str,
        typer.Option(
            help="For an attack that colludes: where its agents meet.", envvar="FEDPG_RING", metavar="HOST:PORT"
        ),
    ] = "",
    ring_listen: Annotated[
        str,
        typer.Option(
            help="For an attack that colludes: serve the meeting point here; one of its agents does.",
            envvar="FEDPG_RING_LISTEN",
            metavar="HOST:PORT",
        ),
    ] = "",
    attackers_secret: Annotated[
        str,
        typer.Option(
            help="For an attack that colludes: what its agents share; their common random draws follow from it.",
            envvar="FEDPG_ATTACKERS_SECRET",
            metavar="TEXT",
        ),
    ] = "",
    run_seed: Annotated[
        int | None,
        typer.Option(
            help="For an omniscient attack: the run's seed.", envvar="FEDPG_RUN_SEED", min=0, show_default=False
        ),
    ] = None,
    aggregator: Annotated[
        str,
        typer.Option(
            help="For an attack that colludes: the server's aggregator, fedpg if it is not given. Its settings are "
            "--set aggregator.NAME=VALUE.",
            envvar="FEDPG_AGGREGATOR",
            metavar="NAME",
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
    threads: Annotated[
        int,
        typer.Option(
            help="Threads that share this agent's episodes, where the simulation lets them. The same gradient with "
            "any number.",
            envvar="FEDPG_THREADS",
            metavar="N",
            min=1,
        ),
    ] = 1,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Trust the server with this module (my_envs) or environment (HalfCheetah-v5); may be repeated.",
            envvar="FEDPG_ALLOW",
            metavar="NAME",
        ),
    ] = None,
    world: Annotated[
        list[str] | None,
        typer.Option(
            help="This agent's own world, over what the server says: an option of the environment such as gravity=-12, "
            'reward.scale, reward.shift or reward.noise, or wrappers=["MODULE:NAME"]; repeat for several.',
            envvar="FEDPG_WORLD",
            metavar="NAME=VALUE",
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
    from fedpg_common.transport.channels import parse_address, tls_files

    parse_address(server)
    make_folders_importable()
    chosen = parse_attack(attack, settings or [])
    from fedpg_client.attacks import Knowledge, knowledge_of
    from fedpg_client.process import AgentOptions, AgentProcess

    use_one_thread()
    knowledge = knowledge_of(chosen)
    colludes = knowledge >= Knowledge.COLLUDERS
    if knowledge >= Knowledge.OMNISCIENT and run_seed is None:
        raise UsageError(f"the attack {attack} is omniscient and needs --run-seed, the seed of the run")
    options = AgentOptions(
        index=index,
        server=server,
        attack=chosen,
        collusion=parse_collusion(attackers, ring, ring_listen, attackers_secret, index) if colludes else None,
        run_seed=run_seed if knowledge >= Knowledge.OMNISCIENT else None,
        aggregator=parse_rule(aggregator, settings or []) if colludes else None,
        tls=tls_files(tls),
        connect_patience_s=connect_timeout,
        patience_s=patience,
        threads=threads,
        use_proxy=use_proxy,
        allow=names_of(allow or []),
        world=parse_world(world or []),
    )
    raise typer.Exit(run_until_signalled(AgentProcess([options])))


def parse_attack(text: str, settings: Sequence[str]) -> Choice | None:
    """The attack of a command line or an environment variable: a name, or an inline table; "" for none.

    A setting is NAME=VALUE or attack.NAME=VALUE; those of other owners are the server's. Raises UsageError.
    """
    settings = [pair.removeprefix("attack.") for pair in settings if not pair.startswith(SETTINGS_OF_THE_SERVER)]
    if not text.strip():
        if settings:
            raise UsageError(f"--set {settings[0]} is a setting of an attack: add --attack NAME")
        return None
    value: object = text.strip()
    if text.lstrip().startswith("{"):
        try:
            value = tomllib.loads(f"attack = {text}")["attack"]
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"--attack {text} is not a table in TOML: {error}") from error
    return ATTACKS.parse(value).with_settings(parse_settings(settings))


def parse_world(settings: Sequence[str]) -> World:
    """This agent's own world. Raises UsageError."""
    try:
        return world_from_settings(settings)
    except UsageError as error:
        raise UsageError(f"--world: {error}") from error


def parse_rule(name: str, settings: Sequence[str]) -> Choice | None:
    """The server's aggregator, as attackers are told it; None if they are not. Raises UsageError."""
    prefix = "aggregator."
    own = parse_settings([pair.removeprefix(prefix) for pair in settings if pair.startswith(prefix)])
    if not name.strip():
        return None
    choice = AGGREGATORS.parse(name.strip()).with_settings(own)
    from fedpg_common.learning.aggregators import build_aggregator

    build_aggregator(choice)  # a wrong setting shows now, and not in mid-run
    return choice


def parse_collusion(attackers: str, address: str, listen: str, secret: str, index: int) -> Collusion:
    """How this attacker meets the others. Raises UsageError for a bad list or address."""
    from fedpg_common.transport.channels import parse_address

    from fedpg_client.collusion.channel import ATTACKERS_MAX
    from fedpg_client.process import Collusion

    try:
        indices = tuple(sorted({int(part) for part in attackers.split(",")})) if attackers else (index,)
    except ValueError:
        raise UsageError(f"--attackers takes agent indices such as 1,2,3, not {attackers!r}") from None
    if index not in indices:
        raise UsageError(f"agent {index} is not among its own --attackers {attackers}")
    if indices[0] < 1 or len(indices) > ATTACKERS_MAX:
        raise UsageError(f"--attackers takes 1 to {ATTACKERS_MAX} agent indices from 1, not {attackers}")
    if len(indices) > 1 and not address:
        raise UsageError("an attack that colludes needs --ring, the address where its --attackers meet")
    for given in filter(None, (address, listen)):
        parse_address(given)
    return Collusion(indices, address, listen, secret)


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
