"""Frechet and kernel distance: closed forms, slow twins, no bias, and what must not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from stylegan_mix.metrics.distances import (
    Labelled,
    Moments,
    effective_count,
    frechet_distance,
    groups_for,
    kernel_distance,
    kernel_sums,
    moments,
)


def draws(seed: int, count: int, width: int = 5, classes: int = 1) -> Labelled:
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    return Labelled(features, random.integers(0, classes, count))


def gaussian(mean: list[float], covariance: np.ndarray) -> Moments:
    return Moments(np.array(mean), covariance, 100.0)


# Frechet


def test_frechet_of_diagonal_gaussians_is_the_closed_form() -> None:
    a = gaussian([1.0, 2.0, 0.0], np.diag([4.0, 9.0, 0.25]))
    b = gaussian([0.0, 2.0, 3.0], np.diag([1.0, 16.0, 0.25]))
    # |m|^2 = 1 + 9; (2 - 1)^2 + (3 - 4)^2 + 0
    assert frechet_distance(a, b) == pytest.approx(12.0, abs=1e-12)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [gaussian(turn @ one.mean, turn @ one.covariance @ turn.T) for one in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(12.0, abs=1e-10)


def test_frechet_is_that_of_the_matrix_square_root() -> None:
    a, b = moments(draws(0, 40).features), moments(draws(1, 60).features)
    root = sqrtm(a.covariance @ b.covariance).real
    slow = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(slow, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(slow, rel=1e-10)


def test_frechet_of_a_set_and_itself_is_zero_even_without_full_rank() -> None:
    few = moments(draws(0, 4, width=8).features)
    scale = np.trace(few.covariance)
    assert frechet_distance(few, few) <= 1e-6 * scale
    point = Moments(few.mean, np.zeros_like(few.covariance), 4.0)
    assert frechet_distance(few, point) == pytest.approx(scale, rel=1e-6)


def test_moments_are_those_of_numpy() -> None:
    features = draws(0, 30).features
    found = moments(features)
    np.testing.assert_allclose(found.mean, features.mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(features.T))
    assert found.count == pytest.approx(30)


def test_a_weight_is_worth_repeated_rows() -> None:
    features, times = draws(0, 6).features, np.array([1, 2, 3, 1, 1, 4])
    weighted, repeated = moments(features, times / 7.0), np.repeat(features, times, axis=0)
    np.testing.assert_allclose(weighted.mean, repeated.mean(axis=0))
    plain = np.cov(repeated.T, ddof=0)
    count = effective_count(times.astype(float))
    np.testing.assert_allclose(weighted.covariance, plain / (1 - 1 / count))
    assert count == pytest.approx(144 / 32)


# Kernel


def slow_mean(x: Labelled, y: Labelled, p: np.ndarray, q: np.ndarray, *, same: bool) -> float:
    """The mean kernel of a pair whose classes have shares p and q, by two loops."""
    sums, pairs = np.zeros((len(p), len(q))), np.zeros((len(p), len(q)))
    for i, j in itertools.product(range(len(x)), range(len(y))):
        if not (same and i == j):
            cell = x.labels[i], y.labels[j]
            sums[cell] += (x.features[i] @ y.features[j] / x.features.shape[1] + 1) ** 3
            pairs[cell] += 1
    used = np.outer(p, q) > 0
    return float((np.outer(p, q)[used] * sums[used] / pairs[used]).sum())


def distance(
    x: Labelled, y: Labelled, p: np.ndarray, q: np.ndarray
) -> tuple[float | None, float | None]:
    size = len(p)
    sums = kernel_sums(x, None, size), kernel_sums(y, None, size), kernel_sums(x, y, size)
    return kernel_distance(*sums, p, q)


ONE = np.ones(1)


@pytest.mark.parametrize("rows", [7, 512])
def test_the_kernel_distance_is_that_of_two_loops(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylegan_mix.metrics.distances._ROWS", rows)
    x, y = draws(0, 25, classes=3), draws(1, 31, classes=3)
    p, q = np.array([0.5, 0.2, 0.3]), np.array([0.0, 0.1, 0.9])
    slow = slow_mean(x, x, p, p, same=True) + slow_mean(y, y, q, q, same=True)
    slow -= 2 * slow_mean(x, y, p, q, same=False)
    assert distance(x, y, p, q)[0] == pytest.approx(slow, rel=1e-10)


def test_the_kernel_distance_has_no_bias() -> None:
    """Its mean over all subsets is exactly the value of the whole."""
    x, y = draws(0, 6, width=3), draws(1, 6, width=3)
    parts = [
        distance(x.at(np.array(i)), y.at(np.array(j)), ONE, ONE)[0]
        for i in itertools.combinations(range(6), 3)
        for j in itertools.combinations(range(6), 3)
    ]
    assert np.mean(parts) == pytest.approx(distance(x, y, ONE, ONE)[0], rel=1e-9)


def test_how_many_rows_a_class_has_does_not_shift_the_distance() -> None:
    """Reals weighted to the labels of samples: the mean over draws is that of the mixture."""
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [3.0, 1.0]])

    def mixture(counts: tuple[int, int]) -> Labelled:
        labels = np.repeat([0, 1], counts)
        return Labelled(centres[labels] + random.normal(size=(len(labels), 2)), labels)

    half = np.array([0.5, 0.5])
    found = [distance(mixture((40, 4)), mixture((20, 20)), half, half)[0] for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)
    shifted = distance(mixture((40, 4)), mixture((20, 20)), np.array([0.9, 0.1]), half)[0]
    assert shifted > 10 * abs(np.mean(found))


def test_the_order_of_rows_does_not_matter() -> None:
    x, y = draws(0, 50, classes=2), draws(1, 40, classes=2)
    share = np.array([0.5, 0.5])
    order = np.random.default_rng(3).permutation(50)
    value, _ = distance(x, y, share, share)
    assert distance(x.at(order), y, share, share)[0] == pytest.approx(value, rel=1e-9)
    assert distance(y, x, share, share)[0] == pytest.approx(value, rel=1e-9)


def test_the_jackknife_error_is_the_spread_between_draws() -> None:
    random, found = np.random.default_rng(0), []
    for _ in range(150):
        x, y = random.normal(size=(60, 3)), random.normal(size=(60, 3)) + 0.5
        zeros = np.zeros(60, int)
        found.append(distance(Labelled(x, zeros), Labelled(y, zeros), ONE, ONE))
    values, errors = np.array(found, float).T
    assert 0.7 < np.mean(errors) / np.std(values) < 1.4


def test_classes_with_too_few_rows_have_no_distance() -> None:
    x = Labelled(np.ones((3, 2)), np.array([0, 0, 1]))
    y = draws(0, 20, width=2, classes=2)
    both, first = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert distance(x, y, both, both) == (None, None)
    value, error = distance(x, y, first, first)
    assert value is not None
    assert error is None


def test_groups_become_fewer_where_classes_are_many() -> None:
    assert [groups_for(classes) for classes in (2, 100, 200, 500, 9000)] == [10, 10, 10, 4, 2]
