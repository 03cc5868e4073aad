"""Terms that join a player's loss, each against its equation written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan_mix.datasets.class_weights import inverse_effective_number
from stylegan_mix.training import regularizers


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_published_effective_numbers_of_cifar10_lt() -> None:
    # lambda of Rangwani et al. 2022 for CIFAR-10-LT at imbalance 100, mean 1
    counts = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    weak = inverse_effective_number(counts, 0.99)
    np.testing.assert_allclose(weak[5:], [0.80, 0.87, 1.04, 1.39, 1.98], atol=0.006)
    strong = inverse_effective_number(counts, 0.999)
    expected = [0.18, 0.19, 0.22, 0.27, 0.38, 0.56, 0.87, 1.39, 2.26, 3.69]
    np.testing.assert_allclose(strong, expected, atol=0.006)
    np.testing.assert_allclose(inverse_effective_number(counts, 0.0), np.ones(10))
    assert strong.mean() == pytest.approx(1.0)


def test_path_lengths_of_a_linear_map_are_known_and_differentiable() -> None:
    weight = torch.randn(3, 5, 6, 6, dtype=torch.float64, requires_grad=True)  # [C,D,H,W]
    ws = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    images = torch.einsum("nld,cdhw->nchw", ws, weight)
    noise = torch.randn(images.shape, dtype=torch.float64)
    lengths = regularizers.path_lengths(images, ws, noise)
    # Every layer has the same gradient J^T y, so that the mean over layers changes nothing.
    expected = torch.stack(
        [torch.einsum("cdhw,chw->d", weight, noise[n] / 6).norm() for n in range(4)]
    )
    torch.testing.assert_close(lengths, expected)
    lengths.sum().backward()
    (through,) = torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(weight.grad, through)


def test_barlow_loss_is_the_published_sum_over_the_correlation() -> None:
    one = torch.randn(64, 3, dtype=torch.float64) * 3 + 1
    two = one + 0.5 * torch.randn(64, 3, dtype=torch.float64)
    a, b = ((x - x.mean(0)) / x.std(0, unbiased=False) for x in (one, two))
    loss = 0.0
    for i in range(3):
        for j in range(3):
            c = float((a[:, i] * b[:, j]).mean())
            loss += (c - 1) ** 2 if i == j else 0.05 * c**2
    assert float(regularizers.barlow_loss(one, two, 0.05)) == pytest.approx(loss, rel=1e-3)
    uncorrelated = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert float(regularizers.barlow_loss(uncorrelated, uncorrelated, 1.0)) < 1e-8


@pytest.mark.parametrize(("width", "shape"), [(512, (16, 32)), (256, (16, 16)), (96, (8, 12))])
def test_groups_are_as_square_as_can_be(width: int, shape: tuple[int, int]) -> None:
    assert regularizers.most_square(width) == shape


def test_the_spectral_norm_and_its_gradient_are_those_of_the_singular_value() -> None:
    w = torch.randn(5, 24, dtype=torch.float64, requires_grad=True)
    start = torch.randn(5, 6, dtype=torch.float64)
    found = regularizers.squared_spectral_norm(w, start, iterations=1000)
    exact = torch.linalg.matrix_norm(w.view(5, 4, 6), ord=2).square()
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    ours, true = (torch.autograd.grad(x.sum(), w)[0] for x in (found, exact))
    torch.testing.assert_close(ours, true, rtol=1e-3, atol=1e-3)
    few = regularizers.squared_spectral_norm(w, start)
    assert (few <= exact * (1 + 1e-9)).all()
    assert (few > 0.5 * exact).all()


def test_lecam_pulls_logits_towards_those_of_the_other_kind_only_where_they_are_apart() -> None:
    logits = torch.tensor([-1.0, 0.5, 3.0])
    away = torch.tensor(0.5)
    real = regularizers.lecam_real_penalty(logits, away)
    torch.testing.assert_close(real, torch.tensor([0.0, 0.0, 6.25]))
    fake = regularizers.lecam_fake_penalty(logits, away)
    torch.testing.assert_close(fake, torch.tensor([2.25, 0.0, 0.0]))
