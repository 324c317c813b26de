"""The `fedpg-agent` command."""

from __future__ import annotations

import signal
import threading
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.bootstrap import log_to_stderr, use_one_thread
from fedpg_common.choices import Choice, parse_settings
from fedpg_common.cli import ending
from fedpg_common.cli.command_line import VERSION, Command, judging_paths
from fedpg_common.cli.hung import hung_calls_are_cut_off
from fedpg_common.cli.options import LogLevel
from fedpg_common.errors import ExitCode, UsageError
from fedpg_common.modules import make_folders_importable
from fedpg_common.shipped import AGGREGATORS, ATTACKS
from fedpg_common.speeds import Speed
from fedpg_common.worlds import World, world_from_settings

from fedpg_client.options import (
    Aggregator,
    Allow,
    Attack,
    Attackers,
    AttackersSecret,
    ConnectTimeout,
    Index,
    MinTrajectories,
    Patience,
    Ring,
    RingListen,
    RunSeed,
    Server,
    Settings,
    ThreadsOption,
    Tls,
    Trajectories,
    UseProxy,
    WorldOption,
)
from fedpg_client.patience import CONNECT_PATIENCE_S, PATIENCE_S
from fedpg_client.trust import names_of

if TYPE_CHECKING:
    from fedpg_client.process import AgentProcess, Collusion

SETTINGS_OF_THE_SERVER = ("aggregator.", "algorithm.", "task.", "heterogeneity.", "environments.", "speeds.")

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command(cls=Command)
@judging_paths
def agent(
    server: Server,
    index: Index,
    attack: Attack = "",
    settings: Settings = None,
    attackers: Attackers = "",
    ring: Ring = "",
    ring_listen: RingListen = "",
    attackers_secret: AttackersSecret = "",
    run_seed: RunSeed = None,
    aggregator: Aggregator = "",
    connect_timeout: ConnectTimeout = CONNECT_PATIENCE_S,
    patience: Patience = PATIENCE_S,
    tls: Tls = None,
    use_proxy: UseProxy = False,
    threads: ThreadsOption = 1,
    allow: Allow = None,
    world: WorldOption = None,
    trajectories: Trajectories = None,
    min_trajectories: MinTrajectories = None,
    log_level: LogLevel = "info",
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
        speed=Speed(trajectories, min_trajectories),
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
    from fedpg_common.transport.channels import is_loopback, parse_address

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
        if not secret and not is_loopback(given):
            raise UsageError(
                f"the attackers' channel at {given} can be reached from other machines: keep it with a secret, "
                "--attackers-secret TEXT, the same on each of them"
            )
    return Collusion(indices, address, listen, secret)


def run_until_signalled(process: AgentProcess) -> ExitCode:
    """Run the agents; SIGINT and SIGTERM end them cleanly, and the process with them if an environment hangs.

    One that hangs while it is closed, after all agents have ended, does not hold the process up either.
    """
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        is_first = not received
        received.append(number)
        # A second signal may come while this thread sets the event, whose lock it would wait for in vain.
        if is_first:
            process.stop.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def stopped() -> ExitCode:
        return ExitCode.INTERRUPTED if signal.SIGINT in received else ExitCode.TERMINATED

    def cut_off() -> ExitCode:
        return stopped() if received else process.code

    try:
        with hung_calls_are_cut_off(received, cut_off, lambda: process.is_over):
            code = process.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return stopped() if received and code == ExitCode.TERMINATED else code


def main() -> None:
    """Run the command; a FedPGError becomes one sentence and its exit code."""
    ending.run("fedpg-agent", app)
