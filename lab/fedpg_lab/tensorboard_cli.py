"""The command `fedpg tensorboard`."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from fedpg_common.errors import AddressError, EnvironmentFailedError, StorageError, UsageError
from fedpg_server.store import STORE_NAME

from fedpg_lab.evaluation import BEST, CHECKPOINT_FOLDER, evaluate, load_policy
from fedpg_lab.video import record, render_without_display

EVENTS_FOLDER = "tensorboard"
VIDEO_FOLDER = "policy"
"""A folder of its own: TensorBoard follows only the newest file of a folder, which is the run's while it goes on."""
EVENT_FILES = "events.out.tfevents.*"


def tensorboard_command(
    folder: Annotated[Path, typer.Argument(help="A run folder, or one that holds some.")] = Path("runs"),
    port: Annotated[
        int | None, typer.Option(help="Port of the page.", show_default="6006, or the next that is free")
    ] = None,
    host: Annotated[str, typer.Option(help="Address of the page; 0.0.0.0 shows it to the network.")] = "localhost",
    videos: Annotated[
        bool, typer.Option("--videos", help="First record an episode of each run's best policy, for the Images tab.")
    ] = False,
) -> None:
    """Start TensorBoard on runs, finished or not: curves, and a table of hyperparameters and results.

    Each run is listed by its folder, each seed as a run of its own. The HParams tab has every setting of a run beside
    its final and best return. `tensorboard --logdir FOLDER` shows the same. Ctrl-C ends it.

    Exit codes: 0 ended with Ctrl-C; 2 bad option; 5 the address cannot be used; 6 no runs there; 7 this machine cannot
    draw a video.
    """
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port must be 0 to 65535, not {port}")
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}")
    if next(folder.rglob(EVENT_FILES), None) is None:
        raise StorageError(f"no run in {folder} has TensorBoard files: they are left out with --no-tensorboard")
    if videos:
        _record_videos(folder)
    url = launch(folder, host, port)
    typer.echo(f"TensorBoard shows {folder} at {url} (Ctrl-C ends it)")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("")


def launch(folder: Path, host: str, port: int | None) -> str:
    """Start TensorBoard in a thread of this process and return its address. Raises AddressError."""
    from tensorboard import default, program  # takes a second to import, so only where it is used

    board = program.TensorBoard(plugins=default.get_plugins())
    where = [] if port is None else ["--port", str(port)]
    board.configure(argv=["tensorboard", "--logdir", str(folder), "--host", host, *where])
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise AddressError(f"TensorBoard cannot be served there: {' '.join(str(error).split())}") from error


def _record_videos(folder: Path) -> None:
    """Record the best policy of each run below `folder`, unless its video is newer."""
    for store in sorted(folder.rglob(STORE_NAME)):
        run = store.parent
        best, events = run / CHECKPOINT_FOLDER / BEST, run / EVENTS_FOLDER / VIDEO_FOLDER
        if not best.is_file():
            continue
        if any(file.stat().st_mtime > best.stat().st_mtime for file in events.glob(EVENT_FILES)):
            continue
        typer.echo(f"Recording {best}", err=True)
        try:
            write_video_event(best, events)
        except (UsageError, EnvironmentFailedError) as error:  # one environment that is missing spoils no other's page
            typer.echo(f"No video of {run}: {error}", err=True)


def write_video_event(checkpoint: Path, events: Path) -> None:
    """Write an animated image of one greedy episode as TensorBoard events, in place of what is there.

    Raises UsageError if the environment cannot be made, EnvironmentFailedError, RenderingError or StorageError.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    _, policy = load_policy(checkpoint)
    render_without_display(policy.task)
    (episode,) = evaluate(policy, episodes=1, seed=0, greedy=True).episodes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.gif"
        record(policy.task, episode, path)
        image = path.read_bytes()
    width, height = (int.from_bytes(image[start : start + 2], "little") for start in (6, 8))  # as GIF89a has them
    shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=image)
    try:
        shutil.rmtree(events, ignore_errors=True)
        writer: Any = SummaryWriter(str(events))
        value = Summary.Value(tag="best_policy/episode", image=shown)
        writer.file_writer.add_summary(Summary(value=[value]), policy.round_number)
        writer.close()
    except OSError as error:
        raise StorageError(f"cannot write in {events}: {error.strerror}") from error
