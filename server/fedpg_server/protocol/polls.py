"""How many long polls one agent may hold: a bound on what it can make the server keep."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from fedpg.v1 import federation_pb2 as pb

from fedpg_server.protocol.board import NOT_YET

POLLS_PER_AGENT_MAX = 4
"""An agent needs one. The rest is for those it has lost and the server has not missed yet."""


class PollLimit:
    """Lets the newest few polls of each agent wait and answers older ones at once. For the event loop alone."""

    def __init__(self, on_cut: Callable[[int], None]) -> None:
        """`on_cut` is told the agent of every poll that is answered early."""
        self._on_cut = on_cut
        self._held: defaultdict[int, list[asyncio.Timeout]] = defaultdict(list)

    async def hold(self, agent: int, poll: Awaitable[pb.AwaitRoundReply]) -> pb.AwaitRoundReply:
        """The poll's answer, or NOT_YET as soon as the agent holds too many newer ones. `agent` is a member."""
        held = self._held[agent]
        if len(held) == POLLS_PER_AGENT_MAX:
            held.pop(0).reschedule(asyncio.get_running_loop().time())
            self._on_cut(agent)
        try:
            async with asyncio.timeout(None) as limit:
                held.append(limit)
                try:
                    return await poll
                finally:
                    if limit in held:
                        held.remove(limit)
        except TimeoutError:
            return NOT_YET
