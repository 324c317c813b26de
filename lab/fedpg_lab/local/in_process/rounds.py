"""The rounds of a run in one process: what server and agents do, one after the other, and the same run folder.

The learner, the agents' work, the records and the store are those of a deployment, and every random stream is named, so
that a run has the same parameters and records, bit for bit, as over the network; what differs is how long it takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fedpg_common.choices import Choice
from fedpg_common.environments import GlobalRandom, make_environments
from fedpg_common.environments.helpers import HelperPool
from fedpg_common.errors import FedPGError
from fedpg_common.federation import Federation
from fedpg_common.learning.parameters import ParameterSpec
from fedpg_common.learning.policies import make_policy
from fedpg_common.rounds import why_no_worlds
from fedpg_server.carried_adam import check_carried
from fedpg_server.learning.learner import Learner
from fedpg_server.learning.make_record import make_record
from fedpg_server.learning.records import RoundRecord
from fedpg_server.learning.sizes import claims_of
from fedpg_server.learning.state import State
from fedpg_server.learning.worlds import Worlds, check_worlds
from fedpg_server.observers.base import Observed, Observers, build_observers
from fedpg_server.opening import create_store, leave_summary, restore_store, take_up
from fedpg_server.recorded_rounds import RecordedRounds
from fedpg_server.server import SHIPPED_OBSERVERS
from fedpg_server.storage.store import Store

from fedpg_lab.local.in_process.agents import Agents

log = logging.getLogger(__name__)

OnRound = Callable[[Federation, RoundRecord], None]
"""Told of every round that has been evaluated and stored."""


@dataclass(frozen=True)
class RunOptions:
    """What a run in one process is told."""

    folder: Path
    """The run folder."""
    federation: Federation | None = None
    """None resumes the run in the folder."""
    trajectories: int | None = None
    """Where a resumed run is to end from now on; None leaves it where its description says."""
    adam_from: Path | None = None
    """The run folder of the federation's predecessor, where it has one: a new run starts with its Adam state."""
    observers: tuple[Choice, ...] = SHIPPED_OBSERVERS
    threads: int = 1
    """How many share the episodes of the server and of each agent, where the environment lets them."""


def play(options: RunOptions, on_round: OnRound, on_end: Callable[[], None] = lambda: None) -> None:
    """Do a run's rounds to its end; wherever it is stopped, it can be resumed after the last round that is stored.

    `on_end` is told that all are done, before the environments are closed.

    Raises FedPGError.
    """
    federation = take_up(options.federation, options.folder, options.trajectories)
    check_carried(federation, options.adam_from)
    with ExitStack() as resources:
        environments = make_environments(federation.task, GlobalRandom(federation.seed))
        resources.callback(environments.close)
        helpers = HelperPool()
        environments.share_helpers(helpers)
        environments.use_threads(options.threads)
        policy = make_policy(federation.task, environments.observation_size, environments.action_space)
        check_worlds(federation, policy)
        if rarely := why_no_worlds(federation):
            log.warning(rarely)
        worlds = None
        if federation.worlds_every:
            worlds = Worlds(federation, policy, options.threads, helpers)
            resources.callback(worlds.close)
        learner = Learner(federation, environments, policy, worlds)
        agents = resources.enter_context(Agents(federation, policy.spec, options.threads, helpers))
        store = _open(options, federation, learner)
        resources.callback(store.close)
        _Rounds(federation, policy.spec, store, learner, agents, options, on_round).play()
        on_end()


def _open(options: RunOptions, federation: Federation, learner: Learner) -> Store:
    if options.federation is None:
        return restore_store(options.folder, federation)
    return create_store(options.folder, federation, learner.initial_state(), options.adam_from)


class _Rounds:
    """A run from where its store stands to its end."""

    def __init__(
        self,
        federation: Federation,
        spec: ParameterSpec,
        store: Store,
        learner: Learner,
        agents: Agents,
        options: RunOptions,
        on_round: OnRound,
    ) -> None:
        self._federation = federation
        self._store = store
        self._learner = learner
        self._agents = agents
        self._folder = options.folder
        self._on_round = on_round
        records = store.records()
        observed = Observed(options.folder, federation, spec, tuple(records), store.parameters_if_kept)
        observers = Observers(build_observers(options.observers, observed))
        self._recorded = RecordedRounds(records, federation.task.trajectories, observers)

    def play(self) -> None:
        """Do the rounds that are missing, and leave a summary however that ends."""
        failure = None
        try:
            number, state = self._store.latest_state()
            if (unevaluated := self._store.unevaluated()) is not None:
                record = self._evaluated(unevaluated, state)
                self._store.finish_round(record)  # the state after it is stored
                self._tell(record, state)
            while self._trajectories < self._federation.task.trajectories:
                number += 1
                state = self._one_round(number, state)
        except FedPGError as error:
            failure = str(error)
            raise
        finally:
            self._recorded.close()
            leave_summary(self._folder, self._federation, self._recorded.records, failure)

    @property
    def _trajectories(self) -> int:
        return self._recorded.totals.returns.trajectories

    def _one_round(self, number: int, state: State) -> State:
        began_s = time.perf_counter()
        plan = self._learner.plan(number)
        works = self._agents.work(plan, state.theta, self._learner.recursion(state, plan))
        gradients = {agent: work.gradient for agent, work in works.items()}
        reports = {agent: work.report for agent, work in works.items()}
        result = self._learner.improve_counting(state, plan, gradients, claims_of(reports))
        record = make_record(result, plan, self._federation, reports, self._trajectories, seconds=0.0)
        record = self._evaluated(record, result.state)
        record = replace(record, seconds=time.perf_counter() - began_s)
        self._store.finish_round(record, result.state)
        self._tell(record, result.state)
        return result.state

    def _evaluated(self, record: RoundRecord, state: State) -> RoundRecord:
        if record.evaluation_returns:
            return record
        return record.evaluated(self._learner.evaluate(state.theta, record.round_number))

    def _tell(self, record: RoundRecord, state: State) -> None:
        self._recorded.add(record, state.theta)
        self._on_round(self._federation, record)
