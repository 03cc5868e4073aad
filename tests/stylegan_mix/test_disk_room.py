"""A full disk is told before the work, with the bytes that are needed and the way out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_training import StopAfter, tiny_plan

from stylegan_mix import store
from stylegan_mix.errors import MissingEnvironment, Stopped
from stylegan_mix.session import Session
from stylegan_mix.training import loop
from stylegan_mix.training.disk_room import disk_bytes
from stylegan_mix.training.run import run_training

Run = Callable[..., tuple[int, str, str]]
RESERVE = 64 << 20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`free(count)` leaves so many bytes of the disk."""
    usage = shutil.disk_usage("/")

    def leave(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=count))

    return leave


def test_a_training_asks_for_its_space_before_its_first_step(
    home: Path, run: Run, free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", None)  # not called
    free(RESERVE)
    code, out, err = run("train", "--dataset", "digits_lt", "--device", "cpu", "--kimg", "0.5")
    assert (code, out) == (4, ""), err
    assert re.search(
        rf"training [0-9a-f]{{12}} in {home}/training/.* needs [0-9.]+ MB and a res", err
    )
    assert f"at {home.parent}; 67 MB are free" in err
    assert "choose another place for the store with STYLEGAN_MIX_HOME" in err
    assert not list(home.rglob("checkpoints"))


def test_it_asks_for_what_it_takes_and_not_for_what_it_has(
    home: Path, free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan()
    most = 0
    save = loop.Checkpoints.save

    def watched(*words: object) -> None:
        nonlocal most
        save(*words)  # type: ignore[arg-type]
        most = max(most, store.bytes_in(plan.folder))

    monkeypatch.setattr(loop.Checkpoints, "save", watched)
    free(RESERVE + disk_bytes(plan))
    with pytest.raises(Stopped):
        run_training(plan, Session(StopAfter(10)), save_minutes=0)
    there = store.bytes_in(plan.folder)
    assert there > 0
    free(RESERVE + disk_bytes(plan) - there - 1)
    with pytest.raises(MissingEnvironment, match=f"training {plan.key[:12]}"):
        run_training(plan)
    free(RESERVE + disk_bytes(plan) - there)
    run_training(plan, save_minutes=0)
    assert most <= disk_bytes(plan) < 3 * most
    free(0)
    assert run_training(plan), "what is finished needs no space"


def test_a_longer_training_of_larger_pictures_needs_more() -> None:
    assert disk_bytes(tiny_plan(5000)) > disk_bytes(tiny_plan(50)) + 98 * 15 * 10 * 3 * 64
    assert disk_bytes(tiny_plan(channel_max=16)) > disk_bytes(tiny_plan())


@pytest.mark.parametrize(
    "words", [("bank", "preview", "0" * 12), ("dataset", "show", "digits_lt"), ("metrics",)]
)
def test_a_full_disk_under_out_is_told_before_anything_is_read(
    home: Path, run: Run, free: Callable[[int], None], words: tuple[str, ...]
) -> None:
    free(1 << 20)
    name = "out.md" if words[0] == "metrics" else "out.png"
    code, out, err = run(*words, "--out", f"elsewhere/{name}")
    assert (code, out) == (4, ""), err
    assert "/elsewhere needs a reserve of 67 MB" in err
    assert "choose another place with --out" in err
