"""Backbones: sizes, shapes, shortcuts, initialisation."""

from __future__ import annotations

import pytest
import torch

from stylegan_mix.errors import UsageFailure
from trainer import models
from trainer.models.normalised import tau_normalised
from trainer.models.resnet import shortcut


def parameters_of(layers: int, classes: int, channels: int) -> int:
    """He et al. 2016, section 4.2, counted from the text: 6n+2 layers, batch norm, no biases."""
    n = (layers - 2) // 6
    total = 9 * channels * 16 + 2 * 16
    before = 16
    for width in (16, 32, 64):
        for _ in range(n):
            total += 9 * before * width + 9 * width * width + 4 * width
            before = width
    return total + 64 * classes + classes


@pytest.mark.parametrize(
    ("name", "published"), [("resnet8", 75_290), ("resnet20", 269_722), ("resnet32", 464_154)]
)
def test_parameters_are_those_of_the_paper(name: str, published: int) -> None:
    layers = int(name.removeprefix("resnet"))
    assert parameters_of(layers, 10, 3) == published
    for classes, channels in ((10, 3), (100, 3), (7, 1)):
        model = models.build(name, classes=classes, channels=channels)
        found = sum(parameter.numel() for parameter in model.parameters())
        assert found == parameters_of(layers, classes, channels)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (4, 15), (2, 64)])
def test_outputs_are_float32_for_any_channels_and_size(name: str, channels: int, size: int) -> None:
    model = models.build(name, classes=5, channels=channels)
    models.initialise(model, 0)
    images = torch.randn(2, channels, size, size)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = model(images)
        assert out.features.shape == (2, 64)
        assert out.logits.shape == (2, 5)
        assert out.features.dtype == out.logits.dtype == torch.float32


def test_shortcut_keeps_every_second_pixel_between_channels_of_zeros() -> None:
    x = torch.randn(1, 4, 6, 6)
    out = shortcut(x, 2, 4)
    assert out.shape == (1, 8, 3, 3)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()
    assert shortcut(x, 1, 0) is x


def test_initialisation_is_kaiming_fan_in_and_keyed() -> None:
    model = models.build("resnet20", classes=10, channels=3)
    models.initialise(model, 3, 1)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    weight = model.blocks[8].conv2.weight  # fan-in 9 * 64
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert model.head.weight.std().item() == pytest.approx((1 / 64) ** 0.5, rel=0.1)
    torch.manual_seed(99)  # a global generator has no say
    models.initialise(model, 3, 1)
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())
    models.initialise(model, 3, 2)
    assert not torch.equal(model.stem.weight, first["stem.weight"])


def test_weights_lie_channels_last() -> None:
    model = models.build("resnet8", classes=10, channels=3)
    assert model.stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UsageFailure, match="did you mean 'resnet32'"):
        models.build("resent32", classes=10, channels=3)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_tau_normalisation_leaves_norms_to_the_power_of_one_minus_tau(tau: float) -> None:
    weight = torch.randn(5, 3, dtype=torch.float64)
    found = tau_normalised(weight, tau)
    torch.testing.assert_close(found.norm(dim=1), weight.norm(dim=1) ** (1 - tau))
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(found, weight), torch.ones(5, dtype=torch.float64)
    )
