"""A reader gives the rows as they were made, or says what is wrong with them."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix import arrays, store
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput, UsageFailure

Write = Callable[..., Path]


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    """A writable copy of a bank of 100 rows, outside of the store."""
    copy = tmp_path / "copied bank\nwith an odd name"
    shutil.copytree(write(), copy)
    for path in (copy, *copy.iterdir()):
        path.chmod(0o755)
    return copy


def forged(folder: Path, facts: dict[str, Any] | None = None, **changed: np.ndarray) -> Path:
    """The bank again, with other arrays or facts and hashes that fit them."""
    opened = arrays.open_container(folder, kind="hybrid-bank")
    mine = {name: np.array(opened[name]) for name in opened} | changed
    final = folder.with_name("forged")
    said = {**opened.facts, **(facts or {})}
    arrays.write(final, mine, kind="hybrid-bank", facts=said, file="bank.h5")
    return final


def remanifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest and makes its own hash fit again."""
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_sha256"]
    change(manifest)
    manifest["manifest_sha256"] = store.digest(manifest)
    path.write_text(json.dumps(manifest))


def test_a_bank_reads_as_it_was_written(folder: Path) -> None:
    bank = open_bank(folder)
    assert len(bank) == 100
    assert (bank.images.shape, bank.images.dtype) == ((100, 4, 4, 1), np.uint8)
    assert (bank.pair.shape, bank.pair.dtype) == ((100, 2), np.int32)
    assert (bank.lam.shape, bank.lam.dtype) == ((100,), np.float32)
    assert not bank.images.flags.writeable
    assert (bank.space, bank.classes) == ("w", ("ant", "bee", "cat"))


@pytest.mark.parametrize("change", ["truncated", "extended", "flipped", "gone", "another"])
def test_a_file_that_is_not_as_it_was_left_is_refused(folder: Path, change: str) -> None:
    path = folder / "bank.h5"
    data = bytearray(path.read_bytes())
    if change == "truncated":
        del data[-1]
    elif change == "extended":
        data += b"\0"
    elif change == "flipped":
        data[len(data) // 2] ^= 1
    if change == "gone":
        path.unlink()
    elif change == "another":
        import h5py

        with h5py.File(path, "w") as root:
            root["images"] = h5py.ExternalLink("/etc/hostname", "/images")
    else:
        path.write_bytes(data)
    with pytest.raises(InvalidInput) as caught:
        open_bank(folder)
    assert "stylegan-mix generate --dataset letters" in (caught.value.remedy or "")


def test_no_mutated_byte_anywhere_goes_unnoticed(folder: Path) -> None:
    draw = random.Random(0)
    plain = {name: (folder / name).read_bytes() for name in ("bank.h5", "MANIFEST.json")}
    said = json.loads(plain["MANIFEST.json"])
    for _ in range(300):
        name = draw.choice(sorted(plain))
        data = bytearray(plain[name])
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (folder / name).write_bytes(data)
        if bytes(data) != plain[name]:
            try:
                open_bank(folder)
            except InvalidInput:
                pass
            else:
                # White space between the words of the manifest says nothing.
                assert name == "MANIFEST.json"
                assert json.loads(data) == said
        (folder / name).write_bytes(plain[name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing"),
        ("", "JSON"),
        ("[]", "schema"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "JSON"),
        ('{"schema": NaN}', "not a number"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str | None, message: str) -> None:
    path = folder / "MANIFEST.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        open_bank(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": ">i4"}, "dtype"),
        ({"dtype": "O"}, "dtype"),
        ({"dtype": "f8"}, "outside|over"),
        ({"shape": [1 << 60, 4, 4, 1]}, "outside"),
        ({"shape": [-1, 4, 4, 1]}, "shape"),
        ({"shape": [100.0, 4, 4, 1]}, "shape"),
        ({"shape": "100"}, "shape"),
        ({"offset": 1 << 60}, "outside"),
        ({"offset": -8}, "shape|offset"),
    ],
)
def test_a_manifest_cannot_make_the_reader_leave_the_arrays(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    remanifest(folder, lambda manifest: manifest["arrays"]["images"].update(change))
    with pytest.raises(InvalidInput, match=message):
        open_bank(folder)


@pytest.mark.parametrize("name", ["../bank.h5", "/etc/hostname", ".hidden", "a/b", ""])
def test_a_manifest_cannot_name_another_file(folder: Path, name: str) -> None:
    remanifest(folder, lambda manifest: manifest.update(file=name))
    with pytest.raises(InvalidInput):
        open_bank(folder)


def test_a_link_in_the_place_of_the_file_is_refused(folder: Path) -> None:
    shutil.move(folder / "bank.h5", folder / "elsewhere.h5")
    (folder / "bank.h5").symlink_to(folder / "elsewhere.h5")
    with pytest.raises(InvalidInput, match="symbolic link"):
        open_bank(folder)


NAN = np.full(100, np.nan, np.float32)
BAD = [
    ({"lam": NAN}, "lam of row 0"),
    ({"lam": np.full(100, 1.5, np.float32)}, "outside"),
    ({"lam": np.full(100, -0.5, np.float32)}, "outside"),
    ({"lam": np.zeros(99, np.float32)}, "rows are declared"),
    ({"lam": np.zeros(100, np.float64)}, "'lam' must be f4"),
    ({"pair": np.full((100, 2), 3, np.int32)}, "there are 3"),
    ({"pair": np.full((100, 2), -1, np.int32)}, "there are 3"),
    ({"pair": np.zeros((100, 3), np.int32)}, r"\(N, 2\)"),
    ({"images": np.zeros((100, 16), np.uint8)}, "4 dimensions"),
    ({"images": np.zeros((50, 4, 4, 1), np.uint8)}, "rows are declared"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_labels_that_cannot_be_are_refused(folder: Path, changed: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        open_bank(forged(folder, **changed))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"schema_version": 2}, "newer"),
        ({"schema_version": "1"}, "'schema_version' must be int, got '1'"),
        ({"n": 99}, "rows are declared"),
        ({"classes": ["ant", "bee"]}, "there are 2"),
        ({"image_shape": [8, 8, 1]}, "declared"),
        ({"classes": 3}, "'classes' must be list"),
        ({"key": None}, "'key' must be str"),
    ],
)
def test_facts_that_do_not_fit_are_refused(folder: Path, facts: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        open_bank(forged(folder, facts))


def test_a_container_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    arrays.write(other, {"images": np.zeros(3, np.uint8)}, kind="prepared-set", facts={})
    with pytest.raises(InvalidInput, match="hybrid-bank"):
        open_bank(other)


def test_a_bank_of_another_split_is_refused_with_the_command_to_make_one(folder: Path) -> None:
    bank = open_bank(folder)
    bank.require_split("5" * 64)
    with pytest.raises(InvalidInput, match="555555555555.*666666666666") as caught:
        bank.require_split("6" * 64)
    assert "stylegan-mix generate" in (caught.value.remedy or "")


def test_a_bank_that_changes_under_its_reader_is_noticed(folder: Path) -> None:
    bank = open_bank(folder)
    bank.require_unchanged()
    (folder / "bank.h5").write_bytes((folder / "bank.h5").read_bytes())
    with pytest.raises(InvalidInput, match="replaced or altered"):
        bank.require_unchanged()
    (folder / "bank.h5").unlink()
    with pytest.raises(InvalidInput, match="replaced or altered"):
        bank.require_unchanged()


def test_a_bank_travels_to_another_process_as_its_path(folder: Path, write: Write) -> None:
    bank = open_bank(folder)
    data = pickle.dumps(bank)
    assert len(data) < 500
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.images, bank.images)
    other = write(n=101)
    shutil.copy(other / "MANIFEST.json", folder / "MANIFEST.json")
    shutil.copy(other / "bank.h5", folder / "bank.h5")
    with pytest.raises(InvalidInput, match="another bank"):
        pickle.loads(data)


def test_reading_and_finding_import_neither_torch_nor_hdf5(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stylegan_mix.banks import reader, store\n"
        "bank = reader.open_bank(Path(sys.argv[1])); store.find(); bank.images[:3].sum()\n"
        "sys.exit(bool({'torch', 'h5py', 'sklearn', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


# The store


def test_a_bank_is_found_by_what_it_is(write: Write) -> None:
    plain, control = write(n=10), write(n=10, space="none")
    assert {one.folder for one in banks.find()} == {plain, control}
    assert [one.folder for one in banks.find(space="none")] == [control]
    assert banks.find(dataset="numbers") == []
    assert banks.find(split_id="6" * 64) == []
    assert len(banks.find(split_id="5" * 64, dataset="letters")) == 2


def test_the_newest_bank_comes_first(write: Write) -> None:
    folders = [write(n=n) for n in (1, 2, 3)]
    for age, folder in zip((30, 10, 20), folders, strict=True):
        os.utime(folder / "MANIFEST.json", (1e9 - age, 1e9 - age))
    assert [one.facts["n"] for one in banks.find()] == [2, 3, 1]


def test_a_bank_is_resolved_by_key_beginning_or_path(write: Write, folder: Path) -> None:
    (made,) = [one.folder for one in banks.find()]
    for ref in (made.name, made.name[:6], str(made), str(made) + "/"):
        assert banks.resolve(ref) == made
    assert banks.resolve(str(folder)) == folder
    with pytest.raises(InvalidInput, match="no bank 'cafe'") as caught:
        banks.resolve("cafe")
    assert "stylegan-mix generate --dataset" in (caught.value.remedy or "")
    with pytest.raises(InvalidInput):
        banks.resolve("")
    with pytest.raises(InvalidInput):
        banks.resolve("x" * 300)


def test_a_beginning_that_fits_two_banks_is_ambiguous(home: Path) -> None:
    for key in ("ab" + "0" * 62, "ab" + "1" * 62):
        (home / "banks" / key).mkdir(parents=True)
    with pytest.raises(UsageFailure, match="begins 2 banks"):
        banks.resolve("ab")


def test_a_link_out_of_the_store_is_no_bank(write: Write, home: Path, folder: Path) -> None:
    made = write(n=5)
    away = made.rename(home / "away")
    made.symlink_to(away)
    assert away not in [one.folder for one in banks.find()]
    assert made not in [one.folder for one in banks.find()]
    with pytest.raises(InvalidInput, match="symbolic link"):
        banks.resolve(made.name)


def test_a_moved_store_is_the_same_store(
    write: Write, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_bank(write()).content_sha256
    moved = home.rename(tmp_path / "moved\nstore")
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(moved))
    (record,) = banks.find()
    assert open_bank(record.folder).content_sha256 == before


def test_a_shared_store_is_read_and_our_own_copy_comes_first(
    write: Write, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(n=10)
    library = home.rename(tmp_path / "library")
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(library))
    assert [one.folder.parents[1] for one in banks.find()] == [library]
    assert banks.resolve(banks.find()[0].key[:8]).parents[1] == library
    mine = write(n=10)
    assert [one.folder for one in banks.find()] == [mine]
    assert banks.resolve(mine.name) == mine


def test_a_damaged_bank_is_listed_as_such_and_hides_no_other(write: Write, home: Path) -> None:
    whole = write(n=10)
    broken = home / "banks" / ("f" * 64)
    broken.mkdir()
    (broken / "MANIFEST.json").write_text("{}")
    impostor = home / "banks" / ("e" * 64)
    shutil.copytree(whole, impostor)
    assert [one.folder for one in banks.find()] == [whole]
    reasons = dict(banks.damaged())
    assert set(reasons) == {broken, impostor}
    assert "another key" in reasons[impostor]


def test_a_truncated_bank_is_listed_as_damaged_without_hashing(write: Write) -> None:
    folder = write(n=10)
    (folder / "bank.h5").chmod(0o644)
    os.truncate(folder / "bank.h5", 100)
    assert banks.find() == []
    ((path, reason),) = banks.damaged()
    assert (path, "has 100 bytes" in reason) == (folder, True)


def test_a_thousand_banks_are_listed_by_their_manifests_alone(write: Write, home: Path) -> None:
    path = write(n=5) / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_sha256"]
    for number in range(1000):
        key = f"{number:064x}"
        manifest["facts"]["key"] = key
        folder = home / "banks" / key
        folder.mkdir()
        mine = {**manifest, "manifest_sha256": store.digest(manifest)}
        (folder / "MANIFEST.json").write_text(json.dumps(mine))
        os.link(path.parent / "bank.h5", folder / "bank.h5")
    file = path.parent / "bank.h5"
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))  # a reader that opened or hashed it would fail
    assert len(banks.find()) == 1001
