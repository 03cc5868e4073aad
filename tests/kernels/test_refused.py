"""Every library refuses what makes no sense (refused.py), and nothing else.

The CUDA sources keep to the same table in test_cuda_sources.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kernels import native


@pytest.fixture(scope="module")
def refused(load_file: Callable[[Path], ModuleType]) -> ModuleType:
    """The table, tests/kernels/refused.py."""
    return load_file(Path(__file__).parent / "refused.py")


FUNCTIONS = (
    *("epilogue", "epilogue_backward", "epilogue_double_backward", "upfirdn2d"),
    *("conv3x3", "conv3x3_gradient"),
    *("batch_moments", "batch_norm", "batch_norm_backward"),
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nonsense_is_refused_and_what_makes_sense_is_not(
    library: native.Library, function: str, refused: ModuleType
) -> None:
    calls = {name: one for name, one in refused.calls().items() if one.function == function}
    assert {one.refused for one in calls.values()} == {True, False}
    found = {name: refused.wrong(library, one) for name, one in calls.items()}
    assert {name: why for name, why in found.items() if why} == {}


@pytest.mark.cuda
def test_a_gpu_refuses_the_same(refused: ModuleType) -> None:
    library = native.library("cuda")
    calls = {name: one for name, one in refused.calls("cuda").items() if one.refused}
    found = {name: refused.wrong(library, one) for name, one in calls.items()}
    assert {name: why for name, why in found.items() if why} == {}
