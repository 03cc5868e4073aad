"""The meta-sampler: its draws, the head that it looks ahead to, and the gradient of its rates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_mix.rng import stream
from trainer.losses.meta import answered, drawn_by_rates, looked_ahead

N, K, D = 6, 3, 4
COUNTS = (50, 20, 5)
LABEL = torch.tensor([0, 0, 0, 1, 1, 2])


def gumbel(draws: int, step: int = 0) -> Tensor:
    return torch.from_numpy(stream(0, "test.gumbel", step).gumbel(size=(draws, N)))


def head() -> nn.Linear:
    return nn.Linear(D, K).double()


def features() -> Tensor:
    return torch.randn(N, D, dtype=torch.float64)


def test_rows_are_drawn_in_proportion_to_the_rates_of_their_classes() -> None:
    raw = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    row, share = drawn_by_rates(raw, LABEL, gumbel(20_000))
    expected = raw.sigmoid()[LABEL]
    expected = expected / expected.sum()
    assert (share - expected).abs().max() < 0.01
    torch.testing.assert_close(share, row.bincount(minlength=N) / 20_000, check_dtype=False)


def test_equal_rates_draw_all_rows_alike() -> None:
    noise = gumbel(8)
    for raw in (0.0, 3.0):
        row, _ = drawn_by_rates(torch.full((K,), raw, dtype=torch.float64), LABEL, noise)
        assert torch.equal(row, noise.argmax(1))


def test_shares_have_the_gradient_of_their_gumbel_softmax() -> None:
    noise, weights = gumbel(7), torch.randn(N, dtype=torch.float64)
    found, expected = (torch.zeros(K, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (drawn_by_rates(found, LABEL, noise)[1] * weights).sum().backward()
    soft = (F.logsigmoid(expected)[LABEL] + noise).softmax(1).mean(0)
    (soft * weights).sum().backward()
    assert expected.grad is not None and expected.grad.any()
    torch.testing.assert_close(found.grad, expected.grad)


def test_the_step_of_look_ahead_by_hand() -> None:
    """W - rate sum_i share_i (softmax(z_i + log n) - e_i) f_i, and so for the biases."""
    now, f, share = head(), features(), torch.rand(N, dtype=torch.float64)
    ahead = looked_ahead(now, f, LABEL, share, COUNTS, 0.5)
    shifted = now(f) + torch.tensor(COUNTS).double().log()
    slope = share[:, None] * (shifted.softmax(1) - F.one_hot(LABEL, K))
    torch.testing.assert_close(ahead["weight"], now.weight - 0.5 * slope.T @ f)
    torch.testing.assert_close(ahead["bias"], now.bias - 0.5 * slope.sum(0))
    torch.testing.assert_close(answered(now, dict(now.named_parameters()), f), now(f))


def meta(now: nn.Linear, f: Tensor, share: Tensor, rate: float) -> Tensor:
    """The loss on other rows of the head that is looked ahead to, in double precision."""
    ahead = looked_ahead(now, f, LABEL, share, COUNTS, rate)
    even = torch.linspace(-1, 1, K * D, dtype=torch.float64).view(K, D)
    return F.cross_entropy(F.linear(even, ahead["weight"], ahead["bias"]), torch.arange(K))


def test_the_gradient_passes_the_step_to_the_shares_alone() -> None:
    now, f = head(), features().requires_grad_()
    share = torch.rand(N, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: meta(now, f, s, 0.5), [share])
    meta(now, f, share, 0.5).backward()
    assert share.grad is not None and share.grad.any()
    assert now.weight.grad is None and now.bias.grad is None and f.grad is None


def test_a_step_of_no_length_changes_nothing_and_teaches_nothing() -> None:
    now, share = head(), torch.rand(N, dtype=torch.float64, requires_grad=True)
    f = features()
    ahead = looked_ahead(now, f, LABEL, share, COUNTS, 0.0)
    assert all(torch.equal(ahead[name], value) for name, value in now.named_parameters())
    meta(now, f, share, 0.0).backward()
    assert share.grad is not None and not share.grad.any()


def test_the_rate_of_a_class_that_balanced_rows_get_wrong_rises() -> None:
    """A head that never says class 2, equal counts: more rows of it would help."""
    now, raw = head(), torch.zeros(K, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        now.weight.copy_(torch.eye(K, D))
        now.bias.copy_(torch.tensor([0.0, 0.0, -5.0]))
    f = 3 * torch.eye(K, D, dtype=torch.float64)
    for step in range(50):
        _, share = drawn_by_rates(raw, LABEL, gumbel(N, step))
        ahead = looked_ahead(now, f[LABEL], LABEL, share, (9, 9, 9), 0.5)
        z = F.linear(f, ahead["weight"], ahead["bias"])
        F.cross_entropy(z, torch.arange(K)).backward()
    assert raw.grad is not None
    assert raw.grad.argmin() == 2 and raw.grad[2] < 0
