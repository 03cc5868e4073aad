"""Classes of directions: Bessel functions, concentrations, expectations by sampling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from trainer.losses.directions import concentration, expected_scores, log_series

N, K, P = 4, 3, 32


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def summed(k: float, numbers: int) -> float:
    """log(I_v(k) / k ** v) by its power series, sum_m (k / 2) ** (2 m) / (2 ** v m! (v + m)!)."""
    order, m = numbers / 2 - 1, torch.arange(int(k) + 400, dtype=torch.float64)
    terms = 2 * m * math.log(k / 2) - torch.lgamma(m + 1) - torch.lgamma(m + order + 1)
    return float(torch.logsumexp(terms, 0)) - order * math.log(2)


@pytest.mark.parametrize("numbers", [32, 64, 128, 129])
def test_the_series_is_that_of_the_bessel_function(numbers: int) -> None:
    points = [1e-6, 0.3, 1.0, 10.0, 50.0, 63.0, 300.0, 4000.0]
    found = log_series(torch.tensor(points, dtype=torch.float64), numbers)
    expected = torch.tensor([summed(k, numbers) for k in points], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-8)


def test_the_series_has_a_slope_everywhere() -> None:
    """Zero at 0, and near 1 for large k."""
    k = torch.tensor([0.0, 1e5], dtype=torch.float64, requires_grad=True)
    log_series(k, 128).sum().backward()
    torch.testing.assert_close(k.grad, torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-3)


def test_directions_of_few_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 32 numbers, got 31"):
        log_series(torch.ones(1), 31)


def test_concentrations_by_hand() -> None:
    """P R / (1 - R ** 2): 128 * 0.5 / 0.75; a class of one image is a point, 1e5."""
    found = concentration(torch.tensor([0.0, 0.5, 1.0]), 128)
    torch.testing.assert_close(found, torch.tensor([0.0, 128 * 0.5 / 0.75, 1e5]))


def test_scores_are_the_log_of_a_mean_over_samples() -> None:
    """Of vectors drawn from the density itself, by weights on uniform directions."""
    samples = F.normalize(normal(100_000, P), dim=1)
    mean = F.normalize(normal(1, P), dim=1) * 0.1
    kappa = float(concentration(torch.tensor(0.1), P))
    vectors = F.normalize(normal(N, P), dim=1)
    weight = torch.softmax(kappa * samples @ F.normalize(mean, dim=1)[0], 0)
    expected = torch.stack([(weight * (samples @ f / 0.5).exp()).sum().log() for f in vectors])
    found = expected_scores(vectors, mean, temperature=0.5)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_the_length_of_a_vector_does_not_count_and_its_dtype_stays() -> None:
    vectors, means = normal(N, P), 0.1 * F.normalize(normal(K, P), dim=1)
    found = expected_scores(7 * vectors, means)
    torch.testing.assert_close(found, expected_scores(vectors, means))
    assert expected_scores(vectors.float(), means.float()).dtype == torch.float32


def test_a_class_that_is_a_point_has_its_cosine_as_the_score() -> None:
    points = F.normalize(normal(K, P), dim=1)
    vectors = F.normalize(normal(N, P), dim=1)
    found = expected_scores(vectors, points, temperature=0.1)
    torch.testing.assert_close(found, vectors @ points.T / 0.1, rtol=0, atol=0.01)


def test_classes_not_seen_so_far_have_one_score_and_no_slope() -> None:
    vectors = normal(N, P).requires_grad_(True)
    scores = expected_scores(vectors, torch.zeros(K, P))
    torch.testing.assert_close(scores, scores[:1, :1].expand(N, K))
    scores.sum().backward()
    assert vectors.grad is not None and not vectors.grad.any()


def test_scores_have_the_gradients_of_finite_differences() -> None:
    means = F.normalize(normal(K, P), dim=1) * torch.tensor([[0.0], [0.3], [1.0]]).double()
    vectors = normal(2, P).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f: expected_scores(f, means), vectors)


def test_the_far_side_of_a_class_is_finite() -> None:
    """kappa m + f / temperature = 0, where the length has no slope."""
    mean = torch.zeros(1, P, dtype=torch.float64)
    length = (-P + math.sqrt(P**2 + 400)) / 20  # P R / (1 - R ** 2) = 10
    mean[0, 0] = length
    vectors = (-mean).requires_grad_(True)
    score = expected_scores(vectors, mean, temperature=0.1)
    score.sum().backward()
    assert score.isfinite().all() and vectors.grad is not None and vectors.grad.isfinite().all()
