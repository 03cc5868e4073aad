"""LDAM: published margins, the plain loss without them, and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer.losses.margin import ldam, ldam_margins

N, K = 6, 4
# CIFAR-10-LT at imbalance 100.
COUNTS = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])


def cosines() -> torch.Tensor:
    return 2 * torch.rand(N, K, dtype=torch.float64) - 1


def test_margins_of_cifar10_at_100() -> None:
    expected = [0.1581, 0.1797, 0.2042, 0.2321, 0.2638, 0.2998, 0.3407, 0.3872, 0.4405, 0.5]
    margins = ldam_margins(COUNTS, 0.5)
    torch.testing.assert_close(margins, torch.tensor(expected).double(), rtol=0, atol=6e-5)


def test_margins_of_equal_counts_are_the_largest() -> None:
    assert ldam_margins(torch.tensor([7, 7, 7]), 0.3).tolist() == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_without_margins_it_is_the_cross_entropy_of_scaled_cosines(scale: float) -> None:
    cos, label = cosines(), torch.randint(K, (N,))
    values = ldam(scale * cos, label, (9, 5, 3, 1), largest=0.0, scale=scale)
    torch.testing.assert_close(values, F.cross_entropy(scale * cos, label, reduction="none"))


def test_the_margin_is_that_of_the_row_and_is_scaled_with_the_cosine() -> None:
    """Two classes: log(1 + exp(s (cos_other - cos_own + m_own))), the margins 0.1 and 0.4."""
    cos = torch.tensor([[0.3, 0.5], [0.3, 0.5]]).double()
    values = ldam(10 * cos, torch.tensor([0, 1]), (256, 1), largest=0.4, scale=10.0)
    expected = torch.tensor([2.0 + 1.0, -2.0 + 4.0]).double().exp().log1p()
    torch.testing.assert_close(values, expected)


def test_gradients_are_those_of_finite_differences() -> None:
    cos, label = cosines().requires_grad_(), torch.randint(K, (N,))
    assert torch.autograd.gradcheck(lambda x: ldam(30 * x, label, (40, 20, 10, 5)), (cos,))
