"""The loss of several experts, by hand and by its identities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from stylegan_mix.errors import InvalidInput
from trainer.losses import balanced_experts, balanced_softmax, logit_adjust

COUNTS = (70, 20, 10)


def test_it_is_the_mean_of_differently_shifted_cross_entropies_by_hand() -> None:
    """z = (2, 1, 0), pi = (.7, .2, .1), y = 1; the term of tau = 1 is 2.37005."""
    z = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    terms = []
    for tau in (0, 1, 2):
        weights = [math.exp(v) * (n / 100) ** tau for v, n in zip(z.tolist(), COUNTS, strict=True)]
        terms.append(-math.log(weights[1] / sum(weights)))
    assert terms[1] == pytest.approx(2.37005, abs=1e-5)
    found = balanced_experts(z.expand(1, 3, 3), torch.tensor([1]), COUNTS)
    assert found.item() == pytest.approx(sum(terms) / 3, abs=1e-12)


def test_each_expert_has_the_tau_of_its_place() -> None:
    z, label = torch.randn(4, 2, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2])
    found = balanced_experts(z, label, COUNTS, taus=(0.5, 1.5))
    own = [logit_adjust(z[:, e], label, COUNTS, tau) for e, tau in enumerate((0.5, 1.5))]
    torch.testing.assert_close(found, (own[0] + own[1]) / 2)


def test_without_shifts_it_is_the_mean_of_cross_entropies() -> None:
    z, label = torch.randn(5, 3, 3), torch.randint(3, (5,))
    plain = [F.cross_entropy(z[:, e], label, reduction="none") for e in range(3)]
    expected = torch.stack(plain).mean(0)
    torch.testing.assert_close(balanced_experts(z, label, COUNTS, (0.0, 0.0, 0.0)), expected)
    torch.testing.assert_close(balanced_experts(z, label, (9, 9, 9)), expected)


def test_experts_that_agree_at_tau_one_are_balanced_softmax() -> None:
    z, label = torch.randn(5, 3), torch.randint(3, (5,))
    found = balanced_experts(z[:, None].expand(5, 3, 3), label, COUNTS, (1.0, 1.0, 1.0))
    torch.testing.assert_close(found, balanced_softmax(z, label, COUNTS))


def test_shares_of_all_classes_are_the_mixed_loss() -> None:
    z, lam = torch.randn(2, 3, 3, dtype=torch.float64), 0.3
    a, b = torch.tensor([0, 1]), torch.tensor([2, 0])
    soft = lam * F.one_hot(a, 3) + (1 - lam) * F.one_hot(b, 3).double()
    mixed = lam * balanced_experts(z, a, COUNTS) + (1 - lam) * balanced_experts(z, b, COUNTS)
    torch.testing.assert_close(balanced_experts(z, soft, COUNTS), mixed)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
def test_logits_that_are_not_of_all_experts_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"logits must be \[N, 3, K\] for the taus of 3 experts"):
        balanced_experts(torch.zeros(shape), torch.zeros(4, dtype=torch.int64), COUNTS)
