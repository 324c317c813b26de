"""The description of a federation: one file that drives the local launcher, the server and the telemetry."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping

from fedpg_common.checks import is_number, is_whole, show
from fedpg_common.choices import Choice
from fedpg_common.errors import UsageError
from fedpg_common.shipped import (
    ALGORITHM_BASELINES,
    ALGORITHM_TITLES,
    HALVES_BATCHES,
    casts_honest_vote,
)
from fedpg_common.speeds import Speed, Speeds
from fedpg_common.tasks import Task
from fedpg_common.worlds import (
    Heterogeneity,
    World,
    modules_of_wrappers,
)

AGENTS_MAX = 10_000
SEED_MAX = 2**63 - 1
ROUND_TIMEOUT_MAX_S = 1e6
"""A timer takes no more than some weeks."""
ROUND_TIMEOUT_S = 120.0
NAME_MAX = 180
"""Characters of a federation's name, before a digest of what is left out; file systems take 255 bytes."""
DEFAULT_ALGORITHM = "fedpg-br"


@dataclasses.dataclass(frozen=True)
class Federation:
    """Who takes part in a run, and by which rules.

    Algorithm, aggregator and attacks are chosen by name (`fedpg_common.shipped`). `byzantine` maps a 1-based agent
    index to its attack. It configures agents and lets the telemetry score the filter; no aggregator ever sees it.
    """

    task: Task
    agents: int = 10
    algorithm: Choice = dataclasses.field(default_factory=lambda: Choice(DEFAULT_ALGORITHM))
    aggregator: Choice | None = None
    """None: the algorithm's own."""
    seed: int = 0
    byzantine: Mapping[int, Choice] = dataclasses.field(default_factory=dict)
    round_timeout_s: float = ROUND_TIMEOUT_S
    """A round closes at this age if a quorum has submitted."""
    environments: Mapping[int, World] = dataclasses.field(default_factory=dict)
    """What an agent's environment has of its own, by 1-based index."""
    heterogeneity: Heterogeneity | None = None
    """Ranges from which every agent's world is drawn, before that."""
    speeds: Speeds = dataclasses.field(default_factory=Speeds)
    """How many trajectories the agents sample in a round, where not all sample B_t."""
    worlds_every: int = 0
    """After so many rounds each, the policy is evaluated in every agent's world as well; 0: never."""
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    """Version and digest of each module that is not FedPG's own, as the run was begun with it. Another version of a
    module does not make another federation: whether a run may be resumed with it is `check_fingerprints`' to say."""
    module_folder: str = dataclasses.field(default="", compare=False)
    """Where such modules lay when the run was described: beside the description, or in the working folder."""
    adam_after: tuple[int, ...] | None = None
    """For the reproduction of the published figures alone: the seeds whose finished runs handed Adam's state on, from
    one to the next and at last to this run; empty for the run that starts such a chain. None: a run of its own."""
    adam_digest: str = dataclasses.field(default="", compare=False)
    """Digest of the Adam state that this run started with, if it took over another run's."""
    published_networks: bool = False
    """For the reproduction of the published figures alone: θ at the start is that of the published code's seed."""

    def __post_init__(self) -> None:
        """Refuse a federation that cannot run, with a sentence that says what to change."""
        if not (is_whole(self.agents) and 1 <= self.agents <= AGENTS_MAX):
            raise UsageError(f"a federation needs 1 to {AGENTS_MAX} agents, not {show(self.agents)}")
        outside = [index for index in self.byzantine if not 1 <= index <= self.agents]
        if outside:
            raise UsageError(f"agent {outside[0]} is to be Byzantine, but the agents are 1 to {self.agents}")
        outside = [index for index in self.environments if not 1 <= index <= self.agents]
        if outside:
            raise UsageError(f"environments names agent {outside[0]}, but the agents are 1 to {self.agents}")
        self._check_speeds()
        if not (is_whole(self.worlds_every) and self.worlds_every >= 0):
            raise UsageError(
                f"worlds_every must be a whole number of rounds, or 0 for never, not {show(self.worlds_every)}"
            )
        if not (is_whole(self.seed) and 0 <= self.seed <= SEED_MAX):
            raise UsageError(f"the seed must be a whole number from 0 to 2**63 - 1, not {show(self.seed)}")
        if not (is_number(self.round_timeout_s) and 0 < self.round_timeout_s <= ROUND_TIMEOUT_MAX_S):
            raise UsageError(
                f"round_timeout_s must be a positive number of seconds up to {ROUND_TIMEOUT_MAX_S:.0f}, "
                f"not {show(self.round_timeout_s)}"
            )
        own_baseline = ALGORITHM_BASELINES.get(self.algorithm.name)
        if own_baseline is not None and not self.task.baseline:  # said here, so that agents are told with the task
            object.__setattr__(self, "task", dataclasses.replace(self.task, baseline=own_baseline))
        seeds = (*(self.adam_after or ()), self.seed)
        if len(set(seeds)) < len(seeds) or not all(is_whole(seed) and 0 <= seed <= SEED_MAX for seed in seeds):
            raise UsageError(f"adam_after must be different seeds, without the run's own, not {show(self.adam_after)}")

    def _check_speeds(self) -> None:
        outside = [index for index in self.speeds.own if not 1 <= index <= self.agents]
        if outside:
            raise UsageError(f"speeds names agent {outside[0]}, but the agents are 1 to {self.agents}")
        if self.algorithm.name not in HALVES_BATCHES:
            return
        halves = f"agents of {self.algorithm.name} sample halves of their batches with two policies"
        if self.speeds.may_cut:
            raise UsageError(f"speeds: {halves}, and cannot stop early: leave out min_trajectories")
        if self.speeds.least == 1:
            raise UsageError(f"speeds: {halves}: give each at least 2 trajectories, not 1")

    @property
    def quorum(self) -> int:
        """K − ⌊αK⌋: the submissions without which a round does not close."""
        return self.agents - self.task.tolerated(self.agents)

    @property
    def predecessor(self) -> Federation | None:
        """The run whose Adam state this one starts with; None for a run that starts with a fresh one."""
        if not self.adam_after:
            return None
        return dataclasses.replace(self, seed=self.adam_after[-1], adam_after=self.adam_after[:-1], adam_digest="")

    @property
    def poisoners(self) -> frozenset[int]:
        """The agents that vote with a bad gradient: those that the filter is there to find."""
        return frozenset(agent for agent, attack in self.byzantine.items() if not casts_honest_vote(attack))

    @property
    def has_worlds(self) -> bool:
        """Whether agents have worlds of their own."""
        return bool(self.environments) or self.heterogeneity is not None

    @property
    def worlds_label(self) -> str:
        """How the agents' worlds differ, for people and folders; empty where they do not."""
        parts = [] if self.heterogeneity is None else [self.heterogeneity.label]
        if self.environments:
            parts.append(f"worlds={len(self.environments)}")
        return " ".join(parts)

    def speed_of(self, agent: int) -> Speed:
        """How much an agent samples: what is drawn for it, and over that what it is given."""
        return self.speeds.speed(self.seed, agent)

    def world_of(self, agent: int) -> World:
        """What the environment of an agent has of its own: what is drawn for it, and over that what it is given."""
        drawn = World() if self.heterogeneity is None else self.heterogeneity.world(self.seed, agent)
        return self.environments.get(agent, World()).over(drawn)

    def task_of(self, agent: int) -> Task:
        """The task in an agent's world: what the server tells this agent, and no other."""
        return self.world_of(agent).of(self.task) if self.has_worlds else self.task

    @property
    def own_modules(self) -> tuple[str, ...]:
        """The modules of parts that do not come with FedPG, in alphabetical order."""
        choices = [self.algorithm, *([self.aggregator] if self.aggregator else []), *self.byzantine.values()]
        wrappers = [*self.task.wrappers, *(one for world in self.environments.values() for one in world.wrappers or ())]
        return tuple(
            sorted({module for choice in choices for module in choice.modules} | modules_of_wrappers(wrappers))
        )


def name_of(federation: Federation) -> str:
    """A name that says what the federation is, for example CartPole-v1_fedpg-br_K10_B3_random-noise.

    It is a folder's name: a slash in the task's name becomes a hyphen, like whatever else is neither letter nor digit.
    """
    parts = [federation.task.name, federation.algorithm.label]
    if federation.aggregator is not None:
        parts.append(federation.aggregator.label)
    parts.append(f"K{federation.agents}")
    if federation.byzantine:
        parts += [f"B{len(federation.byzantine)}", *sorted({attack.label for attack in federation.byzantine.values()})]
    if federation.adam_after is not None:
        parts.append("adam-carried-over")
    if federation.published_networks:
        parts.append("published-networks")
    if federation.has_worlds:
        parts.append(federation.worlds_label)
    if federation.speeds:
        parts.append(federation.speeds.label)
    name = "_".join(re.sub(r"[^\w.+=-]+", "-", part) for part in parts)
    if len(name) <= NAME_MAX:
        return name
    return f"{name[:NAME_MAX]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def method_of(federation: Federation) -> str:
    """Algorithm, and aggregator where one is chosen, for people: "FedPG-BR", "SVRPG + krum faulty=3"."""
    algorithm = federation.algorithm
    title = ALGORITHM_TITLES.get(algorithm.name)
    name = algorithm.label if title is None else algorithm.label.replace(algorithm.name, title, 1)
    return f"{name} + {federation.aggregator.label}" if federation.aggregator else name
