"""Showing episodes: in a window, or as a video file, which needs no display."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from fedpg_common.environments.actions import ActionScale
from fedpg_common.environments.factory import gymnasium_id, make_one
from fedpg_common.environments.guard import Guard, GuardedEnvironment, name
from fedpg_common.errors import EnvironmentFailedError, RenderingError, StorageError, UsageError
from fedpg_common.files import shown, why_no_file
from fedpg_common.others_code import place, raise_if_ours, reason
from fedpg_common.tasks import Task
from numpy.typing import NDArray
from PIL import Image

from fedpg_lab.playback.evaluation import Episode

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
OnFrame = Callable[[int, int], None]


def render_without_display(task: Task) -> None:
    """Make the libraries that draw do so in memory. To be called before an environment is made.

    SDL gets its dummy driver; MuJoCo gets EGL, or OSMesa where only that is installed. What the user has set stays.
    Raises RenderingError if MuJoCo is needed and what it is to draw with is not installed, UsageError if the
    environment's module cannot be imported.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if sys.platform != "linux":
        return
    # Read when mujoco is first imported, which a module of the user's own may do.
    installed = [name for name, library in OFFSCREEN_LIBRARIES.items() if _can_load(library)]
    if installed:
        os.environ.setdefault("MUJOCO_GL", installed[0])
    if _is_mujoco(_registered_name(task)):
        backend = os.environ.setdefault("MUJOCO_GL", [*installed, "egl"][0])
        if backend in OFFSCREEN_LIBRARIES and backend not in installed:
            library = OFFSCREEN_LIBRARIES[backend]
            raise RenderingError(
                f"{task.environment} cannot be drawn on this machine: install {library} ({INSTALL_EGL})"
            )


def _registered_name(task: Task) -> str:
    """The name by which Gymnasium knows a task's environment. Raises UsageError."""
    try:
        return gymnasium_id(task)
    except UsageError as error:
        raise UsageError(f"task {task.name}: {task.environment} cannot be used: {error}") from error


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
    if why := why_no_file(path):
        raise StorageError(f"the video {shown(path)} cannot be written: {why}")
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
    """Play episodes in a window, at the environment's own pace. Raises UsageError or RenderingError."""
    require_display()
    episodes = list(episodes)
    with _environment(task, episodes[0], "human") as environment, _drawing(task):
        for episode in episodes:
            with contextlib.closing(_steps(environment, episode)) as steps:
                for _ in steps:
                    environment.render()


def record(task: Task, episode: Episode, path: Path, on_frame: OnFrame = lambda _done, _total: None) -> None:
    """Write an episode to `path`, .mp4 or .gif. Never leaves half a file.

    `on_frame` learns how many frames have been drawn, and of how many. Raises UsageError, RenderingError or
    StorageError.
    """
    check_video_path(path)
    unfinished = _unfinished(path)
    try:
        with _environment(task, episode, "rgb_array") as environment:
            fps = round(environment.environment.metadata.get("render_fps") or FPS_DEFAULT)
            every = 1
            if path.suffix.lower() == ".gif":
                every = math.ceil(max(fps / GIF_FPS_MAX, len(episode.actions) / GIF_FRAMES_MAX))
            with contextlib.closing(_frames(task, environment, episode, every)) as frames:
                total = len(episode.actions) // every + 1
                _write(unfinished, _counted(frames, total, on_frame), fps / every)
        os.replace(unfinished, path)
    except OSError as error:
        raise StorageError(f"the video {path} cannot be written: {error.strerror or 'ffmpeg has failed'}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _counted(frames: Iterable[Frame], total: int, on_frame: OnFrame) -> Iterator[Frame]:
    for done, frame in enumerate(frames, start=1):
        on_frame(done, total)
        yield frame


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
    """All frames have the first one's palette: dithering and a palette per frame would make the file much larger."""
    first = Image.fromarray(next(frames)).quantize(method=Image.Quantize.MEDIANCUT)
    rest = (Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _steps(environment: GuardedEnvironment, episode: Episode) -> Generator[int]:
    """Play an episode again: the number of steps done, from 0."""
    scale = ActionScale(environment.environment.action_space)
    with episode.global_random.during_episodes(0, episode.number):
        environment.reset(episode.seed)
        yield 0
        for number, move in enumerate(scale.to_environment(episode.actions), start=1):
            environment.step(move)
            yield number


def _frames(task: Task, environment: GuardedEnvironment, episode: Episode, every: int) -> Generator[Frame]:
    """What the environment draws at every so many steps of an episode that is played again."""
    shape: tuple[int, ...] | None = None
    with _drawing(task), contextlib.closing(_steps(environment, episode)) as steps:
        for number in steps:
            if number % every == 0:
                frame = image_of(environment.render())
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise NotAnImageError(f"its images change their size, from {shape} to {frame.shape}")
                # H.264 wants even sides.
                yield frame[: shape[0] // 2 * 2, : shape[1] // 2 * 2]


class NotAnImageError(ValueError):
    """An environment has drawn something that is not an image."""


def image_of(drawn: Any) -> Frame:
    """What `render` returned, if it is an image (height, width, 3) of bytes. Raises NotAnImageError."""
    wanted = "render must return an image, (height, width, 3) of whole numbers from 0 to 255, for the mode rgb_array"
    try:
        pixels = np.asarray(drawn)
    except Exception as error:
        raise NotAnImageError(f"{wanted}, not {name(drawn)}") from error
    if not (pixels.ndim == 3 and pixels.shape[2] == 3 and min(pixels.shape) >= 2 and pixels.dtype.kind in "iu"):
        raise NotAnImageError(f"{wanted}, not {name(drawn)}")
    if pixels.dtype != np.uint8 and not ((pixels >= 0) & (pixels <= 255)).all():
        raise NotAnImageError(f"{wanted}, but some are beyond that")
    return pixels.astype(np.uint8, copy=False)


@contextlib.contextmanager
def _environment(task: Task, episode: Episode, render_mode: str) -> Iterator[GuardedEnvironment]:
    """The task's environment, made as it was for the evaluation, but drawn."""
    with contextlib.ExitStack() as stack:
        registered = _registered_name(task)
        with _drawing(task):
            if _is_mujoco(registered):
                # Imports mujoco, which settles once what it draws with.
                from fedpg_common.environments.mujoco_batch import warnings_logged

                stack.enter_context(warnings_logged())
            with episode.global_random.during_making(0):
                made = make_one(task, registered, render_mode=render_mode)
            environment = GuardedEnvironment(made, Guard.of(task))
            stack.callback(environment.close)
            if hasattr(made.unwrapped, "mujoco_renderer"):
                _prepare_mujoco(made.unwrapped)
        yield environment


def _prepare_mujoco(environment: Any) -> None:
    """Follow what runs away, and leave out shadows: on a processor they take as long to draw as all the rest."""
    import mujoco

    model, renderer = environment.model, environment.mujoco_renderer
    model.vis.quality.shadowsize = 0
    if renderer.camera_id == NO_CAMERA:
        renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")


@contextlib.contextmanager
def _drawing(task: Task) -> Iterator[None]:
    """Whatever goes wrong within, as a RenderingError: environments and what they draw with are others' code.

    Without drawing, the same episode went well.
    """
    try:
        yield
    except GeneratorExit:
        raise
    except (NotAnImageError, EnvironmentFailedError) as error:
        raise RenderingError(f"{task.environment} cannot be drawn: {error}") from error
    except BaseException as error:
        raise_if_ours(error)
        advice = f" ({INSTALL_EGL})" if _is_mujoco(task.environment) and sys.platform == "linux" else ""
        raise RenderingError(
            f"{task.environment} cannot be drawn on this machine{advice}: {reason(error)}{place(error)}"
        ) from error


def _is_mujoco(name: str) -> bool:
    """Whether an environment that Gymnasium knows by that name is simulated by MuJoCo, as far as can be told."""
    try:
        entry_point = gymnasium.spec(name).entry_point
    except (gymnasium.error.Error, ImportError, ValueError):
        return False
    classes: tuple[type, ...] = entry_point.__mro__ if isinstance(entry_point, type) else ()
    return any("gymnasium.envs.mujoco" in text for text in (str(entry_point), *(each.__module__ for each in classes)))
