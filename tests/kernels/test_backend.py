"""Which implementation runs, and that importing the package compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import kernels
from kernels import native, toolchain


@pytest.mark.parametrize("asked", [None, "", "auto", "native"])
def test_compiled_operators_are_built_and_taken(
    asked: str | None, workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked is not None:
        monkeypatch.setenv("KERNELS", asked)
    assert kernels.backend() == "native"
    assert kernels.backend("cpu:0") == "native"
    assert workshop.compiled() == ["other.cpp", "stub.cpp"]


def test_reference_looks_for_nothing(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    assert kernels.backend() == "reference"
    assert kernels.bias_act(torch.zeros(1, 1)).item() == 0
    assert native._libraries == {}


def test_the_variable_is_read_at_every_call(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for asked in ("auto", "reference", "native", "reference"):
        monkeypatch.setenv("KERNELS", asked)
        told.append(kernels.backend())
    assert told == ["native", "reference", "native", "reference"]


def test_without_a_compiler_pytorch_runs_and_one_warning_says_so(
    no_compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(RuntimeWarning, match=r"run in PyTorch.*no C\+\+ compiler.*apt install"):
        assert kernels.bias_act(torch.zeros(1, 1)).item() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for asked in ("auto", ""):
            monkeypatch.setenv("KERNELS", asked)
            assert kernels.backend() == "reference"


@pytest.mark.parametrize(
    "operator",
    [
        lambda: kernels.bias_act(torch.zeros(1, 1)),
        lambda: kernels.upfirdn2d(torch.zeros(1, 1, 1, 1), None),
    ],
)
def test_native_without_a_compiler_is_an_error_that_names_the_way_out(
    operator: Any, no_compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", "native")
    with pytest.raises(kernels.NativeUnavailable, match=r"no C\+\+ compiler.*auto or reference"):
        operator()


def test_a_device_nobody_compiles_for_is_left_to_pytorch_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kernels.backend("mps") == "reference"
    assert kernels.backend("meta") == "reference"
    monkeypatch.setenv("KERNELS", "native")
    with pytest.raises(kernels.NativeUnavailable, match="not for 'mps'"):
        kernels.backend("mps")


def test_a_package_without_sources_runs_in_pytorch_silently(workshop: Any) -> None:
    for path in (workshop.sources / "cpu").iterdir():
        path.unlink()
    assert kernels.backend() == "reference"


def test_unknown_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "fast")
    with pytest.raises(ValueError, match="auto, reference, native, got 'fast'"):
        kernels.backend()


def test_importing_compiles_nothing(tmp_path: Path, repo_root: Path) -> None:
    code = """
import subprocess, sys
def refuse(*_, **__): raise SystemExit("a process was started")
subprocess.Popen.__init__ = refuse
import kernels, stylegan_mix.networks
assert "torch.utils.cpp_extension" not in sys.modules
"""
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(repo_root)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)


def test_a_real_machine_with_a_compiler_has_compiled_operators() -> None:
    """So that a change which breaks their build is seen, and not skipped as a missing compiler."""
    try:
        toolchain.find(toolchain.target_for("cpu"))
    except kernels.NativeUnavailable as error:
        pytest.skip(str(error))
    assert "warning: " not in native.library("cpu").built.log
