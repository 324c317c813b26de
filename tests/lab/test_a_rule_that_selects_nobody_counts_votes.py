"""Where a rule selects nobody in particular, figures, the page and the export say "voted", and not "accepted"."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_lab.figures.one_run import VERDICT_COLOURS, plot_verdicts
from fedpg_lab.runs.export import fields_of
from fedpg_lab.runs.folders import RunData
from fedpg_lab.watch.adapter import round_of
from fedpg_lab.watch.agents import VERDICTS, suspects
from fedpg_lab.watch.history import History
from fedpg_server.farewell import describe_end
from fedpg_server.learning.records import RoundRecord
from matplotlib.figure import Figure
from support.protocol import make_round_record


def rounds(selective: bool) -> list[RoundRecord]:
    """Two rounds of three agents; the third is filtered where the rule selects, and absent in the second."""
    weights = {1: 1.0, 2: 1.0, 3: 0.0} if selective else None
    accepted, filtered = ((1, 2), (3,)) if selective else ((1, 2, 3), ())
    first = replace(make_round_record(1), accepted=accepted, filtered=filtered, absent=(), weights=weights)
    second = replace(make_round_record(2), accepted=(1, 2), filtered=(), absent=(3,),
                     weights={1: 1.0, 2: 1.0} if selective else None)  # fmt: skip
    return [first, second]


@pytest.mark.parametrize("selective", [True, False])
def test_the_export_and_the_picture(selective: bool) -> None:
    run = RunData(Path("run"), describe("CartPole-v1", agents=3), rounds(selective))
    heard = "accepted" if selective else "voted"
    third = "filtered" if selective else "voted"
    assert fields_of(run, run.records[0])["verdicts"] == {"1": heard, "2": heard, "3": third}
    assert fields_of(run, run.records[1])["verdicts"] == {"1": heard, "2": heard, "3": "absent"}
    axes = Figure().subplots()
    plot_verdicts(axes, run, np.array([0.0, 1.0, 2.0]))
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == (["accepted", "filtered", "absent"] if selective else ["voted", "absent"])
    patches = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert patches == [VERDICT_COLOURS[name] for name in shown]


@pytest.mark.parametrize("selective", [True, False])
def test_the_page(selective: bool) -> None:
    history = History(3)
    history.add([round_of(record) for record in rounds(selective)])
    grid, counts = history.grid(0), history.counts()
    assert grid["selects"] == [selective, selective]
    cells = np.frombuffer(base64.b64decode(grid["cells"]), np.uint8).reshape(2, 3)
    assert cells.tolist() == [[0, 0, 15 * 16 if selective else 0], [0, 0, 15]]
    assert counts["accepted"] == ([2, 2, 0] if selective else [0, 0, 0])
    assert counts["heard"] == ([0, 0, 0] if selective else [2, 2, 1])
    assert [VERDICTS[code] for code in counts["last"]] == [*["accepted" if selective else "voted"] * 2, "absent"]


@pytest.mark.parametrize("selective", [True, False])
def test_the_last_lines_of_a_server(selective: bool) -> None:
    federation = describe("CartPole-v1", agents=3, byzantine={"3": "random-noise"})
    said = describe_end(federation, rounds(selective), Path("run"), None)
    judged = ["accepted 0 of 1 gradients of Byzantine agents and 4 of 4 of the others"]
    assert said[1:-1] == (judged if selective else [])


def test_nobody_is_suspected_for_votes_that_are_not_judged() -> None:
    assert suspects([{"agent": 1, "lately": None}], 2) == []
