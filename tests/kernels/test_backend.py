"""Which implementation runs, and that importing the package compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kernels


@pytest.mark.parametrize("asked", ["", "auto", "reference"])
def test_without_compiled_operators_pytorch_runs(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", asked)
    assert kernels.backend() == "reference"
    assert kernels.bias_act(torch.zeros(1, 1)).item() == 0


@pytest.mark.parametrize(
    "operator",
    [
        lambda: kernels.bias_act(torch.zeros(1, 1)),
        lambda: kernels.upfirdn2d(torch.zeros(1, 1, 1, 1), None),
    ],
)
def test_native_without_a_build_is_an_error_that_names_the_way_out(
    operator: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", "native")
    with pytest.raises(kernels.NativeUnavailable, match=r"no compiled operators.*reference"):
        operator()


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
