"""The container: what was written is what is read, and nothing else is."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stylegan_mix import arrays, store
from stylegan_mix.errors import Failure, InvalidInput


def _content() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "images": draw.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8),
        "lam": draw.random(7).astype(np.float32),
        "group/rows": np.arange(7, dtype=np.int64),
        "none": np.zeros((0, 3), np.float32),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "thing"
    arrays.write(target, _content(), kind="test", facts={"a": 1}, attributes={"x": "y"})
    return target


def test_round_trip_and_facts(folder: Path) -> None:
    container = arrays.open_container(folder, kind="test")
    for name, array in _content().items():
        np.testing.assert_array_equal(container[name], array)
        assert container[name].dtype == array.dtype
    assert container.facts == {"a": 1}
    assert not container["images"].flags.writeable


def test_any_hdf5_tool_opens_it(folder: Path) -> None:
    with h5py.File(folder / "data.h5") as root:
        np.testing.assert_array_equal(root["images"][:], _content()["images"])
        np.testing.assert_array_equal(root["group/rows"][:], _content()["group/rows"])
        assert root["images"].chunks is None
        assert root.attrs["x"] == "y"


def test_the_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    arrays.write(other, _content(), kind="test", facts={"a": 1}, attributes={"x": "y"})
    assert (other / "data.h5").read_bytes() == (folder / "data.h5").read_bytes()
    assert (other / "MANIFEST.json").read_bytes() == (folder / "MANIFEST.json").read_bytes()
    assert arrays.fingerprint(_content()) == arrays.read_manifest(other)["content_sha256"]


def test_facts_that_no_reader_would_take_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long to be read"):
        arrays.write(tmp_path / "thing", _content(), kind="test", facts={"a": ["x" * 99] * 50_000})
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_holds_the_path_alone(folder: Path) -> None:
    container = arrays.open_container(folder, kind="test")
    packed = pickle.dumps(container)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)["images"], _content()["images"])


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="a 'bank' was expected, this is a 'test'"):
        arrays.open_container(folder, kind="bank")


def _spoil(folder: Path, **changes: Any) -> None:
    """Changes the manifest and makes its own hash fit again: a forger, not an accident."""
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        target, _, entry = name.partition("__")
        if entry:
            manifest["arrays"]["images"][entry] = value
        else:
            manifest[target] = value
    del manifest["manifest_sha256"]
    manifest["manifest_sha256"] = store.digest(manifest)
    path.chmod(0o644)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"file": "../data.h5"},
        {"file": "/etc/passwd"},
        {"images__shape": [1 << 40, 1 << 40]},
        {"images__shape": [-7, 4, 4, 3]},
        {"images__shape": [True, 4, 4, 3]},
        {"images__offset": 1 << 50},
        {"images__dtype": "O"},
        {"images__sha256": "0" * 64},
        {"arrays": []},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_forged_manifest_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    _spoil(folder, **changes)
    with pytest.raises(InvalidInput):
        arrays.open_container(folder, kind="test", verify=False)


def test_no_mutant_is_read_wrongly(folder: Path, tmp_path: Path) -> None:
    # Byte flips, cuts and extensions of either file: an error with code 3, or the right content.
    good = {name: array.tobytes() for name, array in _content().items()}
    draw = random.Random(0)
    for number in range(150):
        mutant = tmp_path / f"mutant-{number}"
        shutil.copytree(folder, mutant)
        path = mutant / draw.choice(["data.h5", "MANIFEST.json"])
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        action = draw.randrange(3)
        if action == 0:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif action == 1:
            del data[draw.randrange(len(data)) :]
        else:
            data += bytes(draw.randrange(1, 9))
        path.write_bytes(data)
        try:
            container = arrays.open_container(mutant, kind="test")
        except Failure as failure:
            assert failure.code == 3
        else:
            assert {name: container[name].tobytes() for name in container} == good
        shutil.rmtree(mutant)


def test_a_writer_goes_on_with_what_is_there(tmp_path: Path) -> None:
    declared = {"images": ("u1", (4, 2, 2, 1))}
    writer = arrays.Writer(tmp_path / "w", declared, resume=True)
    assert not writer.resumed
    writer.view("images")[:2] = 7
    writer.flush()
    again = arrays.Writer(tmp_path / "w", declared, resume=True)
    assert again.resumed
    assert again.view("images")[:2].min() == 7
    other = arrays.Writer(tmp_path / "w", {"images": ("u1", (5, 2, 2, 1))}, resume=True)
    assert not other.resumed


def test_a_folder_without_manifest_is_no_container(tmp_path: Path) -> None:
    writer = arrays.Writer(tmp_path / "w", {"images": ("u1", (4, 2, 2, 1))})
    writer.flush()
    with pytest.raises(InvalidInput, match="MANIFEST.json is missing"):
        arrays.open_container(tmp_path / "w", kind="test")


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from stylegan_mix import arrays
from stylegan_mix.errors import MissingEnvironment
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    arrays.Writer(Path(sys.argv[1]) / "w", {"a": ("u1", (100_000,)), "b": ("f4", (100,))})
except MissingEnvironment:
    sys.exit(4)
"""


@pytest.mark.parametrize("limit", [100, 5_000, 50_000, 1_000_000])
def test_a_full_disk_is_said_at_the_start(tmp_path: Path, repo_root: Path, limit: int) -> None:
    # A limit on the size of files stands for the disk; HDF5 reports it in its own ways.
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path), str(limit)], cwd=repo_root
    )
    assert done.returncode == (0 if limit > 120_000 else 4)
