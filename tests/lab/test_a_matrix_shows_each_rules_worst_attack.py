"""An experiment's matrix shows every rule under every attack, its worst one at the end, and what was run for it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, StorageError
from fedpg_lab.experiments.matrix import Additions
from fedpg_lab.experiments.matrix_file import MATRIX_NAME, earlier_additions
from fedpg_lab.experiments.matrix_page import describe_row
from fedpg_lab.experiments.matrix_pictures import (
    acceptance_map,
    choices,
    returns_map,
    tables,
    threshold_map,
    to_csv,
    to_markdown,
)
from fedpg_lab.experiments.matrix_results import MatrixResult, Outcome, begun, result_of, to_plain
from fedpg_lab.experiments.pace import Pace, about
from fedpg_lab.experiments.plan import Experiment
from fedpg_lab.figures.heat_map import MISSING_COLOUR, draw_heat_map
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from support.documentation import ROOT
from support.lab import Command, write_run
from support.matrix import FEDPG, FLIPPING, KRUM, KRUM_1, NOISE, UNDISTURBED, described, plan_of
from support.protocol import make_round_record

# What they came to ----------------------------------------------------------------------------------------------------


def outcome(final: float | None, reached: int | None = None, honest: float = 1.0, byzantine: float = 0.0) -> Outcome:
    return Outcome("somewhere", final, reached, honest, byzantine, None if final is None else 0.0)


def result(tmp_path: Path, outcomes: Mapping[str, Outcome]) -> MatrixResult:
    """The matrix of MATRIX with these outcomes, by federation and seed."""
    return result_of(plan_of(described(tmp_path)).matrices[0], [0, 1], outcomes)


def runs_of(
    rule: str, undisturbed: float, flipping: tuple[float, float], noise: tuple[float, float]
) -> dict[str, Outcome]:
    found = {f"{rule}{UNDISTURBED}/seed-{seed}": outcome(undisturbed, 500) for seed in (0, 1)}
    for seed in (0, 1):
        found[f"{rule}{FLIPPING}/seed-{seed}"] = outcome(flipping[seed], 600)
        found[f"{rule}{NOISE}/seed-{seed}"] = outcome(noise[seed], 700 if seed else None, byzantine=0.5)
    return found


def test_the_worst_attack_has_the_least_mean_and_the_worst_run_the_least_return(tmp_path: Path) -> None:
    fedpg, krums = result(tmp_path, runs_of(FEDPG, 500.0, (300.0, 310.0), (90.0, 700.0))).rows
    assert fedpg.worst_attack is not None
    assert fedpg.worst_run is not None
    assert (fedpg.worst_attack.column, fedpg.worst_attack.mean) == ("sign-flipping", 305.0)
    assert (fedpg.worst_run.column, fedpg.worst_run.worst) == ("random-noise starts_at=3", 90.0)
    assert fedpg.worst_run.worst_seed == 0
    assert fedpg.is_complete
    assert not krums.is_complete
    assert krums.worst_attack is krums.worst_run is None
    assert describe_row(fedpg) == "fedpg: undisturbed 500, worst of 2 attacks sign-flipping 305"
    assert describe_row(krums) == ""


def test_the_worst_is_of_the_attacks_that_were_run(tmp_path: Path) -> None:
    some = {name: run for name, run in runs_of(FEDPG, 500.0, (300.0, 310.0), (0.0, 0.0)).items() if NOISE not in name}
    (fedpg, _) = result(tmp_path, some).rows
    assert describe_row(fedpg) == "fedpg: undisturbed 500, worst of the 1 attack run (of 2) sign-flipping 305"


def test_a_return_without_the_agents_is_marked(tmp_path: Path, fedpg: Command) -> None:
    """A rule that never answers leaves the server alone, which learns well: that is not robust."""
    outcomes = runs_of(FEDPG, 500.0, (475.0, 475.0), (490.0, 490.0))
    outcomes[f"{FEDPG}{FLIPPING}/seed-1"] = replace(outcome(475.0), without_gradient=1.0)
    outcomes[f"{FEDPG}{NOISE}/seed-0"] = replace(outcome(490.0), without_gradient=0.5)  # no more than half
    found = result(tmp_path, outcomes)
    assert describe_row(found.rows[0]) == "fedpg: undisturbed 500, worst of 2 attacks sign-flipping 475 ∅"
    assert [shade.text for shade in returns_map(found).blocks[1].shades[0]] == ["475 ∅", "490"]
    draw_heat_map(returns_map(found))
    text = to_markdown([found])
    assert "| 500 (500) | 475 ∅ (475) | 490 (490) | 475 ∅: sign-flipping |" in text
    assert text.count("∅: in a run, no gradient survived in more than half of the rounds") == 1
    assert to_plain(found)["cells"][0]["without_gradient"] == [0.0, 1.0]
    assert "∅" not in to_markdown([result(tmp_path, runs_of(FEDPG, 500.0, (475.0, 475.0), (490.0, 490.0)))])
    experiment, folder = described(tmp_path), tmp_path / "rules"
    for planned in experiment.runs:
        record = make_round_record(1, evaluation_returns=(475.0,), has_mu=False, rule="none")
        write_run(folder / planned.name, planned.federation, [record])
    code, said, error = fedpg("experiment", tmp_path / "rules.toml", "--report-only", "--out", tmp_path)
    assert code == 0, error
    assert "  fedpg: undisturbed 475 ∅, worst of 2 attacks sign-flipping 475 ∅\n" in said
    assert said.splitlines()[-1].startswith("  ∅: in a run, no gradient survived")
    for name in ("report.html", "matrix.md"):
        assert "∅: in a run, no gradient survived" in (folder / name).read_text(encoding="utf-8")


def test_a_return_that_is_not_a_number_is_the_worst_of_all(tmp_path: Path) -> None:
    found = result(tmp_path, runs_of(FEDPG, 500.0, (9.0, 9.0), (math.nan, 500.0)))
    (fedpg, _) = found.rows
    assert fedpg.worst_attack is not None
    assert fedpg.worst_run is not None
    assert fedpg.worst_attack.column == fedpg.worst_run.column == "random-noise starts_at=3"
    draw_heat_map(returns_map(found))


def test_the_settings_count_whose_worst_attack_is_the_least_bad(tmp_path: Path) -> None:
    plain = runs_of(KRUM, 500.0, (500.0, 500.0), (100.0, 100.0))
    careful = runs_of(KRUM_1, 480.0, (200.0, 200.0), (180.0, 180.0))
    found = result(tmp_path, {**plain, **careful})
    assert found.chosen == {"two krums": "krum faulty=1"}
    assert found.rows[1].undisturbed.mean == 480.0  # everything of the row is that setting's
    (sentence,) = choices(found)
    assert sentence.startswith("two krums: of “krum”, “krum faulty=1” this matrix shows “krum faulty=1”")
    assert "chosen on the runs that are shown" in sentence
    better = runs_of(KRUM, 500.0, (500.0, 500.0), (190.0, 190.0))
    assert result(tmp_path, {**better, **careful}).chosen == {"two krums": "krum"}


def test_settings_are_compared_by_the_runs_that_all_of_them_have(tmp_path: Path) -> None:
    plain = runs_of(KRUM, 500.0, (300.0, 300.0), (9.0, 9.0))
    careful = {name: run for name, run in runs_of(KRUM_1, 500.0, (200.0, 200.0), (400.0, 400.0)).items()
               if FLIPPING in name}  # fmt: skip
    assert result(tmp_path, {**plain, **careful}).chosen == {"two krums": "krum"}
    assert result(tmp_path, {}).chosen == {"two krums": "krum"}


def test_a_matrix_for_programs_has_nulls_for_what_is_not_there_yet(tmp_path: Path) -> None:
    some = {
        f"{FEDPG}{UNDISTURBED}/seed-0": outcome(490.0, 600),
        f"{FEDPG}{FLIPPING}/seed-0": outcome(12.0, None, honest=0.75, byzantine=1.0),
        f"{FEDPG}{FLIPPING}/seed-1": outcome(None),
    }
    plain = to_plain(result(tmp_path, some))
    assert (plain["task"], plain["K"], plain["byzantine"], plain["seeds"]) == ("CartPole-v1", 4, 1, [0, 1])
    assert (plain["trajectories"], plain["threshold"]) == (16, 300.0)
    assert (plain["rows"], plain["settings"]) == (["fedpg", "two krums"], ["", "krum"])
    first = plain["cells"][0]
    assert first == {
        "row": "fedpg", "column": "sign-flipping", "final_returns": [12.0, None], "mean": 12.0, "worst": 12.0,
        "to_threshold": [None, None], "complete": [True, False], "accepted_honest": pytest.approx(0.875),
        "accepted_byzantine": pytest.approx(0.5), "without_gradient": [0.0, None], "runs": ["somewhere", "somewhere"],
    }  # fmt: skip
    assert plain["cells"][-1]["runs"] == [None, None]
    assert plain["cells"][-1]["mean"] is None
    assert [cell["column"] for cell in plain["undisturbed"]] == [None, None]
    assert plain["undisturbed"][0]["to_threshold"] == [600, None]
    assert plain["worst"] == [
        {"row": "fedpg", "column": "sign-flipping", "mean": 12.0, "worst": 12.0, "worst_column": "sign-flipping",
         "worst_seed": 0},
        None,
    ]  # fmt: skip


def test_pictures_and_tables_say_the_same(tmp_path: Path) -> None:
    found = result(tmp_path, runs_of(FEDPG, 500.0, (300.0, 310.0), (90.0, 700.0)))
    heat = returns_map(found)
    before, attacks, worst = heat.blocks
    assert (before.shades[0][0].text, before.shades[0][0].note) == ("500", "min 500")
    assert [(shade.text, shade.note, shade.is_marked) for shade in attacks.shades[0]] == [
        ("305", "min 300", True),
        ("395", "min 90", False),
    ]
    assert [shade.text for shade in worst.shades[0]] == ["305", "90"]
    assert {shade.text for shade in attacks.shades[1]} == {"–"}
    until = threshold_map(found)
    assert [(shade.value, shade.text, shade.note) for shade in until.blocks[1].shades[0]] == [
        (600.0, "600", ""),
        (358.0, "700", "1 of 2"),  # the seed that never gets there is coloured as the end, which is 16 here
    ]
    accepted = acceptance_map(found)
    assert accepted is not None
    assert accepted.rows == ("fedpg",)
    assert (accepted.blocks[0].shades[0][1].text, accepted.blocks[0].shades[0][1].note) == ("50", "honest 100")
    for heat_map in (heat, until, accepted):
        draw_heat_map(heat_map)
    (_, (header, lines)), *_ = tables(found)
    assert header == ["rule", "undisturbed", "sign-flipping", "random-noise starts_at=3", "worst attack",
                      "worst single run"]  # fmt: skip
    assert lines[0] == ["fedpg", "500 (500)", "305 (300)", "395 (90)", "305: sign-flipping",
                        "90: random-noise starts_at=3, seed 0"]  # fmt: skip
    assert "| fedpg | 500 (500) | 305 (300) |" in to_markdown([found])
    written = list(csv.DictReader(io.StringIO(to_csv([found]))))
    assert len(written) == 2 * 3 * 2
    worst_cells = {(line["row"], line["column"]) for line in written if line["worst_of_row"] == "True"}
    assert worst_cells == {("fedpg", "sign-flipping")}


def test_rows_and_columns_of_which_nothing_is_complete_are_left_out_and_named(tmp_path: Path) -> None:
    some = {name: run for name, run in runs_of(FEDPG, 500.0, (300.0, 310.0), (0.0, 0.0)).items() if NOISE not in name}
    shown, missing = begun(result(tmp_path, some))
    assert missing == ["two krums", "random-noise starts_at=3"]
    assert returns_map(shown).rows == ("fedpg",)
    assert [block.columns for block in returns_map(shown).blocks] == [
        ("undisturbed",),
        ("sign-flipping",),
        ("worst attack", "worst single run"),
    ]
    assert "two krums" not in to_markdown([shown])
    undisturbed, missing = begun(result(tmp_path, {name: run for name, run in some.items() if FLIPPING not in name}))
    assert (undisturbed.matrix.columns, missing) == (("sign-flipping", "random-noise starts_at=3"), ["two krums"])
    draw_heat_map(threshold_map(undisturbed))
    nothing, missing = begun(result(tmp_path, {}))
    assert (len(nothing.rows), missing) == (2, [])
    draw_heat_map(returns_map(nothing))


def test_where_nothing_gets_to_the_threshold_everything_is_as_dark_as_can_be(tmp_path: Path) -> None:
    never = {name: replace(run, reached=None) for name, run in runs_of(FEDPG, 9.0, (9.0, 9.0), (9.0, 9.0)).items()}
    until = threshold_map(result(tmp_path, never))
    assert (until.blocks[1].shades[0][0].text, until.blocks[1].shades[0][0].value, until.high) == ("never", 16.0, 16.0)
    darkest = to_rgb(colormaps["viridis_r"](1.0))
    axes = draw_heat_map(until).axes[0]
    coloured = {to_rgb(patch.get_facecolor()) for patch in axes.patches} - {to_rgb(MISSING_COLOUR)}
    assert coloured == {darkest}


# The command ----------------------------------------------------------------------------------------------------------


def write_runs(experiment: Experiment, folder: Path, returns: Mapping[str, float]) -> None:
    """A complete run of one round for each of the experiment's, with these returns by the end of its name."""
    for planned in experiment.runs:
        federation = planned.name.rpartition("/")[0]
        value = next(value for end, value in returns.items() if federation.endswith(end))
        write_run(folder / planned.name, planned.federation, [make_round_record(1, evaluation_returns=(value,))])


def test_the_report_has_the_matrix_and_complete_runs_are_left_alone(tmp_path: Path, fedpg: Command) -> None:
    experiment = described(tmp_path)
    folder = tmp_path / "rules"
    write_runs(experiment, folder, {UNDISTURBED: 500.0, FLIPPING: 33.0, NOISE: 400.0})
    code, text, error = fedpg("experiment", tmp_path / "rules.toml", "--out", tmp_path)
    assert code == 0, error
    assert text.splitlines() == [
        f"18 of 18 runs are complete: see {folder / 'report.html'}",
        "  fedpg: undisturbed 500, worst of 2 attacks sign-flipping 33",
        "  two krums (krum): undisturbed 500, worst of 2 attacks sign-flipping 33",
    ]
    assert "18 of 18 runs are complete" in error
    for name in ("matrix-returns", "matrix-threshold", "matrix-accepted"):
        assert (folder / f"{name}.png").stat().st_size > 0
        assert (folder / f"{name}.svg").stat().st_size > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>CartPole-v1, K = 4, B = 1</h2>" in page
    assert "33: sign-flipping" in page
    assert "of “krum”, “krum faulty=1” this matrix shows “krum”" in page
    assert "33: sign-flipping" in (folder / "matrix.md").read_text(encoding="utf-8")
    assert (folder / "table.csv").read_text(encoding="utf-8").count("\n") == 1 + 9
    found = json.loads((folder / MATRIX_NAME).read_text(encoding="utf-8"))
    assert (found["format"], found["experiment"], found["title"]) == (1, "rules", "Rules and attacks")
    assert found["added"] == {"rows": [], "attacks": []}
    (matrix,) = found["matrices"]
    assert matrix["worst"][0]["mean"] == 33.0
    for cell in (*matrix["cells"], *matrix["undisturbed"]):
        assert all((folder / run / "run.sqlite").is_file() for run in cell["runs"])


OWN = """
from fedpg_common.learning.aggregators import Aggregate, mean_vector
import numpy as np
class Mine:
    def __init__(self, strength=1):
        if strength < 0:
            raise ValueError(f"strength must not be negative, not {strength}")
    def aggregate(self, votes, memory):
        return Aggregate(mean_vector(votes.matrix).astype(np.float32), "mine")
"""


def test_an_aggregator_of_ones_own_gets_its_row_and_keeps_it(
    tmp_path: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, folder = described(tmp_path), tmp_path / "rules"
    write_runs(experiment, folder, {UNDISTURBED: 500.0, FLIPPING: 33.0, NOISE: 400.0})
    (tmp_path / "mine_for_matrix.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    code, text, error = fedpg(
        "experiment", "rules.toml", "--aggregator", "mine_for_matrix:Mine", "--set", "aggregator.strength=2",
        "--attack", "sign-flipping", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, error
    assert text.startswith("22 of 24 runs are complete")  # two seeds, undisturbed and under one of two attacks
    assert "\n  fedpg: undisturbed 500, worst of 2 attacks sign-flipping 33\n" in text
    assert re.search(
        r"\n  Mine strength=2: undisturbed \d+, worst of the 1 attack run \(of 2\) sign-flipping \d+\n", text
    )
    assert "0 of 4 runs are complete; 4 to go" in error
    assert re.search(r"1/4  done CartPole-v1_fedpg-br_Mine-strength=2_K4\S* in \d+ s", error)
    assert re.search(r"3/4  done .*; about \d+ s to go", error)
    found = json.loads((folder / MATRIX_NAME).read_text(encoding="utf-8"))
    assert found["added"]["rows"] == [{"aggregator": {"name": "mine_for_matrix:Mine", "strength": 2}}]
    (matrix,) = found["matrices"]
    assert matrix["rows"] == ["fedpg", "two krums", "Mine strength=2"]
    assert matrix["worst"][2]["column"] == "sign-flipping"
    assert matrix["worst"][0]["mean"] == 33.0  # the others' runs are reported on, too
    assert "--aggregator mine_for_matrix:Mine --attack sign-flipping" in (folder / "report.html").read_text("utf-8")
    code, text, _ = fedpg("experiment", "rules.toml", "--report-only", "--out", tmp_path)  # it is remembered
    assert (code, text.partition(" runs")[0]) == (0, "22 of 24")
    assert earlier_additions(folder) == Additions(
        ({"aggregator": {"name": "mine_for_matrix:Mine", "strength": 2}},), ()
    )
    (tmp_path / "mine_for_matrix.py").write_text(f"{OWN}# better\n")
    code, _, error = fedpg("experiment", "rules.toml", "--aggregator", "Mine strength=2", "--out", tmp_path)
    assert code == ExitCode.STORAGE
    assert "was run with another version of mine_for_matrix: remove it" in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--aggregator", "krumm"], "unknown aggregator 'krumm': did you mean krum?"),
        (["--aggregator", "no_such_module:Mine"], "no_such_module cannot be imported"),
        (["--aggregator", "bulyan"], "bulyan"),  # which needs more agents than there are
        (["--aggregator", "trimmed-mean", "--set", "faulty=-1"], "aggregator trimmed-mean: faulty"),
        (["--attack", "alie", "--set", "attack.y=1"], "its settings are z"),
    ],
)
def test_a_part_that_cannot_be_is_refused_before_anything_runs(
    arguments: list[str], sentence: str, tmp_path: Path, fedpg: Command
) -> None:
    described(tmp_path)
    code, _, error = fedpg("experiment", tmp_path / "rules.toml", *arguments, "--out", tmp_path)
    assert (code, len(error.splitlines())) == (ExitCode.USAGE, 1), error
    assert sentence in error
    assert not (tmp_path / "rules").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "added": {"rows": [3], "attacks": []}}']
)
def test_a_matrix_that_is_not_ours_is_told_apart(text: str, tmp_path: Path) -> None:
    (tmp_path / MATRIX_NAME).write_text(text)
    with pytest.raises(StorageError, match=r"matrix\.json is .*remove it, and it is written again"):
        earlier_additions(tmp_path)


# How long it takes ----------------------------------------------------------------------------------------------------


def test_what_is_left_is_judged_by_the_runs_most_like_it() -> None:
    plain = describe("CartPole-v1", agents=4, trajectories=100)
    krum = describe("CartPole-v1", agents=4, trajectories=100, aggregator="krum")
    attacked = describe("CartPole-v1", agents=4, byzantine=1, attack="alie", trajectories=100)
    pace = Pace()
    assert pace.left_s([plain], 1) is None
    pace.note(plain, 10.0)
    assert pace.left_s([plain, replace(plain, seed=1)], 2) == pytest.approx(10.0)
    assert pace.left_s([attacked], 1) == pytest.approx(10.0)  # the same task at least
    pace.note(attacked, 60.0)
    assert pace.left_s([attacked], 1) == pytest.approx(60.0)
    assert pace.left_s([replace(krum, byzantine=attacked.byzantine)], 1) == pytest.approx(60.0)  # the same attack
    assert pace.left_s([krum], 1) == pytest.approx(10.0)  # undisturbed, as the first
    assert pace.left_s([describe("LunarLander-v3")], 1) is None
    assert pace.left_s([], 2) == 0.0


def test_a_length_of_time_is_said_as_people_say_it() -> None:
    assert [about(seconds) for seconds in (0.4, 89.0, 90.0, 3000.0, 7200.0, 12000.0)] == [
        "0 s", "89 s", "2 min", "50 min", "2 h 0 min", "3 h 20 min",
    ]  # fmt: skip


def test_the_matrix_of_the_page_is_read_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    plan = plan_of(described(tmp_path, text))
    assert [matrix.byzantine for matrix in plan.matrices] == [3, 4]
    assert [row.name for row in plan.matrices[0].rows] == ["median", "fedpg-guard", "clipping"]
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (matrix,) = json.loads(example)["matrices"]
    written = to_plain(result(tmp_path, runs_of(FEDPG, 500.0, (300.0, 310.0), (90.0, 700.0))))
    assert list(matrix) == list(written)
    assert list(matrix["cells"][0]) == list(written["cells"][0])
    assert list(matrix["worst"][0]) == list(written["worst"][0])
