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
        self._waiting: dict[asyncio.Future[pb.AwaitRoundReply], int] = {}
        """Those who wait, and the round that each is done with."""
        self._is_closed = False

    def post(self, reply: pb.AwaitRoundReply) -> None:
        """Announce a round, or the end, and wake everyone who waits."""
        self._posted = reply
        for waiting, after_round in self._waiting.items():
            if _is_news(reply, after_round):
                _answer(waiting, reply)

    def clear(self) -> None:
        """Take the announcement down: the round takes no more votes."""
        self._posted = None

    def close(self) -> None:
        """The run stops: let everyone go who waits or will."""
        self._is_closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(RunStoppedError())

    def news(self, after_round: int) -> pb.AwaitRoundReply | None:
        """The open round unless the caller is done with it, or the end; None if there is neither."""
        return self._posted if self._posted is not None and _is_news(self._posted, after_round) else None

    async def wait(self, after_round: int, wait_s: float) -> pb.AwaitRoundReply:
        """The news once there is any, or NOT_YET after `wait_s` (30 s at most).

        Raises RunStoppedError once the run has stopped without any.
        """
        if (reply := self.news(after_round)) is not None:
            return reply
        if self._is_closed:
            raise RunStoppedError
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[pb.AwaitRoundReply] = loop.create_future()
        timer = loop.call_later(min(wait_s, AWAIT_MAX_S), _answer, waiting, NOT_YET)
        self._waiting[waiting] = after_round
        try:
            return await waiting
        finally:
            timer.cancel()
            del self._waiting[waiting]


def _is_news(reply: pb.AwaitRoundReply, after_round: int) -> bool:
    return reply is ENDED or reply.round.number != after_round


def _answer(waiting: asyncio.Future[pb.AwaitRoundReply], reply: pb.AwaitRoundReply) -> None:
    if not waiting.done():
        waiting.set_result(reply)
