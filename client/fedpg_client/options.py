"""The options of `fedpg-agent`, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.command_line import complete, finite
from fedpg_common.cli.options import ADVANCED, NETWORK
from fedpg_common.federation import AGENTS_MAX
from fedpg_common.shipped import ATTACKS, ATTACKS_HELP
from fedpg_common.tasks import BATCH_MAX

COLLUSION = "An attack that colludes or is omniscient"
"""A panel of the help."""

Server = Annotated[str, typer.Option(help="The aggregation server.", envvar="FEDPG_SERVER", metavar="HOST:PORT")]

Index = Annotated[
    int,
    typer.Option(
        "--agent",
        help="Which agent this is, 1 to K.",
        envvar="FEDPG_AGENT",
        metavar="N",
        min=1,
        max=AGENTS_MAX,
    ),
]

Attack = Annotated[
    str,
    typer.Option(
        help=f"Be Byzantine: {ATTACKS_HELP}; or MODULE:NAME of your own. Or a table of name and settings, as TOML.",
        envvar="FEDPG_ATTACK",
        metavar="ATTACK",
        autocompletion=complete(list(ATTACKS.shipped)),
    ),
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of the attack, such as factor=-1 or starts_at=500; repeat for several. Of those of the "
        "server, aggregator.faulty=3 tells an attack that colludes about its rule; others are passed over.",
        envvar="FEDPG_SET",
        metavar="NAME=VALUE",
    ),
]

Attackers = Annotated[
    str,
    typer.Option(
        help="All agents that collude, e.g. 1,2,3.", envvar="FEDPG_ATTACKERS", metavar="LIST", rich_help_panel=COLLUSION
    ),
]

Ring = Annotated[
    str,
    typer.Option(help="Where the agents meet.", envvar="FEDPG_RING", metavar="HOST:PORT", rich_help_panel=COLLUSION),
]

RingListen = Annotated[
    str,
    typer.Option(
        help="Serve the meeting point here; one of the agents does.",
        envvar="FEDPG_RING_LISTEN",
        metavar="HOST:PORT",
        rich_help_panel=COLLUSION,
    ),
]

AttackersSecret = Annotated[
    str,
    typer.Option(
        help="What the agents share; their common random draws follow from it.",
        envvar="FEDPG_ATTACKERS_SECRET",
        metavar="TEXT",
        rich_help_panel=COLLUSION,
    ),
]

RunSeed = Annotated[
    int | None,
    typer.Option(
        help="For an omniscient attack: the run's seed.",
        metavar="N",
        envvar="FEDPG_RUN_SEED",
        min=0,
        show_default=False,
        rich_help_panel=COLLUSION,
    ),
]

Aggregator = Annotated[
    str,
    typer.Option(
        help="The server's aggregator, fedpg if it is not given. Its settings are --set aggregator.NAME=VALUE.",
        envvar="FEDPG_AGGREGATOR",
        metavar="NAME",
        rich_help_panel=COLLUSION,
    ),
]

ConnectTimeout = Annotated[
    float,
    typer.Option(
        help="Seconds to wait for the server at the start.",
        metavar="S",
        min=0,
        callback=finite,
        rich_help_panel=NETWORK,
    ),
]

Patience = Annotated[
    float,
    typer.Option(
        help="Seconds of the server's silence to bear later, before giving up.",
        metavar="S",
        min=0,
        callback=finite,
        rich_help_panel=NETWORK,
    ),
]

Tls = Annotated[
    Path | None,
    typer.Option(help="Folder with this agent's ca.pem, cert.pem and key.pem.", envvar="FEDPG_TLS", metavar="DIR"),
]

UseProxy = Annotated[
    bool,
    typer.Option(
        "--use-proxy",
        help="Reach the server through the proxy that https_proxy or http_proxy names.",
        metavar="",
        rich_help_panel=NETWORK,
    ),
]

ThreadsOption = Annotated[
    int,
    typer.Option(
        help="Threads or processes that share this agent's episodes, where they can. The same gradient with "
        "any number.",
        envvar="FEDPG_THREADS",
        metavar="N",
        min=1,
        rich_help_panel=ADVANCED,
    ),
]

Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="Trust the server with this module (my_envs) or environment (HalfCheetah-v5); may be repeated.",
        envvar="FEDPG_ALLOW",
        metavar="NAME",
    ),
]

WorldOption = Annotated[
    list[str] | None,
    typer.Option(
        help="This agent's own world, over what the server says: an option of the environment such as gravity=-12, "
        'reward.scale, reward.shift or reward.noise, or wrappers=["MODULE:NAME"]; repeat for several.',
        envvar="FEDPG_WORLD",
        metavar="NAME=VALUE",
    ),
]

Trajectories = Annotated[
    int | None,
    typer.Option(
        help="Sample so many trajectories per round at most, over what the server says; 0: as many as a round has.",
        envvar="FEDPG_AGENT_TRAJECTORIES",
        metavar="N",
        min=0,
        max=BATCH_MAX,
        show_default="the server's",
        rich_help_panel=ADVANCED,
    ),
]

MinTrajectories = Annotated[
    int | None,
    typer.Option(
        help="Submit the gradient of fewer, but of so many at least, where there is no time for all before the "
        "round's deadline; 0: never. A run with it cannot be repeated to the bit.",
        envvar="FEDPG_AGENT_MIN_TRAJECTORIES",
        metavar="N",
        min=0,
        max=BATCH_MAX,
        show_default="the server's",
        rich_help_panel=ADVANCED,
    ),
]
