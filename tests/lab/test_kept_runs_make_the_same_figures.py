"""`fedpg export --format figures` keeps what figures and tables are made of, small; `fedpg figure` reads it again."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.descriptions import describe, federation_to_toml
from fedpg_common.errors import ExitCode, StorageError
from fedpg_lab.figures.curves import find_runs, group_runs, honest_counts, published_counts
from fedpg_lab.figures.tables import row_of, to_csv
from fedpg_lab.runs.folders import load_run
from fedpg_lab.runs.kept import ROUNDS_NAME, RUNS_NAME, keep, load_kept
from support.lab import Command, run_federation, small_federation, write_run
from support.protocol import make_round_record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one federation, a carried Adam and a run without a filter."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        run_federation(small_federation(seed=seed), folder / "attacked" / f"seed-{seed}", agents_per_process=4)
    carried = replace(small_federation(agents=2, byzantine=0, seed=5), adam_after=(3,), adam_digest="ab")
    write_run(folder / "carried" / "seed-5", carried, [make_round_record(1), make_round_record(2)])
    run_federation(describe("CartPole-v1", algorithm="svrpg", agents=1, trajectories=40), folder / "alone")
    return folder


@pytest.fixture(scope="module")
def kept(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, kept."""
    out = tmp_path_factory.mktemp("kept")
    keep([group.runs for group in group_runs(find_runs([runs]))], out)
    return out


def test_the_same_figure_is_drawn_from_what_was_kept(runs: Path, tmp_path: Path, fedpg: Command) -> None:
    code, text, error = fedpg("export", runs, "--format", "figures", "--out", tmp_path / "data" / "mine")
    assert (code, text) == (0, f"Kept 4 runs of 3 federations: {tmp_path / 'data' / 'mine'}\n"), error
    assert sorted(place.name for place in (tmp_path / "data" / "mine").iterdir()) == ["alone", "attacked", "carried"]
    for option in ((), ("--honest-axis",), ("--kind", "filter")):
        pictures = []
        for source in (runs, tmp_path / "data"):
            code, _, error = fedpg("figure", source, "--out", tmp_path / "picture.png", *option)
            assert code == 0, error
            pictures.append((tmp_path / "picture.svg").read_bytes())
        assert pictures[0] == pictures[1]


def test_the_table_is_the_same_but_for_how_long_rounds_took(runs: Path, kept: Path) -> None:
    tables = [
        [
            replace(row_of(group), group=replace(group, runs=()), seconds=0.0, final=round(row_of(group).final, 2))
            for group in group_runs(find_runs([source]))
        ]
        for source in (runs, kept)
    ]
    for ours, theirs in zip(*tables, strict=True):
        assert ours.final_half_width == pytest.approx(theirs.final_half_width, abs=0.01)
        assert replace(ours, final_half_width=None) == replace(theirs, final_half_width=None)
    assert to_csv([row_of(group) for group in group_runs(find_runs([kept]))]).count("\n") == 4


def test_each_run_is_known_by_its_description_digest_and_both_axes(runs: Path, kept: Path) -> None:
    originals = {federation_to_toml(run.federation): run for run in find_runs([runs])}
    copies = find_runs([kept])
    assert len(copies) == len(originals) == 4
    for copy in copies:
        original = originals[federation_to_toml(copy.federation)]
        assert copy.is_complete == original.is_complete
        assert copy.records[-1].parameters_digest == original.records[-1].parameters_digest
        assert published_counts(copy).tolist() == published_counts(original).tolist()
        assert honest_counts(copy).tolist() == honest_counts(original).tolist()
        seconds = sum(record.seconds for record in original.records)
        assert sum(record.seconds for record in copy.records) == pytest.approx(seconds, abs=1e-3)
        for ours, theirs in zip(copy.records, original.records, strict=True):
            assert (ours.accepted, ours.filtered, ours.absent) == (theirs.accepted, theirs.filtered, theirs.absent)
            assert (ours.rule, ours.has_mu, ours.round_number) == (theirs.rule, theirs.has_mu, theirs.round_number)
            assert (ours.weights is None) == (theirs.weights is None)
            assert ours.distances == pytest.approx(theirs.distances, abs=5e-4)
            assert sum(ours.environment_steps.values()) == sum(theirs.environment_steps.values())
            assert math.isnan(ours.gradient_norm)


def test_the_same_runs_are_kept_in_the_same_bytes(runs: Path, kept: Path, tmp_path: Path) -> None:
    keep([group.runs for group in group_runs(find_runs([runs]))], tmp_path)
    files = sorted(path.relative_to(kept) for path in kept.rglob("*.*"))
    assert len(files) == 6
    assert all((tmp_path / file).read_bytes() == (kept / file).read_bytes() for file in files)


def test_federations_whose_folders_have_one_name_do_not_mix(tmp_path: Path) -> None:
    for place, agents in (("a", 4), ("b", 5)):
        write_run(tmp_path / place / "run", small_federation(agents=agents), [make_round_record(1)])
    groups = [group.runs for group in group_runs(find_runs([tmp_path]))]
    assert [place.name for place in keep(groups, tmp_path / "kept")] == ["run", "run-2"]
    assert {run.federation.agents for run in find_runs([tmp_path / "kept"])} == {4, 5}


def test_run_folders_and_kept_runs_stand_in_one_figure(runs: Path, kept: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "new", describe("CartPole-v1", agents=7), [make_round_record(1)])
    keep([[load_run(runs / "alone")]], tmp_path)
    assert len(find_runs([tmp_path, kept, runs / "attacked"])) == 1 + 1 + 4 + 2
    assert sum(len(group.runs) for group in group_runs(find_runs([kept, runs]))) == 4, "each run counts once"


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        (RUNS_NAME, b"fedpg = ", "are damaged: "),
        (RUNS_NAME, b'fedpg = "1"', "are damaged: no 'runs'"),
        (RUNS_NAME, b"runs = 3\n[federation]\nagents = 1", "are damaged: "),
        (ROUNDS_NAME, b"seed", "are damaged: "),
        (ROUNDS_NAME, gzip.compress(b"seed\n0\n"), "are damaged: seed 0 has 1 of "),
        (ROUNDS_NAME, gzip.compress(b"round\n0\n"), "are damaged: no 'seed'"),
        (ROUNDS_NAME, None, "cannot be read: No such file"),
    ],
)
def test_what_was_damaged_is_refused_with_one_sentence(
    kept: Path, name: str, damage: bytes | None, sentence: str, tmp_path: Path, fedpg: Command
) -> None:
    for file in (kept / "attacked").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(StorageError, match=sentence):
        load_kept(tmp_path)
    code, _, error = fedpg("figure", tmp_path, "--out", tmp_path / "figure.png")
    assert (code, error.count("\n")) == (ExitCode.STORAGE, 1)


def test_keeping_needs_a_folder(runs: Path, fedpg: Command, tmp_path: Path) -> None:
    code, _, error = fedpg("export", runs, "--format", "figures")
    assert (code, error) == (ExitCode.USAGE, "fedpg: --format figures writes a folder: name it with --out\n")
    (tmp_path / "file").write_text("")
    code, _, error = fedpg("export", runs, "--format", "figures", "--out", tmp_path / "file")
    assert (code, error.count("\n")) == (ExitCode.STORAGE, 1)


def test_runs_without_a_round_are_not_kept(tmp_path: Path) -> None:
    write_run(tmp_path / "run", small_federation(), [])
    with pytest.raises(StorageError, match="has ended a round yet"):
        find_runs([tmp_path])
