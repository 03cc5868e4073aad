"""A bank's bytes follow from its request, wherever its making was cut off and begun again."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import StopAfter

from stylegan_mix import arrays, numerics, store
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput, MissingEnvironment, Stopped
from stylegan_mix.latents.plan import BLOCK, Mixing, rows
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.session import Session

Write = Callable[..., Path]


class Cut(Exception):
    """Ends the work in the place of a kill."""


def rest_of(home: Path) -> list[Path]:
    """What lies in the store beside published banks."""
    return [*(home / "banks/.partial").iterdir(), *(home / "banks").glob(".differs-*")]


def cut_after(monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Lets `blocks` blocks land and then ends the work."""
    land, count = Partial.land, iter(range(blocks))

    def landing(self: Partial, *block: Any) -> None:
        if next(count, None) is None:
            raise Cut
        land(self, *block)

    monkeypatch.setattr(Partial, "land", landing)


@pytest.mark.parametrize("space", SPACES)
def test_a_bank_is_the_beginning_of_every_longer_one(write: Write, space: str) -> None:
    short, long = (open_bank(write(n=100, space=space)), open_bank(write(n=300, space=space)))
    np.testing.assert_array_equal(short.images, long.images[:100])
    np.testing.assert_array_equal(short.pair, long.pair[:100])
    np.testing.assert_array_equal(short.lam, long.lam[:100])


def test_every_forward_pass_has_a_whole_block(write: Write, toy: Any) -> None:
    write(n=70, space="w")
    assert set(toy.batches[:2]) == {BLOCK}
    assert len(open_bank(write(n=1))) == 1


def test_labels_are_those_of_the_plan(write: Write) -> None:
    bank, planned = (
        open_bank(write(n=130, alpha=0.5, seed=3)),
        rows(Mixing(3, 4, "w", 0.5, 3), 0, 130),
    )
    np.testing.assert_array_equal(bank.pair, planned.pair)
    np.testing.assert_array_equal(bank.lam, planned.lam)
    assert bank.class_mass().sum() == pytest.approx(130)


def test_content_stays_what_it_was(write: Write) -> None:
    # The toy is exact on every machine: a change here is one of the plan, the mixing or the
    # rounding, and raises the version of that in `request.ALGORITHM`.
    # (Roots are not exact, so "w-spread" is left out.)
    pinned = sorted(set(SPACES) - {"w-spread"})
    found = {space: open_bank(write(n=200, space=space)).content_sha256[:16] for space in pinned}
    assert found == {
        "w": "a2a37d0b3b81f389",
        "z": "4fa67553d63797f0",
        "label": "c5a5ad62f9051c01",
        "none": "bbb7c4838bae3a4c",
        "pixel": "db9819e6d324df6c",
        "w+": "79ebb957a2bcbee0",
        "channels": "3698e469eaa9bda8",
    }


def test_two_stores_hold_the_same_file(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    first = write()
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "other store, with spaces"))
    second = write()
    assert first != second
    assert store.sha256_file(first / "bank.h5") == store.sha256_file(second / "bank.h5")


def test_a_finished_bank_is_read_only_and_alone(write: Write, home: Path) -> None:
    folder = write()
    names = {path.name for path in folder.iterdir()}
    assert names == {"bank.h5", "MANIFEST.json", "BANK_CARD.md", "preview.png"}
    for path in folder.iterdir():
        assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH), path
    assert rest_of(home) == []


def test_another_tool_reads_the_same_arrays_and_finds_no_clock(write: Write) -> None:
    import h5py

    folder = write()
    bank = open_bank(folder)
    with h5py.File(folder / "bank.h5", "r", locking=False) as root:
        assert set(root) == {"images", "pair", "lam"}
        for name in root:
            assert root[name].chunks is None
            np.testing.assert_array_equal(root[name][()], getattr(bank, name))
        assert json.loads(root.attrs["classes"]) == list(bank.classes)
        assert root.attrs["generator"] == bank.facts["generator"]
        assert not {name for name in root.attrs if "time" in name or "utc" in name}


def test_a_second_request_decodes_nothing(write: Write, toy: Any) -> None:
    first = write()
    toy.batches.clear()
    assert write() == first
    assert toy.batches == []


# Cut off and begun again


@pytest.mark.parametrize("blocks", range(6))
def test_work_cut_at_any_block_ends_in_the_same_bytes(
    write: Write, home: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    with monkeypatch.context() as patched:
        cut_after(patched, blocks)
        with pytest.raises(Cut):
            write(n=6 * BLOCK - 10)
    assert banks.find() == []
    assert [one.landed for one in banks.unfinished()] == [blocks]
    toy.batches.clear()
    again = open_bank(write(n=6 * BLOCK - 10))
    assert toy.batches.count(BLOCK) == 6 - blocks
    plain = open_bank(write(n=6 * BLOCK))
    np.testing.assert_array_equal(again.images, plain.images[: len(again)])
    assert banks.unfinished() == []


def damaged(content: bytes, how: str) -> bytes:
    """The file of a block, as a power cut or a bad disk may leave it."""
    head, _, body = content.partition(b"\n")
    return {
        "a bit": content[:-70] + bytes([content[-70] ^ 1]) + content[-69:],
        "cut": content[:-1],
        "longer": content + b"\0",
        "empty": b"",
        "zeros": bytes(len(content)),
        "head": b"[" * len(head) + b"\n" + body,
        "index": content.replace(b'"block": 1,', b'"block": 2,'),
    }[how]


@pytest.mark.parametrize("how", ["a bit", "cut", "longer", "empty", "zeros", "head", "index"])
def test_a_block_that_was_altered_is_made_again(
    write: Write, home: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with monkeypatch.context() as patched:
        cut_after(patched, 3)
        with pytest.raises(Cut):
            write(n=300)
    (file,) = (home / "banks/.partial").glob("*/blocks/1")
    file.write_bytes(damaged(file.read_bytes(), how))
    toy.batches.clear()
    resumed = open_bank(write(n=300)).images[:].copy()
    assert toy.batches.count(BLOCK) == 3
    np.testing.assert_array_equal(resumed, open_bank(write(n=301)).images[:300])


def test_files_beside_the_blocks_say_nothing(
    write: Write, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        cut_after(patched, 2)
        with pytest.raises(Cut):
            write(n=300)
    (folder,) = (home / "banks/.partial").glob("*/blocks")
    for name in (".4", "9", "x", "\u0663", "1" * 30):
        (folder / name).write_bytes(b"")
    assert [one.landed for one in banks.unfinished()] == [2]
    resumed = open_bank(write(n=300)).images[:].copy()
    np.testing.assert_array_equal(resumed, open_bank(write(n=301)).images[:300])


@pytest.mark.parametrize("step", ["fill", "seal", "publish"])
def test_work_cut_between_the_last_block_and_the_rename_is_published(
    write: Write, home: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:

        def cut(*_: Any) -> None:
            raise Cut

        patched.setattr(Partial, step, cut)
        with pytest.raises(Cut):
            write(n=130)
    if step == "publish":
        # As if the cut had come a moment earlier, between the manifest and the end of the seal.
        (folder,) = (home / "banks/.partial").glob("*/bank")
        (folder / "layout.json").touch()
    toy.batches.clear()
    final = write(n=130)
    assert BLOCK not in toy.batches
    assert "layout.json" not in os.listdir(final)
    resumed = open_bank(final).images[:].copy()
    np.testing.assert_array_equal(resumed, open_bank(write(n=131)).images[:130])


def test_a_partial_bank_with_an_altered_seal_is_begun_again(
    write: Write, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Partial, "publish", lambda _: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            write(n=130)
    (file,) = (home / "banks/.partial").glob("*/bank/bank.h5")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    open_bank(write(n=130))


def test_minutes_stop_after_a_block_and_the_same_request_goes_on(write: Write, toy: Any) -> None:
    with pytest.raises(Stopped, match=r"stopped \(minutes\): 2 of 5 blocks .* are kept"):
        write(n=300, session=Session(StopAfter(2)))
    assert banks.unfinished()[0].landed == 2
    toy.batches.clear()
    write(n=300)
    assert toy.batches.count(BLOCK) == 3


# Faults


@pytest.mark.parametrize("blocks", [0, 1, 4])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_fails_at_a_block_keeps_what_landed(
    write: Write, monkeypatch: pytest.MonkeyPatch, blocks: int, code: int
) -> None:
    from builtins import open as real_open

    written = iter(range(blocks))

    def failing(path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode == "wb" and next(written, None) is None:
            raise OSError(code, os.strerror(code), str(path))
        return real_open(path, mode, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr("stylegan_mix.banks.blocks.open", failing, raising=False)
        with pytest.raises(MissingEnvironment):
            write(n=300)
    assert banks.find() == []
    assert banks.unfinished()[0].landed == blocks
    resumed = open_bank(write(n=300)).images[:].copy()
    np.testing.assert_array_equal(resumed, open_bank(write(n=301)).images[:300])


def test_a_bank_that_cannot_fit_is_refused_before_anything_is_written(
    write: Write, home: Path
) -> None:
    with pytest.raises(MissingEnvironment, match="MB are free"):
        write(n=1 << 40)
    assert not (home / "banks").exists()


def test_a_generator_that_gives_nan_makes_no_bank(write: Write, toy: Any) -> None:
    toy.weight.fill_(float("nan"))
    with pytest.raises(InvalidInput, match="not finite"):
        write()
    assert banks.find() == []


@pytest.mark.parametrize("change", [0.0, 0.25], ids=["same", "other"])
def test_of_two_that_finish_the_second_compares_its_bytes(
    write: Write, home: Path, monkeypatch: pytest.MonkeyPatch, change: float
) -> None:
    real_publish = Partial.publish

    def late(self: Partial) -> Path:
        ours = arrays.open_container(self.folder, kind="hybrid-bank")
        first = {name: np.array(ours[name]) for name in ours}
        first["lam"] *= 1 - change
        arrays.write(self.final, first, kind="hybrid-bank", facts=ours.facts, file="bank.h5")
        return real_publish(self)

    monkeypatch.setattr(Partial, "publish", late)
    if change:
        with pytest.raises(InvalidInput, match="made twice with different bytes"):
            write(n=10)
        (kept,) = (home / "banks").glob(".differs-*")
        open_bank(kept)
    else:
        write(n=10)
        assert rest_of(home) == []
    assert len(banks.find()) == 1


# Pictures and card


def test_card_says_where_a_bank_comes_from_and_how_to_use_it(write: Write) -> None:
    folder = write(n=77, space="pixel", alpha=0.5)
    text, bank = (folder / "BANK_CARD.md").read_text(), open_bank(folder)
    for part in (
        bank.key,
        bank.request_key,
        bank.content_sha256,
        bank.split_id,
        bank.facts["test_id"],
        bank.facts["generator"],
        "77 generated images",
        "`pixel`",
        "Beta(0.5, 0.5)",
        "| bee | 0.80 |",
        "| cat | n/a |",
        "not calibrated",
        "keep to the terms of that data",
        bank.facts["command"],
    ):
        assert part in text, part


def test_command_of_a_bank_asks_for_it_again(write: Write, card: dict[str, Any]) -> None:
    from stylegan_mix.commands.generate import generate as command

    card["imbalance"] = 10 / 3
    bank = open_bank(write(n=77, space="z", alpha=1 / 3, seed=4, truncation=0.7))
    words = bank.facts["command"].split()
    assert words[:2] == ["stylegan-mix", "generate"]
    options = command.make_context("generate", words[2:]).params
    asked = {name: options[name] for name in ("n", "space", "alpha", "seed", "truncation")}
    assert asked == {"n": 77, "space": "z", "alpha": 1 / 3, "seed": 4, "truncation": 0.7}
    assert options["dataset"] == "letters"
    assert options["imbalance"] == 10 / 3
    assert bank.facts["generator"].startswith(options["generator"])


def test_facts_hold_no_clock_but_the_date_of_making(write: Write) -> None:
    assert [name for name in open_bank(write()).facts if "utc" in name or "time" in name] == [
        "created_utc"
    ]
    assert numerics.numerics_class("cpu", "float32").device.startswith("cpu-")
