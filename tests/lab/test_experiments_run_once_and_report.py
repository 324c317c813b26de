"""`fedpg experiment` runs what its file lists, each run once, and reports on all of them in one page."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe
from fedpg_common.errors import ExitCode, StorageError, UsageError
from fedpg_lab.experiments.plan import PATIENT_S, Experiment, PlannedRun, read_experiment, shipped
from fedpg_lab.experiments.runner import RunsFailedError, run_missing
from fedpg_lab.figures.curves import group_runs
from fedpg_lab.figures.tables import plain_cell, row_of, to_csv, to_markdown
from fedpg_lab.runs.folders import RunData, load_run
from fedpg_server.learning.algorithms.adam import fresh
from fedpg_server.learning.records import RoundRecord
from fedpg_server.storage.store import STORE_NAME, Store
from rich.console import Console
from support.lab import Command, digests, run_federation, small_federation, write_run
from support.protocol import make_round_record

SMALL = """
title = "A <small> experiment"
seeds = 2
[[federation]]
task = "CartPole-v1"
agents = 4
byzantine = 1
trajectories = 1000000
[quick]
trajectories = 60
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An experiment's file: two runs, which end only with --quick."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def described(tmp_path: Path, text: str, **options: bool | int) -> Experiment:
    path = tmp_path / "described.toml"
    path.write_text(text)
    return read_experiment(str(path), **options)  # type: ignore[arg-type]


def records(*returns: float) -> list[RoundRecord]:
    return [make_round_record(n, evaluation_returns=(value,)) for n, value in enumerate(returns, start=1)]


# Files ----------------------------------------------------------------------------------------------------------------


def test_lists_stand_for_each_of_their_values_and_the_first_seeds_come_first(tmp_path: Path) -> None:
    text = """
    seeds = [3, 1]
    [[federation]]
    task = ["CartPole-v1", "LunarLander-v3"]
    algorithm = "svrpg"
    agents = [2, 5]
    [[federation]]
    task = "CartPole-v1"
    byzantine = 3
    attack = "sign-flipping"
    sigma = 0.5
    hidden = [8, 8]
    """
    experiment = described(tmp_path, text)
    names = ["CartPole-v1_svrpg_K2", "CartPole-v1_svrpg_K5", "LunarLander-v3_svrpg_K2", "LunarLander-v3_svrpg_K5",
             "CartPole-v1_fedpg-br_K10_B3_sign-flipping_sigma-0.5_hidden-(8,8)"]  # fmt: skip
    assert [planned.name for planned in experiment.runs] == [f"{name}/seed-{seed}" for seed in (3, 1) for name in names]
    plain = describe("CartPole-v1", algorithm="svrpg", agents=5, seed=3)
    assert experiment.runs[1].federation == replace(plain, round_timeout_s=PATIENT_S)
    attacked = describe("CartPole-v1", byzantine=3, attack="sign-flipping", seed=1, sigma=0.5, hidden=(8, 8))
    assert experiment.runs[-1].federation == replace(attacked, round_timeout_s=PATIENT_S)
    assert (experiment.name, experiment.title) == ("described", "described")


def test_rounds_wait_for_everyone_who_answers_in_the_end(tmp_path: Path) -> None:
    text = """
    [[federation]]
    task = "CartPole-v1"
    byzantine = 2
    attack = ["zero-gradient", "silence"]
    [[federation]]
    task = "CartPole-v1"
    agents = 5
    round_timeout_s = 7.5
    """
    timeouts = [planned.federation.round_timeout_s for planned in described(tmp_path, text).runs]
    assert timeouts == [PATIENT_S, describe("CartPole-v1").round_timeout_s, 7.5]


def test_quick_and_seeds_make_it_smaller_and_name_another_folder(tmp_path: Path) -> None:
    text = """
    title = "T"
    seeds = 5
    [[federation]]
    task = ["CartPole-v1", "LunarLander-v3", "HalfCheetah-v5"]
    trajectories = 77
    [quick]
    seeds = 2
    trajectories = { CartPole-v1 = 5, HalfCheetah-v5 = 6 }
    """
    assert len(described(tmp_path, text).runs) == 15
    assert len(described(tmp_path, text, seeds=3).runs) == 9
    quick = described(tmp_path, text, quick=True)
    assert (quick.name, quick.title) == ("described-quick", "T (quick size)")
    assert [planned.federation.task.trajectories for planned in quick.runs] == [5, 77, 6] * 2


def test_a_task_file_lies_beside_the_experiments(tmp_path: Path, small: Path) -> None:
    task = (
        'environment = "Acrobot-v1"\nhidden = [4]\nactivation = "tanh"\nhorizon = 9\nevaluation_horizon = 9\n'
        "trajectories = 9\ngamma = 0.9\nlearning_rate = 0.1\nbatch_size = 4\nbatch_size_min = 4\nbatch_size_max = 4\n"
        "mini_batch_size = 2\ninner_steps = 1\n"
    )
    (tmp_path / "acrobot.toml").write_text(task)
    (planned,) = described(tmp_path, '[[federation]]\ntask = "acrobot.toml"').runs
    assert planned.federation.task.environment == "Acrobot-v1"


def test_the_experiments_that_come_with_fedpg_are_whole() -> None:
    matrices = ["normalized", "robustness"]  # a file of their own tests these
    figures = ["figure-1", "figure-1-leak", "figure-1-published", "figure-2", "figure-2-cartpole"]
    others = ["cheetah-settings", "defence", "heterogeneity", "other-attacks", "scaling"]
    assert shipped() == sorted([*others, *figures, *matrices])
    sizes = {}
    for name in [name for name in shipped() if name not in matrices]:
        experiment, quick = read_experiment(name), read_experiment(name, quick=True)
        assert {p.name.partition("/")[0] for p in quick.runs} == {p.name.partition("/")[0] for p in experiment.runs}
        assert all(planned.federation.task.trajectories <= 400 for planned in quick.runs)
        sizes[name] = len({planned.name.partition("/")[0] for planned in experiment.runs})
    assert sizes == {
        "cheetah-settings": 4, "figure-1": 15, "figure-1-leak": 15, "figure-1-published": 15, "figure-2": 15,
        "figure-2-cartpole": 15, "defence": 2, "heterogeneity": 70, "other-attacks": 13, "scaling": 6,
    }  # fmt: skip
    assert len(read_experiment("figure-1").runs) == 150  # ten seeds, as published


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"at least one \[\[federation\]\] is needed"),
        ("seeds = ", "is not TOML"),
        ("seed = 1", r"unknown field 'seed': did you mean seeds\? Otherwise choose one of title"),
        ("[[federation]]\nagents = 3", "needs a task"),
        ("[[federation]]\ntask = 3", "task must be a name or a table, not 3"),
        ('[[federation]]\ntask = "Pong"', "unknown task 'Pong'"),
        ('[[federation]]\ntask = "CartPole-v1"\nworkers = 3', r"unknown field of \[\[federation\]\] 'workers'"),
        ('[[federation]]\ntask = "CartPole-v1"\nagents = "ten"', "a federation needs 1 to 10000 agents, not 'ten'"),
        ('[[federation]]\ntask = "CartPole-v1"\nattack = "none"', "unknown attack 'none'"),
        ('[[federation]]\ntask = "CartPole-v1"\nagents = 2\nbyzantine = 3', "3 Byzantine agents do not fit"),
        ('[[federation]]\ntask = "CartPole-v1"\nsigma = -1', "sigma must be a positive number"),
        ('[[federation]]\ntask = "CartPole-v1"\ntrajectories = [5, 6]', "would be named CartPole-v1_fedpg-br_K10"),
        ('seeds = 0\n[[federation]]\ntask = "CartPole-v1"', "seeds must be how many"),
        ('seeds = [1, 1]\n[[federation]]\ntask = "CartPole-v1"', "seeds must be different"),
        ('seeds = "all"\n[[federation]]\ntask = "CartPole-v1"', "seeds must be how many"),
        ('title = 3\n[[federation]]\ntask = "CartPole-v1"', "title must be text"),
        ('[[federation]]\ntask = "CartPole-v1"\n[quick]\nrounds = 3', r"unknown field of \[quick\] 'rounds'"),
        ('reproduction = 3\n[[federation]]\ntask = "CartPole-v1"', "reproduction must be a table"),
        ('[[federation]]\ntask = "CartPole-v1"\n[reproduction]\nadam = 1', r"unknown field of \[reproduction\] 'adam'"),
        ('[[federation]]\ntask = "CartPole-v1"\n[reproduction]\ncarry_adam = 1', "carry_adam must be true or false"),
        ('[[federation]]\ntask = "CartPole-v1"\nadam_after = [1]', r"unknown field of \[\[federation\]\] 'adam_after'"),
        ('[[federation]]\ntask = "CartPole-v1"\n[quick]\ntrajectories = "few"', "trajectories must be a whole number"),
    ],
)
def test_a_bad_file_is_refused_by_its_field(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        described(tmp_path, text, quick=True)
    assert str(caught.value).startswith("experiment ")
    assert "\n" not in str(caught.value)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_the_command_runs_everything_once_and_leaves_a_report(small: Path, tmp_path: Path, fedpg: Command) -> None:
    run_federation(
        replace(small_federation(seed=1), round_timeout_s=PATIENT_S),
        tmp_path / "small-quick" / "CartPole-v1_fedpg-br_K4_B1_random-noise/seed-1",
    )
    before = load_run(tmp_path / "small-quick" / "CartPole-v1_fedpg-br_K4_B1_random-noise/seed-1")
    code, text, error = fedpg("experiment", small, "--quick", "--out", tmp_path)
    assert code == 0, error
    folder = tmp_path / "small-quick"
    assert text == f"2 of 2 runs are complete: see {folder / 'report.html'}\n"
    assert "1 of 2 runs are complete; 1 to go, 1 at a time" in error
    runs = [load_run(path.parent) for path in sorted(folder.rglob("run.sqlite"))]
    both = [replace(small_federation(seed=seed), round_timeout_s=PATIENT_S) for seed in (0, 1)]
    assert [run.federation for run in runs] == both
    assert runs[1].records == before.records  # not run again: even the seconds are the same
    for name in ("figure.png", "figure.svg", "filter.png", "distances.svg", "table.md", "table.csv", "report.html"):
        assert (folder / name).stat().st_size > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>A &lt;small&gt; experiment (quick size)</h1>" in page
    assert re.search(r"2 of 2 runs are complete. Written \d{4}-\d\d-\d\d \d\d:\d\d\.", page)
    assert f"<pre>fedpg experiment {small} --quick</pre>" in page
    links = re.findall(r"(?:src|href)=\"([^\"]{0,40})", page)
    assert len(links) == 4  # returns on both axes, filter, distances: the page needs nothing but itself
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)


def test_ctrl_c_ends_it_and_keeps_what_is_there(small: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from fedpg_lab.cli import main; main()", "experiment", str(small), "--seeds", "1"]
    arguments = [*command, "--out", str(tmp_path)]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    place = tmp_path / "small" / "CartPole-v1_fedpg-br_K4_B1_random-noise" / "seed-0"
    while process.poll() is None:
        try:
            if load_run(place).records:
                break
        except StorageError:
            pass  # the server has not made its store yet
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=300)
    assert process.returncode == ExitCode.INTERRUPTED, text
    assert text.endswith("Interrupted. The same command continues it.\n")
    with closing(Store.open(place / STORE_NAME)) as store:  # no server holds it any more
        assert store.records()


def test_runs_that_are_complete_are_left_alone(small: Path, tmp_path: Path) -> None:
    experiment = read_experiment(str(small), quick=True)
    for planned in experiment.runs:
        write_run(tmp_path / planned.name, planned.federation, [make_round_record(1, trajectories_total=60)])
    output = io.StringIO()
    run_missing(experiment.runs, tmp_path, jobs=2, console=Console(file=output))
    assert output.getvalue() == "2 of 2 runs are complete\n"


def test_an_unfinished_run_is_resumed_and_a_failing_one_does_not_stop_the_others(tmp_path: Path) -> None:
    undisturbed = run_federation(small_federation(), tmp_path / "undisturbed")
    # As a killed experiment leaves it: the store of a run that has not ended a round.
    half = PlannedRun("half/seed-0", small_federation())
    _copy_start(tmp_path / "undisturbed", tmp_path / "half" / "seed-0")
    broken = replace(small_federation().task, environment="Nonsense-v0")
    failing = PlannedRun("failing/seed-0", replace(small_federation(), task=broken))
    output = io.StringIO()
    with pytest.raises(RunsFailedError, match=r"^1 of 2 runs failed, first failing/seed-0: .*Nonsense") as caught:
        run_missing([failing, half], tmp_path, jobs=1, console=Console(file=output))
    assert caught.value.exit_code == ExitCode.USAGE
    assert "resumed half/seed-0" in output.getvalue()
    assert digests(load_run(tmp_path / "half" / "seed-0")) == digests(undisturbed)


def _copy_start(source: Path, target: Path) -> None:
    whole = Store.open(source / STORE_NAME)
    (start, run_id, description) = (whole.parameters(0), whole.run_id, whole.description)
    whole.close()
    target.mkdir(parents=True)
    Store.create(target / STORE_NAME, run_id, description, fresh(start)).close()


def test_a_folder_with_another_run_is_left_alone(small: Path, tmp_path: Path, fedpg: Command) -> None:
    place = tmp_path / "small-quick" / "CartPole-v1_fedpg-br_K4_B1_random-noise" / "seed-1"
    write_run(place, replace(small_federation(seed=1), agents=5), [])
    code, _, error = fedpg("experiment", small, "--quick", "--out", tmp_path)
    assert code == ExitCode.STORAGE
    assert error == f"fedpg: {place} holds a run with other settings than the experiment's: choose another --out\n"
    assert not (place.parent / "seed-0").exists()  # nothing was started


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["figure-3"],
            ExitCode.USAGE,
            "unknown experiment 'figure-3': did you mean figure-2? Otherwise choose ",
        ),
        (["no.toml"], ExitCode.USAGE, "experiment file no.toml cannot be read: No such file"),
        (["small.toml", "--jobs", "0"], ExitCode.USAGE, "--jobs must be 1 to 64, not 0"),
        (["small.toml", "--seeds", "0"], ExitCode.USAGE, "seeds must be how many, from 1 to 1000"),
        (["small.toml", "--only", "Lunar"], ExitCode.USAGE, "no run of small has 'Lunar' in its name; there are Cart"),
        (["small.toml", "--report-only"], ExitCode.STORAGE, "there is no run of small in runs/small to report on"),
        (["small.toml", "--out", "small.toml"], ExitCode.STORAGE, "small.toml is not a folder: choose another --out"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: ExitCode, sentence: str, small: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    ended, _, text = fedpg("experiment", *arguments)
    assert (ended, len(text.splitlines())) == (code, 1), text
    assert sentence in text


# Reports --------------------------------------------------------------------------------------------------------------


def test_the_tables_have_ours_beside_the_published() -> None:
    honest = [RunData(Path(f"{seed}"), describe("CartPole-v1", agents=10, seed=seed, trajectories=48),
                      records(100.0, 300.0 + seed, 500.0)) for seed in (0, 1)]  # fmt: skip
    attacked = RunData(Path("a"), describe("CartPole-v1", byzantine=4, trajectories=1000, sigma=0.5), records(9.0))
    rows = [row_of(group) for group in group_runs([*honest, attacked])]
    results, costs = to_markdown(rows).split("\n\n")
    assert results.splitlines()[2:] == [
        "| CartPole-v1 | FedPG-BR | 10 | 0 | – | 2 | 48 | 500.0 ± 0.0 | 493 "
        "| 200 at 32 (297), 400 at 48 (529), 475 at 48 (839) |",
        "| CartPole-v1 | FedPG-BR | 10 | 4 | random-noise | 1, unfinished | 16 | 9.0 | – | – |",
    ]
    # Agents 1 to 3 are accepted and 4 is filtered; each round samples 88 trajectories and 1760 steps in half a second.
    assert costs.splitlines()[2:] == [
        "| CartPole-v1 | FedPG-BR | 10 | 0 | – | 75 % | – | R1 100 % | 264 | 5,280 | 0:02 | 3,520 |",
        "| CartPole-v1 | FedPG-BR | 10 | 4 | random-noise | – | 75 % | R1 100 % | 88 | 1,760 | 0:00 | 3,520 |",
    ]
    first, second = csv.DictReader(io.StringIO(to_csv(rows)))
    assert (first["final_return"], first["final_return_half_width_90"]) == ("500.0", "0.0")
    assert (first["reaches_200"], first["published_reaches_200"]) == ("32.0", "297")
    assert (second["complete"], second["reaches_200"], second["published_final_return"]) == ("False", "", "")


def test_a_cell_of_the_markdown_table_is_shown_as_it_is() -> None:
    assert plain_cell("a|b") == "a\\|b"
    assert plain_cell("<script>alert(1)</script> & [x](y)") == (
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\[x\\](y)"
    )
    assert plain_cell("CartPole-v1, 12.5 ± 3.0") == "CartPole-v1, 12.5 ± 3.0"
