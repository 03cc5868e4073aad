"""Backbones: sizes, shapes, shortcuts, initialisation."""

from __future__ import annotations

import pytest
import torch

from stylegan_mix.errors import UsageFailure
from trainer import models
from trainer.models.normalised import tau_normalised
from trainer.models.resnet import shortcut
from trainer.models.size import parameters, size_of, without_memory


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


# Parameters in ten thousands (He et al. 2016, table 6).
@pytest.mark.parametrize(
    ("name", "printed"),
    [("resnet20", 27), ("resnet32", 46), ("resnet44", 66), ("resnet56", 85), ("resnet110", 173)],
)
def test_small_networks_have_the_sizes_of_the_papers_table(name: str, printed: int) -> None:
    found = size_of(name, classes=10, channels=3, side=32)
    assert round(found.parameters / 1e4) == printed
    assert found.parameters == parameters_of(int(name.removeprefix("resnet")), 10, 3)


def multiply_adds_of(layers: int) -> int:
    """Those of a small network at 32 pixels with ten classes, counted from the text of 4.2."""
    n = (layers - 2) // 6
    widths = {32: 16, 16: 32, 8: 64}
    total, before = 9 * 3 * 16 * 32 * 32, 16
    for side, width in widths.items():
        for _ in range(n):
            total += 9 * (before + width) * width * side * side
            before = width
    return total + 64 * 10


@pytest.mark.parametrize("name", ["resnet8", "resnet32", "resnet110"])
def test_multiply_adds_are_those_of_the_papers_layers(name: str) -> None:
    found = size_of(name, classes=10, channels=3, side=32)
    assert found.multiply_adds == multiply_adds_of(int(name.removeprefix("resnet")))


# Parameters, and thousand millions of multiply-adds of one image of 224 pixels, for 1,000 classes,
# as published with the weights of these networks; that of the widest is "25.0 M" in Xie et al.
PUBLISHED = {
    "resnet10": (5_418_792, 0.889),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50": (25_028_904, 4.230),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_large_networks_have_the_published_sizes(name: str) -> None:
    found = size_of(name, classes=1000, channels=3, side=224)
    parameters, multiply_adds = PUBLISHED[name]
    assert found.parameters == parameters
    assert round(found.multiply_adds / 1e9, 3) == multiply_adds


def test_every_network_is_compared_with_a_published_size() -> None:
    assert {one for one in models.MODELS if models.MODELS[one].side == 224} == set(PUBLISHED)


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("name", ["resnet8", "resnet10", "resnext50"])
def test_a_size_is_that_of_the_network_that_is_built(name: str, experts: int) -> None:
    head = models.Head(experts=experts)
    model = models.build(name, classes=7, channels=2, head=head)
    light = without_memory(name, classes=7, channels=2, head=head)
    assert parameters(light) == sum(one.numel() for one in model.parameters())
    shapes = [
        {key: value.shape for key, value in one.state_dict().items()} for one in (light, model)
    ]
    assert shapes[0] == shapes[1]
    if experts == 1:
        assert size_of(name, classes=7, channels=2, side=40).parameters == parameters(light)


@pytest.mark.parametrize(("name", "width"), [("resnet10", 512), ("resnext50", 2048)])
def test_experts_have_the_last_two_groups_for_themselves(name: str, width: int) -> None:
    model = models.build(name, classes=5, channels=3, head=models.Head(experts=3))
    models.initialise(model, 0)
    out = model(torch.randn(2, 3, 40, 40))
    assert out.features.shape == (2, 3 * width) and out.logits.shape == (2, 5)
    one = models.build(name, classes=5, channels=3)
    models.initialise(one, 0)
    shared = sum(len(group) for group in (model.blocks, model.experts[0]))
    assert len(model.experts) == 3 and shared == len(one.blocks)
    own = parameters(model) - parameters(model.blocks) - parameters(model.head)
    stem = parameters(one.stem) + parameters(one.stem_norm)
    assert own == stem + 3 * (
        parameters(one) - stem - parameters(model.blocks) - parameters(one.head)
    )


@pytest.mark.parametrize("name", ["resnet8", "resnet32", "resnet10", "resnext50"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (4, 15), (2, 64)])
def test_outputs_are_float32_for_any_channels_and_size(name: str, channels: int, size: int) -> None:
    model = models.build(name, classes=5, channels=channels)
    models.initialise(model, 0)
    images = torch.randn(2, channels, size, size)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = model(images)
        assert out.features.shape == (2, model.width)
        assert out.logits.shape == (2, 5)
        assert out.features.dtype == out.logits.dtype == torch.float32


@pytest.mark.parametrize(("name", "width"), [("resnet10", 512), ("resnet50", 2048)])
def test_large_networks_halve_an_image_five_times(name: str, width: int) -> None:
    model = models.build(name, classes=5, channels=3)
    for side, left in ((224, 7), (64, 2), (33, 2)):
        assert model.maps(torch.zeros(1, 3, side, side)).shape == (1, width, left, left)


def strides(block: torch.nn.Module) -> list[tuple[int, ...]]:
    return [part.stride for part in block.children() if isinstance(part, torch.nn.Conv2d)]


def test_a_bottleneck_halves_in_its_3x3_convolution_of_as_many_paths() -> None:
    model = models.build("resnext50", classes=5, channels=3)
    first, fourth = model.blocks[0], model.blocks[3]
    assert strides(first) == [(1, 1)] * 3 and strides(fourth) == [(1, 1), (2, 2), (1, 1)]
    assert (fourth.conv2.groups, fourth.conv2.in_channels) == (32, 256)
    assert (first.conv2.groups, first.conv2.in_channels) == (32, 128)
    plain = models.build("resnet50", classes=5, channels=3).blocks[3]
    assert (plain.conv2.groups, plain.conv2.in_channels) == (1, 128)


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_a_block_adds_its_shortcut_before_the_last_relu(name: str) -> None:
    """With the last norm of a block at zero, a block is ReLU of its shortcut, here the identity."""
    model = models.build(name, classes=5, channels=3)
    models.initialise(model, 0)
    same, before = (model.blocks[0], 64) if name == "resnet10" else (model.blocks[1], 256)
    last = same.norm2 if name == "resnet10" else same.norm3
    assert bool((last.weight == 1).all())  # norms do not begin at zero
    torch.nn.init.zeros_(last.weight)
    x = torch.randn(2, before, 5, 5)
    assert torch.equal(same(x), x.relu())


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
