"""`trainer models`: every network with its size."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from trainer.models import MODELS

Trainer = Callable[..., tuple[int, str, str]]


def test_networks_are_listed_with_their_sizes(trainer: Trainer) -> None:
    code, out, _ = trainer("models")
    heading, *rows = out.splitlines()
    assert code == 0 and heading.split()[0] == "name"
    assert [row.split()[0] for row in rows] == list(MODELS)
    row = next(row for row in rows if row.startswith("resnet50 "))
    assert row.split()[1:8] == ["25.557", "M", "4,089", "M", "224", "1,000", "for"]


def test_the_same_sizes_are_printed_as_json(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MODELS.keys() - {"resnet32", "resnet50"}:
        monkeypatch.delitem(MODELS, name)
    found = {one["name"]: one for one in json.loads(trainer("models", "--json")[1])}
    assert list(found) == list(MODELS)
    large, small = found["resnet50"], found["resnet32"]
    assert (large["parameters"], large["multiply_adds"]) == (25_557_032, 4_089_184_256)
    assert (small["parameters"], small["pixels"], small["classes"]) == (464_154, 32, 10)
