"""Focal losses and label-aware smoothing: values, identities, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.losses import focal, label_aware_smoothing, sigmoid_focal
from trainer.losses.labels import smoothing_shares

N, K = 6, 4
# CIFAR-10-LT at imbalance 100.
COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)


def rows() -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(N, K, dtype=torch.float64), torch.randint(K, (N,))


def plain(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, reduction="none")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_focal_loss_by_hand(gamma: float) -> None:
    logits, label = rows()
    p = logits.softmax(1).gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(focal(logits, label, gamma), -((1 - p) ** gamma) * p.log())


def test_the_focal_loss_of_three_logits() -> None:
    """z = (2, 1, 0): p = (.66524, .24473, .09003)."""
    found = focal(torch.tensor([[2.0, 1.0, 0.0]] * 3), torch.arange(3), 1.0)
    expected = [(1 - p) * -math.log(p) for p in (0.6652410, 0.2447285, 0.0900306)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_the_focal_loss_without_gamma_is_cross_entropy() -> None:
    logits, label = rows()
    torch.testing.assert_close(focal(logits, label, 0.0), plain(logits, label))


@pytest.mark.parametrize("loss", [focal, sigmoid_focal])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_rows_that_are_certainly_right_or_wrong_have_finite_gradients(
    loss: Callable[..., Tensor], gamma: float
) -> None:
    logits = torch.tensor([[300.0, -300.0], [-300.0, 300.0]], requires_grad=True)
    values = loss(logits, torch.zeros(2, dtype=torch.int64), gamma)
    values.sum().backward()
    assert logits.grad is not None
    assert values.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_sigmoid_focal_loss_by_hand(gamma: float) -> None:
    """One term for each class: that of the label, and those of all others with z reversed."""
    logits, label = rows()
    expected = torch.zeros(N, dtype=torch.float64)
    for row in range(N):
        for c in range(K):
            z = float(logits[row, c]) * (1 if c == label[row] else -1)
            q = 1 / (1 + math.exp(-z))
            expected[row] -= (1 - q) ** gamma * math.log(q)
    torch.testing.assert_close(sigmoid_focal(logits, label, gamma), expected)


def test_the_sigmoid_focal_loss_without_gamma_is_binary_cross_entropy() -> None:
    logits, label = rows()
    target = F.one_hot(label, K).double()
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    torch.testing.assert_close(sigmoid_focal(logits, label, 0.0), expected)


def test_smoothing_shares_of_cifar10_at_100() -> None:
    expected = [0.3, 0.2414, 0.1578, 0.0960, 0.0563, 0.0320, 0.0173, 0.0085, 0.0031, 0.0]
    found = smoothing_shares(COUNTS, 0.3, 0.0)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=6e-5)
    assert smoothing_shares(COUNTS, 0.4, 0.1)[[0, -1]].tolist() == [0.4, 0.1]


def test_on_equal_counts_every_label_is_smoothed_as_that_of_the_smallest_class() -> None:
    assert smoothing_shares((7, 7, 7), 0.3, 0.1).tolist() == [0.1] * 3
    logits, label = rows()
    found = label_aware_smoothing(logits, label, (7,) * K, first=0.3, last=0.0)
    torch.testing.assert_close(found, plain(logits, label))


def test_smoothed_labels_are_soft_ones_over_all_classes() -> None:
    """The loss is the cross-entropy of (1 - e_y) e_y + e_y / K, with the label's own part of it."""
    logits, label, counts = *rows(), (40, 20, 10, 5)
    share = smoothing_shares(counts, 0.4, 0.1)[label][:, None]
    soft = (1 - share) * F.one_hot(label, K) + share / K
    found = label_aware_smoothing(logits, label, counts, first=0.4, last=0.1)
    torch.testing.assert_close(found, F.cross_entropy(logits, soft, reduction="none"))


def test_two_smoothed_labels_of_a_mixed_row_are_one_soft_label() -> None:
    """lam times the target of a and the rest of that of b."""
    logits, a, b, counts = *rows(), torch.randint(K, (N,)), (40, 20, 10, 5)
    lam = torch.rand(N, 1, dtype=torch.float64)
    targets = []
    for label in (a, b):
        share = smoothing_shares(counts, 0.3, 0.0)[label][:, None]
        targets.append((1 - share) * F.one_hot(label, K) + share / K)
    soft = lam * targets[0] + (1 - lam) * targets[1]
    one, other = (label_aware_smoothing(logits, label, counts) for label in (a, b))
    found = lam[:, 0] * one + (1 - lam[:, 0]) * other
    torch.testing.assert_close(found, F.cross_entropy(logits, soft, reduction="none"))


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: focal(z, y, 2.0),
        lambda z, y: sigmoid_focal(z, y, 2.0),
        lambda z, y: label_aware_smoothing(z, y, (40, 20, 10, 5)),
    ],
    ids=["focal", "sigmoid focal", "smoothing"],
)
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    logits, label = rows()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, label), (logits,))
