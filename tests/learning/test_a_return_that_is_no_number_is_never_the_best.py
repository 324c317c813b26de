"""A return that is not a finite number is never the best and does not pin it; what we write as JSON is JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedpg_common.descriptions import describe
from fedpg_common.json_text import to_json
from fedpg_common.learning.checkpoints import read_checkpoint
from fedpg_lab.playback.evaluation import find_checkpoint
from fedpg_lab.runs.folders import load_run, write_summary
from fedpg_server.learning.records import Evaluation, RoundRecord, best_return, final_return
from fedpg_server.learning.totals import Totals
from fedpg_server.observers.base import Observed
from fedpg_server.observers.checkpointing import CheckpointExporter
from fedpg_server.observers.telemetry import totals
from support.lab import write_run
from support.protocol import SIZE, SPEC, IdleLearner, idle_federation, make_round_record, serving

NAN, INF = math.nan, math.inf


def records(*returns: float) -> list[RoundRecord]:
    return [
        make_round_record(number, evaluation_returns=(value, value)) for number, value in enumerate(returns, start=1)
    ]


def strict(text: str) -> Any:
    """JSON as a browser reads it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("returns", "best"),
    [
        ((NAN, 3.0, 5.0), 5.0),
        ((3.0, NAN, 2.0), 3.0),
        ((INF, 1.0), 1.0),
        ((-INF, -2.0), -2.0),
        ((NAN, NAN), None),
        ((), None),
    ],
)
def test_the_best_and_the_final_return(returns: tuple[float, ...], best: float | None, tmp_path: Path) -> None:
    rounds = records(*returns)
    assert best_return(rounds) == best
    run = load_run(write_run(tmp_path / "run", describe("CartPole-v1"), rounds))
    summary = write_summary(run)
    assert summary["best_return"] == best
    assert strict((tmp_path / "run" / "summary.json").read_text())["best_return"] == best
    assert all(math.isfinite(value) for _, value in totals(Totals(rounds)))


def test_a_final_return_leaves_such_rounds_out() -> None:
    assert final_return(records(*[1.0] * 38, NAN, 7.0)) == 7.0
    assert final_return(records(NAN)) is None


@pytest.mark.parametrize(("first", "best_before"), [(NAN, None), (INF, None), (NAN, 2.0)])
def test_the_best_checkpoint_is_not_pinned(tmp_path: Path, first: float, best_before: float | None) -> None:
    earlier = [] if best_before is None else records(best_before)
    exporter = CheckpointExporter(Observed(tmp_path, describe("CartPole-v1"), SPEC, earlier))
    for record in records(first, 5.0, 4.0, NAN):
        exporter.record(record, np.full(SIZE, record.round_number, np.float32))
    assert read_checkpoint(tmp_path / "checkpoints" / "best.safetensors").round_number == 2
    latest = read_checkpoint(tmp_path / "checkpoints" / "latest.safetensors")
    assert (latest.round_number, latest.evaluation_return) == (4, None)


def test_without_a_best_one_the_latest_is_evaluated(tmp_path: Path) -> None:
    exporter = CheckpointExporter(Observed(tmp_path, describe("CartPole-v1"), SPEC, []))
    exporter.record(records(NAN)[0], np.zeros(SIZE, np.float32))
    assert find_checkpoint(tmp_path).name == "latest.safetensors"


def test_a_record_survives_with_figures_that_are_no_numbers() -> None:
    record = make_round_record(
        1, evaluation_returns=(NAN, 1.0), gradient_norm=NAN, figures={"radius": INF}, loss=None,
        importance_ratios=(NAN,), centre_distances={1: NAN}, distances={"good": NAN},
    )  # fmt: skip
    text = record.to_json()
    strict(text)
    again = RoundRecord.from_json(text)
    assert math.isnan(again.evaluation_return)
    assert (math.isnan(again.gradient_norm), math.isnan(again.figures["radius"]), again.loss) == (True, True, None)
    assert all(map(math.isnan, (again.distances["good"], again.importance_ratios[0], again.centre_distances[1])))
    sound = make_round_record(2)
    assert RoundRecord.from_json(sound.to_json()) == sound


def test_json_has_null_for_what_it_cannot_say() -> None:
    value = {"a": [NAN, (INF, 1)], "b": {"c": -INF, "d": np.float64(NAN)}, "e": True, "f": None}
    assert strict(to_json(value)) == {"a": [None, [None, 1]], "b": {"c": None, "d": None}, "e": True, "f": None}


def test_a_run_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's guard lets no such return pass; should one come all the same, the run goes on and says it."""

    def evaluate_to_nan(_self: IdleLearner, *_arguments: Any) -> Evaluation:
        return Evaluation(returns=(NAN,), lengths=(0,))

    async def play() -> None:
        async with serving(tmp_path, idle_federation(1, 3)) as door:
            for number in (0, 1, 2):
                await door.vote(1, await door.open_round(1, number))
            assert len(await door.finish()) == 3

    monkeypatch.setattr(IdleLearner, "evaluate", evaluate_to_nan)
    with caplog.at_level(logging.WARNING):
        asyncio.run(play())
    assert sum("is never the best" in line for line in caplog.messages) == 1
