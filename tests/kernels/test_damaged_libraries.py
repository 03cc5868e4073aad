"""Libraries that are not what was built: built again, or left, and never run."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

import kernels
from kernels import abi, build, libraries, toolchain
from kernels.toolchain import Target

CPU = Target("cpu", "baseline")


def cut(built: libraries.Built) -> None:
    os.truncate(built.path, 3000)


def flip_a_bit(built: libraries.Built) -> None:
    content = bytearray(built.path.read_bytes())
    content[len(content) // 2] ^= 1
    built.path.chmod(0o755)
    built.path.write_bytes(content)


def lose(built: libraries.Built) -> None:
    built.path.unlink()


def forget_the_hash(built: libraries.Built) -> None:
    """As earlier versions of this package left their libraries."""
    manifest = built.path.parent / "build.json"
    facts = json.loads(manifest.read_text())
    del facts["library_sha256"]
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(facts))


DAMAGES = [cut, flip_a_bit, lose, forget_the_hash]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_library_that_is_not_what_was_built_is_built_again(workshop: Any, damage: Any) -> None:
    built = build.obtain(CPU)
    content = built.path.read_bytes()
    objects = workshop.cache / ".objects" / CPU.label / built.path.name
    damage(built)
    os.truncate(objects, 3000)  # what ninja believes to be finished may be as damaged
    workshop.compiled()
    again = build.obtain(CPU)
    assert (again.path, again.facts) == (built.path, built.facts)
    assert again.path.read_bytes() == content
    assert workshop.compiled() == [], "the objects are sound: it is linked again"
    assert build.obtain(CPU).path.stat().st_mtime_ns == again.path.stat().st_mtime_ns


def test_a_cut_library_kills_no_process(workshop: Any) -> None:
    cut(build.obtain(toolchain.target_for("cpu")))
    process = workshop.start("print(native.library('cpu').kernels_abi_version())")
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (0, f"{abi.ABI_VERSION}\n"), err


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_of_the_environment_is_left_and_one_built_in_the_cache(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    place = workshop.folder / "prebuilt"
    monkeypatch.setattr(libraries, "PREBUILT", place)
    damage(build.build(CPU, place))
    assert build.obtain(CPU).path.parent.parent == workshop.cache


def test_a_damaged_library_without_a_compiler_leaves_the_work_to_pytorch(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(build.obtain(toolchain.target_for("cpu")))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(RuntimeWarning, match="run in PyTorch"):
        assert kernels.backend() == "reference"
