"""The reference of a run in containers: in a container of the same image, with the same libraries.

This machine's own may be others, or choose other instructions, and then the last bits of a sum differ.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from fedpg_common.descriptions import federation_to_toml
from fedpg_common.federation import Federation
from rich.console import Console

from fedpg_lab.faults.docker.engine import run_docker
from fedpg_lab.faults.docker.images import PARTICIPANTS
from fedpg_lab.faults.reference import RunReference
from fedpg_lab.runs.folders import RunData, load_run

TIMEOUT_S = 86_400.0
FOLDER = "/runs/reference"


def run_in_a_container(folder: Path, console: Console) -> RunReference:
    """A reference with processes of one container, copied to `folder`."""

    def run(federation: Federation) -> RunData:
        name = f"fedpg-faults-reference-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        console.print("reference  in a container, without faults")
        program = ["--entrypoint", "python", PARTICIPANTS[0], "-m", "fedpg_lab.faults.reference", FOLDER]
        try:
            run_docker(
                ["run", "--interactive", "--init", "--network", "none", "--name", name, *program],
                given=federation_to_toml(federation),
                timeout_s=TIMEOUT_S,
            )
            run_docker(["cp", f"{name}:{FOLDER}", str(folder)])
        finally:
            run_docker(["rm", "--force", "--volumes", name])
        return load_run(folder)

    return run
