"""What a training writes down as it goes: a line for every log, a line for every event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stylegan_mix import store

__all__ = ["Journal"]


class Journal:
    """`metrics.jsonl` (one line a log, cut back when steps are taken again) and `events.jsonl`.

    Every line of both has `step` and `kimg`.
    """

    def __init__(self, folder: Path) -> None:
        self._metrics, self._events = folder / "metrics.jsonl", folder / "events.jsonl"

    def log(self, line: dict[str, Any]) -> None:
        """Appends a log line."""
        _append(self._metrics, line)

    def event(self, line: dict[str, Any]) -> None:
        """Appends an event: something that happened once, such as a rollback."""
        _append(self._events, line)

    def cut(self, step: int) -> None:
        """Drops log lines of steps that will be taken again, and a torn last line."""
        if not self._metrics.exists():
            return
        text, kept = self._metrics.read_text(), []
        for line in text.splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue
        if "".join(kept) != text:
            store.write_bytes(self._metrics, "".join(kept).encode())


def _append(path: Path, line: dict[str, Any]) -> None:
    with store.disk_errors(path), open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
