"""A matrix in an experiment file stands for each rule under each attack and undisturbed; a command may add to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fedpg_common.errors import UsageError
from fedpg_lab.experiments.matrix import Additions
from fedpg_lab.experiments.named import named_parts
from fedpg_lab.experiments.plan import read_experiment
from support.matrix import FEDPG, FLIPPING, KRUM, KRUM_1, MATRIX, NOISE, UNDISTURBED, described, federations, plan_of


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
