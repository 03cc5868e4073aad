"""The place of a process among those of torchrun."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stylegan_mix import launched
from stylegan_mix.errors import MissingEnvironment, UsageFailure


@pytest.mark.parametrize(
    ("asked", "rank", "chosen"),
    [
        ("cuda", "0", "cuda:0"),
        ("cuda", "1", "cuda:1"),
        ("cuda", "2", "cuda:0"),
        ("cuda:1", "0", "cuda:1"),
        ("cpu", "1", "cpu"),
        ("cuda", None, "cuda"),
    ],
)
def test_each_process_of_torchrun_takes_its_gpu(
    monkeypatch: pytest.MonkeyPatch, asked: str, rank: str | None, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if rank is not None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert launched.own_device(asked) == chosen


def test_a_place_is_a_whole_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "one")
    with pytest.raises(UsageFailure, match="LOCAL_RANK must be a whole number, got 'one'"):
        launched.number_in("LOCAL_RANK", 0)
    assert launched.number_in("ABSENT_RANK", 7) == 7


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False)])
def test_the_first_process_prints(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, speaks: bool
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert launched.speaks() == speaks


def test_a_process_whose_leader_published_nothing_says_so(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_training import tiny_plan

    from stylegan_mix.training import run

    monkeypatch.setattr(run, "run_training", lambda *_: [])
    with pytest.raises(MissingEnvironment, match="the first process published no generator"):
        run.ensure_generator(tiny_plan())
