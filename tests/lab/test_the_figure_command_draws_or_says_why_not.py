"""`fedpg figure` draws the same pictures of the same runs, names what it leaves out, or says why it does not."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode
from support.curves import cartpole, records
from support.lab import Command, write_run


def test_the_command_writes_png_and_svg_the_same_for_the_same_runs(tmp_path: Path, fedpg: Command) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"seed-{seed}", cartpole(seed=seed, byzantine=1), records([16, 48], [1.0, 2.0]))
    for kind in ("returns", "filter", "distances"):
        out = tmp_path / f"{kind}.svg"
        assert fedpg("figure", tmp_path / "runs", "--kind", kind, "--out", out)[0] == 0
        once = out.read_bytes()
        code, text, error = fedpg("figure", tmp_path / "runs", "--kind", kind, "--out", out)
        assert (code, error) == (0, "")
        drawn = "1 run" if kind == "distances" else "2 runs"  # distances are those of the first seed
        assert text.startswith(f"Drew {drawn} of 1 federation: ")
        assert out.read_bytes() == once
        assert ElementTree.fromstring(once).tag.endswith("svg")
        assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_run_is_drawn_and_named(tmp_path: Path, fedpg: Command) -> None:
    folder = write_run(tmp_path / "run", cartpole(), records([16], [1.0]))
    code, _, error = fedpg("figure", folder, "--out", tmp_path / "figure.png")
    assert (code, error) == (0, f"fedpg: {folder} is at 16 of 40 trajectories\n")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["empty"], ExitCode.STORAGE, "there is no run in empty"),
        (["nowhere"], ExitCode.STORAGE, "there is no folder nowhere"),
        (["young"], ExitCode.STORAGE, "no run in young has ended a round yet"),
        (["damaged"], ExitCode.STORAGE, "damaged/run.sqlite"),
        (["run", "--out", "figure.jpg"], ExitCode.USAGE, "a picture is a .png or .svg file, not 'figure.jpg'"),
        (["run", "--out", "no/figure.png"], ExitCode.STORAGE, "there is no folder no"),
        (["run", "--out", "taken.png"], ExitCode.STORAGE, "the picture taken.png cannot be written: it is a folder"),
        (["run", "--smooth", "0"], ExitCode.USAGE, "--smooth must be 1 round or more"),
        (["run", "--kind", "scaling"], ExitCode.USAGE, "in several sizes, and these have K = 5"),
        (["mean", "--kind", "filter"], ExitCode.USAGE, "none of these runs has an aggregator that filters"),
        (["mean", "--kind", "distances"], ExitCode.USAGE, "there is nothing to measure distances from"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: ExitCode, sentence: str, tmp_path: Path, fedpg: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "taken.png", "damaged"):
        Path(folder).mkdir()
    Path("damaged/run.sqlite").write_bytes(b"SQLite format 3\0 and no more")
    write_run(Path("run"), cartpole(), records([40], [1.0]))
    write_run(Path("young"), cartpole(), [])
    plain = [replace(record, rule="mean", weights=None, centre_distances={}) for record in records([40], [1.0])]
    write_run(Path("mean"), cartpole(algorithm="gpomdp"), plain)
    ended, _, text = fedpg("figure", *arguments)
    assert (ended, len(text.splitlines())) == (code, 1), text
    assert text.startswith("fedpg: ")
    assert sentence in text


def test_what_a_scaling_figure_leaves_out_is_named(tmp_path: Path, fedpg: Command) -> None:
    for agents, extra in ((1, {}), (8, {}), (5, {"byzantine": 2})):
        federation = cartpole(agents=agents, **extra)
        write_run(tmp_path / "runs" / f"{agents}", federation, records([100, 200], [1.0, 50.0]))
    code, text, _ = fedpg("figure", tmp_path / "runs", "--kind", "scaling", "--out", tmp_path / "figure.png")
    assert code == 0
    assert "Drew 2 runs of 2 federations" in text
    assert "Left out FedPG-BR K=5, B=2, random-noise: no other size" in text
