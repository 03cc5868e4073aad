"""Layers by the operators of `kernels`, beside the modules of PyTorch that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from stylegan_mix.errors import UsageFailure
from trainer import models
from trainer.engine import loop
from trainer.models import resnet
from trainer.models.classifier import Classifier
from trainer.models.layers import convolved, normed, operators_on


@pytest.fixture(params=["reference", "auto"])
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which operators run; "auto" is skipped where none can be built."""
    monkeypatch.setenv("KERNELS", request.param)
    if request.param == "auto" and kernels.backend("cpu") == "reference":
        pytest.skip("no compiled operators here")
    return str(request.param)


def plain_convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The module itself."""
    y: Tensor = convolution(x)
    return y


def plain_normed(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """The modules of PyTorch, one after another."""
    return F.relu(norm(x) if residual is None else norm(x) + residual)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the networks of PyTorch's modules from here on: the slow twin."""

    def replace() -> None:
        monkeypatch.setattr(resnet, "convolved", plain_convolved)
        monkeypatch.setattr(resnet, "normed", plain_normed)

    return replace


def network(dtype: torch.dtype = torch.float32) -> Classifier:
    model = models.build("resnet8", classes=4, channels=3)
    models.initialise(model, 0)
    return model.to(dtype)


def images(count: int = 6, side: int = 16) -> Tensor:
    seed = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, 3, side, side, generator=seed)
    return drawn.contiguous(memory_format=torch.channels_last)


def after_a_step(dtype: torch.dtype = torch.float32, side: int = 16) -> dict[str, Tensor]:
    """Features, gradients and statistics of a step of the backbone, and features at test after it.

    The backbone alone, as heads are float32 always.
    """
    model, x = network(dtype).train(), images(side=side).to(dtype)
    features = model.maps(x).mean((2, 3))
    F.cross_entropy(features, torch.arange(6) % 4).backward()
    found = {"features": features.detach()}
    grads = {f"d{name}": one.grad for name, one in model.named_parameters()}
    found |= {name: one for name, one in grads.items() if one is not None}
    found |= {name: one for name, one in model.named_buffers() if "running" in name}
    with torch.no_grad():
        found["tested"] = model.eval().maps(x)
    return found


def test_pytorchs_operators_have_the_bits_of_its_modules(
    monkeypatch: pytest.MonkeyPatch, plainly: Callable[[], None]
) -> None:
    """So what was trained before compiled operators can be trained again, bit for bit."""
    monkeypatch.setenv("KERNELS", "reference")
    ours = after_a_step()
    plainly()
    for name, value in after_a_step().items():
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("side", [8, 16, 15])
def test_a_step_is_as_exact_as_that_of_the_modules(
    side: int, operators: str, plainly: Callable[[], None]
) -> None:
    """Against the modules in float64: at most four times the error of those in float32, and 64
    roundings of the largest value. A sign near 0 may turn in one and not in the other.
    """
    ours = after_a_step(side=side)
    plainly()
    exact, slow = after_a_step(torch.float64, side), after_a_step(side=side)
    for name, truth in exact.items():
        off, theirs = ((one[name] - truth).abs().max() for one in (ours, slow))
        bound = 4 * theirs + 64 * torch.finfo(torch.float32).eps * truth.abs().max()
        assert off <= bound, f"{name} is off by {off}, more than {bound}"


def test_the_compiled_operators_run(operators: str, dispatched: type) -> None:
    if operators == "reference":
        pytest.skip("there are none")
    model, x = network().train(), images()
    with dispatched() as seen:
        model(x)
    names = [one.name for one in seen.calls]
    assert sum("batch_norm_relu" in name for name in names) == 7
    assert sum("kernels.conv3x3" in name for name in names) == 3  # 16 and 8 pixels, stride 1


def test_statistics_are_averaged_over_all_batches_as_by_pytorch(
    operators: str, plainly: Callable[[], None]
) -> None:
    found = []
    for _ in range(2):
        model = network()
        loop.refresh_norms(model, lambda number: images() * (number + 1), 3, "float32")
        found.append(dict(model.named_buffers()))
        plainly()
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-5)
        if "tracked" in name:
            assert int(value) == 3


def test_a_network_at_test_changes_no_statistics(operators: str) -> None:
    model = network().eval()
    before = {name: one.clone() for name, one in model.named_buffers()}
    model(images())
    assert all(torch.equal(one, before[name]) for name, one in model.named_buffers())


def test_bfloat16_computes_convolutions_in_bfloat16(operators: str) -> None:
    convolution = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolved(convolution, x)
        z = normed(nn.BatchNorm2d(16), y)
    assert y.dtype == z.dtype == torch.bfloat16
    exact = convolution.double()(x.double())
    assert (y - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "padding": 1, "bias": False},
        {"padding": 1, "bias": True},
        {"padding": 0, "bias": False},
        {"padding": 2, "dilation": 2, "bias": False},
        {"padding": 1, "groups": 2, "bias": False},
        {"padding": 1, "padding_mode": "circular", "bias": False},
    ],
    ids=", ".join,
)
def test_other_convolutions_are_those_of_their_module(
    settings: dict[str, object], operators: str
) -> None:
    convolution = nn.Conv2d(16, 32, 3, **settings)  # type: ignore[arg-type]
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(convolved(convolution, x), convolution(x))


def test_the_operators_are_named_and_a_wrong_choice_is_a_usage_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setenv("KERNELS", "reference")
    assert operators_on(cpu) == operators_on(torch.device("cuda")) == "reference"
    monkeypatch.setenv("KERNELS", "fast")
    with pytest.raises(UsageFailure, match="KERNELS must be one of auto, reference, native"):
        operators_on(cpu)
