"""What crashes is started again by the engine, what is killed by its operator; a stop is clean, and `up` goes on."""

from __future__ import annotations

import re

from fedpg_common.errors import ExitCode
from support.container_story import Story


def test_the_server_went_on_with_one_run_each_time(story: Story) -> None:
    starts = re.findall(r"run (\w+) at \S+ CartPole-v1, 10 agents, from round (\d+) of", story.server_log)
    assert len({run_id for run_id, _ in starts}) == 1
    first_rounds = [int(number) for _, number in starts]
    assert first_rounds[0] == 1
    assert len(first_rounds) == 4  # the first start, a crash, docker kill, docker compose stop
    assert first_rounds == sorted(set(first_rounds))


def test_agents_joined_again_after_each_restart(story: Story) -> None:
    joined = re.findall(r"agent (\d+) joined from", story.server_log)
    assert set(joined) == {str(agent) for agent in range(1, 11)}
    # At the start and after the stop; besides, agent 7 had crashed and agent 2 been killed.
    assert joined.count("7") == 3
    assert joined.count("2") == 3
    assert joined.count("5") == 2


def test_a_stop_in_mid_run_is_clean(story: Story) -> None:
    assert set(story.stopped.values()) == {ExitCode.TERMINATED}  # and not 137, of a SIGKILL
    assert "stopping before the run has ended" in story.server_log
