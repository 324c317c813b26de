"""A whole federation in one process on a virtual clock: the real server and the real agents on a simulated network.

Real: coordinator, run, journal, board, store (an SQLite file), service and messages on the server's side; agent, calls
and retries on the agents'. Simulated: the network (`simulated_network`), time (`simulated_clock`), the processes, and
the work: an agent's gradient and the learner's step are small functions of the same arguments as the real ones.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
from fedpg_client.agent import Agent
from fedpg_client.calls import FederationCalls
from fedpg_client.retry import Caller
from fedpg_client.worker import Update, Worker
from fedpg_common.descriptions import federation_to_toml
from fedpg_common.errors import EnvironmentFailedError
from fedpg_common.learning.parameters import Vector
from fedpg_common.speeds import Speed
from fedpg_server.run import Run
from fedpg_server.serving.service import FederationService
from fedpg_server.storage.store import STORE_NAME, Store
from support.protocol import SPEC, idle_federation, initial_state
from support.simulated_clock import BlockingProcess, StuckError, VirtualLoop
from support.simulated_faults import KillPoint, Schedule, Trouble
from support.simulated_network import CALM, HOST, Channel, Host, Network
from support.simulated_work import SimulatedLearner, gradient_of
from support.simulation_history import History

SERVER = "server"
FOREVER_S = 1e9
RUN_S_MAX = 3_600.0
"""A run that has not ended so long after the last fault does not end."""
STOP_GRACE_S = 1.0


class SimulatedWorker:
    """Takes some time for a gradient."""

    def __init__(self, agent: int, process: BlockingProcess, rng: random.Random, is_broken: Callable[[], bool]) -> None:
        self.policy = SimpleNamespace(spec=SPEC)
        self.speed = Speed()
        self._agent = agent
        self._process = process
        self._rng = rng
        self._is_broken = is_broken

    def work(self, round_number: int, batch_size: int, theta: Vector) -> Update:
        gradient = gradient_of(self._agent, round_number, theta)
        self._process.sleep(self._rng.expovariate(2.0))
        if self._is_broken():
            raise EnvironmentFailedError("the simulated environment is broken")
        return Update(gradient, batch_size, environment_steps=batch_size, mean_return=0.0, mean_length=1.0, loss=0.0)


class _Stop:
    """Stands for the event that stops an agent's process: a kill needs none."""

    def __init__(self, process: BlockingProcess) -> None:
        self._process = process

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float) -> bool:
        self._process.sleep(timeout)
        return False


class Simulation:
    """One schedule, from the first start to the end of the run."""

    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        drop_request: Callable[[str, str], bool] = lambda _caller, _path: False,
        drop_response: Callable[[str, str], bool] = lambda _caller, _path: False,
        open_store: Callable[[Path], Store] = Store.open,
    ) -> None:
        """`folder` takes the store, and is to be empty. `open_store` is for a store that breaks its promises."""
        self.schedule = schedule
        self.federation = idle_federation(schedule.agents, schedule.rounds, schedule.round_timeout_s)
        self.path = folder / STORE_NAME
        self.points = 0
        """Persistence points so far: work handed to the store or the learner."""
        self.has_ended = False
        self._open_store = open_store
        self._rng = random.Random(schedule.seed ^ 0x5EED)
        self.loop = VirtualLoop(self._in_executor)
        self.loop.owner = lambda: HOST.get(None)
        self.loop.set_exception_handler(self._unhandled)
        self.history = History(self.loop.time)
        self._learner = SimulatedLearner(self.federation)
        self._network = Network(
            self.loop, self._rng, self.history.answered, self.history.fail, self.history.note,
            weather=schedule.weather, drop_request=drop_request, drop_response=drop_response,
        )  # fmt: skip
        self._agents: dict[str, BlockingProcess] = {}
        self._store: Store | None = None
        self._down: Counter[str] = Counter()
        self._paused: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()
        """Agents whose environment fails when it is used."""
        self._failed: set[str] = set()
        """Agents that have ended because it did."""
        self._free_at_s: dict[int, float] = {}
        self._kill_points = {(kill.point, kill.is_before): kill for kill in schedule.kill_points}

    def run(self) -> None:
        """Do it all. What went wrong is in the history."""
        Store.create(self.path, "run-1", federation_to_toml(self.federation), initial_state()).close()
        asyncio.set_event_loop(self.loop)
        for trouble in self.schedule.troubles:
            self.loop.plan(trouble.at_s, self._begin, trouble)
        self.loop.plan(self.schedule.healed_s, self._calm_down)
        self.loop.plan(self.schedule.healed_s + RUN_S_MAX, self._give_up)
        self._start_server()
        for index in range(1, self.schedule.agents + 1):
            self._start_agent(f"agent-{index}")
        try:
            self.loop.run_forever()
        except StuckError as error:
            self.history.fail(f"the run is stuck: {error}")
        finally:
            self._tear_down()

    def _tear_down(self) -> None:
        self._kill_server()
        for agent in self._agents.values():
            agent.kill()
        leftovers = asyncio.all_tasks(self.loop)
        for task in leftovers:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
        self.loop.close()

    def _give_up(self) -> None:
        self.history.fail(f"the run has not ended {RUN_S_MAX:.0f} s after the last fault was healed")
        self.loop.stop()

    def _calm_down(self) -> None:
        self.history.note("the network is calm from here on")
        self._network.weather = CALM

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, asyncio.CancelledError) and type(error).__name__ != "RunStoppedError":
            self.history.fail(f"unhandled: {context.get('message')}: {error!r}")

    # The server -------------------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        service = FederationService(authenticated=True)
        host = Host(SERVER, self.loop, service)
        if self._paused[SERVER]:
            host.pause()
        self._network.server = host
        self.history.note("server starts")
        host.begin(self._serve(host, service))

    async def _serve(self, host: Host, service: FederationService) -> None:
        await asyncio.sleep(self._rng.expovariate(2.0))
        self._store = store = self._open_store(self.path)
        self.history.check_remembered(store)
        run = Run(self.federation, SPEC, store, self._learner, [], self.loop.time)
        service.serve(run.calls)
        await run.serve()
        self.history.note("the run has ended")
        self.has_ended = True
        host.do(self.loop.stop)

    def _kill_server(self) -> None:
        host, self._network.server = self._network.server, None
        if host is not None and host.is_alive:
            self.history.note("server is killed")
            host.kill()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _stop_server(self) -> None:
        """SIGTERM: what runs is cancelled and cleans up; what waits for an answer is told to come again."""
        host = self._network.server
        if host is None:
            return
        self.history.note("server stops")
        for task in list(host.tasks):
            task.cancel()
        self.loop.plan(STOP_GRACE_S, lambda: self._kill_server() if self._network.server is host else None)

    def _in_executor(self, executor: Executor | None, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        """One worker an executor, as the run has it. Each piece of work is a persistence point."""
        host = HOST.get()
        self.points += 1
        point = self.points
        if self._kill_at(point, is_before=True):
            return
        at_s = max(self.loop.time(), self._free_at_s.get(id(executor), 0.0)) + self._rng.expovariate(100.0)
        self._free_at_s[id(executor)] = at_s
        self.loop.call_at(at_s, host.do, self._work, point, work, future)

    def _work(self, point: int, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        try:
            result = work()
        except Exception as error:
            self.history.fail(f"work at point {point} raised {error!r}")
            if not future.done():
                future.set_exception(error)
            return
        if not self._kill_at(point, is_before=False) and not future.done():
            future.set_result(result)

    def _kill_at(self, point: int, is_before: bool) -> bool:
        kill: KillPoint | None = self._kill_points.get((point, is_before))
        if kill is not None:
            self.history.note("kill at point {} ({})", point, "before" if is_before else "after")
            self._begin(Trouble("kill", (SERVER,), self.loop.time(), kill.for_s))
        return kill is not None

    # The agents -------------------------------------------------------------------------------------------------------

    def _start_agent(self, name: str) -> None:
        index = int(name.removeprefix("agent-"))
        self._failed.discard(name)
        self.history.note("{} starts", name)

        def main() -> None:
            process = self._agents[name]
            rng = np.random.default_rng(self._rng.randrange(2**32))
            caller = Caller("simulated", rng, cast(Any, _Stop(process)), clock=self.loop.time)
            calls = FederationCalls(
                index, caller, None, FOREVER_S, FOREVER_S, connect=lambda *_: Channel(self._network, process)
            )
            worker = cast(Worker, SimulatedWorker(index, process, self._rng, lambda: self._broken[name] > 0))
            try:
                Agent(index, calls, lambda _joined: worker, self.loop.time).run()
                self.history.note("{} has ended", name)
            except EnvironmentFailedError as error:
                self.history.note("{} has failed: {}", name, error)
                self._failed.add(name)
                self.loop.plan(0.0, self._revive, name)
            except Exception as error:
                self.history.fail(f"{name} ended with {error!r}")

        self._agents[name] = process = BlockingProcess(name, self.loop, main)
        if self._paused[name]:
            process.pause()

    # Troubles ---------------------------------------------------------------------------------------------------------

    def _begin(self, trouble: Trouble) -> None:
        if self.has_ended:
            return
        self.history.note("{} of {} for {:.3f} s", trouble.kind, ", ".join(trouble.targets), trouble.for_s)
        for target in trouble.targets:
            self._harm(trouble.kind, target)
        self.loop.plan(trouble.for_s, self._heal, trouble)

    def _harm(self, kind: str, target: str) -> None:
        if kind == "partition":
            self._network.is_cut.add(target)
        elif kind == "break":
            self._broken[target] += 1
        elif kind == "pause":
            self._paused[target] += 1
            if (process := self._process(target)) is not None:
                process.pause()
        else:
            self._down[target] += 1
            if target != SERVER:
                self._agents[target].kill()
            elif kind == "stop":
                self._stop_server()
            else:
                self._kill_server()

    def _heal(self, trouble: Trouble) -> None:
        self.history.note("healed: {} of {}", trouble.kind, ", ".join(trouble.targets))
        for target in trouble.targets:
            if trouble.kind == "partition":
                self._network.is_cut.discard(target)
            elif trouble.kind == "break":
                self._broken[target] -= 1
                self._revive(target)
            elif trouble.kind == "pause":
                self._paused[target] -= 1
                if not self._paused[target] and (process := self._process(target)) is not None:
                    process.unpause()
            else:
                self._down[target] -= 1
                if not self._down[target]:
                    self._start(target)

    def _revive(self, name: str) -> None:
        """Start an agent again whose environment failed and is mended."""
        if name in self._failed and not (self._down[name] or self._broken[name]):
            self._start_agent(name)

    def _start(self, target: str) -> None:
        if target == SERVER:
            self._kill_server()  # one that was stopped may be ending still
            self._start_server()
        else:
            self._start_agent(target)

    def _process(self, target: str) -> Host | BlockingProcess | None:
        return self._network.server if target == SERVER else self._agents[target]


def simulate(schedule: Schedule, folder: Path, **options: Any) -> Simulation:
    """Run a schedule with the log silent; gives the simulation when it is over."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        simulation = Simulation(schedule, folder, **options)
        with suppress(grpc.RpcError):
            simulation.run()
    finally:
        logging.disable(previous)
    return simulation
