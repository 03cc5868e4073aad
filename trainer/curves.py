"""The curves of a run as events for TensorBoard.

Its package is imported when events are asked for. Nothing that goes wrong with them fails a run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from stylegan_mix.errors import MissingEnvironment
from stylegan_mix.session import Session

__all__ = [
    "NO_CURVES",
    "TENSORBOARD",
    "Curves",
    "EventFile",
    "of_books",
    "of_scores",
    "require_tensorboard",
]

TENSORBOARD = "Folder to write events for TensorBoard to, one below it for each run."
"""The help of the option that asks for events."""

_PREFIX = "events.out.tfevents."


class Curves(Protocol):
    """A place for the numbers of each epoch, by the steps of all stages so far."""

    def begin(self, step: int) -> None:
        """Says that a run goes on after `step`: what was noted of later steps is void."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Notes the values of a step, by their names."""


class _NoCurves:
    """A run without curves."""

    def begin(self, step: int) -> None:
        pass

    def add(self, step: int, values: Mapping[str, float]) -> None:
        pass


NO_CURVES: Curves = _NoCurves()


def require_tensorboard() -> None:
    """Raises `MissingEnvironment` (exit code 4), with the command to install it, if it is missing.

    It is not imported.
    """
    if find_spec("tensorboard") is None:
        raise MissingEnvironment(
            "--tensorboard needs the package tensorboard, which is not installed",
            remedy="pip install 'stylegan-mix[tensorboard]', or leave --tensorboard out",
        )


def of_books(event: Mapping[str, Any]) -> dict[str, float]:
    """Names the books of an epoch: "STAGE/lr", "STAGE/loss" and "STAGE/loss/SOURCE".

    A source without rows in that epoch is left out.
    """
    named = {"lr": event["lr"], "loss": event["loss"]}
    for name, value in event.items():
        if name.startswith("loss_"):
            named[f"loss/{name.removeprefix('loss_')}"] = value
    return {f"{event['stage']}/{name}": one for name, one in named.items() if one is not None}


def of_scores(stage: str, scores: Mapping[str, Any]) -> dict[str, float]:
    """Names the scores of an evaluation (`evaluate.scores`): "STAGE/accuracy/overall" and so on.

    A group without images is left out.
    """
    return {
        f"{stage}/accuracy/{name}": value
        for name, value in scores.items()
        if name != "per_class" and value is not None
    }


class EventFile:
    """A file of events in `folder`, for TensorBoard to show; a new one for each process.

    Every event is on the disk before training goes on. The first error is reported to the session
    as a warning, and nothing is written after it.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        self._folder, self._session = folder, session
        self._file: Path | None = None
        self._lost = False

    def begin(self, step: int) -> None:
        """Opens the file; TensorBoard drops the points after `step` that earlier files hold."""
        if self._file is None:
            self._guarded(self._open, step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step."""
        self._guarded(self._write, step, values)

    def _guarded(self, act: Any, *given: Any) -> None:
        if self._lost:
            return
        try:
            act(*given)
        except Exception as error:  # noqa: BLE001  (a library of others; the run matters more)
            self._lost = True
            self._session.say(
                f"warning: no more events for TensorBoard in {self._folder}: "
                f"{type(error).__name__}: {error}; the run goes on without them"
            )

    def _open(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{_PREFIX}{self._order():010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = self._folder / name
        self._record(Event(file_version="brain.Event:2"))
        began = SessionLog(status=SessionLog.START)
        self._record(Event(step=step + 1, session_log=began))

    def _order(self) -> int:
        """Finds a number after those of earlier files: TensorBoard reads files by their names."""
        told = (path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*"))
        before = [int(name[:10]) for name in told if name[:10].isdecimal()]
        return max([int(time.time()), *(one + 1 for one in before)])

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._record(Event(step=step, summary=Summary(value=points)))

    def _record(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        assert self._file is not None
        event.wall_time = time.time()
        with self._file.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
