"""Tensors whose addresses do not fit 32 bits, in float16, forward only."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels import bias_act, modulated_bias_act, reference, setup_filter, upfirdn2d

FILTER = setup_filter([1, 3, 3, 1])
PADDING = (2, 1, 2, 1)
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def _free_memory() -> int:
    """Bytes that can be had without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


@pytest.fixture
def _one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Waits for the other workers: two of these tests do not fit the memory that one may take."""
    with (tmp_path_factory.getbasetemp().parent / "large.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _filtered(x: Tensor) -> Tensor:
    return upfirdn2d(x, FILTER.to(x.device), padding=PADDING)


def _slowly_filtered(x: Tensor) -> Tensor:
    return reference.upfirdn2d(x, FILTER, up=(1, 1), down=(1, 1), padding=PADDING)


# The operator, its slow twin, and what else they take.
OPERATORS = {
    "bias_act": (bias_act, reference.bias_act, ("b",)),
    "modulated_bias_act": (
        *(modulated_bias_act, reference.modulated_bias_act),
        ("d", "b", "noise", "strength"),
    ),
    "upfirdn2d": (_filtered, _slowly_filtered, ()),
}


@pytest.mark.slow
@pytest.mark.usefixtures("_one_at_a_time")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_more_than_2_to_the_31_elements(name: str, layout: str, native: torch.device) -> None:
    """Rows of the image against those rows alone.

    The largest case has x, its result and float32 noise in memory: 13 GB.
    """
    if native.type == "cpu" and _free_memory() < 14 << 30:
        pytest.skip("needs 14 GB of free memory")
    operator, twin, wanted = OPERATORS[name]
    shape = (1, 32832, 32800, 2) if layout == "nhwc" else (1, 2, 32832, 32800)
    x = torch.zeros(shape, dtype=torch.float16, device=native)
    x = x.permute(0, 3, 1, 2) if layout == "nhwc" else x
    assert x.numel() > 2**31
    last = slice(-8, None)
    x[:, :, last] = torch.randn(1, 2, 8, x.shape[3]).half().to(native)
    small = {"b": torch.randn(2), "d": 1 + torch.rand(1, 2), "strength": torch.tensor(0.5)}
    operands = {key: small[key].to(native) for key in wanted if key in small}
    if "noise" in wanted:
        operands["noise"] = torch.zeros(1, 1, *x.shape[2:], device=native)
        operands["noise"][:, :, last] = torch.randn(1, 1, 8, x.shape[3]).to(native)
    act = {"act": "lrelu"} if operands else {}
    with torch.no_grad():
        y = operator(x, **operands, **act)
    assert y.is_contiguous(memory_format=LAYOUTS[layout])
    for rows in (slice(64, 128), last):
        cut = {
            key: (one[:, :, rows] if key == "noise" else one).cpu() for key, one in operands.items()
        }
        expected = twin(x[:, :, rows].float().cpu(), **cut, **act)
        # The last four see nothing above the rows that were cut out.
        found = y[:, :, rows][:, :, -4:].float().cpu()
        torch.testing.assert_close(found, expected[:, :, -4:], rtol=2e-3, atol=2e-3)
