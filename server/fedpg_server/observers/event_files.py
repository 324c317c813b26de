"""TensorBoard's event files, written with TensorBoard's own records and messages.

`torch.utils.tensorboard` is a thin layer over the same ones, but imports torch, which takes longer than the rest of a
server's start.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

FILE_VERSION = "brain.Event:2"


class EventFile:
    """One event file in a folder, written by the thread that calls: no queue, and nothing is kept back."""

    def __init__(self, folder: Path, purge_from: int | None) -> None:
        """Make the file. Events of earlier files from step `purge_from` on are superseded. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._records = RecordWriter(_new_file(folder))
        self._add(Event(file_version=FILE_VERSION))
        if purge_from is not None:
            self._add(Event(step=purge_from, file_version=FILE_VERSION))
            self._add(Event(step=purge_from, session_log=SessionLog(status=SessionLog.START)))
        self._records.flush()

    def add(self, summaries: Iterable[Summary], step: int | None = None) -> None:
        """Write these, all of them at a step where one is given. Raises OSError, or ValueError once it is closed."""
        for summary in summaries:
            self._add(Event(summary=summary, step=step))
        self._records.flush()

    def close(self) -> None:
        """Release the file. Raises OSError."""
        self._records.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def _new_file(folder: Path) -> BinaryIO:
    """A file whose name TensorBoard looks for, and sorts by time."""
    for number in count():
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
        with suppress(FileExistsError):  # a run that was resumed within a second
            return (folder / name).open("xb")
    raise AssertionError("there are enough numbers")


def session_start(values: Mapping[str, str | float], results: Iterable[str]) -> list[Summary]:
    """What opens a session of the table of hyperparameters: the experiment, and this run's values in it.

    `results` are the tags of the scalars that stand beside the hyperparameters.
    """
    text, number = DataType.Value("DATA_TYPE_STRING"), DataType.Value("DATA_TYPE_FLOAT64")
    experiment = Experiment(
        hparam_infos=[
            HParamInfo(name=name, type=text if isinstance(value, str) else number) for name, value in values.items()
        ],
        metric_infos=[MetricInfo(name=MetricName(tag=tag)) for tag in results],
    )
    start = SessionStartInfo()
    for name, value in values.items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return [
        _plugin_data(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment)),
        _plugin_data(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
    ]


def session_end() -> list[Summary]:
    """What closes the session."""
    end = SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
    return [_plugin_data(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))]


def _plugin_data(tag: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    data = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data))])
