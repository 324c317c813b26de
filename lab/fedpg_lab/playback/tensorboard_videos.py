"""Videos of policies for TensorBoard's Images tab."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import typer
from fedpg_common.errors import FedPGError, StorageError
from fedpg_common.files import reason, shown
from fedpg_server.storage.damage import CHECKPOINT_FOLDER
from fedpg_server.storage.store import STORE_NAME, Store

from fedpg_lab.playback.evaluation import BEST, evaluate, load_policy
from fedpg_lab.playback.video import record, render_without_display
from fedpg_lab.runs.folders import walk_runs

VIDEO_SUFFIX = ".best-policy"
EVENT_FILES = f"events.out.tfevents.*{VIDEO_SUFFIX}"
TAG = "video_of_best_policy"
"""Sorts behind the curves."""


def record_videos(folder: Path) -> None:
    """Record the best policy of each run at or below `folder` that is not live, unless its video is newer.

    TensorBoard follows only the newest file of a folder, so a live run would seem to stand still. A run whose policy
    cannot be shown is named and left out.
    """
    waiting = [run for run, failure in walk_runs(folder) if failure is None and _lacks_video(run)]
    for number, run in enumerate(sorted(waiting), start=1):
        if Store.is_live(run / STORE_NAME):
            typer.echo(f"fedpg: {shown(run)} is live: its video comes when it has ended", err=True)
            continue
        typer.echo(f"Recording video {number} of {len(waiting)}: {shown(run)}", err=True)
        try:
            write_video_event(run / CHECKPOINT_FOLDER / BEST, run)
        except FedPGError as error:
            typer.echo(f"fedpg: no video of {shown(run)}: {error}", err=True)
    if waiting:
        typer.echo("All videos are recorded: reload the page", err=True)


def _lacks_video(run: Path) -> bool:
    best = run / CHECKPOINT_FOLDER / BEST
    try:
        made_s = best.stat().st_mtime
        return not any(file.stat().st_mtime > made_s for file in run.glob(EVENT_FILES))
    except OSError:  # no policy yet, or not for us to see
        return False


def write_video_event(checkpoint: Path, events: Path) -> None:
    """Write an animated image of one greedy episode as TensorBoard events into a folder, in place of an older one.

    Raises RenderingError or StorageError.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from torch.utils.tensorboard import SummaryWriter

    _, policy = load_policy(checkpoint)
    render_without_display(policy.task)
    (episode,) = evaluate(policy, episodes=1, seed=0, greedy=True).episodes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.gif"
        record(policy.task, episode, path)
        image = path.read_bytes()
    width, height = (int.from_bytes(image[start : start + 2], "little") for start in (6, 8))  # as GIF89a has them
    shown_image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=image)
    about = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="images"),
        summary_description="One greedy episode of the best policy. The step is its round.",
    )
    try:
        older = list(events.glob(EVENT_FILES))
        writer: Any = SummaryWriter(str(events), filename_suffix=VIDEO_SUFFIX)
        value = Summary.Value(tag=TAG, image=shown_image, metadata=about)
        writer.file_writer.add_summary(Summary(value=[value]), policy.round_number)
        writer.close()
        for file in older:
            file.unlink()
    except OSError as error:
        raise StorageError(f"cannot write in {shown(events)}: {reason(error)}") from error
