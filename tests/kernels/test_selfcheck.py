"""What a doctor is told of the operators: which run, why, and whether their results are right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kernels import NativeUnavailable, native, selfcheck

NAMES = "bias_act, modulated_bias_act, upfirdn2d, conv3x3, batch_norm_relu"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> native.Library:
    """The compiled operators of this CPU, which KERNELS leaves on."""
    monkeypatch.delenv("KERNELS", raising=False)
    try:
        return native.library("cpu")
    except NativeUnavailable as error:
        pytest.skip(f"no compiled operators here: {error}")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("asked", ["auto", "native"])
def test_sound_operators_pass_and_are_named(
    asked: str, compiled: native.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", asked)
    built = compiled.built
    found = selfcheck.findings()
    made = f"{built.isa}, made by {built.facts['compiler']}"
    assert found["operators"] == f"native (KERNELS={asked}): {made}"
    assert found["library"] == str(built.path)
    assert re.fullmatch(
        rf"passed: {NAMES} agree with the reference \(\d+\.\d s\)", found["self-check"]
    )
    assert os.environ["KERNELS"] == asked
    assert torch.get_num_threads() == 3


def test_wrong_results_are_told_by_operator_and_dtype(
    compiled: native.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = compiled.kernels_upfirdn2d

    def wrong(described: Any, *rest: Any) -> int:
        described._obj.gain *= 1.001  # less than bfloat16 tells
        return int(right(described, *rest))

    monkeypatch.setattr(compiled, "kernels_upfirdn2d", wrong)
    found = selfcheck.findings()
    assert found["self-check"] == (
        "FAILED: upfirdn2d in float64 is off by 0.001 (at most 9e-16); "
        "upfirdn2d in float32 is off by 0.001 (at most 5e-07). "
        "KERNELS=reference computes without them; please report this"
    )
    assert found["operators"].startswith("native"), "they are what runs"
    assert "KERNELS" not in os.environ


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_no_number_is_a_wrong_result(error: float) -> None:
    assert not selfcheck.Outcome("bias_act", torch.float32, error).good


def test_operators_that_raise_are_told(workshop: Any) -> None:
    # The stand-in's epilogue answers the number of the activation as its error.
    found = selfcheck.findings()
    assert found["operators"].startswith("native (KERNELS=auto): ")
    assert found["self-check"] == (
        "FAILED: RuntimeError: CUDA error in kernels_epilogue: unknown error (error 8)"
    )
    assert "KERNELS" not in os.environ


@pytest.mark.parametrize(("asked", "instead"), [("auto", "reference"), ("native", "none")])
def test_without_a_compiler_it_is_told_why_and_what_to_do(
    asked: str, instead: str, no_compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", asked)
    found = selfcheck.findings()
    assert found.keys() == {"operators", "compiler"}
    why = "no C++ compiler was found (g++, c++, clang++ on PATH, or CXX); install one"
    assert found["operators"].startswith(f"{instead} (KERNELS={asked}): {why}")
    assert found["compiler"].startswith(f"none: {why}")
    assert "apt install g++" in found["operators"]


def test_the_reference_by_choice_is_told_and_nothing_is_built(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    found = selfcheck.findings()
    assert found.keys() == {"operators", "compiler"}
    assert found["operators"] == "reference (KERNELS=reference)"
    assert found["compiler"].startswith(f"{workshop.folder / 'noting'} (g++ ")
    assert workshop.compiled() == []
    assert native._libraries == {}


def test_a_choice_that_is_none_is_told(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "nativ")
    assert selfcheck.findings()["operators"] == (
        "none (KERNELS=nativ): KERNELS must be one of auto, reference, native, got 'nativ'"
    )


def test_a_gpu_is_told_of_beside_the_cpu(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELS", "reference")
    monkeypatch.setenv("KERNELS_CUDA_ARCHS", "90")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = selfcheck.findings()
    assert found.keys() == {"operators", "compiler", "cuda operators", "cuda compiler"}
    assert "nvcc" in found["cuda compiler"], "found, or what to install"
