"""The CPU's operators under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kernels.toolchain import target_for

RUNTIMES = {"address": "libasan.so", "undefined": "libubsan.so"}


def sanitized(sanitizer: str) -> dict[str, str]:
    """The environment in which compiled operators run under a sanitizer."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    runtime = subprocess.run(
        ["g++", f"-print-file-name={RUNTIMES[sanitizer]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip(f"this compiler brings no {RUNTIMES[sanitizer]}")
    options = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    return {"KERNELS_SANITIZE": sanitizer, **options}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "mistake", "seen"),
    [
        (
            "address",
            "volatile int *two = new int[2]; two[run->threads] = 0;",
            "heap-buffer-overflow",
        ),
        (
            "undefined",
            "volatile int most = 2147483647; most = most + run->threads;",
            "signed integer overflow",
        ),
    ],
)
def test_a_sanitised_library_sees_a_mistake(
    sanitizer: str, mistake: str, seen: str, workshop: Any
) -> None:
    unit = workshop.sources / "cpu" / "other.cpp"
    unit.write_text(unit.read_text().replace("return sum ==", f"{mistake} return sum =="))
    code = """
from ctypes import byref
from kernels import abi
run = abi.Run(threads=2)
native.library("cpu").kernels_upfirdn2d(byref(abi.Upfirdn2d()), None, None, byref(run))
print("went on")
"""
    out, err = workshop.start(code, **sanitized(sanitizer)).communicate(timeout=600)
    assert seen in err
    assert out == ""


LIBRARY = ("test_cpu_epilogue.py", "test_cpu_upfirdn2d.py", "test_cpu_conv3x3.py")


def passed_under(
    sanitizer: str, repo_root: Path, *selection: str, files: Sequence[str] = LIBRARY
) -> int:
    """How many tests of `files` passed in an environment of its own; all must."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider"),
            *selection,
            *(f"tests/kernels/{name}" for name in files),
        ],
        cwd=repo_root,
        env={**os.environ, **sanitized(sanitizer)},
        capture_output=True,
        text=True,
        timeout=7200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    return int(passed[1])


@pytest.mark.slow
def test_the_whole_table_is_clean_under_the_address_sanitizer(repo_root: Path) -> None:
    assert passed_under("address", repo_root) > 1000


@pytest.mark.slow
def test_the_table_of_the_operators_is_clean_under_the_address_sanitizer(repo_root: Path) -> None:
    chosen = "native and (value_and_both or of_any or strange_strides)"
    files = ("test_operators.py", "test_conv3x3.py")
    assert passed_under("address", repo_root, "-k", chosen, files=files) > 300


@pytest.mark.slow
def test_the_table_of_this_cpu_has_no_undefined_behaviour(repo_root: Path) -> None:
    isa = target_for("cpu").isa
    assert passed_under("undefined", repo_root, "-k", f"[{isa}-") > 400
