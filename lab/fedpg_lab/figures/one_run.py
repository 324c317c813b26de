"""Pictures of runs: the return curve with the filter's verdicts under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from fedpg_common.errors import StorageError
from fedpg_common.federation import method_of
from fedpg_common.files import reason, shown
from fedpg_server.learning.records import FINAL_FRACTION, RoundRecord
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from fedpg_lab.figures.comparison import draw_returns
from fedpg_lab.figures.curves import group_runs
from fedpg_lab.figures.parts import FEW_POINTS, dots_for, wrapped
from fedpg_lab.runs.folders import PLOT_NAME, RunData, final_return

VERDICT_COLOURS = {"accepted": "#d6e6f2", "voted": "#e6e0ee", "filtered": "#d55e00", "absent": "#4d4d4d"}
"""Light, middle and dark, so that they are told apart without colours, too."""
RULE_COLOURS = {"R1": "#0072b2", "R2": "#f2a93b", "mean": "#bdbdbd", "none": "#222222"}
"""Of FedPG-BR's rules, the plain mean, and a round without a gradient that survived."""
MORE_RULE_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Of other rules, in the order in which they decide."""
SMOOTHING_ROUNDS = 10
AGENT_LABELS_MAX = 40
TITLE_WIDTH = 90
MARGIN = 1.01
"""How far the axis goes, so that what is drawn at its end is not cut in half."""


def plot_run(run: RunData, path: Path) -> None:
    """One run: returns against trajectories, which rule decided, and each agent's verdicts. Raises StorageError."""
    height = 3.6 + 0.3 + min(4.5, 0.6 + 0.2 * run.federation.agents)
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3.6, 0.3, min(4.5, 0.6 + 0.2 * run.federation.agents)))
    _plot_returns(axes[0], run)
    axes[0].set_title(wrapped(title_of(run), TITLE_WIDTH))
    edges = _edges(run.records)
    _plot_rules(axes[1], run.records, edges)
    plot_verdicts(axes[2], run, edges)
    axes[2].set_xlabel("trajectories per participant")
    axes[2].set_xlim(0, MARGIN * edges[-1])
    save_picture(figure, path)


def plot_runs(runs: Sequence[RunData], path: Path) -> None:
    """Several seeds of one federation: mean and interval, with the published points. Raises StorageError."""
    save_picture(draw_returns(group_runs(runs), honest=False, window=1), path)


def title_of(run: RunData) -> str:
    """Task, algorithm, agents and attack in one line."""
    federation = run.federation
    parts = [federation.task.name, method_of(federation), f"K = {federation.agents}"]
    if federation.byzantine:
        attacks = ", ".join(sorted({attack.label for attack in federation.byzantine.values()}))
        parts.append(f"{len(federation.byzantine)} Byzantine ({attacks})")
    return ", ".join([*parts, f"seed {federation.seed}"])


def smooth(values: Sequence[float], window: int = SMOOTHING_ROUNDS) -> NDArray[np.float64]:
    """The trailing mean over up to `window` values, shape (n,)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _plot_returns(axes: Axes, run: RunData) -> None:
    counts = [record.trajectories_total for record in run.records]
    returns = [record.evaluation_return for record in run.records]
    dot, is_short = dots_for(len(counts)), len(counts) <= FEW_POINTS
    axes.plot(counts, returns, color="#0072b2", alpha=1.0 if is_short else 0.5, linewidth=0.8, marker=dot,
              label="evaluation, each round")  # fmt: skip
    if not is_short:  # a mean of all rounds there are says nothing
        axes.plot(counts, smooth(returns), color="#0072b2",
                  label=f"evaluation, mean of the last {SMOOTHING_ROUNDS} rounds")  # fmt: skip
    final = final_return(run)
    if final is not None and np.isfinite(final):
        axes.plot([counts[-1] * (1 - FINAL_FRACTION), counts[-1]], [final, final], color="#d55e00", linewidth=2.5,
                  label=f"final return {final:,.1f}: mean over the last {100 * FINAL_FRACTION:.0f} %")  # fmt: skip
    worlds = [(r.trajectories_total, list(r.world_returns.values())) for r in run.records if r.world_returns]
    if worlds:
        at, values = [count for count, _ in worlds], [np.array(returns) for _, returns in worlds]
        axes.fill_between(at, [v.min() for v in values], [v.max() for v in values], color="#009e73", alpha=0.15,
                          linewidth=0)  # fmt: skip
        axes.plot(at, [v.mean() for v in values], color="#009e73", linewidth=1.0, marker=dots_for(len(at)),
                  label="evaluation in each agent's world: mean, worst to best")  # fmt: skip
    training = [(r.trajectories_total, r.training_return) for r in run.records if r.training_return is not None]
    if training:
        axes.plot(*zip(*training, strict=True), color="#777777", linewidth=0.9, linestyle=":", marker=dot,
                  label="training, mean of the honest agents")  # fmt: skip
    axes.set_ylabel("return")
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize="small", framealpha=0.8, edgecolor="none")


def _edges(records: Sequence[RoundRecord]) -> NDArray[np.float64]:
    """Where each round begins and ends on the axis of trajectories, shape (rounds + 1,)."""
    return np.array([0.0, *(record.trajectories_total for record in records)])


def rule_colours(rules: Iterable[str]) -> dict[str, str]:
    """A colour for each rule that decided: FedPG-BR's rules, the mean and none always have theirs."""
    used = list(dict.fromkeys(rules))
    others = [rule for rule in used if rule not in RULE_COLOURS]
    known = {rule: colour for rule, colour in RULE_COLOURS.items() if rule in used}
    return known | {rule: MORE_RULE_COLOURS[place % len(MORE_RULE_COLOURS)] for place, rule in enumerate(others)}


def _plot_rules(axes: Axes, records: Sequence[RoundRecord], edges: NDArray[np.float64]) -> None:
    colours = rule_colours(record.rule for record in records)
    codes = np.array([[list(colours).index(record.rule) for record in records]])
    axes.pcolormesh(edges, [0, 1], codes, cmap=ListedColormap(list(colours.values())), vmin=-0.5,
                    vmax=len(colours) - 0.5)  # fmt: skip
    axes.set_yticks([0.5], ["rule"])
    axes.legend(
        handles=[Patch(color=colour, label=rule) for rule, colour in colours.items()],
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small",
    )  # fmt: skip


def plot_verdicts(axes: Axes, run: RunData, edges: NDArray[np.float64]) -> None:
    """What became of each agent in each round. `edges`, shape (rounds + 1,), are the rounds' bounds on the axis."""
    agents = run.federation.agents
    names = list(VERDICT_COLOURS)
    codes = np.full((agents, len(run.records)), names.index("absent"))
    for column, record in enumerate(run.records):
        heard = names.index("accepted" if record.is_selective else "voted")
        codes[[agent - 1 for agent in record.accepted], column] = heard
        codes[[agent - 1 for agent in record.filtered], column] = names.index("filtered")
    rows = np.arange(agents + 1) + 0.5
    colours = ListedColormap(tuple(VERDICT_COLOURS.values()))
    axes.pcolormesh(edges, rows, codes, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5)
    axes.set_ylim(agents + 0.5, 0.5)
    if agents <= AGENT_LABELS_MAX:
        attacks = run.federation.byzantine
        labels = [f"{attacks[i].label}  {i}" if i in attacks else str(i) for i in range(1, agents + 1)]
        axes.set_yticks(range(1, agents + 1), labels, fontsize="small")
    axes.set_ylabel("agent")
    seen = {names[code] for code in np.unique(codes)} or set(names)
    axes.legend(
        handles=[
            Patch(facecolor=colour, edgecolor="#888888", linewidth=0.4, label=name)
            for name, colour in VERDICT_COLOURS.items()
            if name in seen
        ],
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small",
    )  # fmt: skip


def save_picture(figure: Figure, path: Path) -> None:
    """Write a PNG. Raises StorageError."""
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"the picture {shown(path)} cannot be written: {reason(error)}") from error


def plot_seeds(runs: Sequence[RunData], folder: Path) -> None:
    """The picture of several seeds of one federation."""
    if len(runs) > 1:
        plot_runs(runs, folder / PLOT_NAME)
