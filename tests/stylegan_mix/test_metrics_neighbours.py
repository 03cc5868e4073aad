"""Precision, recall, density, coverage and copies: toy sets by hand, slow twins, invariances."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stylegan_mix.metrics import neighbours
from stylegan_mix.metrics.neighbours import Prdc, copying, evenly_spaced, nearest, prdc, radii
from stylegan_mix.metrics.scores import allocate, class_accuracy, class_mean


@pytest.fixture(params=[3, 512])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller and larger than the sets."""
    monkeypatch.setattr(neighbours, "_ROWS", request.param)


def cloud(seed: int, count: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def slow_prdc(real: np.ndarray, fake: np.ndarray, k: int, weights: np.ndarray) -> Prdc:
    def radius(points: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(points[i] - q) for j, q in enumerate(points) if j != i)[k - 1]

    def inside(point: np.ndarray, points: np.ndarray, i: int) -> bool:
        return bool(np.linalg.norm(point - points[i]) <= radius(points, i))

    hits = np.array([[inside(f, real, i) for i in range(len(real))] for f in fake])
    recalled = [any(inside(r, fake, i) for i in range(len(fake))) for r in real]
    share = weights / weights.sum()
    return Prdc(
        precision=float(share @ hits.any(axis=1)),
        recall=float(np.mean(recalled)),
        density=float(share @ hits.sum(axis=1)) / k,
        coverage=float(hits.any(axis=0).mean()),
    )


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("k", [1, 3])
def test_prdc_is_that_of_plain_loops(k: int) -> None:
    real, fake = cloud(0, 17), cloud(1, 14) * 1.5 + 0.5
    weights = np.random.default_rng(2).random(14)
    found, slow = prdc(real, fake, k=k, weights=weights), slow_prdc(real, fake, k, weights)
    assert found is not None
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(slow), rel=1e-12)
    assert 0 < found.precision < 1
    assert 0 < found.coverage < 1


def test_prdc_on_a_line_by_hand() -> None:
    real = np.array([[0.0], [1.0], [2.0], [3.0]])
    fake = np.array([[0.5], [10.0], [11.0]])
    # Real balls reach 1: the first fake lies in two. The ball of the fake 0.5 reaches 9.5.
    assert prdc(real, fake, k=1) == Prdc(1 / 3, 1.0, pytest.approx(2 / 3), 0.5)


def test_prdc_of_the_same_set_and_of_sets_far_apart() -> None:
    real = cloud(0, 30)
    same = prdc(real, real, k=5)
    assert same is not None
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density >= 1
    assert prdc(real, real + 100, k=5) == Prdc(0, 0, 0, 0)


def test_prdc_needs_more_rows_than_neighbours() -> None:
    assert prdc(cloud(0, 5), cloud(1, 50), k=5) is None
    assert prdc(cloud(0, 50), cloud(1, 5), k=5) is None
    assert prdc(cloud(0, 6), cloud(1, 6), k=5) is not None


def test_samples_twice_and_in_another_order_are_the_same_samples() -> None:
    real, fake = cloud(0, 40), cloud(1, 30)
    order = np.random.default_rng(0).permutation(30)
    turned, plain = prdc(real, fake[order], k=3), prdc(real, fake, k=3)
    assert turned is not None
    assert plain is not None
    assert dataclasses.astuple(turned) == pytest.approx(dataclasses.astuple(plain))
    twice = prdc(real, np.concatenate([fake, fake]), k=3)
    assert twice is not None
    # Recall is not: the k-th neighbour of a doubled sample is nearer.
    for name in ("precision", "density", "coverage"):
        assert getattr(twice, name) == pytest.approx(getattr(plain, name))
    assert twice.recall < plain.recall


def test_one_sample_repeated_recalls_nothing() -> None:
    real = cloud(0, 40)
    found = prdc(real, np.repeat(real[:1] + 0.01, 40, axis=0), k=5)
    assert found is not None
    assert found.precision == 1
    assert found.recall == 0
    assert found.coverage < 0.5


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_row_is_that_of_plain_loops(dtype: type) -> None:
    base = cloud(0, 20).astype(dtype)
    queries = np.concatenate([cloud(1, 9).astype(dtype), base[4:6]])
    apart = np.linalg.norm(queries[:, None].astype(float) - base[None], axis=2)
    index, distance = nearest(queries, base)
    np.testing.assert_array_equal(index, apart.argmin(axis=1))
    np.testing.assert_allclose(distance, apart.min(axis=1), rtol=1e-6)
    assert distance[-2:].tolist() == [0, 0]
    _, others = nearest(base[5:9], base, own=np.arange(5, 9))
    np.testing.assert_allclose(others, radii(base, 1)[5:9], rtol=1e-5)
    assert others.min() > 0


def test_a_copied_picture_is_at_distance_zero() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (50, 3072)).astype(np.float32)
    index, distance = nearest(pictures[7:9], pictures)
    assert (index.tolist(), distance.tolist()) == ([7, 8], [0, 0])


def test_copying_tells_copies_from_new_images() -> None:
    held_out = np.random.default_rng(0).random(1000) + 1
    new = np.random.default_rng(1).random(1000) + 1
    found = copying(new, held_out)
    assert found is not None
    assert found.ratio == pytest.approx(1, abs=0.05)
    assert found.share < 0.03
    copies = copying(np.zeros(10), held_out)
    assert copies is not None
    assert (copies.ratio, copies.share) == (0, 1)
    assert copying(new, np.zeros(3)) is None
    assert copying(new[:0], held_out) is None
    assert copying(new, held_out[:0]) is None


# Shares and accuracies


@pytest.mark.parametrize(
    ("share", "n", "counts"),
    [
        ([1, 1, 1], 10, [4, 3, 3]),
        ([5000, 50], 101, [100, 1]),
        ([100, 5], 40, [38, 2]),
        ([1, 0, 1], 3, [2, 0, 1]),
    ],
)
def test_rows_are_shared_out_by_largest_remainders(
    share: list[int], n: int, counts: list[int]
) -> None:
    assert allocate(np.array(share, float), n).tolist() == counts


@pytest.mark.parametrize("n", [2, 17, 10_000, 12_345])
def test_every_row_is_shared_out(n: int) -> None:
    counts = allocate(np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50.0]), n)
    assert counts.sum() == n
    assert (np.diff(counts) <= 0).all()


def test_accuracy_is_by_class_and_absent_classes_have_none() -> None:
    said, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    accuracy = class_accuracy(said, labels, 3)
    assert accuracy == [1.0, pytest.approx(2 / 3), None]
    assert class_mean(accuracy) == pytest.approx(5 / 6)
    assert class_mean([None]) is None


def test_evenly_spaced_rows_reach_both_ends() -> None:
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(9, 3).tolist() == [0, 4, 8]
