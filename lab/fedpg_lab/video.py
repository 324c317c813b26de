"""Showing episodes: in a window, or as a video file, which needs no display."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from fedpg_common.errors import RenderingError, StorageError, UsageError
from fedpg_common.files import is_folder
from fedpg_common.tasks import Task
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from PIL import Image

from fedpg_lab.evaluation import Episode

VIDEO_SUFFIXES = (".mp4", ".gif")
GIF_FPS_MAX = 25
"""Viewers slow faster GIFs down."""
GIF_FRAMES_MAX = 500
"""A longer episode shows fewer frames a second: the encoder holds all of them in memory."""
FPS_DEFAULT = 30
NO_CAMERA = -1
"""MuJoCo's index for none of the model's cameras."""
MP4_CODING = {"codec": "libx264", "pix_fmt_out": "yuv420p", "macro_block_size": 2}
OFFSCREEN_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""What MuJoCo can draw with where there is no display, by its own names, the better first."""
INSTALL_EGL = "on Debian and Ubuntu, apt-get install libegl1 libgl1-mesa-dri"

Frame = NDArray[np.uint8]
"""An image (height, width, 3)."""


def render_without_display(task: Task) -> None:
    """Make the libraries that draw do so in memory. To be called before an environment is made.

    SDL gets its dummy driver; MuJoCo gets EGL, or OSMesa where only that is installed. What the user has set stays.
    Raises RenderingError if MuJoCo is needed and what it is to draw with is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if sys.platform == "linux" and _is_mujoco(task):
        installed = [name for name, library in OFFSCREEN_LIBRARIES.items() if _can_load(library)]
        backend = os.environ.setdefault("MUJOCO_GL", [*installed, "egl"][0])  # read when mujoco is first imported
        if backend in OFFSCREEN_LIBRARIES and backend not in installed:
            library = OFFSCREEN_LIBRARIES[backend]
            raise RenderingError(
                f"{task.environment} cannot be drawn on this machine: install {library} ({INSTALL_EGL})"
            )


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def require_display() -> None:
    """Raise RenderingError if there is no display to open a window on."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RenderingError("there is no display to open a window on: record the episode instead, with --video FILE")


def check_video_path(path: Path) -> None:
    """Raise UsageError for a suffix other than .mp4 and .gif, StorageError if the file could not be written."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"a video is a {' or '.join(VIDEO_SUFFIXES)} file, not {path.name!r}")
    if is_folder(path):
        raise StorageError(f"the video {path} cannot be written: it is a folder")
    unfinished = _unfinished(path)
    try:
        unfinished.touch()
        unfinished.unlink()
    except OSError as error:
        raise StorageError(f"the video {path} cannot be written: {error.strerror}") from error


def _unfinished(path: Path) -> Path:
    """Where a video grows until it is whole."""
    return path.with_name(f".{path.stem}.new{path.suffix}")


def show(task: Task, episodes: Iterable[Episode]) -> None:
    """Play episodes in a window, at the environment's own pace. Raises RenderingError."""
    require_display()
    with _environment(task, "human") as environment:
        for episode in episodes:
            for _ in _frames(task, environment, episode):
                pass


def record(task: Task, episode: Episode, path: Path) -> None:
    """Write an episode to `path`, .mp4 or .gif. Never leaves half a file.

    Raises UsageError, RenderingError or StorageError.
    """
    check_video_path(path)
    unfinished = _unfinished(path)
    try:
        with _environment(task, "rgb_array") as environment:
            fps = round(environment.metadata.get("render_fps") or FPS_DEFAULT)
            every = 1
            if path.suffix.lower() == ".gif":
                every = math.ceil(max(fps / GIF_FPS_MAX, len(episode.actions) / GIF_FRAMES_MAX))
            shown = itertools.islice(_frames(task, environment, episode), 0, None, every)
            _write(unfinished, shown, fps / every)
        os.replace(unfinished, path)
    except OSError as error:
        raise StorageError(f"the video {path} cannot be written: {error.strerror or 'ffmpeg has failed'}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write(path: Path, frames: Iterator[Frame], fps: float) -> None:
    """Encode the frames, of which there is one at least."""
    if path.suffix.lower() == ".gif":
        _write_gif(path, frames, fps)
    else:
        _write_mp4(path, frames, fps)


def _write_mp4(path: Path, frames: Iterator[Frame], fps: float) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError:  # the server's image is without it
        raise RenderingError(
            "a video in MP4 needs imageio-ffmpeg, which is not installed here: choose a name that ends in .gif"
        ) from None

    first = next(frames)
    size = first.shape[1], first.shape[0]
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, ffmpeg_log_level="error", **MP4_CODING)
    with contextlib.closing(writer):
        writer.send(None)
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame))


def _write_gif(path: Path, frames: Iterator[Frame], fps: float) -> None:
    """All frames have the first one's palette: dithering and a palette a frame would make the file much larger."""
    first = Image.fromarray(next(frames)).quantize(method=Image.Quantize.MEDIANCUT)
    rest = (Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _frames(task: Task, environment: gymnasium.Env[Any, Any], episode: Episode) -> Iterator[Frame]:
    """Play an episode again: what the environment draws, nothing where it shows that itself."""
    with _translated(task):
        environment.reset(seed=episode.seed)
        yield from _draw(environment)
        for action in episode.actions:
            environment.step(_move(environment, action))
            yield from _draw(environment)


@contextlib.contextmanager
def _environment(task: Task, render_mode: str) -> Iterator[gymnasium.Env[Any, Any]]:
    with contextlib.ExitStack() as stack:
        with _translated(task):
            if _is_mujoco(task):
                # Imports mujoco, which settles once what it draws with.
                from fedpg_common.environments.half_cheetah import warnings_logged

                stack.enter_context(warnings_logged())
            environment = gymnasium.make(
                task.environment,
                max_episode_steps=max(task.horizon, task.evaluation_horizon),
                disable_env_checker=True,
                render_mode=render_mode,
                **task.environment_options,
            )
            stack.callback(environment.close)
            if _is_mujoco(task):
                _prepare_mujoco(environment.unwrapped)
        yield environment


def _prepare_mujoco(environment: Any) -> None:
    """Follow what runs away, and leave out shadows: on a processor they take as long to draw as all the rest."""
    import mujoco

    model, renderer = environment.model, environment.mujoco_renderer
    model.vis.quality.shadowsize = 0
    if renderer.camera_id == NO_CAMERA:
        renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")


@contextlib.contextmanager
def _translated(task: Task) -> Iterator[None]:
    """Whatever goes wrong within, as a RenderingError: environments and what they draw with are others' code."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = f" ({INSTALL_EGL})" if _is_mujoco(task) and sys.platform == "linux" else ""
        raise RenderingError(f"{task.environment} cannot be drawn on this machine{advice}: {reason}") from error


def _is_mujoco(task: Task) -> bool:
    return "mujoco" in str(gymnasium.spec(task.environment).entry_point)


def _move(environment: gymnasium.Env[Any, Any], action: Any) -> Any:
    """An action as the environment takes it."""
    space = environment.action_space
    if isinstance(space, Discrete):
        return int(action) + int(space.start)
    assert isinstance(space, Box)  # no policy has other actions
    return np.reshape(action, space.shape).astype(space.dtype)


def _draw(environment: gymnasium.Env[Any, Any]) -> Iterator[Frame]:
    """The current image, cut to even sides, as H.264 wants them."""
    image = environment.render()
    if image is not None:
        pixels = np.asarray(image, np.uint8)
        yield pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
