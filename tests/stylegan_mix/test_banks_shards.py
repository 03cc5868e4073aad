"""Several workers make one bank: its bytes are those of one, and every block is made once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import StopAfter

from stylegan_mix import numerics, store
from stylegan_mix.banks import blocks, shards
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.banks.shards import Shard
from stylegan_mix.errors import Busy, InvalidInput, MissingEnvironment, Stopped, UsageFailure
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.progress import Silent
from stylegan_mix.session import Session

PATIENCE = 600  # seconds after which a thread hangs
ROWS = 7 * BLOCK - 10
Part = Callable[..., Path | None]


@pytest.fixture
def part(home: Path, toy: Any, published: Any, ask: Callable[..., Any]) -> Part:
    """`part("1/2", n=100, ...)` makes a shard of such a bank; without one, all that is missing."""
    from stylegan_mix.banks.write import write_bank

    def making(
        shard: str | None = None,
        *,
        session: Session = Session(),
        device: str = "cpu-here",
        **changes: Any,
    ) -> Path | None:
        one = None if shard is None else Shard.parse(shard)
        of = numerics.Numerics(device, "float32", "reference", "2", "2")
        changes = {"n": ROWS, **changes}
        return write_bank(ask(**changes), published, of, toy, session, shard=one)

    return making


def content(folder: Path | None) -> str:
    assert folder is not None
    return open_bank(folder).content_sha256


@pytest.fixture
def whole(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The content of the bank that one worker makes, in another store."""
    with monkeypatch.context() as patched:
        patched.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "alone"))
        return content(part())


# Shards


@pytest.mark.parametrize("text", ["3/2", "0/2", "1/0", "1", "/2", "1/2/3", "-1/2", "a/b", "1 /2"])
def test_a_shard_is_a_part_of_its_count(text: str) -> None:
    with pytest.raises(UsageFailure, match="--shard must be a part i/n"):
        Shard.parse(text)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_shards_share_out_all_blocks(count: int) -> None:
    parts = [Shard(number, count).blocks(7) for number in range(1, count + 1)]
    assert sorted(index for one in parts for index in one) == list(range(7))


@pytest.mark.parametrize("order", [("1/1",), ("1/2", "2/2"), ("3/3", "1/3", "2/3"), ("2/9", None)])
def test_shards_in_any_order_make_the_bytes_of_one_worker(
    part: Part, whole: str, toy: Any, home: Path, order: tuple[str | None, ...]
) -> None:
    toy.batches.clear()
    made = [part(shard) for shard in order]
    assert made[:-1] == [None] * (len(order) - 1)
    assert content(made[-1]) == whole
    assert toy.batches.count(BLOCK) == 7
    assert list((home / "banks/.partial").iterdir()) == []


def test_a_shard_leaves_the_blocks_of_others(part: Part) -> None:
    assert part("2/3") is None
    (unfinished,) = banks.unfinished()
    assert blocks.finished_blocks(unfinished.folder) == {1, 4}
    assert shards.absent(unfinished.folder, Shard(2, 3)) == ["1/3", "3/3"]


def test_a_stopped_shard_goes_on(part: Part, whole: str, toy: Any) -> None:
    assert part("2/2") is None
    with pytest.raises(Stopped, match="5 of 7 blocks"):
        part("1/2", session=Session(StopAfter(2)))
    toy.batches.clear()
    assert content(part("1/2")) == whole
    assert toy.batches.count(BLOCK) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed (0, here 1)"),
        ({"n": ROWS + 1}, f"n ({ROWS}, here {ROWS + 1})"),
        ({"device": "cpu-there"}, "device (cpu-here, here cpu-there)"),
        ({"space": "z", "truncation": 0.5}, "space (w, here z), truncation (1.0, here 0.5)"),
    ],
)
def test_shards_of_different_requests_are_told_apart(
    part: Part, home: Path, change: dict[str, Any], named: str
) -> None:
    part("1/2")
    before = sorted(home.rglob("*"))
    with pytest.raises(InvalidInput, match="waits for its shard 2/2") as end:
        part("2/2", **change)
    assert f"they differ in {named}" in str(end.value)
    assert sorted(home.rglob("*")) == before


def test_shards_of_two_banks_may_be_made_side_by_side(part: Part) -> None:
    assert part("1/2") is None
    assert part("1/2", seed=1) is None  # the other bank does not wait for its first shard
    assert part("1/3", seed=2) is None  # it has no shards of three
    assert part("2/2", seed=1) is not None
    assert part(seed=3) is not None
    assert part("2/2", split_id="6" * 64) is None  # it is of other images
    assert part("2/2") is not None


def test_an_unreadable_unfinished_bank_is_no_reason(part: Part, home: Path) -> None:
    part("1/2")
    (unfinished,) = banks.unfinished()
    texts = ("", "[]", '{"request": 3, "numerics": []}', '{"request": {"split_id": 1}}')
    for seed, text in enumerate(texts, 1):
        (unfinished.folder / "request.json").write_text(text)
        assert part("2/2", seed=seed, n=1) is None


def test_a_block_of_another_bank_is_refused(part: Part, home: Path, toy: Any) -> None:
    part("1/2")
    part("1/2", seed=1)
    here, there = (one.folder / "blocks" for one in banks.unfinished())
    (here / "2").rename(there / "5")
    toy.batches.clear()
    seed = next(one.request["seed"] for one in banks.unfinished() if one.folder == there.parent)
    with pytest.raises(InvalidInput, match="is a block of bank .*different requests make no bank"):
        part("2/2", seed=seed)
    assert toy.batches == []
    assert banks.find() == []


def test_the_command_tells_what_is_there_and_what_is_missing(
    generator: Any, run: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("generate", "--generator", generator.hash, "--n")
    code, _, err = run(*words, 640, "--shard", "3/2")
    assert (code, "--shard must be a part i/n" in err) == (2, True)
    cost = json.loads(run(*words, 640, "--shard", "1/3", "--dry-run", "--json")[1])
    assert (cost["images"], cost["blocks"]) == (640, 4)
    said = json.loads(run(*words, 640, "--shard", "1/3", "--json")[1])
    assert {name: said[name] for name in ("state", "shard", "landed", "blocks", "not_begun")} == {
        "state": "shard made",
        "shard": "1/3",
        "landed": 4,
        "blocks": 10,
        "not_begun": ["2/3", "3/3"],
    }
    code, _, err = run(*words, 641, "--shard", "2/3")
    assert (code, "they differ in n (640, here 641)" in err) == (3, True)
    code, out, err = run(*words, 640, "--shard", "1/3")
    assert (code, "4 of 10 blocks there" in out) == (0, True)
    assert "not begun: --shard 2/3, 3/3" in err
    assert "partial, 4 of 10 blocks" in run("bank", "list")[1]
    assert json.loads(run(*words, 640, "--json")[1])["state"] == "written"
    assert json.loads(run(*words, 640, "--shard", "2/3", "--json")[1])["state"] == "exists"


# Workers at the same time


class Gate:
    """A point that the first worker to come there does not pass until it is opened.

    It opens at the end of its context, so that a test that fails does not wait for its worker.
    """

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.opened.set()

    def guard(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*words: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                assert self.opened.wait(PATIENCE)
            return call(*words)

        return guarded


class Told(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told = threading.Event()

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.told.set()


@pytest.mark.parametrize("step", ["land", "fill", "seal", "publish"])
def test_a_worker_waits_for_what_another_is_at(
    part: Part, whole: str, toy: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    toy.batches.clear()
    gate, told = Gate(), Told()
    monkeypatch.setattr(Partial, step, gate.guard(getattr(Partial, step)))
    with ThreadPoolExecutor(2) as pool, gate:
        first = pool.submit(part)
        assert gate.reached.wait(PATIENCE)
        second = pool.submit(part, session=Session(reporter=told))
        assert told.told.wait(PATIENCE)
        assert not second.done()
        gate.opened.set()
        assert content(first.result()) == content(second.result()) == whole
    assert told.lines == ["waiting for other processes, which work on the same bank"]
    assert toy.batches.count(BLOCK) == 7


def test_a_worker_that_waits_can_be_stopped(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(Partial, "seal", gate.guard(Partial.seal))
    with ThreadPoolExecutor(1) as pool, gate:
        first = pool.submit(part)
        assert gate.reached.wait(PATIENCE)
        with pytest.raises(Stopped, match="7 of 7 blocks"):
            part(session=Session(StopAfter(1)))
        gate.opened.set()
        assert first.result() is not None


def test_an_unfinished_bank_is_not_removed_while_somebody_works_on_it(
    part: Part, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    gate = Gate()
    monkeypatch.setattr(Partial, "land", gate.guard(Partial.land))
    with ThreadPoolExecutor(1) as pool, gate:
        first = pool.submit(part)
        assert gate.reached.wait(PATIENCE)
        (unfinished,) = banks.unfinished()
        code, _, err = run("bank", "remove", unfinished.key[:8])
        assert (code, "is being worked on by" in err) == (Busy.code, True)
        gate.opened.set()
        assert first.result() is not None


def test_a_bank_that_appears_meanwhile_needs_no_block(
    part: Part, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was too slow to see the seal neither fails nor makes the bank again."""
    gate = Gate()
    monkeypatch.setattr(Partial, "claim", gate.guard(Partial.claim))
    with ThreadPoolExecutor(1) as pool, gate:
        slow = pool.submit(part)
        assert gate.reached.wait(PATIENCE)
        made = part()
        toy.batches.clear()
        gate.opened.set()
        assert slow.result() == made
    assert BLOCK not in toy.batches
    assert banks.unfinished() == []


# The disk


def test_the_space_of_the_bank_is_taken_before_the_first_block(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Partial, "land", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        part()
    (unfinished,) = banks.unfinished()
    file = unfinished.folder / "bank" / "bank.h5"
    assert file.stat().st_blocks * 512 >= file.stat().st_size > ROWS * 28


@pytest.mark.parametrize(("free", "fits"), [(1.9, False), (2.1, True)])
def test_blocks_and_bank_are_asked_for_first(
    part: Part, home: Path, monkeypatch: pytest.MonkeyPatch, free: float, fits: bool
) -> None:
    rows = 1_000 * BLOCK
    usage = store.shutil.disk_usage(home.parent)._replace(free=int(free * rows * 28) + (64 << 20))
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(Partial, "land", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError if fits else MissingEnvironment):
        part(n=rows)
    assert (home / "banks").exists() == fits


def test_progress_counts_the_images_that_are_there(part: Part) -> None:
    class Listens(Silent):
        def __init__(self) -> None:
            self.seen: list[tuple[float, float]] = []
            self.done: list[float] = []

        def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Any:
            self.seen.append((total, start))
            return self

        def update(self, done: float, **facts: object) -> None:
            self.done.append(done)

        def close(self) -> None:
            pass

    first, second = Listens(), Listens()
    part("1/2", session=Session(reporter=first))
    part(session=Session(reporter=second))
    assert first.seen == [(4 * BLOCK, 0.0)]
    assert first.done == [BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK]
    assert second.seen == [(ROWS, 4 * BLOCK)]
    assert second.done == [5 * BLOCK, 6 * BLOCK, ROWS]
    assert np.diff(second.done).min() > 0
