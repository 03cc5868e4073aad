"""The log of a training as series of numbers, for any content; no torch.

`T` lines of the log, `K` classes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.reading import parse_json, read_lines

__all__ = ["Panel", "find_log", "panels", "read"]

_AXIS = ("step", "kimg")


@dataclass(frozen=True, eq=False)
class Panel:
    """Related series: values [T] by name, NaN if a line has none.

    `by_class`: a series for every class, in the order of the classes.
    """

    title: str
    series: dict[str, np.ndarray]
    by_class: bool


def find_log(training: str | None) -> Path | None:
    """Finds the log of a training by its key, if it is still in a store."""
    for root in store.roots() if training else []:
        path = root / "training" / str(training) / "metrics.jsonl"
        if path.is_file():
            return path
    return None


def read(path: Path, *, kimg: float) -> list[dict[str, Any]]:
    """Reads the lines of a log up to `kimg`, in its order; torn and foreign lines are skipped.

    A training that went on has logged more than the generator of a shorter budget has seen.
    """
    lines = []
    try:
        texts = read_lines(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    for text in texts:
        try:
            line = parse_json(text)
            at = float(line["kimg"])
        except (ValueError, KeyError, TypeError):
            continue
        if at <= kimg:
            lines.append((at, line))
    return [line for _, line in sorted(lines, key=lambda item: item[0])]


def panels(lines: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[Panel]:
    """Groups every numeric series of the lines.

    A list is a panel with a series for each entry, named by class if there are K. Numbers with the
    same beginning before their last dot, or else their last underscore, share a panel.
    """
    lists: dict[str, dict[str, dict[int, float]]] = {}
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    of_classes: set[str] = set()
    for at, line in enumerate(lines):
        for name, value in _flattened(line):
            if isinstance(value, list):
                names = list(map(str, range(len(value))))
                if len(value) == len(classes):
                    of_classes.add(name)
                    names = list(classes)
                found = lists.setdefault(name, {})
                for entry, number in zip(names, value, strict=True):
                    if _is_number(number):
                        found.setdefault(entry, {})[at] = float(number)
            elif _is_number(value):
                scalars[name][at] = float(value)
    grouped: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in scalars.items():
        grouped[_beginning(name)][name] = _dense(values, len(lines))
    found_panels = [
        Panel(title if len(series) > 1 else next(iter(series)), series, by_class=False)
        for title, series in grouped.items()
    ]
    for name, entries in lists.items():
        series = {entry: _dense(values, len(lines)) for entry, values in entries.items()}
        if series:
            found_panels.append(Panel(name, series, by_class=name in of_classes))
    return found_panels


def _flattened(line: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += _flattened(value, f"{above}{name}.")
        elif above or name not in _AXIS:
            found.append((f"{above}{name}", value))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _beginning(name: str) -> str:
    return name.rpartition(".")[0] or name.rpartition("_")[0] or name


def _dense(values: dict[int, float], length: int) -> np.ndarray:
    found = np.full(length, np.nan)
    found[list(values)] = list(values.values())
    return found
