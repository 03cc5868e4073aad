"""Numbers that every implementation must give: published ones and the golden files'."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernels import ACTIVATIONS, bias_act, setup_filter, upfirdn2d

BLUR = setup_filter([1, 3, 3, 1])
ASYMMETRIC = setup_filter([1, 2, 4], normalize=False)
RAMP = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)


# Recorded values: x, b = 0.1, default gain, clamp 10.
X = (-3, -1, -0.25, 0.5, 2, 40)
ACTIVATED = {
    "linear": (-2.9, -0.9, -0.15, 0.6, 2.1, 10),
    "relu": (0, 0, 0, 0.8485281, 2.9698485, 10),
    "lrelu": (-0.8202439, -0.2545584, -0.0424264, 0.8485281, 2.9698485, 10),
    "tanh": (-0.9939632, -0.7162979, -0.148885, 0.5370496, 0.9704519, 1),
    "sigmoid": (0.0521536, 0.2890505, 0.4625702, 0.6456563, 0.8909032, 1),
    "elu": (-0.9449768, -0.5934303, -0.139292, 0.6, 2.1, 10),
    "selu": (-1.6613631, -1.0433095, -0.2448892, 0.6304206, 2.2064721, 10),
    "softplus": (0.0535628, 0.3411539, 0.620957, 1.037488, 2.2155195, 10),
    "swish": (-0.2138932, -0.3679012, -0.0981259, 0.5478575, 2.6458475, 10),
}


@pytest.mark.parametrize("act", ACTIVATED)
def test_activated_values_are_the_published_ones(act: str, operators: torch.device) -> None:
    x = torch.tensor([X], dtype=torch.float64, device=operators).T
    y = bias_act(x, torch.full_like(x[0], 0.1), act=act, clamp=10)
    expected = torch.tensor([ACTIVATED[act]], dtype=torch.float64).T
    torch.testing.assert_close(y.cpu(), expected, rtol=0, atol=6e-8)


def golden_cases(
    file: Path, device: torch.device
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """The settings and the tensors of every case, in order."""
    archive = np.load(file)
    for number, case in enumerate(json.loads(bytes(archive["meta"]))):
        start = f"{number:03d}/"
        names = (name for name in archive.files if name.startswith(start))
        yield case, {name[4:]: torch.from_numpy(archive[name]).to(device) for name in names}


def test_bias_act_and_its_derivatives_are_the_golden_ones(
    shared_data: Path, operators: torch.device
) -> None:
    tried: Counter[str] = Counter()
    for case, golden in golden_cases(shared_data / "golden" / "bias_act.npz", operators):
        settings = {key: case[key] for key in ("act", "dim", "gain", "clamp")}
        for name, value in derivatives(golden, settings).items():
            expected = golden.get(name, torch.zeros_like(value))
            error = (value - expected).abs().max()
            assert error <= 1e-10, f"{case}: {name} is off by {error}"
        tried[case["act"]] += 1
    assert tried == dict.fromkeys(ACTIVATIONS, 18)


def derivatives(golden: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """y, the first gradients, and the second-order gradients as the golden file defines them."""
    x, dy = golden["x"].requires_grad_(), golden["dy"].requires_grad_()
    b = golden["b"].requires_grad_() if "b" in golden else None
    inputs = [x] if b is None else [x, b]
    y = bias_act(x, b, **settings)
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    tied = sum((one * golden[v]).sum() for one, v in zip(first, ("vx", "vb"), strict=False))
    second = torch.autograd.grad(tied, [*inputs, dy], allow_unused=True)
    names = ("y", "dx", "ddx", "ddy") if b is None else ("y", "dx", "db", "ddx", "ddb", "ddy")
    found = dict(zip(names, (y, *first, *second), strict=True))
    return {name: value.detach() for name, value in found.items() if value is not None}


def test_bfloat16_rounds_to_nearest_even_to_the_ends_of_its_range(operators: torch.device) -> None:
    # From 128 on the sum lies half way between two neighbours.
    x = torch.arange(1, 257, device=operators, dtype=torch.bfloat16)
    b = torch.full((256,), 0.5, device=operators, dtype=torch.bfloat16)
    y = bias_act(x[None], b, act="linear")
    assert torch.equal(y[0], (x.float() + 0.5).to(torch.bfloat16))
    ends = torch.tensor([1.1754944e-38, 3.3895314e38, float("inf"), float("nan")] * 32)
    ends = ends.to(operators, torch.bfloat16)[None]
    assert torch.equal(bias_act(ends, act="linear").isnan(), ends.isnan())
    assert torch.equal(bias_act(ends, act="linear").nan_to_num(1.0), ends.nan_to_num(1.0))
    # Some processors have no smaller numbers in bfloat16: such a one stays, or becomes 0.
    small = torch.full((1, 128), 9.2e-41, device=operators, dtype=torch.bfloat16)
    assert float(small[0, 0]) > 0
    y = bias_act(small, act="linear")
    assert torch.equal(y, small) or not y.any()


# Recorded values: RAMP through these; None: any number.
RESAMPLED: dict[str, tuple[Tensor, dict[str, Any], list[list[float]]]] = {
    "filter": (
        BLUR,
        {"padding": (2, 1, 2, 1)},
        [
            [0.3125, 0.75, 1.25, 1.4375],
            [1.359375, 2.734375, 3.8125, 3.9375],
            [3.125, 5.875, 7.5, 7.25],
            [4.109375, 7.546875, 9.3125, 8.75],
        ],
    ),
    "up": (
        BLUR,
        {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
        [
            [0, 0.1875, 0.5625, 0.9375, 1.3125, 1.6875, 2.0625, 1.6875],
            [0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 3],
            *[[None] * 8] * 5,
            [6.75, 9.1875, 9.5625, 9.9375, 10.3125, 10.6875, 11.0625, 8.4375],
        ],
    ),
    "down": (BLUR, {"down": 2, "padding": 1}, [[2.734375, 3.9375], [7.546875, 8.75]]),
    "padding": (
        ASYMMETRIC,
        {"padding": (1, 2, 0, 3)},
        [
            [55, 140, 189, 194, 148],
            [139, 336, 385, 362, 260],
            [174, 416, 458, 420, 296],
            [148, 352, 380, 344, 240],
            [0] * 5,
        ],
    ),
    "flip": (
        ASYMMETRIC,
        {"padding": (1, 2, 0, 3), "flip_filter": True},
        [
            [268, 350, 399, 176, 61],
            [436, 546, 595, 260, 89],
            [204, 254, 275, 120, 41],
            [76, 94, 101, 44, 15],
            [0] * 5,
        ],
    ),
    "up and down": (
        ASYMMETRIC,
        {"up": (2, 1), "down": (1, 2), "padding": (2, 1, 1, 1), "gain": 3},
        [
            [12, 24, 69, 42, 114, 60, 159, 78, 156],
            [132, 264, 681, 306, 786, 348, 891, 390, 780],
        ],
    ),
    "crop": (
        ASYMMETRIC,
        {"padding": (-1, 2, 2, -1)},
        [[11, 14, 12], [61, 66, 52], [189, 194, 148]],
    ),
}


@pytest.mark.parametrize("name", RESAMPLED)
def test_resampled_values_are_the_published_ones(name: str, operators: torch.device) -> None:
    f, arguments, expected = RESAMPLED[name]
    y = upfirdn2d(RAMP.to(operators), f.to(operators), **arguments)[0, 0]
    assert y.shape == (len(expected), len(expected[0]))
    for row, wanted in zip(y.tolist(), expected, strict=True):
        if wanted[0] is not None:
            assert row == wanted


def test_upfirdn2d_and_its_derivatives_are_the_golden_ones(
    shared_data: Path, operators: torch.device
) -> None:
    tried = 0
    for case, golden in golden_cases(shared_data / "golden" / "upfirdn2d.npz", operators):
        arguments = {key: value for key, value in case.items() if key != "filter"}
        x, dy = golden["x"].requires_grad_(), golden["dy"].requires_grad_()
        y = upfirdn2d(x, golden.get("f"), **arguments)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
        (ddy,) = torch.autograd.grad(dx, dy, golden["vx"])
        for name, value in (("y", y), ("dx", dx), ("ddy", ddy)):
            error = (value - golden[name]).abs().max()
            assert error <= 1e-10, f"{case}: {name} is off by {error}"
        if "taps" in golden:
            f = setup_filter(golden["taps"].cpu()).to(golden["f"])
            torch.testing.assert_close(f, golden["f"], rtol=0, atol=3e-8)
        tried += 1
    assert tried == 112
