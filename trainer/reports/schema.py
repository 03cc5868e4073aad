"""The schema of a result record: its fields, their ranges, and their consistency.

`K` classes; accuracies are in percent of the test images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylegan_mix.datasets.groups import GROUPS
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.showing import is_plain
from trainer.spec import RunSpec

__all__ = ["ROUNDING", "SCHEMA", "check", "class_mean", "group_means"]

SCHEMA = "trainer-result/1"

# Records keep accuracies with at least 4 digits after the point; means of rounded numbers differ
# from rounded means by at most that.
ROUNDING = 1e-3


@dataclass(frozen=True)
class _Kind:
    text: str
    holds: Callable[[Any], bool]


def _finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _whole(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _or_null(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.text} or null", lambda value: value is None or kind.holds(value))


def _list(kind: _Kind) -> _Kind:
    return _Kind(
        f"a list, each {kind.text}",
        lambda value: isinstance(value, list) and all(kind.holds(item) for item in value),
    )


_TEXT = _Kind("a text", lambda value: isinstance(value, str) and value != "")
_LINE = _Kind(
    "a line of text",
    lambda value: isinstance(value, str) and value != "" and is_plain(value),
)
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_COUNT = _Kind("a whole number from 0", _whole)
_SIZE = _Kind("a whole number from 1", lambda value: _whole(value, 1))
_POSITIVE = _Kind("a number above 0", lambda value: _finite(value) and value > 0)
_AMOUNT = _Kind("a number from 0", lambda value: _finite(value) and value >= 0)
_PERCENT = _Kind("a number from 0 to 100", lambda value: _finite(value) and 0 <= value <= 100)
_HASH = _Kind(
    "a SHA-256 in hex",
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
)
_TABLE = _Kind("a table", lambda value: isinstance(value, dict))

_FIELDS: dict[str, _Kind] = {
    "schema": _TEXT,
    "dataset.name": _LINE,
    "dataset.profile": _TEXT,
    "dataset.imbalance": _or_null(_POSITIVE),
    "dataset.split_seed": _COUNT,
    "dataset.split_id": _HASH,
    "dataset.test_id": _HASH,
    "dataset.classes": _list(_LINE),
    "dataset.counts": _list(_COUNT),
    "dataset.groups.rule": _TEXT,
    "dataset.groups.many": _list(_COUNT),
    "dataset.groups.medium": _list(_COUNT),
    "dataset.groups.few": _list(_COUNT),
    "dataset.train_images": _SIZE,
    "dataset.test_images": _SIZE,
    "dataset.overlap": _COUNT,
    "dataset.dropped_overlap": _FLAG,
    "arm": _LINE,
    "aug": _TEXT,
    "recipe": _LINE,
    "model": _LINE,
    "seed": _COUNT,
    "budget.epochs": _SIZE,
    "budget.steps": _SIZE,
    "budget.batch": _SIZE,
    "budget.lr": _POSITIVE,
    "budget.precision": _TEXT,
    "budget.seconds": _AMOUNT,
    "budget.images": _SIZE,
    "bank": _or_null(_TABLE),
    "teacher": _or_null(_TABLE),
    "accuracy.overall": _PERCENT,
    "accuracy.many": _or_null(_PERCENT),
    "accuracy.medium": _or_null(_PERCENT),
    "accuracy.few": _or_null(_PERCENT),
    "accuracy.per_class": _list(_or_null(_PERCENT)),
    "test_oracle.epoch": _COUNT,
    "test_oracle.overall": _PERCENT,
    "history": _list(_TABLE),
    "confusion": _or_null(_list(_list(_COUNT))),
    "diagnostics": _TABLE,
    "command": _TEXT,
    "config": _TABLE,
    "environment.python": _TEXT,
    "environment.torch": _TEXT,
    "environment.cpu": _TEXT,
    "environment.threads": _SIZE,
    "environment.device": _TEXT,
    "finished_utc": _TEXT,
}
_BANK_FIELDS: dict[str, _Kind] = {
    "bank.key": _TEXT,
    "bank.content_sha256": _HASH,
    "bank.n": _SIZE,
    "bank.space": _TEXT,
}
# Older records lack these; their readers compute them.
_LATER_FIELDS: dict[str, _Kind] = {
    "accuracy.balanced": _PERCENT,
    "bank.policy": _LINE,
    "budget.fair": _LINE,
    "dataset.test_counts": _list(_COUNT),
    "dataset.val_id": _HASH,
}
# Records made before recipes had versions lack it.
_METHOD_FIELDS: dict[str, _Kind] = {
    "method.name": _TEXT,
    "method.version": _SIZE,
    "method.stages": _list(_TABLE),
}
_TOP = {path.split(".")[0] for path in (*_FIELDS, *_METHOD_FIELDS)}
_MISSING = object()


def check(record: Any, where: str) -> dict[str, Any]:
    """Returns the record once it is known to be sound; `where` names it in errors.

    Raises `InvalidInput` (exit code 3), which lists every fault: fields missing, of another type or
    out of range, group accuracies that are not those of their classes, a confusion matrix or a
    configuration that contradicts the record.
    """
    if not isinstance(record, dict):
        raise InvalidInput(f"{where}: a result is a table, got {type(record).__name__}")
    schema = record.get("schema")
    if schema != SCHEMA:
        raise InvalidInput(f"{where}: schema {schema!r}; this version reads {SCHEMA!r}")
    problems = [
        f"no field '{name}' is known{nearest(name, _TOP)}" for name in record if name not in _TOP
    ]
    problems += _wrong_fields(record, _FIELDS)
    if record.get("bank"):
        problems += _wrong_fields(record, _BANK_FIELDS)
    if "method" in record:
        problems += _wrong_fields(record, _METHOD_FIELDS)
    later = {
        path: kind for path, kind in _LATER_FIELDS.items() if _at(record, path) is not _MISSING
    }
    problems += _wrong_fields(record, later)
    if not problems:
        problems = _inconsistencies(record)
    if problems:
        raise InvalidInput(f"{where} is not a sound result:\n  " + "\n  ".join(problems))
    return record


def _wrong_fields(record: Mapping[str, Any], fields: Mapping[str, _Kind]) -> list[str]:
    found = []
    for path, kind in fields.items():
        value = _at(record, path)
        if value is _MISSING:
            found.append(f"'{path}' is missing; it must be {kind.text}")
        elif not kind.holds(value):
            found.append(f"'{path}' must be {kind.text}, got {_short(value)}")
    return found


def _at(record: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(record, Mapping) or name not in record:
            return _MISSING
        record = record[name]
    return record


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _inconsistencies(record: Mapping[str, Any]) -> list[str]:
    data, accuracy = record["dataset"], record["accuracy"]
    size = len(data["classes"])
    found = [
        f"{size} classes, but '{name}' has {len(values)} entries"
        for name, values in (
            ("dataset.counts", data["counts"]),
            ("accuracy.per_class", accuracy["per_class"]),
        )
        if len(values) != size
    ]
    grouped = sorted(index for name in GROUPS for index in data["groups"][name])
    if grouped != list(range(size)):
        found.append(f"the shot groups must hold each of {size} classes once, got {grouped}")
    if found:
        return found
    if sum(data["counts"]) != data["train_images"]:
        found.append(f"counts add to {sum(data['counts'])}, not to {data['train_images']} images")
    means = group_means(data["groups"], accuracy["per_class"])
    if "balanced" in accuracy:
        means["balanced"] = class_mean(accuracy["per_class"])
    for name, mean in means.items():
        if not _same(accuracy[name], mean):
            found.append(f"accuracy.{name} is {accuracy[name]}, its classes' mean is {mean}")
    if "test_counts" in data:
        found += _wrong_test_counts(record)
    if record["confusion"] is not None:
        found += _wrong_confusion(record)
    return found + _wrong_config(record)


def group_means(
    groups: Mapping[str, Sequence[int]], per_class: Sequence[float | None]
) -> dict[str, float | None]:
    """Averages accuracy over the classes of each shot group; None if no class was tested."""
    return {name: class_mean([per_class[index] for index in groups[name]]) for name in GROUPS}


def class_mean(per_class: Sequence[float | None]) -> float | None:
    """Averages accuracy over classes, each with the same weight; None if none was tested."""
    known = [value for value in per_class if value is not None]
    return sum(known) / len(known) if known else None


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= ROUNDING


def _wrong_test_counts(record: Mapping[str, Any]) -> list[str]:
    """Lists contradictions of the test images by class with their sum, accuracies and confusion."""
    data, rows = record["dataset"], record["confusion"]
    counts, per_class = data["test_counts"], record["accuracy"]["per_class"]
    if len(counts) != len(per_class):
        return [f"{len(per_class)} classes, but 'dataset.test_counts' has {len(counts)} entries"]
    if sum(counts) != data["test_images"]:
        return [f"test_counts add to {sum(counts)}, not to {data['test_images']} images"]
    untested = [
        (not count) != (value is None) for count, value in zip(counts, per_class, strict=True)
    ]
    if any(untested):
        return [f"class {untested.index(True)} has an accuracy without images, or none with some"]
    if rows is not None and [sum(row) for row in rows] != counts:
        return ["the rows of the confusion matrix do not add to 'dataset.test_counts'"]
    return []


def _wrong_confusion(record: Mapping[str, Any]) -> list[str]:
    rows = record["confusion"]
    size = len(record["dataset"]["classes"])
    if len(rows) != size or any(len(row) != size for row in rows):
        return [f"the confusion matrix must be {size} by {size}"]
    total = sum(map(sum, rows))
    if total != record["dataset"]["test_images"]:
        return [f"the confusion matrix holds {total} images of {record['dataset']['test_images']}"]
    found = []
    overall = 100 * sum(rows[index][index] for index in range(size)) / total
    if not _same(record["accuracy"]["overall"], overall):
        found.append(f"accuracy.overall is {record['accuracy']['overall']}, by confusion {overall}")
    for index, (row, stated) in enumerate(zip(rows, record["accuracy"]["per_class"], strict=True)):
        counted = 100 * row[index] / sum(row) if sum(row) else None
        if not _same(stated, counted):
            found.append(f"accuracy.per_class[{index}] is {stated}, by confusion {counted}")
    return found


def _wrong_config(record: Mapping[str, Any]) -> list[str]:
    try:
        spec = RunSpec.from_plain(record["config"])
    except (InvalidInput, UsageFailure, TypeError) as error:
        return [f"'config' is no configuration of a run: {error}"]
    stated = {
        "arm": spec.arm,
        "aug": spec.aug,
        "recipe": spec.recipe,
        "model": spec.model,
        "seed": spec.seed,
        "dataset.name": spec.data.name,
        "dataset.split_seed": spec.data.split_seed,
        "dataset.dropped_overlap": spec.data.drop_overlap,
        "budget.epochs": spec.epochs,
        "budget.batch": spec.batch,
        "budget.lr": spec.lr,
        "budget.precision": spec.precision,
    }
    if "method" in record:
        stated["method.name"] = spec.recipe
        stated["method.version"] = spec.recipe_version
    if "fair" in record["budget"]:
        stated["budget.fair"] = spec.fairness
    if spec.bank and record["bank"]:
        stated["bank.content_sha256"] = spec.bank.content_sha256
        stated["bank.space"] = spec.bank.space
    found = [
        f"'{path}' is {_at(record, path)!r}, but the configuration says {value!r}"
        for path, value in stated.items()
        if _at(record, path) != value
    ]
    if bool(spec.bank) != bool(record["bank"]):
        found.append("'bank' and the configuration do not agree on whether there is a bank")
    return found
