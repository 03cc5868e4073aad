"""The benchmark of the 3x3 convolution: that its passes are what they are called."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/bench/convolution.py, which changes the path when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return importlib.import_module("tools.bench.convolution")


def test_the_passes_are_the_convolution_and_its_two_gradients(bench: ModuleType) -> None:
    x, weight, dy = torch.randn(2, 16, 8, 8), torch.randn(32, 16, 3, 3), torch.randn(2, 32, 8, 8)
    inputs = [one.double().requires_grad_() for one in (x, weight)]
    y = torch.nn.functional.conv2d(*inputs, padding=1)
    exact = (y, *torch.autograd.grad(y, inputs, dy.double()))
    for function in bench.FUNCTIONS.values():
        last = [one.to(memory_format=torch.channels_last) for one in (x, weight, dy)]
        found = bench.passes(function, *last)
        assert list(found) == list(bench.PASSES)
        for call, value in zip(found.values(), exact, strict=True):
            assert bench.off(call().detach(), value.detach()) < 1e-5


def test_a_row_tells_times_rates_and_errors(bench: ModuleType) -> None:
    cpu = torch.device("cpu")
    rows = bench.measured((2, 16, 8, 8), torch.float32, rounds=1, device=cpu)
    assert [row["pass"] for row in rows] == list(bench.PASSES)
    for row in rows:
        for name in bench.FUNCTIONS:
            assert row["times"][name]["ms"] > 0
            # 2 images of 64 places; 9 products of 16 by 16 channels, each an addition too.
            rate = 2 * 2 * 64 * 9 * 16 * 16 / row["times"][name]["ms"] / 1e6
            assert row["gflops"][name] == pytest.approx(rate, rel=0.02, abs=1)
            assert 0 < row["error"][name] < 1e-5
        ratio = row["times"]["torch"]["ms"] / row["times"]["ours"]["ms"]
        assert row["torch_over_ours"] == pytest.approx(ratio, rel=0.02, abs=0.01)


def test_the_table_of_the_page_is_that_of_the_file(bench: ModuleType, repo_root: Path) -> None:
    file = repo_root / "tools" / "results" / "kernels" / "convolution-cpu.json"
    printed = bench.table(json.loads(file.read_text())["rows"])
    assert printed in (repo_root / "kernels" / "README.md").read_text()
