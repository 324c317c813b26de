"""Where the open round is announced, and waited for by as many agents as there are."""

from __future__ import annotations

import asyncio

from fedpg.v1 import federation_pb2 as pb

from fedpg_server.protocol.journal import RunStoppedError

AWAIT_MAX_S = 30.0

NOT_YET = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_NOT_YET)
ENDED = pb.AwaitRoundReply(state=pb.AwaitRoundReply.STATE_ENDED)


class RoundBoard:
    """Holds at most one reply. Reading it changes nothing, so a lost response costs nothing."""

    def __init__(self) -> None:
        """Nothing is announced yet."""
        self._posted: pb.AwaitRoundReply | None = None
        self._changed = asyncio.Event()
        self._is_closed = False

    def post(self, reply: pb.AwaitRoundReply) -> None:
        """Announce a round, or the end, and wake everyone who waits."""
        self._posted = reply
        self._wake_all()

    def clear(self) -> None:
        """Take the announcement down: the round takes no more votes."""
        self._posted = None

    def close(self) -> None:
        """The run stops: let everyone go who waits or will."""
        self._is_closed = True
        self._wake_all()

    async def wait(self, after_round: int, wait_s: float) -> pb.AwaitRoundReply:
        """The open round unless the caller is done with it, or the end, or NOT_YET after `wait_s` (30 s at most).

        Raises RunStoppedError once the run has stopped with neither.
        """
        try:
            async with asyncio.timeout(min(wait_s, AWAIT_MAX_S)):
                while True:
                    posted = self._posted
                    if posted is not None and (posted is ENDED or posted.round.number != after_round):
                        return posted
                    if self._is_closed:
                        raise RunStoppedError
                    await self._changed.wait()
        except TimeoutError:
            return NOT_YET

    def _wake_all(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
