"""The images of a federation with faults: the server's and the agents', and the helper that harms their networks."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from fedpg_lab.faults.backend import UnsupportedFaultError
from fedpg_lab.faults.docker.engine import engine_errors, run_docker

PARTICIPANTS = ("fedpg-server", "fedpg-agent")
BUILD_TIMEOUT_S = 3600.0
HELPER_DOCKERFILE = """\
FROM python:3.11-slim-bookworm
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends iproute2 iptables \\
    && rm -rf /var/lib/apt/lists/*
CMD ["sleep", "infinity"]
"""
"""The base image is that of the participants, so that there is one to fetch."""
HELPER = f"fedpg-faults:{hashlib.sha256(HELPER_DOCKERFILE.encode()).hexdigest()[:12]}"
"""Named by its content: what is there need not be built, with or without a network."""

log = logging.getLogger(__name__)


def missing_images(client: Any, names: tuple[str, ...]) -> list[str]:
    """Those of the images that the engine does not have. Raises EngineError."""
    missing = []
    with engine_errors("looking for images"):
        for name in names:
            try:
                client.images.get(name)
            except ImageNotFound:
                missing.append(name)
    return missing


def check_participants(client: Any, root: Path | None) -> None:
    """Raise UnsupportedFaultError if there is neither a Dockerfile to build the participants' images from nor these."""
    missing = missing_images(client, PARTICIPANTS)
    if missing and root is None:
        raise UnsupportedFaultError(
            f"the engine has no image {' and no '.join(missing)}, and this installation has no Dockerfile: "
            "run from a clone of the repository, or build the images there first"
        )
    if missing:
        log.warning("building the images of the server and the agents: the first time takes minutes")


def build_helper(client: Any) -> None:
    """See that the helper image is there. Raises EngineError."""
    if missing_images(client, (HELPER,)):
        log.warning("building the image %s, with iproute2 and iptables", HELPER)
        run_docker(["build", "--tag", HELPER, "-"], given=HELPER_DOCKERFILE, timeout_s=BUILD_TIMEOUT_S)
