"""The journal of a training: a line for every log, a line for every event."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import LARGEST_LOG, append_text, parse_json, read_bytes

__all__ = ["Journal"]


class Journal:
    """`metrics.jsonl` (one line a log, cut back when steps are taken again) and `events.jsonl`.

    Every line of both has `step` and `kimg`. `say` is told of lines that cannot be read.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._say = say
        self._metrics, self._events = folder / "metrics.jsonl", folder / "events.jsonl"

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line to `metrics.jsonl`."""
        _append(self._metrics, line)

    def event(self, line: dict[str, Any]) -> None:
        """Appends a line to `events.jsonl`: something that happened once, such as a rollback."""
        _append(self._events, line)

    def cut(self, step: int) -> None:
        """Drops the log lines of steps that will be taken again, and damaged lines."""
        try:
            text = read_bytes(self._metrics, limit=LARGEST_LOG)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InvalidInput(
                f"{self._metrics} cannot be read: {error.strerror}",
                remedy=f"move {self._metrics} away; the training goes on with a new one",
            ) from error
        lines = [(line, _step_of(line)) for line in text.splitlines()]
        if damaged := sum(1 for _, at in lines if at is None):
            self._say(f"left out {damaged} line(s) of {self._metrics} that cannot be read")
        kept = b"".join(line + b"\n" for line, at in lines if at is not None and at <= step)
        if kept != text:
            store.write_bytes(self._metrics, kept)


def _step_of(line: bytes) -> int | None:
    """Reads the step of a log line; None if the line is torn or damaged."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if type(step) is int else None


def _append(path: Path, line: dict[str, Any]) -> None:
    with store.disk_errors(path):
        append_text(path, json.dumps(line) + "\n")
