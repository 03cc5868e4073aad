"""`stylegan-mix doctor`: everything is told, also of a store that cannot be used."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_a_sound_machine_is_told_and_its_store_has_no_more_in_it(home: Path, run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"python", "torch", "cpu", "cuda", "h5py", "store", "shared"} <= set(found)
    assert "KERNELS=" in found["operators"]
    assert found["compiler"]
    assert found.get("self-check", "passed: none").startswith("passed: ")
    assert str(home) in found["store"]
    assert "writing, renaming and locking work" in found["store"]
    assert not (home / ".doctor").exists()


def test_a_store_that_cannot_be_written_is_told_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "file" / "store"))
    code, out, err = run("doctor", "--json")
    found = json.loads(out)
    assert code == 4
    assert "torch" in found
    assert "cannot be used: nothing can be written" in found["store"]
    assert "STYLEGAN_MIX_HOME" in err


@pytest.mark.parametrize(
    ("number", "told", "remedy"),
    [
        (errno.ENOSPC, "cannot be used: the disk is full", "free some space"),
        (errno.EIO, "cannot be used: .* does not work", "choose another place"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_takes_nothing_is_told_with_the_rest(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    call: str,
    number: int,
    told: str,
    remedy: str,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("KERNELS", "reference")
    monkeypatch.setattr(os, call, fail)
    code, out, err = run("doctor", "--json")
    found = json.loads(out)
    assert code == 4
    assert "torch" in found
    assert re.search(told, found["store"])
    assert remedy in err


def test_the_reference_by_choice_is_told_with_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["operators"] == "reference (KERNELS=reference)"
    assert "self-check" not in found
    assert not (home / "kernels").exists()
