"""A run in one child process, as who runs many of them side by side sees it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedpg.v1 import federation_pb2 as pb
from fedpg_common.cli.hung import hung_calls_are_cut_off
from fedpg_common.errors import ExitCode, FedPGError, UnreachableError
from fedpg_common.federation import Federation
from fedpg_common.modules import make_importable
from fedpg_common.others_code import place
from fedpg_common.waits import Waiting, telling_of_waits
from fedpg_server.learning.records import RoundRecord

from fedpg_lab.local.children import end, spawn
from fedpg_lab.local.describe import status_after
from fedpg_lab.local.failures import OUR_STATUSES, ProcessFailedError, last_words, name_of_signal
from fedpg_lab.local.fork_server import fork_server
from fedpg_lab.local.in_process.rounds import RunOptions, play

NAME = "federation"
TELL_EVERY_S = 0.5
ASKED = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
"""What somebody sends on purpose."""
STOP_S = 5.0
"""It is interrupted in the middle of an episode, but may hang in closing each of its environments."""

log = logging.getLogger(__name__)


class InProcessFederation:
    """A federation in one child process. A context manager: leaving it ends the process; what is stored stays."""

    def __init__(self, federation: Federation, options: RunOptions) -> None:
        """`federation` is what is run; the `options` have it, too, unless the run is resumed."""
        self.federation = federation
        self._options = options
        self._status: pb.GetStatusReply | None = None
        self._waits = ""
        self._has_ended = False
        self._failure: tuple[str, int] | None = None

    def __enter__(self) -> InProcessFederation:
        """Start it. Raises StorageError for a log that cannot be written."""
        make_importable(self.federation)  # the child inherits the path
        context = fork_server()
        self._telling, sender = context.Pipe(duplex=False)
        self._process: ForkServerProcess = spawn(context, NAME, self.log_path, run_main, self._options, sender)
        sender.close()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End it."""
        end(self._process, STOP_S)
        self._telling.close()

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        return self._options.folder / "logs" / f"{NAME}.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def failed_agents(self) -> dict[int, str]:
        """Nobody: an agent that fails ends the run."""
        return {}

    @property
    def note(self) -> str:
        """What an environment keeps the run waiting for; nobody is ever gone."""
        return self._waits

    def supervise(self) -> bool:
        """Hear what it tells. False once the run has ended; raises ProcessFailedError when it failed or was killed."""
        code = self._process.exitcode  # first, so that all is read that it told before it ended
        self._listen()
        if code is None:
            return True
        if self._has_ended:
            return False
        if self._failure is not None:
            raise ProcessFailedError(*self._failure)
        if code < 0:
            raise ProcessFailedError(self._how_it_was_killed(-code), ExitCode.QUORUM_LOST)
        if code not in OUR_STATUSES:
            what = f"the run's process ended with exit status {code} before the run had"
            by = "most likely an environment, or another part of yours, has ended it"
            raise ProcessFailedError(f"{what}: {by}; see {self.log_path}", ExitCode.ENVIRONMENT)
        raise ProcessFailedError(f"the run's process failed: {last_words(self.log_path, code)}", code)

    def _how_it_was_killed(self, number: int) -> str:
        """Most likely by whom, and what to do: nobody starts it again, as agents with a process of their own are."""
        what = f"the run's process was killed by {name_of_signal(number)}"
        if number in ASKED:
            return f"{what}: resume it with --resume"
        crashed = "an environment, or another part of yours, crashed"
        likely = "the system ran out of memory" if number == signal.SIGKILL else crashed
        return f"{what}, most likely because {likely}; see {self.log_path}, and resume it with --resume"

    def fetch(self) -> pb.GetStatusReply:
        """The run's latest state. Raises UnreachableError before there is one."""
        if self._status is None:
            raise UnreachableError("no round is done yet")
        return self._status

    def wait_for_end(self, patience_s: float) -> None:
        """Wait so long at most for the process to end."""
        self._process.join(patience_s)

    def wait_for_agents(self, patience_s: float) -> None:
        """They end with the process."""
        self.wait_for_end(patience_s)

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while self._telling.poll():
                match self._telling.recv():
                    case ("at", bytes(status)):
                        self._status = pb.GetStatusReply.FromString(status)
                    case ("waits", str(what)):
                        self._waits = what
                    case ("ended",):
                        self._has_ended = True
                    case ("failed", str(sentence), int(code)):
                        self._failure = sentence, code


class _Teller:
    """Tells the parent how far the run is, every now and then."""

    def __init__(self, telling: Connection) -> None:
        self._telling = telling
        self._lock = threading.Lock()
        self._steps = 0
        self._told_s = -TELL_EVERY_S

    def on_round(self, federation: Federation, record: RoundRecord) -> None:
        """See `OnRound`."""
        self._steps += sum(record.environment_steps.values())
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            target = federation.task.trajectories
            status = status_after(record, target, self._steps, pb.PHASE_IMPROVING, "all in one process")
            self.tell("at", status.SerializeToString())

    def on_wait(self, _thread: int, waiting: Waiting | None) -> None:
        """See `telling_of_waits`."""
        if waiting is not None:
            log.warning("%s", waiting)
        self.tell("waits", str(waiting or ""))

    def tell(self, *message: object) -> None:
        """Send it; whoever started this process may be gone, and so will this process be."""
        with self._lock, suppress(OSError):
            self._telling.send(message)


def run_main(options: RunOptions, telling: Connection) -> ExitCode:
    """The run, in the child. Sends ("at", a GetStatusReply message), and in the end ("ended",) or ("failed", …).

    Between them, ("waits", what) for what an environment, or another part, keeps it waiting for, and ("waits", "") when
    that is over.
    """
    signal.signal(signal.SIGTERM, _leave)
    teller, ended = _Teller(telling), threading.Event()

    def on_end() -> None:
        teller.tell("ended")
        ended.set()

    try:
        with telling_of_waits(teller.on_wait), hung_calls_are_cut_off([], lambda: ExitCode.OK, ended.is_set):
            play(options, teller.on_round, on_end)
    except FedPGError as error:
        teller.tell("failed", str(error), int(error.exit_code))
        with suppress(OSError):  # a disk that is full holds no more of the log either
            print(f"fedpg: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt as error:  # the keyboard's reaches the parent alone
        who = f"an environment, or another part of yours, raised KeyboardInterrupt{place(error)}"
        sentence = f"the run's process was interrupted: {who}, or somebody sent it SIGINT; resume it with --resume"
        teller.tell("failed", sentence, int(ExitCode.ENVIRONMENT))
        return ExitCode.ENVIRONMENT
    return ExitCode.OK


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(ExitCode.TERMINATED)
