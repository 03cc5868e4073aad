"""Logits in Gaussian form: sizes of clouds, equations by hand, identities, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.rng import Draws
from trainer.losses import gcl, gcl_angular
from trainer.losses.counts import rarity
from trainer.losses.gaussian import clouds

N, K = 6, 4
COUNTS = (40, 20, 10, 5)
# CIFAR-10-LT at imbalance 100.
CIFAR = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
BOTH = [gcl, gcl_angular]


def rows() -> tuple[Tensor, Tensor]:
    return 1.8 * torch.rand(N, K, dtype=torch.float64) - 0.9, torch.randint(K, (N,))


def draws() -> Draws:
    return Draws(torch.Generator().manual_seed(5))


def cloud() -> Tensor:
    """The clouds of `draws`: |x| / 3 of standard normal x, at most 1."""
    return (torch.randn(N, K, generator=draws().generator).abs() / 3).clamp(max=1).double()


def plain(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, reduction="none")


def test_rarities_of_cifar10_at_100() -> None:
    expected = [0, 0.1111, 0.2223, 0.3334, 0.4447, 0.5556, 0.6667, 0.7780, 0.8899, 1]
    found = rarity(CIFAR)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=6e-5)
    assert rarity((7, 7, 7)).tolist() == [0.0] * 3


def test_clouds_are_halves_of_a_normal_with_a_third_of_its_spread_cut_at_one() -> None:
    found = clouds(draws(), torch.zeros(200_000, 2))
    assert found.min() >= 0 and found.max() == 1
    assert float(found.mean()) == pytest.approx(math.sqrt(2 / math.pi) / 3, rel=0.01)
    assert float((found == 1).double().mean()) == pytest.approx(0.0027, rel=0.2)
    assert float((found < 1 / 3).double().mean()) == pytest.approx(0.6827, rel=0.01)


def test_every_class_is_pulled_away_by_its_rarity_and_its_own_noise() -> None:
    cos, label = rows()
    rare = torch.tensor([math.log(40 / n) / math.log(8) for n in COUNTS]).double()
    moved = cos - 0.4 * rare * cloud()
    held = moved - 0.1 * F.one_hot(label, K)
    found = gcl(20 * cos, label, COUNTS, size=0.4, margin=0.1, scale=20.0, draws=draws())
    torch.testing.assert_close(found, plain(20 * held, label))


def test_angles_grow_by_rarity_noise_and_margin() -> None:
    cos, label = rows()
    rare = torch.tensor([math.log(40 / n) / math.log(8) for n in COUNTS]).double()
    added = math.pi / 2 * 0.2 * rare * cloud() + 0.3 * F.one_hot(label, K)
    angle = cos.arccos() + added
    turned = torch.where(angle > math.pi, cos - added.sin(), angle.cos())
    found = gcl_angular(20 * cos, label, COUNTS, size=0.2, margin=0.3, scale=20.0, draws=draws())
    torch.testing.assert_close(found, plain(20 * turned, label))


def test_an_angle_beyond_half_a_turn_takes_a_plain_margin() -> None:
    """cos -0.98 is 0.2 short of half a turn; a margin of 0.5 would come back on the other side."""
    cos = torch.tensor([[-0.98, 0.1]]).double()
    found = gcl_angular(10 * cos, torch.tensor([0]), (9, 9), margin=0.5, scale=10.0)
    expected = plain(10 * torch.tensor([[-0.98 - math.sin(0.5), 0.1]]).double(), torch.tensor([0]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", BOTH)
def test_on_equal_counts_and_without_margin_it_is_cross_entropy(
    loss: Callable[..., Tensor],
) -> None:
    cos, label = rows()
    found = loss(30 * cos, label, (8,) * K, margin=0.0)
    torch.testing.assert_close(found, plain(30 * cos, label))


@pytest.mark.parametrize("loss", BOTH)
def test_the_focal_factor_is_of_the_perturbed_logits_and_has_no_gradient(
    loss: Callable[..., Tensor],
) -> None:
    cos, label = rows()
    cos.requires_grad_()
    bare, focused = (
        loss(20 * cos, label, COUNTS, scale=20.0, gamma=gamma, draws=draws())
        for gamma in (0.0, 2.0)
    )
    factor = ((1 - (-bare).exp()) ** 2).detach()
    torch.testing.assert_close(focused, factor * bare)
    found, expected = (
        torch.autograd.grad(values.sum(), cos, retain_graph=True)[0]
        for values in (focused, factor * bare)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", BOTH)
def test_noise_is_new_in_each_call_and_the_same_for_the_same_draws(
    loss: Callable[..., Tensor],
) -> None:
    cos, label = rows()
    one, same = (loss(30 * cos, label, COUNTS, draws=draws()) for _ in range(2))
    assert torch.equal(one, same)
    going_on = draws()
    first, second = (loss(30 * cos, label, COUNTS, draws=going_on) for _ in range(2))
    assert torch.equal(first, one) and not torch.equal(second, one)
    assert not torch.equal(loss(30 * cos, label, COUNTS), loss(30 * cos, label, COUNTS))


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_features_on_a_class_weight_have_finite_gradients(
    loss: Callable[..., Tensor], cosine: float
) -> None:
    logits = torch.full((N, K), 30.0 * cosine, requires_grad=True)
    values = loss(logits, torch.arange(N) % K, COUNTS, draws=draws())
    values.sum().backward()
    assert logits.grad is not None
    assert values.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", BOTH)
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    cos, label = rows()
    cos.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: loss(30 * x, label, COUNTS, margin=0.2, draws=draws()), (cos,)
    )
