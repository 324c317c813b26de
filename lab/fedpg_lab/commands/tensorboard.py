"""The command `fedpg tensorboard`."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.errors import AddressError, StorageError, UsageError
from fedpg_common.files import shown

EVENT_FILES = "events.out.tfevents.*"


def tensorboard_command(
    folder: Annotated[Path, typer.Argument(help="A run folder, or one that holds some.")] = Path("runs"),
    port: Annotated[
        int | None, typer.Option(help="Port of the page.", metavar="N", show_default="6006, or the next that is free")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of the page; 0.0.0.0 shows it to the network.", metavar="HOST")
    ] = "localhost",
    videos: Annotated[
        bool,
        typer.Option(
            "--videos", help="Record an episode of each finished run's best policy, for the Images tab.", metavar=""
        ),
    ] = False,
) -> None:
    """Start TensorBoard on runs, finished or not: curves, and a table of hyperparameters and results.

    Each run is listed by its folder, each seed as a run of its own. The HParams tab has every setting of a run beside
    its final and best return. `tensorboard --logdir FOLDER` shows the same. The "i" of a curve says what it is; the x
    axis is the trajectory count per participant. Videos are recorded while the page is up, where they are missing:
    reload it to see them. Ctrl-C ends it.

    Exit codes: 0 ended with Ctrl-C; 2 bad option; 5 the address cannot be used; 6 no runs there; 7 this machine cannot
    draw a video.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port must be 0 to 65535, not {port}")
    from fedpg_lab.runs.folders import require_folder

    require_folder(folder)
    if not has_events(folder):
        raise StorageError(
            f"no run in {shown(folder)} has TensorBoard files: they are left out with --no-tensorboard, and a new "
            "run's come with its start"
        )
    with unwinding(), named(folder) as place:
        try:
            url = launch(place, host, port)
            typer.echo(f"TensorBoard shows {shown(folder)} at {url} (Ctrl-C ends it)")
            if videos:
                from fedpg_lab.playback.tensorboard_videos import record_videos  # needs torch, which the curves do not
                from fedpg_lab.terminal.waits import waits_are_told

                with waits_are_told():
                    record_videos(folder)
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo("")


def has_events(folder: Path) -> bool:
    """Whether there is an event file at or below `folder`. Raises StorageError if the folder cannot be read."""
    failures: list[OSError] = []
    for place, _, files in os.walk(folder, onerror=failures.append):
        if any(Path(name).match(EVENT_FILES) for name in files):
            return True
        if failures and Path(place) == folder:
            break
    if failures and failures[0].filename == str(folder):
        raise StorageError(f"{shown(folder)} cannot be read: {failures[0].strerror}")
    return False


@contextmanager
def named(folder: Path) -> Iterator[Path]:
    """A folder in which the runs have names: TensorBoard calls a run that is the folder itself `.`."""
    if not any(folder.glob(EVENT_FILES)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fedpg-tensorboard-") as above:
        absolute = folder.absolute()
        Path(above, absolute.name or "run").symlink_to(absolute, target_is_directory=True)
        yield Path(above)


def launch(folder: Path, host: str, port: int | None) -> str:
    """Start TensorBoard in a thread of this process and return its address. Raises AddressError."""
    from tensorboard import default, program  # takes a second to import, so only where it is used

    board = program.TensorBoard(plugins=default.get_plugins())
    where = [] if port is None else ["--port", str(port)]
    # Its fast way of loading, the default, drops the scalars' descriptions, and announces itself.
    board.configure(argv=["tensorboard", "--logdir", str(folder), "--host", host, "--load_fast=false", *where])
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise AddressError(f"TensorBoard cannot be served there: {' '.join(str(error).split())}") from error
