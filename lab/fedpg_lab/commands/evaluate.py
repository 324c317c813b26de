"""The command `fedpg evaluate`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fedpg_common.cli.ending import unwinding
from fedpg_common.errors import UsageError
from fedpg_common.federation import SEED_MAX
from fedpg_common.json_text import to_json
from fedpg_common.words import count

from fedpg_lab.terminal.formats import Format

if TYPE_CHECKING:
    from fedpg_common.learning.checkpoints import Checkpoint
    from fedpg_common.tasks import Task

    from fedpg_lab.playback.evaluation import Episode, Evaluation

EPISODES_MAX = 10_000


class Render(StrEnum):
    """Ways to watch."""

    HUMAN = "human"


CheckpointOption = Annotated[
    Path, typer.Argument(help="A .safetensors file, or a run folder for its best policy.", show_default=False)
]

EpisodesOption = Annotated[int, typer.Option(help="How many episodes.", metavar="N")]

Sample = Annotated[
    bool, typer.Option("--sample", help="Draw the actions, as in training, not the most likely ones.", metavar="")
]

Seed = Annotated[int, typer.Option(help="Every random draw follows from it.", metavar="N")]

RenderOption = Annotated[Render | None, typer.Option(help="human: play all episodes in a window.", show_default=False)]

Video = Annotated[
    Path | None,
    typer.Option(help="Record an episode: FILE.mp4 or FILE.gif. Needs no display.", metavar="FILE", show_default=False),
]

VideoEpisode = Annotated[int, typer.Option(help="Which episode is recorded.", metavar="N")]

Worlds = Annotated[
    bool, typer.Option("--worlds", help="In the world of each agent of a run folder as well.", metavar="")
]

FormatOption = Annotated[Format, typer.Option("--format", help="For people or, as one line of JSON, for programs.")]

AsJson = Annotated[bool, typer.Option("--json", help="The same as --format json.", metavar="")]


def evaluate_command(
    checkpoint: CheckpointOption,
    episodes: EpisodesOption = 10,
    sample: Sample = False,
    seed: Seed = 0,
    render: RenderOption = None,
    video: Video = None,
    video_episode: VideoEpisode = 1,
    worlds: Worlds = False,
    format_: FormatOption = Format.TABLE,
    as_json: AsJson = False,
) -> None:
    """Evaluate a policy: each episode's return and length, their mean and standard deviation.

    Episodes have the task's evaluation horizon. The same checkpoint, options and seed give the same figures. An episode
    that is shown or recorded is one of those evaluated, played again.

    For example:

        fedpg evaluate runs/my-run
        fedpg evaluate runs/my-run/checkpoints/latest.safetensors --episodes 100 --sample
        fedpg evaluate runs/my-run --video lander.mp4
        fedpg evaluate runs/my-run --worlds

    HalfCheetah and other MuJoCo tasks are recorded with EGL; on Debian and Ubuntu it is in libegl1 and libgl1-mesa-dri.

    Exit codes: 0 done; 2 bad option, or the environment cannot be made; 6 no checkpoint there, or a file cannot be
    used; 7 the episode cannot be drawn; 9 the environment failed.
    """
    if not 1 <= episodes <= EPISODES_MAX:
        raise UsageError(f"--episodes must be 1 to {EPISODES_MAX}, not {episodes}")
    if not 0 <= seed <= SEED_MAX:
        raise UsageError(f"--seed must be 0 to 2**63 - 1, not {seed}")
    if not 1 <= video_episode <= episodes:
        raise UsageError(f"--video-episode must be one of the episodes 1 to {episodes}, not {video_episode}")
    if worlds:
        if sample or render is not None or video is not None:
            raise UsageError("--worlds plays the most likely actions, unseen: leave out --sample, --render and --video")
        _evaluate_worlds(checkpoint, episodes, seed, as_json or format_ is Format.JSON)
        return
    from fedpg_lab.playback.evaluation import evaluate, load_policy
    from fedpg_lab.playback.video import check_video_path, render_without_display, require_display, show

    if video is not None:
        check_video_path(video)
    if render is not None:
        require_display()
    from fedpg_lab.terminal.waits import waits_are_told

    with unwinding(), waits_are_told():
        file, policy = load_policy(checkpoint)
        with printing_to_stderr():  # environments print, and their modules; standard output is for the result
            if video is not None and render is None:
                render_without_display(policy.task)
            evaluation = evaluate(policy, episodes, seed, greedy=not sample)
        if as_json or format_ is Format.JSON:
            typer.echo(to_json(_figures(file, policy, evaluation, seed, sample)))
        else:
            _print_table(file, policy, evaluation, seed, sample)
        with printing_to_stderr():
            if render is not None:
                show(policy.task, evaluation.episodes)
            if video is not None:
                _record(policy.task, evaluation.episodes[video_episode - 1], video)
        if video is not None:
            typer.echo(f"Recorded episode {video_episode}: {video}", err=True)


def _evaluate_worlds(run: Path, episodes: int, seed: int, as_json: bool) -> None:
    from fedpg_lab.playback.evaluation import load_policy
    from fedpg_lab.playback.worlds import evaluate_worlds
    from fedpg_lab.terminal.waits import waits_are_told

    with unwinding(), waits_are_told():
        file, policy = load_policy(run)
        with printing_to_stderr():
            result = evaluate_worlds(run, policy, episodes, seed)
    if result.why_alike:
        typer.echo(f"fedpg: {result.why_alike}", err=True)
    over = result.over_worlds
    if as_json:
        typer.echo(
            to_json(
                {
                    "checkpoint": str(file), "task": policy.task.name, "round": policy.round_number, "seed": seed,
                    "episodes": episodes, "nominal": result.nominal.mean, "mean": over.mean, "worst": over.worst,
                    "spread": over.spread, "returns": result.returns,
                    "worlds": {agent: result.world(agent).to_plain() for agent in result.returns},
                }
            )
        )  # fmt: skip
        return
    typer.echo(f"{policy.task.name}, round {policy.round_number} ({file}), most likely actions, seed {seed}, "
               f"{count(episodes, 'episode')} in each world")  # fmt: skip
    typer.echo(f"{'agent':>7} {'return':>11}  world")
    typer.echo(f"{'nominal':>7} {result.nominal.mean:11.2f}")
    for agent, value in result.returns.items():
        typer.echo(f"{agent:7d} {value:11.2f}  {result.world(agent).label}".rstrip())
    worst = min(result.returns, key=lambda agent: result.returns[agent])
    typer.echo(f"mean {over.mean:.2f}, worst {over.worst:.2f} (agent {worst}), spread {over.spread:.2f} over "
               f"{count(len(result.returns), 'world')}")  # fmt: skip


def _record(task: Task, episode: Episode, video: Path) -> None:
    """Record with a bar that says how far it is, if somebody looks on: a frame may take a tenth of a second."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fedpg_lab.playback.video import record
    from fedpg_lab.terminal.console import make_console

    console = make_console(stderr=True)
    columns = TextColumn("Recording frame"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        record(task, episode, video, lambda done, total: progress.update(bar, completed=done, total=total))


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Send what is printed within, by Python or by a library in C, to standard error."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _print_table(file: Path, policy: Checkpoint, evaluation: Evaluation, seed: int, sample: bool) -> None:
    actions = "drawn" if sample else "most likely"
    typer.echo(f"{policy.task.name}, round {policy.round_number} ({file}), {actions} actions, seed {seed}")
    typer.echo("episode      return  steps")
    for number, episode in enumerate(evaluation.episodes, start=1):
        typer.echo(f"{number:7d} {episode.total_reward:11.2f} {len(episode.actions):6d}")
    spread = "" if evaluation.deviation is None else f", standard deviation {evaluation.deviation:.2f}"
    typer.echo(f"mean {evaluation.mean:.2f}{spread}, {count(len(evaluation.episodes), 'episode')}")


def _figures(file: Path, policy: Checkpoint, evaluation: Evaluation, seed: int, sample: bool) -> dict[str, object]:
    return {
        "checkpoint": str(file),
        "task": policy.task.name,
        "round": policy.round_number,
        "actions": "drawn" if sample else "most likely",
        "seed": seed,
        "mean": evaluation.mean,
        "standard_deviation": evaluation.deviation,
        "returns": evaluation.returns.tolist(),
        "lengths": [len(episode.actions) for episode in evaluation.episodes],
    }
