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
from typing import Any

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, StorageError, UsageError
from fedpg_lab.experiments.matrix import Additions, Plan
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
from fedpg_lab.experiments.named import named_parts
from fedpg_lab.experiments.pace import Pace, about
from fedpg_lab.experiments.plan import Experiment, read_experiment
from fedpg_lab.figures.heat_map import MISSING_COLOUR, draw_heat_map
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from support.documentation import ROOT
from support.lab import Command, write_run
from support.protocol import make_round_record

MATRIX = """
title = "Rules and attacks"
seeds = 2
[matrix]
task = "CartPole-v1"
agents = 4
byzantine = 1
trajectories = 16
threshold = 300
rows = ["fedpg", { name = "two krums", aggregator = ["krum", { name = "krum", faulty = 1 }] }]
attacks = ["sign-flipping", { name = "random-noise", starts_at = 3 }]
[quick]
seeds = 1
rows = ["fedpg"]
attacks = ["sign-flipping"]
"""
FEDPG, KRUM, KRUM_1 = "CartPole-v1_fedpg-br_fedpg", "CartPole-v1_fedpg-br_krum", "CartPole-v1_fedpg-br_krum-faulty=1"
UNDISTURBED, FLIPPING, NOISE = "_K4", "_K4_B1_sign-flipping", "_K4_B1_random-noise-starts_at=3"


def described(tmp_path: Path, text: str = MATRIX, **options: Any) -> Experiment:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return read_experiment(str(path), **options)


def plan_of(experiment: Experiment) -> Plan:
    assert experiment.plan is not None
    return experiment.plan


def federations(experiment: Experiment) -> list[str]:
    return [planned.name.removesuffix("/seed-0") for planned in experiment.runs if planned.name.endswith("/seed-0")]


# Files ----------------------------------------------------------------------------------------------------------------


def test_every_rule_meets_every_attack_and_is_run_undisturbed(tmp_path: Path) -> None:
    experiment = described(tmp_path)
    rules = (FEDPG, KRUM, KRUM_1)
    expected = [f"{rule}{attack}" for attack in (UNDISTURBED, FLIPPING, NOISE) for rule in rules]
    assert federations(experiment) == expected  # what all rules have in common comes first
    assert len(experiment.runs) == 2 * len(expected)
    by_name = {planned.name: planned.federation for planned in experiment.runs}
    attacked = by_name[f"{KRUM_1}{NOISE}/seed-1"]
    assert (attacked.seed, attacked.agents, list(attacked.byzantine)) == (1, 4, [1])
    assert attacked.byzantine[1].to_plain() == {"name": "random-noise", "starts_at": 3}
    assert attacked.aggregator is not None
    assert attacked.aggregator.to_plain() == {"name": "krum", "faulty": 1}
    assert not by_name[f"{FEDPG}{UNDISTURBED}/seed-0"].byzantine
    (matrix,) = plan_of(experiment).matrices
    assert (matrix.title, matrix.threshold) == ("CartPole-v1, K = 4, B = 1", 300.0)
    assert matrix.columns == ("sign-flipping", "random-noise starts_at=3")
    assert [(row.name, [variant.label for variant in row.variants]) for row in matrix.rows] == [
        ("fedpg", [""]),
        ("two krums", ["krum", "krum faulty=1"]),
    ]
    assert plan_of(experiment).wanted == set(expected)


def test_lists_beside_the_rows_stand_for_a_matrix_each(tmp_path: Path) -> None:
    text = MATRIX.replace("byzantine = 1", "byzantine = [1, 2]").replace("threshold = 300\n", "")
    experiment = described(tmp_path, text)
    first, second = plan_of(experiment).matrices
    assert (first.byzantine, second.byzantine) == (1, 2)
    assert first.threshold == second.threshold == 400.0  # the middle one of those published for the task
    assert [row.variants[0].undisturbed for row in first.rows] == [row.variants[0].undisturbed for row in second.rows]
    assert len(federations(experiment)) == 3 + 2 * 6  # undisturbed runs are the same, and run once
    (tmp_path / "acrobot.toml").write_text(
        'environment = "Acrobot-v1"\nhidden = [4]\nactivation = "tanh"\nhorizon = 9\nevaluation_horizon = 9\n'
        "trajectories = 9\ngamma = 0.9\nlearning_rate = 0.1\nbatch_size = 4\nbatch_size_min = 4\nbatch_size_max = 4\n"
        "mini_batch_size = 2\ninner_steps = 1\n"
    )
    unpublished = described(tmp_path, text.replace("CartPole-v1", "acrobot.toml"))
    assert plan_of(unpublished).matrices[0].threshold is None


def test_a_row_is_any_part_of_a_description(tmp_path: Path) -> None:
    rows = """rows = [{ algorithm = "fedpg-guard" }, { algorithm = "svrpg", aggregator = "median" },
        { aggregator = { name = "trimmed-mean", after = ["nnm"] } }, { aggregator = "mean", sigma = 0.1 },
        { name = "plain" }]"""
    experiment = described(tmp_path, re.sub("rows = .*two.*", rows, MATRIX, count=1))
    (matrix,) = plan_of(experiment).matrices
    assert [row.name for row in matrix.rows] == [
        "fedpg-guard", "svrpg, median", "trimmed-mean after=nnm", "mean, sigma=0.1", "plain",
    ]  # fmt: skip
    by_name = {planned.name: planned.federation for planned in experiment.runs}
    last = by_name[f"{matrix.rows[3].variants[0].undisturbed}/seed-0"]
    assert last.task.sigma == 0.1


def test_quick_may_have_another_number_of_attackers(tmp_path: Path) -> None:
    text = MATRIX.replace("byzantine = 1", "byzantine = [1, 2]")
    assert len(plan_of(described(tmp_path, text)).matrices) == 2
    (matrix,) = plan_of(described(tmp_path, f"{text}byzantine = 2\n", quick=True)).matrices
    assert matrix.byzantine == 2


def test_quick_keeps_the_rows_and_attacks_that_it_names(tmp_path: Path) -> None:
    quick = described(tmp_path, quick=True)
    assert quick.name == "rules-quick"
    assert [planned.name for planned in quick.runs] == [f"{FEDPG}{UNDISTURBED}/seed-0", f"{FEDPG}{FLIPPING}/seed-0"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[matrix]", '[[federation]]\ntask = "CartPole-v1"\n[matrix]', "a [matrix] or a [[federation]], not both"),
        ("[matrix]", "matrix = 3\n[other]", "unknown field 'other'"),
        ("agents = 4", "workers = 4", "unknown field of [matrix] 'workers'"),
        ("byzantine = 1", "byzantine = 0", "matrix.byzantine must be how many attack, one at least, not 0"),
        ("byzantine = 1", "byzantine = 5", "5 Byzantine agents do not fit in a federation of 4"),
        ("byzantine = 1", "", "matrix.byzantine must be how many attack"),
        ("threshold = 300", 'threshold = "high"', "matrix.threshold must be a return, not 'high'"),
        ("rows = [", "rows = [3, ", "a row is the name of an aggregator, or a table, not 3"),
        ("rows = [", 'rows = ["krumm", ', "unknown aggregator 'krumm': did you mean krum?"),
        ("rows = [", "rows = [{ }, ", "a row needs an aggregator, an algorithm, or a name"),
        ("rows = [", 'rows = ["fedpg", ', "two rows are called fedpg"),
        ("rows = [", 'rows = [{ attack = "alie" }, ', "unknown field of a row of [matrix] 'attack'"),
        ("attacks = [", 'attacks = ["none", ', "unknown attack 'none'"),
        ("attacks = [", 'attacks = ["sign-flipping", ', "two columns are called sign-flipping"),
        (
            'rows = ["fedpg"]',
            'rows = ["median"]',
            "unknown name in quick.rows 'median': choose one of fedpg",
        ),
        ('attacks = ["sign-flipping"]', "attacks = 3", "quick.attacks must be a list of names"),
        ('task = "CartPole-v1"', "", "the field 'task' is missing"),
    ],
)
def test_a_bad_matrix_is_refused_by_its_field(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    assert old in MATRIX
    head, _, tail = MATRIX.rpartition(old) if "[quick]" in MATRIX.partition(old)[0] else MATRIX.partition(old)
    with pytest.raises(UsageError) as caught:
        described(tmp_path, f"{head}{new}{tail}", quick=True)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_matrices_that_come_with_fedpg_are_whole() -> None:
    sizes = {}
    for name in ("robustness", "normalized"):
        full, quick = read_experiment(name), read_experiment(name, quick=True)
        assert set(federations(quick)) < set(federations(full))
        sizes[name] = (len(plan_of(full).matrices), len(full.runs), len(quick.runs))
    assert sizes == {"robustness": (2, 1218, 56), "normalized": (3, 450, 24)}


# Rows and columns of one's own ----------------------------------------------------------------------------------------


def test_what_a_command_names_is_run_alone_and_added_if_the_file_lacks_it(tmp_path: Path) -> None:
    named = named_parts(["my_filters:Mine", "two krums"], [], ["sign-flipping", "alie"], [])
    plan = plan_of(described(tmp_path, named=named))
    (matrix,) = plan.matrices
    assert [row.name for row in matrix.rows] == ["fedpg", "two krums", "Mine"]
    assert matrix.columns == ("sign-flipping", "random-noise starts_at=3", "alie")
    assert plan.added == Additions(({"aggregator": "my_filters:Mine"},), ("alie",))
    rules = ("CartPole-v1_fedpg-br_Mine", KRUM, KRUM_1)
    assert plan.wanted == {f"{rule}{end}" for rule in rules for end in (UNDISTURBED, FLIPPING, "_K4_B1_alie")}


def test_settings_go_to_what_is_named_and_to_the_task(tmp_path: Path) -> None:
    named = named_parts(["krum"], [], ["alie"], ["aggregator.faulty=1", "attack.z=1.5", "task.sigma=0.5"])
    experiment = described(tmp_path, named=named)
    plan = plan_of(experiment)
    assert plan.matrices[0].rows[-1].name == "krum faulty=1"
    assert plan.matrices[0].columns[-1] == "alie z=1.5"
    assert {planned.federation.task.sigma for planned in experiment.runs} == {0.5}
    assert all(name.endswith("_sigma-0.5") for name in federations(experiment))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((["krum", "median"], [], [], ["aggregator.faulty=1"]), "name the aggregator that is meant with --aggregator"),
        (([], [], [], ["attack.z=1"]), "name the attack that is meant with --attack"),
        (([], ["fedpg-guard"], [], ["nonsense.x=1"]), "unknown owner of a setting 'nonsense'"),
    ],
)
def test_settings_of_what_is_not_named_are_refused(arguments: tuple[list[str], ...], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        named_parts(*arguments)
    assert sentence in str(caught.value)


def test_a_federation_s_file_has_no_rows_to_name(tmp_path: Path) -> None:
    text = '[[federation]]\ntask = "CartPole-v1"'
    with pytest.raises(UsageError, match=r"are for experiments with a \[matrix\]"):
        described(tmp_path, text, named=named_parts(["krum"], [], [], []))


# What they came to ----------------------------------------------------------------------------------------------------


def outcome(final: float | None, reached: int | None = None, honest: float = 1.0, byzantine: float = 0.0) -> Outcome:
    return Outcome("somewhere", final, reached, honest, byzantine)


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
        "accepted_byzantine": pytest.approx(0.5), "runs": ["somewhere", "somewhere"],
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
    assert re.search(r"\n  Mine strength=2: undisturbed \d+, worst of 2 attacks sign-flipping \d+\n", text)
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
