"""An experiment's table: a row for each federation, ours beside the published, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

import numpy as np
from fedpg_common.federation import Federation, method_of
from fedpg_server.learning.records import OverWorlds, RoundRecord

from fedpg_lab.figures.curves import Group, first_reach, half_width, honest_counts, mean_curve
from fedpg_lab.figures.published import Published, published_for, published_targets
from fedpg_lab.runs.folders import RunData, final_return, summarize

KNOWN_RULES = ("R1", "R2", "mean", "none")
"""These always have a column in the table for programs; others where they occur."""


@dataclass(frozen=True)
class Row:
    """What one federation came to, over its seeds."""

    group: Group
    final: float
    """Mean final return."""
    final_half_width: float | None
    """Half its 90 % interval; None for one seed."""
    reaches: dict[float, float | None]
    """Trajectory count at which the mean curve first reaches each of the task's published returns."""
    published: Published | None
    honest_trajectories: float
    """Sampled by all agents and the server together, without evaluation; mean over seeds, as all below."""
    environment_steps: float
    seconds: float
    accepted_honest: float | None
    accepted_byzantine: float | None
    rules: dict[str, float]
    """Part of the rounds that each rule decided."""
    worlds: OverWorlds | None
    """The last evaluation in the agents' own worlds; None without any."""

    @property
    def federation(self) -> Federation:
        """What was run."""
        return self.group.federation

    @property
    def is_complete(self) -> bool:
        """Whether every run has reached its end."""
        return all(run.is_complete for run in self.group.runs)


def row_of(group: Group) -> Row:
    """The row of a group."""
    runs = group.runs
    summaries = [summarize(run) for run in runs]
    finals = np.array([[final_return(run)] for run in runs], np.float64)
    width = half_width(finals)
    curve = mean_curve(runs)
    targets = published_targets(group.federation)
    records = [record for run in runs for record in run.records]
    return Row(
        group=group,
        final=float(finals.mean()),
        final_half_width=None if width is None else float(width[0]),
        reaches={target: None if curve is None else first_reach(curve, target) for target in targets},
        published=published_for(group.federation),
        honest_trajectories=fmean(float(honest_counts(run)[-1]) for run in runs),
        environment_steps=fmean(sum(summary["environment_steps"].values()) for summary in summaries),
        seconds=fmean(summary["seconds"] for summary in summaries),
        accepted_honest=_mean_of([summary["accepted_fraction_honest"] for summary in summaries]),
        accepted_byzantine=_mean_of([summary["accepted_fraction_byzantine"] for summary in summaries]),
        rules=_rules(records),
        worlds=_worlds([summary["worlds"] for summary in summaries]),
    )


def _worlds(known: Sequence[Mapping[str, Any] | None]) -> OverWorlds | None:
    """Each figure's mean over seeds."""
    given = [worlds for worlds in known if worlds is not None]
    if not given:
        return None
    return OverWorlds(*(fmean(worlds[field.name] for worlds in given) for field in fields(OverWorlds)))


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _rules(records: Sequence[RoundRecord]) -> dict[str, float]:
    names = sorted({record.rule for record in records})
    return {name: sum(record.rule == name for record in records) / len(records) for name in names}


RULES = ("R1", "R2", "mean", "none")
"""Those that always have a column."""
Columns = dict[str, Callable[[Row], str]]

WHO: Columns = {
    "task": lambda row: row.federation.task.name,
    "method": lambda row: _method(row.group),
    "K": lambda row: str(row.federation.agents),
    "B": lambda row: str(len(row.federation.byzantine)),
    "attack": lambda row: row.group.attack or "–",
}
RESULTS: Columns = {
    **WHO,
    "seeds": lambda row: str(len(row.group.runs)) + ("" if row.is_complete else ", unfinished"),
    "trajectories": lambda row: f"{min(_end(run) for run in row.group.runs):,}",
    "final return": lambda row: _with_width(row.final, row.final_half_width),
    "published": lambda row: "–" if row.published is None else f"{row.published.final:g}",
    "own worlds: mean, worst": lambda row: (
        "–" if row.worlds is None else f"{row.worlds.mean:,.1f}, {row.worlds.worst:,.1f}"
    ),
    "reaches at (published)": lambda row: _reaches(row),
}
"""What was learned."""
COSTS: Columns = {
    **WHO,
    "honest accepted": lambda row: _percent(row.accepted_honest),
    "Byzantine accepted": lambda row: _percent(row.accepted_byzantine),
    "rounds by rule": lambda row: ", ".join(f"{name} {_percent(part)}" for name, part in row.rules.items()),
    "sampled by all": lambda row: f"{row.honest_trajectories:,.0f}",
    "environment steps": lambda row: f"{row.environment_steps:,.0f}",
    "time": lambda row: _duration(row.seconds),
    "steps/s": lambda row: f"{row.environment_steps / row.seconds:,.0f}" if row.seconds else "–",
}
"""What was accepted, and what it cost."""
IF_ANY = ("own worlds: mean, worst",)
"""Columns that are left out where no row has anything to say."""


def cells(rows: Sequence[Row], columns: Columns) -> tuple[list[str], list[list[str]]]:
    """A table for people: its header, and a list of texts for each row."""
    lines = [[render(row) for render in columns.values()] for row in rows]
    kept = [place for place, name in enumerate(columns)
            if name not in IF_ANY or any(line[place] != "–" for line in lines)]  # fmt: skip
    return [list(columns)[place] for place in kept], [[line[place] for place in kept] for line in lines]


def to_markdown(rows: Sequence[Row]) -> str:
    """Both tables for people, as Markdown."""
    tables = []
    for columns in (RESULTS, COSTS):
        header, body = cells(rows, columns)
        lines = [header, ["---"] * len(header), *([plain_cell(text) for text in line] for line in body)]
        tables.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(tables)


def plain_cell(text: str) -> str:
    """A cell that Markdown shows as it is: names of tasks may hold bars, brackets and HTML."""
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_csv(rows: Sequence[Row]) -> str:
    """The table for programs: plain numbers, an empty field where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    targets = sorted({target for row in rows for target in row.reaches})
    rules = list(dict.fromkeys([*KNOWN_RULES, *(rule for row in rows for rule in row.rules)]))
    named = [name for target in targets for name in (f"reaches_{target:g}", f"published_reaches_{target:g}")]
    rules = list(dict.fromkeys([*RULES, *(rule for row in rows for rule in row.rules)]))
    writer.writerow([*map(str, _plain(rows[0], rules)), *named] if rows else [])
    for row in rows:
        reached: list[Any] = []
        for target in targets:
            reached += [row.reaches.get(target), row.published.reaches.get(target) if row.published else None]
        writer.writerow([*_plain(row, rules).values(), *reached])
    return text.getvalue()


def _plain(row: Row, rules: Sequence[str]) -> dict[str, Any]:
    federation = row.federation
    return {
        "task": federation.task.name,
        "algorithm": federation.algorithm.label,
        "aggregator": federation.aggregator.label if federation.aggregator else "",
        "label": row.group.label,
        "agents": federation.agents,
        "byzantine": len(federation.byzantine),
        "attack": row.group.attack,
        "seeds": len(row.group.runs),
        "complete": row.is_complete,
        "trajectories": min(_end(run) for run in row.group.runs),
        "final_return": row.final,
        "final_return_half_width_90": row.final_half_width,
        "published_final_return": None if row.published is None else row.published.final,
        "accepted_fraction_honest": row.accepted_honest,
        "accepted_fraction_byzantine": row.accepted_byzantine,
        **{f"rounds_fraction_{rule}": row.rules.get(rule, 0.0) for rule in rules},
        "sampled_trajectories_all": row.honest_trajectories,
        "environment_steps": row.environment_steps,
        "seconds": row.seconds,
        **{f"worlds_{field.name}": row.worlds and getattr(row.worlds, field.name) for field in fields(OverWorlds)},
    }


def _method(group: Group) -> str:
    """The algorithm, and whatever else sets the group apart."""
    method = method_of(group.federation)
    plain, _, apart = group.label.partition(", B=") if group.federation.byzantine else (group.label, "", "")
    _, _, apart = (apart or plain).partition(", ")
    return f"{method}, {apart}" if apart else method


def _end(run: RunData) -> int:
    return run.records[-1].trajectories_total


def _with_width(value: float, width: float | None) -> str:
    digits = 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")


def _reaches(row: Row) -> str:
    """Each published return with the count at which we reach it, and the published count where there is one."""
    parts = []
    for target, count in row.reaches.items():
        published = row.published.reaches.get(target) if row.published else None
        if count is None and published is None:
            continue
        beside = "" if published is None else f" ({published:,})"
        parts.append(f"{target:g} at {'–' if count is None else f'{count:,.0f}'}{beside}")
    return ", ".join(parts) or "–"


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.0f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
