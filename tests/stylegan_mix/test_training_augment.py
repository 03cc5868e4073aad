"""Augmentation policies: what every transform keeps, and how often it is applied."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylegan_mix import rng
from stylegan_mix.errors import UsageFailure
from stylegan_mix.training.augmentation.ada import ADA
from stylegan_mix.training.augmentation.policies import augmentation_named
from stylegan_mix.training.augmentation.strength import (
    Feedback,
    adjust,
    fresh_strength,
    observe,
    strength_of,
)

EVERYTHING = "ada:" + ",".join(ADA)
READS = ("local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique")


class RefusingReads(TorchDispatchMode):
    """Fails on every operator whose result, or whose shape, must be read from the device."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.name().partition("::")[2].partition(".")[0].lstrip("_")
        masks = name.startswith("index") and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8)
            for one in tree_leaves(args[1:])
        )
        assert not (masks or name in READS), f"{name} waits for the device"
        return function(*args, **(kwargs or {}))


def _draws(name: str = "a") -> rng.Draws:
    return rng.Draws(rng.torch_generator(0, name))


def _shown(policy: str, images: Tensor, strength: float | Tensor = 1.0) -> Tensor:
    p = torch.as_tensor(strength).expand(len(images))
    return augmentation_named(policy)(images, p, _draws())


# --------------------------------------------------------------------- every transform


@pytest.mark.parametrize("name", ADA)
@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (4, 1, 8, 8), (4, 4, 16, 64), (4, 2, 32, 16)])
def test_no_strength_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape) * 2 - 1
    torch.testing.assert_close(_shown(f"ada:{name}", images, 0.0), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ADA)
@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (9, 1, 9, 8), (9, 4, 8, 16), (9, 2, 8, 8)])
@pytest.mark.parametrize("strength", [1.0, 1.7])
def test_full_strength_keeps_shape_and_dtype_and_is_repeatable(
    name: str, shape: tuple[int, ...], strength: float
) -> None:
    images = torch.rand(shape)
    one = _shown(f"ada:{name}", images, strength)
    assert one.shape == images.shape
    assert bool(one.isfinite().all())
    assert torch.equal(one, _shown(f"ada:{name}", images, strength))
    other = augmentation_named(f"ada:{name}")(images, torch.ones(9), _draws("b"))
    assert not torch.equal(one, other)
    assert _shown(f"ada:{name}", images.bfloat16(), strength).dtype == torch.bfloat16


# The chance that an image changes at all, from the chances of the published transforms.
CHANGES = {
    # flip, turns, and a shift that rounds to none on both axes of 8 pixels with chance 1 / 4
    "blit": lambda p: 1 - (1 - p / 2) * (1 - 3 * p / 4) ** 2,
    "geometry": lambda p: 1 - (1 - p) ** 4,  # scale, any turn, stretch, shift
    "color": lambda p: 1 - (1 - p) ** 4 * (1 - p / 2),
    "filter": lambda p: 1 - (1 - p) ** 4,
    "noise": lambda p: p,
    "cutout": lambda p: p,
}


@pytest.mark.parametrize("name", ADA)
def test_each_image_is_changed_as_often_as_its_own_strength_says(name: str) -> None:
    count = 1000
    p = torch.tensor([0.0, 0.2, 0.6]).repeat_interleave(count)
    images = torch.randn(1, 3 if name == "color" else 1, 8, 8).expand(len(p), -1, -1, -1)
    change = (_shown(f"ada:{name}", images, p) - images).abs().amax(dim=[1, 2, 3]) > 2e-5
    rates = change.float().view(3, count).mean(dim=1).tolist()
    for rate, strength in zip(rates, (0.0, 0.2, 0.6), strict=True):
        expected = CHANGES[name](strength)
        assert abs(rate - expected) <= 4 * (expected * (1 - expected) / count) ** 0.5


@pytest.mark.parametrize("name", ADA)
def test_both_orders_of_differentiation_match_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)

    def shown(images: Tensor) -> Tensor:
        return _shown(f"ada:{name}", images, 0.9)

    def bent(images: Tensor) -> Tensor:
        return shown(images.square()).tanh()

    assert torch.autograd.gradcheck(shown, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(bent, images, fast_mode=True)


def _r1(images: Tensor, p: Tensor, draws: rng.Draws) -> Tensor:
    shown = augmentation_named(EVERYTHING)(images, p, draws)
    (gradient,) = torch.autograd.grad(shown.tanh().sum(), images, create_graph=True)
    return gradient.square().sum()


def test_nothing_waits_for_the_device() -> None:
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    running = fresh_strength(3, torch.device("cpu"))
    groups = torch.tensor([0, 2, 0, 1])
    with RefusingReads():
        observe(running, torch.ones(4), groups)
        adjust(running, Feedback(), batch=4)
        _r1(images, strength_of(running, groups), _draws()).backward()
    assert images.grad is not None
    for read in (lambda: images.sum().item(), lambda: images[images > 0.5]):
        with RefusingReads(), pytest.raises(AssertionError, match="waits for the device"):
            read()


def test_the_whole_of_it_traces_into_one_graph() -> None:
    images, p = torch.rand(2, 3, 8, 8, requires_grad=True), torch.full((2,), 0.5)
    graph = make_fx(lambda images, p: _r1(images, p, rng.Draws()))(images, p)
    torch.manual_seed(3)
    expected = _r1(images, p, rng.Draws())
    torch.manual_seed(3)
    torch.testing.assert_close(graph(images, p), expected)


# --------------------------------------------------------------------- DiffAugment


@pytest.mark.parametrize(
    ("policy", "shape", "digest"),
    [
        ("translation", (16, 3, 32, 32), "232c994c2b0d5822"),
        ("translation", (16, 1, 8, 8), "0c0eee944bad35ad"),
        ("cutout", (16, 3, 32, 32), "7c2db16bf56e8328"),
        ("cutout", (16, 1, 8, 8), "f20f0faa7b66ef85"),
    ],
)
def test_diffaugment_gives_the_bits_it_always_gave(
    policy: str, shape: tuple[int, ...], digest: str
) -> None:
    # Of the code with which the published generators were trained; these only move and zero.
    count = int(torch.tensor(shape).prod())
    images = torch.arange(count).view(shape).remainder(251).div(125) - 1
    for p in (torch.zeros(16), torch.ones(16)):
        draws = rng.Draws(rng.torch_generator(7, "golden"))
        shown = augmentation_named(policy)(images, p, draws).contiguous().numpy().tobytes()
        assert hashlib.sha256(shown).hexdigest()[:16] == digest


def test_diffaugment_colour_takes_its_draws_and_sums_in_the_order_it_always_did() -> None:
    images = torch.rand(16, 3, 8, 8)
    draws = _draws()
    add, chroma, contrast = (draws.uniform(16, 1, 1, 1) for _ in range(3))
    bright = images + (add.mul(1.0).add(-0.5))
    grey = bright.mean(dim=1, keepdim=True).expand_as(bright)
    tinted = grey.lerp(bright, chroma.mul(2.0).add(0.0))
    flat = tinted.mean(dim=[1, 2, 3], keepdim=True).expand_as(tinted)
    assert torch.equal(_shown("color", images), flat.lerp(tinted, contrast.mul(1.0).add(0.5)))


# --------------------------------------------------------------------- the grammar


def test_policies_name_their_transforms_and_whether_strength_matters() -> None:
    for policy, names, uses_strength in (
        ("none", (), False),
        ("color,translation,cutout", ("color", "translation", "cutout"), False),
        ("ada", ("blit", "geometry", "color"), True),
        ("ada:noise,blit", ("noise", "blit"), True),
    ):
        augmentation = augmentation_named(policy)
        assert (augmentation.names, augmentation.uses_strength) == (names, uses_strength)
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(_shown("ada", images), _shown("ada:blit,geometry,color", images))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("cutot", "no augmentation 'cutot'; did you mean 'cutout'"),
        ("nonne", "did you mean 'none'"),
        ("adda", "did you mean 'ada'"),
        ("color,ada", r"no augmentation 'ada'\. Known: color, cutout, translation$"),
        ("ada:geometri", "no transform of ada 'geometri'; did you mean 'geometry'"),
        ("ada:translation", "no transform of ada 'translation'"),
        ("ada:", "no transform of ada ''"),
        ("", "no augmentation ''"),
    ],
)
def test_unknown_policies_are_refused_with_the_nearest_name(policy: str, message: str) -> None:
    with pytest.raises(UsageFailure, match=message):
        augmentation_named(policy)
