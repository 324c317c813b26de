"""TensorBoard's event files, written with TensorBoard's own writer and messages.

`torch.utils.tensorboard` is a thin layer over the same ones, but imports torch, which takes longer than the rest of a
server's start.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventFile:
    """One event file in a folder."""

    def __init__(self, folder: Path, purge_from: int | None) -> None:
        """Make the file. Events of earlier files from step `purge_from` on are superseded. Raises OSError."""
        self._writer = EventFileWriter(str(folder))
        if purge_from is not None:
            self._add(Event(step=purge_from, file_version="brain.Event:2"))
            self._add(Event(step=purge_from, session_log=SessionLog(status=SessionLog.START)))

    def add(self, summaries: Iterable[Summary], step: int | None = None) -> None:
        """Write these, all of them at a step where one is given. Raises OSError, or ValueError once the file failed."""
        for summary in summaries:
            self._add(Event(summary=summary, step=step))
        self._writer.flush()

    def close(self) -> None:
        """Write what is buffered. Raises as `add` does."""
        self._writer.flush()
        self._writer.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.add_event(event)


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
