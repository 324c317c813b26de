"""The images: an agent's has no torch and stays below 600 MB; both have compiled kernels, and no compilers or root."""

from __future__ import annotations

import json
from pathlib import Path

from fedpg_common.learning.kernels import kernels
from support import long_episodes
from support.container_story import Story
from support.containers import docker
from support.long_episodes import digest_of_long_episodes

AGENT_BYTES_MAX = 600_000_000


def test_an_agents_image_is_below_600_mb(story: Story) -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", "fedpg-agent")) <= AGENT_BYTES_MAX


def test_an_agents_image_has_no_torch(story: Story) -> None:
    find = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('torch', 'tensorboard', 'fedpg_server')])"
    assert docker("run", "--rm", "--entrypoint", "python", "fedpg-agent", "-c", find).strip() == "[False, False, False]"


def test_every_published_environment_is_in_an_agents_image(story: Story) -> None:
    make = "import gymnasium as g; [g.make(n).reset() for n in ('CartPole-v1', 'LunarLander-v3', 'HalfCheetah-v5')]"
    docker("run", "--rm", "--read-only", "--entrypoint", "python", "fedpg-agent", "-c", make)


def test_both_images_have_the_compiled_kernels(story: Story) -> None:
    # Without a compiler's success an installation computes in numpy, with a warning that nobody reads.
    ask = "from fedpg_common.learning.kernels import kernels; print(type(kernels()).__name__)"
    for image in ("fedpg-agent", "fedpg-server"):
        assert docker("run", "--rm", "--entrypoint", "python", image, "-c", ask).strip() == "_Compiled"


def test_both_images_kernels_have_the_bits_of_those_here(story: Story) -> None:
    # The images' are compiled by Zig, which comes with a sine of its own.
    here = digest_of_long_episodes(kernels())
    for image in ("fedpg-agent", "fedpg-server"):
        script = ("run", "--rm", "--entrypoint", "python", image, "-c", Path(long_episodes.__file__).read_text())
        assert docker(*script).strip() == here, image


def test_grpc_writes_no_log_of_its_own(story: Story) -> None:
    for image in ("fedpg-agent", "fedpg-server"):
        (found,) = json.loads(docker("image", "inspect", image))
        assert "GRPC_VERBOSITY=NONE" in found["Config"]["Env"]
        assert found["Config"]["User"] == "fedpg"


def test_memory_and_processes_are_limited(story: Story) -> None:
    for service, container in story.containers.items():
        limit = 2 << 30 if service == "server" else 512 << 20
        assert container["HostConfig"]["Memory"] == limit, service
        assert container["HostConfig"]["PidsLimit"] == 256
