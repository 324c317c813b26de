"""A local run that fails, on a full disk for example, ends with the sentence of what failed first and its exit code."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fedpg_common.errors import ExitCode, StorageError
from fedpg_lab.local import train as train_module
from fedpg_lab.local.failures import ProcessFailedError, last_words
from fedpg_lab.local.train import TrainOptions, train
from rich.console import Console
from support.lab import small_federation

SENTENCE = "fedpg-server: the store run.sqlite cannot be used: database or disk is full"
FULL_DISK = "it could write neither its store nor its log {}: is the disk full?"


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        (f"12:00:00 INFO server round 1\n{SENTENCE}\n\n", ExitCode.STORAGE, SENTENCE),
        (f'{SENTENCE}\n  File "/cut/of', ExitCode.STORAGE, SENTENCE),
        ('12:00:00 INFO server round 1\n  File "/cut/of', ExitCode.STORAGE, FULL_DISK),
        ("", ExitCode.STORAGE, FULL_DISK),
        (f"{SENTENCE}\nTraceback (most recent call last):\nKeyError: 3\n", ExitCode.BUG, "KeyError: 3"),
        ("", ExitCode.BUG, "see {}"),
    ],
)
def test_a_process_has_last_words(tmp_path: Path, log: str, code: ExitCode, words: str) -> None:
    path = tmp_path / "server.log"
    path.write_text(log)
    assert last_words(path, code) == words.format(path)


def test_a_process_without_a_log_too(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none.log", ExitCode.BUG) == f"see {tmp_path / 'none.log'}"


def test_a_summary_that_cannot_be_written_does_not_hide_why_the_run_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ProcessFailedError("the server failed", ExitCode.STORAGE)

    def refuse(folder: Path, *_: object) -> None:
        raise StorageError(f"cannot write {folder / 'summary.json'}")

    monkeypatch.setattr(train_module, "_watch", fail)
    monkeypatch.setattr(train_module, "finish", refuse)
    with pytest.raises(ProcessFailedError, match="the server failed"):
        train(small_federation(), tmp_path / "run", TrainOptions(observers=()), Console(file=io.StringIO()))
    assert f"cannot write {tmp_path / 'run' / 'summary.json'}" in caplog.text
