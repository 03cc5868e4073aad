"""Removing from the store: nothing is lost, and nothing that others need goes."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_mix import store
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import Busy, MissingEnvironment
from stylegan_mix.removal import Removal, carry_out, plan

Write = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def letters(home: Path, run: Run) -> Path:
    """The folder of a prepared data set called letters."""
    for part in ("train", "test"):
        for label in ("ant", "bee"):
            folder = Path("images") / part / label
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = np.full((8, 8), 40 * number + len(part) + len(label), np.uint8)
                pixels[0, 0] = ord(label[0])
                Image.fromarray(pixels).save(folder / f"{number}.png")
    code, _, err = run("dataset", "prepare", "letters", "--from", "images")
    assert code == 0, err
    return home / "datasets" / "letters"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put_back(err: str) -> None:
    """Types the command that a removal prints."""
    (line,) = [line for line in err.splitlines() if "to get it back" in line]
    subprocess.run(shlex.split(line.partition(": ")[2]), check=True)


def a_run(place: str, **spec: Any) -> None:
    """A run folder that names a data set and a bank."""
    store.write_json(Path(place) / "seed-0" / "run.json", {"schema": "trainer-run/1", "spec": spec})


def test_a_bank_goes_into_the_trash_and_comes_back(write: Write, run: Run, home: Path) -> None:
    folder = write()
    before = bytes_of(folder)
    code, out, err = run("bank", "remove", folder.name[:8], "--dry-run")
    assert (code, folder.is_dir()) == (0, True)
    assert out == f"{folder.name}: would be in the trash, {home}/banks/.trash/{folder.name}\n"
    code, out, err = run("bank", "remove", folder.name[:8])
    assert (code, folder.exists()) == (0, False), err
    assert run("bank", "list", "--json")[1] == "[]\n"
    assert bytes_of(home / "banks" / ".trash" / folder.name) == before
    put_back(err)
    assert len(open_bank(folder)) == 100


def test_the_same_bank_removed_twice_is_kept_twice(write: Write, run: Run, home: Path) -> None:
    for _ in range(3):
        assert run("bank", "remove", write().name)[0] == 0
    kept = sorted(path.name for path in (home / "banks" / ".trash").iterdir())
    assert [name[64:] for name in kept] == ["", ".2", ".3"]


def test_a_generator_goes_into_the_trash_and_comes_back(
    generator: Any, run: Run, home: Path
) -> None:
    code, out, _ = run("generators", "remove", generator.hash[:8], "--json")
    (moved,) = json.loads(out)["moved"]
    assert (code, moved["folder"], generator.folder.exists()) == (0, str(generator.folder), False)
    assert moved["trash"] == str(home / "generators" / ".trash" / generator.hash)
    assert json.loads(run("generators", "list", "--json")[1]) == []
    os.rename(moved["trash"], moved["folder"])
    assert run("generators", "show", generator.hash[:8])[0] == 0


def test_a_data_set_goes_into_the_trash_and_comes_back(letters: Path, run: Run) -> None:
    code, _, err = run("dataset", "remove", "letters")
    assert (code, letters.exists()) == (0, False), err
    names = {row["name"] for row in json.loads(run("dataset", "list", "--json")[1])}
    assert "letters" not in names and ".trash" not in names
    put_back(err)
    assert run("dataset", "verify", "letters")[0] == 0


def test_several_go_at_once_or_none(write: Write, run: Run) -> None:
    folders = [write(seed=seed) for seed in range(2)]
    keys = [folder.name for folder in folders]
    code, _, err = run("bank", "remove", keys[0], keys[1], "nothing")
    assert (code, [folder.is_dir() for folder in folders]) == (3, [True, True])
    assert "no bank 'nothing'" in err
    assert run("bank", "remove", *keys, keys[0][:10])[0] == 0
    assert not any(folder.exists() for folder in folders)


# in use


def test_a_bank_that_a_run_names_stays(write: Write, run: Run) -> None:
    folder = write()
    a_run("runs/one", data={"name": "letters"}, bank={"key": folder.name})
    a_run("runs/two", data={"name": "letters"}, bank=None)
    (Path("runs") / "broken").mkdir()
    (Path("runs") / "broken" / "run.json").write_text("{")
    for more in ((), ("--dry-run",)):
        code, out, err = run("bank", "remove", folder.name, *more)
        assert (code, out, folder.is_dir()) == (2, "", True)
        assert f"bank {folder.name[:12]} is needed by run runs/one/seed-0\n" in err
    os.rename("runs", "elsewhere")
    assert run("bank", "remove", folder.name, "--runs", "elsewhere")[0] == 2
    assert run("bank", "remove", folder.name)[0] == 0


def test_a_generator_that_banks_name_stays(generator: Any, run: Run, home: Path) -> None:
    words = ("generate", "--generator", generator.hash, "--n", "64")
    made = json.loads(run(*words, "--json")[1])
    code, _, err = run("generators", "remove", generator.hash[:9])
    assert (code, generator.folder.is_dir()) == (2, True)
    assert f"is needed by bank {made['key'][:12]}" in err
    assert run("bank", "remove", made["key"])[0] == 0
    begun = home / "banks" / ".partial" / ("e" * 64)
    asked = {"n": 64, "block": 64, "space": "w", "generator": generator.hash}
    store.write_json(begun / "request.json", {"request": asked})
    code, _, err = run("generators", "remove", generator.hash[:9])
    assert (code, "unfinished bank eeeeeeeeeeee" in err) == (2, True)
    assert run("bank", "remove", "eee")[0] == 0
    assert run("generators", "remove", generator.hash[:9])[0] == 0


@pytest.mark.parametrize("user", ["bank", "run"])
def test_a_data_set_that_others_name_stays(
    letters: Path, write: Write, run: Run, user: str
) -> None:
    if user == "bank":
        write()
    else:
        a_run("runs/one", data={"name": "letters"}, bank=None)
    code, _, err = run("dataset", "remove", "letters")
    assert (code, letters.is_dir()) == (2, True)
    assert f"data set letters is needed by {user} " in err.replace("dataset", "data set")


def test_a_data_set_that_a_generator_names_stays(
    letters: Path, generator: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.generators import store as generator_store

    monkeypatch.setitem(generator.card, "dataset", "letters")
    monkeypatch.setattr(generator_store, "find", lambda: [generator])
    code, _, err = run("dataset", "remove", "letters")
    assert (code, f"needed by generator {generator.hash[:12]}" in err) == (2, True)


def test_many_users_are_counted(write: Write, run: Run) -> None:
    folder = write()
    for number in range(8):
        a_run(f"runs/{number}", bank={"key": folder.name})
    _, _, err = run("bank", "remove", folder.name)
    assert "run runs/4/seed-0 and 3 more" in err


def test_what_is_damaged_can_be_removed_though_it_is_named(
    letters: Path, write: Write, generator: Any, run: Run
) -> None:
    bank = write()
    a_run("runs/one", data={"name": "letters"}, bank={"key": bank.name})
    for folder in (letters, bank, generator.folder):
        (folder / "MANIFEST.json").chmod(0o644)
        (folder / "MANIFEST.json").write_text("{")
    assert run("bank", "remove", bank.name)[0] == 0
    assert run("dataset", "remove", "letters")[0] == 0
    assert run("generators", "remove", generator.hash)[0] == 0


# not ours


def test_what_does_not_lie_in_the_own_store_stays(
    letters: Path, write: Write, run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = write()
    shutil.copytree(bank, "copy")
    code, _, err = run("bank", "remove", "copy")
    assert (code, "does not lie in the store" in err) == (2, True)
    os.rename(home, "shared")
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home.parent / "shared"))
    for words in (("dataset", "remove", "letters"), ("bank", "remove", bank.name)):
        code, _, err = run(*words)
        assert (code, "a shared store is only read" in err) == (2, True), err
    assert run("dataset", "remove", "digits_lt")[0] == 2


@pytest.mark.parametrize("name", ["nothing", "..", "../datasets/letters", ".trash", ""])
def test_an_unknown_name_is_no_path(letters: Path, run: Run, name: str) -> None:
    code, _, err = run("dataset", "remove", name)
    assert (code, letters.is_dir()) == (3, True)
    assert "Known: letters" in err


# interruptions, locks


def test_an_entry_that_is_being_written_stays(letters: Path, run: Run) -> None:
    with store.locked(letters.with_name(".letters.lock")):
        (one,) = plan("dataset", ["letters"], [])
        with pytest.raises(Busy, match="is being worked on by"):
            carry_out(one)
    assert letters.is_dir()


def test_a_removal_that_fails_leaves_everything(
    write: Write, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write()
    before = bytes_of(folder)

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as during:
        during.setattr(os, "rename", fail)
        with pytest.raises(MissingEnvironment, match="no permission"):
            carry_out(Removal("bank", folder.name, folder))
    assert bytes_of(folder) == before


def test_lock_files_go_unless_they_are_held(write: Write, run: Run, home: Path) -> None:
    free = [
        home / place for place in ("training/a.lock", "datasets/.b.lock", "annotations/c/d.lock")
    ]
    held = home / "training" / "e.lock"
    kept = home / "kernels" / "f" / "lock"
    for path in (*free, held, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with store.locked(held):
        code, out, _ = run("bank", "remove", write().name, "--json")
    assert code == 0 and json.loads(out)["locks_removed"] >= 3
    assert not any(path.exists() for path in free)
    assert held.exists() and kept.exists()


def test_on_a_full_disk_something_can_be_removed(
    home: Path, write: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    code, _, err = run("bank", "remove", folder.name[:12])
    assert code == 0, err
    assert not folder.exists()
