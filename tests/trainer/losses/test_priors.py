"""Shares of classes within the logits: published values, identities, gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from trainer.losses import balanced_sigmoid, balanced_softmax, logit_adjust, vs_loss
from trainer.losses.counts import as_counts, log_shares
from trainer.losses.priors import log_odds

N, K = 6, 4
COUNTS = (40, 20, 10, 5)
# CIFAR-10-LT at imbalance 100.
CIFAR = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
ALL = [logit_adjust, balanced_softmax, balanced_sigmoid, vs_loss]


def rows() -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(N, K, dtype=torch.float64), torch.randint(K, (N,))


def plain(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits, label, reduction="none")


def near(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=6e-5)


def test_log_shares_of_cifar10_at_100() -> None:
    expected = [-0.9087, -1.4206, -1.9326, -2.4440, -2.9567]
    near(log_shares(CIFAR), [*expected, -3.4675, -3.9792, -4.4915, -5.0071, -5.5139])


def test_log_odds_of_cifar10_at_100() -> None:
    expected = [0.3929, 1.1441, 1.7762, 2.3532, 2.9033, 3.4358, 3.9603, 4.4802, 5.0004, 5.5099]
    near(-log_odds(CIFAR), expected)


def test_balanced_softmax_by_hand() -> None:
    """z = (2, 1, 0) with pi = (.7, .2, .1)."""
    found = balanced_softmax(
        torch.tensor([[2.0, 1.0, 0.0]] * 3).double(), torch.arange(3), (7, 2, 1)
    )
    torch.testing.assert_close(
        found, torch.tensor([0.11729, 2.37005, 4.06320]).double(), rtol=0, atol=5e-6
    )


def test_balanced_softmax_weighs_exponentials_by_counts() -> None:
    logits, label = rows()
    mass = torch.tensor(COUNTS) * logits.exp()
    expected = -(mass.gather(1, label[:, None])[:, 0] / mass.sum(1)).log()
    torch.testing.assert_close(balanced_softmax(logits, label, COUNTS), expected)
    torch.testing.assert_close(logit_adjust(logits, label, COUNTS, 1.0), expected)


def test_logit_adjustment_multiplies_log_shares_by_tau() -> None:
    logits, label = rows()
    shift = 1.7 * torch.tensor([n / 75 for n in COUNTS]).double().log()
    torch.testing.assert_close(
        logit_adjust(logits, label, COUNTS, 1.7), plain(logits + shift, label)
    )
    torch.testing.assert_close(logit_adjust(logits, label, COUNTS, 0.0), plain(logits, label))


def test_the_vector_scaling_loss_by_hand() -> None:
    logits, label = rows()
    scale = torch.tensor([(n / 40) ** 0.3 for n in COUNTS]).double()
    shift = 1.2 * torch.tensor([n / 75 for n in COUNTS]).double().log()
    found = vs_loss(logits, label, COUNTS, gamma=0.3, tau=1.2)
    torch.testing.assert_close(found, plain(scale * logits + shift, label))


def test_without_gamma_the_vector_scaling_loss_is_logit_adjustment() -> None:
    logits, label = rows()
    torch.testing.assert_close(
        vs_loss(logits, label, COUNTS, gamma=0.0, tau=1.2), logit_adjust(logits, label, COUNTS, 1.2)
    )


@pytest.mark.parametrize("loss", [logit_adjust, balanced_softmax, vs_loss])
def test_on_equal_counts_they_are_cross_entropy(loss: Callable[..., Tensor]) -> None:
    logits, label = rows()
    torch.testing.assert_close(loss(logits, label, (9,) * K), plain(logits, label))


def test_the_balanced_sigmoid_is_binary_cross_entropy_with_prior_odds() -> None:
    logits, label = rows()
    odds = torch.tensor([n / (75 - n) for n in COUNTS]).double()
    q = odds * logits.exp() / (1 + odds * logits.exp())
    own = F.one_hot(label, K).bool()
    expected = -torch.where(own, q, 1 - q).log().sum(1)
    torch.testing.assert_close(balanced_sigmoid(logits, label, COUNTS), expected)


def test_at_zero_logits_the_balanced_sigmoid_says_the_share_of_each_class() -> None:
    """Its gradient by z is then pi_c, less 1 for the label: mean zero over the training set."""
    label = torch.arange(K).repeat_interleave(torch.tensor(COUNTS))
    logits = torch.zeros(75, K, dtype=torch.float64, requires_grad=True)
    balanced_sigmoid(logits, label, COUNTS).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(K).double(), rtol=0, atol=1e-12)


def test_on_equal_counts_the_balanced_sigmoid_is_a_shifted_binary_cross_entropy() -> None:
    logits, label = rows()
    shifted = logits - torch.tensor(3.0).double().log()
    target = F.one_hot(label, K).double()
    expected = F.binary_cross_entropy_with_logits(shifted, target, reduction="none").sum(1)
    torch.testing.assert_close(balanced_sigmoid(logits, label, (5,) * K), expected)


def test_two_calls_of_the_balanced_sigmoid_are_one_with_soft_targets() -> None:
    logits, a = rows()
    b, lam = torch.randint(K, (N,)), torch.rand(N, dtype=torch.float64)
    one, other = (balanced_sigmoid(logits, label, COUNTS) for label in (a, b))
    soft = lam[:, None] * F.one_hot(a, K) + (1 - lam[:, None]) * F.one_hot(b, K)
    shifted = logits + log_odds(COUNTS)
    expected = F.binary_cross_entropy_with_logits(shifted, soft, reduction="none").sum(1)
    torch.testing.assert_close(lam * one + (1 - lam) * other, expected)


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_finite_differences(loss: Callable[..., Tensor]) -> None:
    logits, label = rows()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, label, COUNTS), (logits,))


@pytest.mark.parametrize("loss", ALL)
def test_counts_may_be_a_list_a_tensor_or_an_array(loss: Callable[..., Tensor]) -> None:
    logits, label = rows()
    expected = loss(logits, label, COUNTS)
    for counts in (list(COUNTS), torch.tensor(COUNTS), torch.tensor(COUNTS).numpy()):
        assert torch.equal(loss(logits, label, counts), expected)
    assert loss(logits.float(), label, COUNTS).dtype == torch.float32


@pytest.mark.parametrize("counts", [(3, 0, 2, 1), (), [[1, 2], [3, 4]], (1.0, float("nan"), 1, 1)])
def test_counts_that_cannot_be_are_refused(counts: list[int]) -> None:
    with pytest.raises(InvalidInput, match="counts must hold the training images of each class"):
        as_counts(counts)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("counts", [(5,), (5, 4, 3), (5, 4, 3, 2, 1)])
def test_counts_of_other_classes_than_the_logits_are_refused(
    loss: Callable[..., Tensor], counts: tuple[int, ...]
) -> None:
    logits, label = rows()
    told = rf"logits must be \[N, {len(counts)}\] for the counts of {len(counts)} classes"
    with pytest.raises(InvalidInput, match=told):
        loss(logits, label, counts)
