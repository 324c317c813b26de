"""The best policy's episode as a video, made when somebody asks for it, in a process of its own.

Environments and what they draw with are others' code: they may take long, print, or end their process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpg_common.errors import FedPGError, StorageError
from fedpg_common.words import on_one_line

from fedpg_lab.playback.evaluation import find_checkpoint

TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}
MAKING_MAX = 2
"""At a time; more would take turns, at the cost of what trains beside them."""
PATIENCE_S = 600.0
NICENESS = 10


@dataclass
class Video:
    """One video, of the policy as it was when it was asked for."""

    of: object
    """Changes when the policy does."""
    path: Path
    state: str = "making"
    """"making", "made" or "failed"."""
    note: str = ""
    total_reward: float | None = None
    steps: int | None = None
    round_number: int | None = None

    def to_plain(self) -> dict[str, Any]:
        """For the page."""
        return {
            "state": self.state, "note": self.note, "return": self.total_reward, "steps": self.steps,
            "round": self.round_number, "type": TYPES[self.path.suffix],
        }  # fmt: skip


class Videos:
    """The videos that were asked for since the page is served; they are gone with it."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.Lock()
        self._videos: dict[Path, Video] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._processes: set[subprocess.Popen[str]] = set()
        self._is_closed = False

    def look(self, run: Path) -> dict[str, Any]:
        """How the run's video is. `state` is "none" before it was asked for, or where the policy has become better."""
        try:
            mark = _mark(find_checkpoint(run))
        except FedPGError as error:
            return {"state": "impossible", "note": str(error)}
        with self._lock:
            video = self._videos.get(run)
            if video is None or (video.state != "making" and video.of != mark):
                return {"state": "none", "note": ""}
            return video.to_plain()

    def make(self, run: Path) -> dict[str, Any]:
        """Begin to make it, unless it is there or on its way; then as `look`."""
        found = self.look(run)
        if found["state"] not in ("none", "failed"):
            return found
        with self._lock:
            if self._is_closed or sum(video.state == "making" for video in self._videos.values()) >= MAKING_MAX:
                return {"state": "none", "note": "other videos are being made: try again when they are done"}
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fedpg-videos-")
            suffix = ".mp4" if importlib.util.find_spec("imageio_ffmpeg") else ".gif"
            path = Path(self._folder.name) / f"{len(self._videos)}{suffix}"
            video = self._videos[run] = Video(_mark(find_checkpoint(run)), path)
        threading.Thread(target=self._record, args=(run, video), daemon=True).start()
        return video.to_plain()

    def content(self, run: Path) -> tuple[str, bytes]:
        """Type and bytes of a video that is made. Raises StorageError for any other."""
        with self._lock:
            video = self._videos.get(run)
        if video is None or video.state != "made":
            raise StorageError("there is no video of this run: ask for one first")
        try:
            return TYPES[video.path.suffix], video.path.read_bytes()
        except OSError as error:
            raise StorageError(f"the video cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """End what is being made, and forget the rest."""
        with self._lock:
            self._is_closed = True
            processes, self._processes = self._processes, set()
            folder, self._folder = self._folder, None
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        if folder is not None:
            folder.cleanup()

    def _record(self, run: Path, video: Video) -> None:
        try:
            text = self._play(run, video.path)
            figures = json.loads(text)
            video.total_reward, video.steps = figures["returns"][0], figures["lengths"][0]
            video.round_number, video.state = figures["round"], "made"
        except (OSError, ValueError, KeyError, IndexError, TypeError, FedPGError) as error:
            video.note, video.state = str(error) or type(error).__name__, "failed"

    def _play(self, run: Path, path: Path) -> str:
        """Run `fedpg evaluate`; what it prints. Raises StorageError with its last sentence if it fails."""
        command = [sys.executable, "-m", "fedpg_lab", "evaluate", os.fspath(run), "--episodes", "1", "--json"]
        with self._lock:
            if self._is_closed:
                raise StorageError("the page is no longer served")
            process = subprocess.Popen(
                [*command, "--video", os.fspath(path)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            )  # fmt: skip
            self._processes.add(process)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)  # whatever trains goes first
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise StorageError(f"the episode was not recorded within {PATIENCE_S / 60:g} minutes") from None
        finally:
            with self._lock:
                self._processes.discard(process)
        if process.returncode:
            raise StorageError(_last_sentence(err) or f"fedpg evaluate ended with code {process.returncode}")
        return out


def _mark(checkpoint: Path) -> object:
    try:
        found = checkpoint.stat()
    except OSError as error:
        raise StorageError(f"the policy {checkpoint.name} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _last_sentence(text: str) -> str:
    """What an error in a frame of box characters says."""
    lines = [line.strip(" │|") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("╭", "╰", "Usage:", "Try ", "+-"))]
    return on_one_line(" ".join(lines))[-500:]
