"""`docker compose up` trains to the end, and its parameters are those of `fedpg train`, bit for bit."""

from __future__ import annotations

import re

from fedpg_lab.runs.folders import RunData
from fedpg_server.protocol.situation import name_agents
from support.container_story import KILLS, RUN_NAME, TRAJECTORIES, Story
from support.lab import digests


def test_the_run_ends_by_itself_with_the_servers_exit_code(story: Story) -> None:
    assert story.up_code == 0
    assert story.wait_code == 0
    assert set(story.ended.values()) == {0}


def test_it_is_one_run_that_reached_its_end(story: Story) -> None:
    assert story.folders == [RUN_NAME]
    assert story.run is not None
    assert story.run.is_complete


def test_parameters_are_those_of_the_local_run_round_by_round(story: Story, local_run: RunData) -> None:
    assert story.run is not None
    assert story.run.federation == local_run.federation
    assert digests(story.run) == digests(local_run)


def test_byzantine_agents_are_filtered_and_honest_ones_are_not(story: Story) -> None:
    assert story.run is not None
    records = story.run.records
    assert not any(record.absent for record in records)
    filtered = {agent: sum(agent in record.filtered for record in records) / len(records) for agent in range(1, 11)}
    assert all(filtered[agent] > 0.9 for agent in (1, 2, 3)), filtered  # 0.93 to 0.95, as in the local run
    assert all(filtered[agent] < 0.2 for agent in range(4, 11)), filtered


def test_the_log_has_one_line_a_round_that_names_the_filtered(story: Story) -> None:
    assert story.run is not None
    line = rf"round (\d+)  \d+/{TRAJECTORIES} trajectories  return [\d.]+  R[12] accepted \d+(.*)"
    rounds = re.findall(line, story.server_log)
    numbers = [int(number) for number, _ in rounds]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= len(story.run.records) - KILLS  # a server that is killed may have stored more than it said
    filtered = {record.round_number: record.filtered for record in story.run.records}
    named = [
        f"filtered {name_agents(filtered[int(number)])}" in rest for number, rest in rounds if filtered[int(number)]
    ]
    assert len(named) > 0.9 * len(rounds)
    assert all(named)


def test_status_shows_the_running_federation(story: Story) -> None:
    lines = story.status.splitlines()
    assert lines[0].startswith("CartPole-v1, fedpg-br, seed 0, run ")
    assert re.match(r"round \d+: (\d+ of 10 votes, waiting for agent|the server improves)", lines[1])
    assert re.match(rf"\d+/{TRAJECTORIES} trajectories, [\d,]+ environment steps, quorum 6 of 10$", lines[2])
    assert re.match(r"round \d+ closed by R[12]: accepted \d, filtered \d, absent 0; return [\d.]+$", lines[3])
    rows = [line.split() for line in lines[-10:]]
    assert [row[:2] for row in rows] == [[str(agent), "joined"] for agent in range(1, 11)]


def test_tensorboard_serves_the_run(story: Story) -> None:
    assert RUN_NAME in story.tensorboard
    assert "filter/f1" in story.tensorboard
