"""The exit codes of the trainer: every kind of end through a command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("models", 0),
        ("recipes", 0),
        # The command is wrong.
        ("rnu", 2),
        ("run --nosuch", 2),
        ("run --aug nosuch", 2),
        ("run --dataset nosuch", 2),
        ("run --config nosuch.toml", 2),
        ("sweep nosuch.toml", 2),
        ("report --check", 2),
        # An input is not there: a bank, a run.
        ("run --dataset digits_lt --aug hybrid", 3),
        ("run --dataset digits_lt --aug hybrid --dry-run", 3),
        ("run --dataset digits_lt --aug hybrid --bank abc", 3),
        ("run --dataset digits_lt --recipe kd --teacher nosuch", 3),
        ("eval nosuch", 3),
        ("predict nosuch", 3),
        ("report", 3),
        ("report nosuch", 3),
        ("compare none mixup", 3),
        # The machine lacks something.
        ("run --dataset cifar10_lt", 4),
        ("run --dataset digits_lt --device cuda:99", 4),
    ],
)
def test_each_kind_of_end_has_its_code(home: Path, trainer: Any, command: str, code: int) -> None:
    ended, _, err = trainer(*shlex.split(command))
    assert ended == code, err


def test_a_missing_bank_is_told_with_what_it_costs(home: Path, trainer: Any) -> None:
    _, _, err = trainer("run", "--dataset", "digits_lt", "--aug", "hybrid")
    assert "make one: stylegan-mix generate --dataset digits_lt --imbalance 20 --n 50000\n" in err
    assert "if there is no generator yet, it trains one first" in err
    assert "--dry-run tells how long that takes" in err
