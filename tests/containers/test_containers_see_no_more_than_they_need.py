"""No container is root or can write where it should not, and each agent has its own key alone."""

from __future__ import annotations

import re

from fedpg_common.errors import ExitCode
from support.container_story import Story
from support.containers import AGENTS


def test_each_agent_mounts_its_own_certificate_alone(story: Story) -> None:
    for agent in AGENTS:
        (mount,) = (mount for mount in story.containers[agent]["Mounts"] if mount["Type"] != "tmpfs")
        assert mount["Name"].endswith(f"_certs-{agent}")
        assert mount["Destination"] == "/certs"
        assert mount["RW"] is False


def test_no_other_key_is_in_sight(story: Story) -> None:
    assert story.keys == dict.fromkeys(story.keys, "/certs/key.pem")
    assert len(story.keys) == 3


def test_none_is_root(story: Story) -> None:
    assert set(story.users.values()) == {"10001"}
    for container in story.containers.values():
        assert container["Config"]["User"] == "fedpg"
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert container["HostConfig"]["Privileged"] is False
        assert "no-new-privileges:true" in container["HostConfig"]["SecurityOpt"]


def test_none_can_write_into_its_own_program(story: Story) -> None:
    assert set(story.writes.values()) == {""}
    assert all(container["HostConfig"]["ReadonlyRootfs"] for container in story.containers.values())


def test_nothing_is_open_to_the_network_outside(story: Story) -> None:
    for container in story.containers.values():
        assert not any(container["NetworkSettings"]["Ports"].values())


def test_an_agent_with_anothers_certificate_is_refused_and_the_run_goes_on(story: Story) -> None:
    assert story.impostor is not None
    assert story.impostor.returncode == ExitCode.REFUSED
    sentence = "the certificate is agent 4's, the message agent 5's"
    assert sentence in story.impostor.stdout + story.impostor.stderr
    assert re.search(rf"WARNING server  refused \S+ with the certificate of agent-4: {sentence}", story.server_log)
    assert story.run is not None
    assert story.run.is_complete


def test_an_agent_without_a_certificate_is_not_let_in(story: Story) -> None:
    assert story.stranger is not None
    assert story.stranger.returncode == ExitCode.UNREACHABLE
