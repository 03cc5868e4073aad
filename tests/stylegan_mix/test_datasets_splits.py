"""The long-tailed rule against its published numbers, and the identity of a split."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylegan_mix.datasets import identity
from stylegan_mix.datasets.groups import shot_groups
from stylegan_mix.datasets.hashes import image_hashes
from stylegan_mix.datasets.splits import check_draw, long_tailed_counts, long_tailed_indices
from stylegan_mix.errors import UsageFailure

CIFAR10 = {
    10: (20431, 500),
    20: (None, 250),
    50: (None, 100),
    100: (12406, 50),
    200: (None, 25),
}


def test_cifar10_at_100_has_the_published_counts() -> None:
    published = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tailed_counts(5000, 10, 100).tolist() == published


@pytest.mark.parametrize("factor", CIFAR10)
def test_the_last_class_of_cifar10_is_exactly_the_first_over_the_factor(factor: int) -> None:
    total, last = CIFAR10[factor]
    counts = long_tailed_counts(5000, 10, factor)
    assert counts[0] == 5000
    assert counts[-1] == last
    assert total is None or counts.sum() == total


@pytest.mark.parametrize(
    ("factor", "total", "last", "groups"),
    [(100, 10847, 5, (35, 35, 30)), (50, None, 10, (41, 41, 18)), (10, None, 50, (69, 31, 0))],
)
def test_cifar100_has_the_published_totals_and_shot_groups(
    factor: int, total: int | None, last: int, groups: tuple[int, ...]
) -> None:
    counts = long_tailed_counts(500, 100, factor)
    found = shot_groups(counts)
    assert counts[-1] == last
    assert total is None or counts.sum() == total
    assert (len(found.many), len(found.medium), len(found.few)) == groups
    assert found.rule.startswith("train images: many > 100")


def test_the_rule_is_the_one_with_mu_in_decimals() -> None:
    for factor, mu in ((10, 0.1), (20, 0.05), (50, 0.02), (100, 0.01), (200, 0.005)):
        for n_max, classes in ((5000, 10), (500, 100)):
            written = [int(n_max * mu ** (c / (classes - 1.0))) for c in range(classes)]
            assert long_tailed_counts(n_max, classes, factor).tolist() == written


def test_step_keeps_all_of_one_half_and_the_same_few_of_the_other() -> None:
    assert long_tailed_counts(500, 10, 100, "step").tolist() == [500] * 5 + [5] * 5
    assert long_tailed_counts(500, 5, 100, "step").tolist() == [500] * 2 + [5] * 3


@given(
    n_max=st.integers(1, 6000),
    classes=st.integers(1, 120),
    imbalance=st.floats(1, 1e12),
    profile=st.sampled_from(["exp", "step"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_counts_fall_and_every_class_keeps_an_image(
    n_max: int, classes: int, imbalance: float, profile: str
) -> None:
    counts = long_tailed_counts(n_max, classes, imbalance, profile)
    assert len(counts) == classes
    assert counts.min() >= 1
    assert counts.max() <= n_max
    assert (np.diff(counts) <= 0).all()


def test_imbalance_one_keeps_everything() -> None:
    assert long_tailed_counts(30, 4, 1).tolist() == [30] * 4


@pytest.mark.parametrize("imbalance", [0.5, 0, -3, float("nan"), float("inf")])
def test_an_imbalance_below_one_is_a_usage_error(imbalance: float) -> None:
    with pytest.raises(UsageFailure, match="1 or more"):
        long_tailed_counts(30, 4, imbalance)


def test_draws_that_cannot_be_say_what_is_wrong() -> None:
    with pytest.raises(UsageFailure, match="did you mean 'step'"):
        check_draw("stp", 10, 0)
    with pytest.raises(UsageFailure, match="natural profile"):
        check_draw("natural", 10, 0)
    with pytest.raises(UsageFailure, match="--imbalance"):
        check_draw("exp", None, 0)
    with pytest.raises(UsageFailure, match="split seed"):
        check_draw("exp", 10, -1)


def test_indices_are_those_of_the_seeded_global_generator() -> None:
    labels = np.arange(60) % 3
    state = np.random.get_state()  # noqa: NPY002  (the published code seeds it)
    try:
        np.random.seed(0)  # noqa: NPY002
        expected = []
        for c, count in enumerate((20, 7, 2)):
            positions = np.where(labels == c)[0]
            np.random.shuffle(positions)  # noqa: NPY002
            expected += positions[:count].tolist()
    finally:
        np.random.set_state(state)  # noqa: NPY002
    assert long_tailed_indices(labels, (20, 7, 2), 0).tolist() == expected


def test_a_larger_factor_draws_a_part_of_a_smaller_one() -> None:
    labels = np.repeat(np.arange(10), 100)
    draws = [
        set(long_tailed_indices(labels, long_tailed_counts(100, 10, factor), 3).tolist())
        for factor in (2, 10, 50)
    ]
    assert draws[2] < draws[1] < draws[0]


def test_ten_classes_or_fewer_are_grouped_by_thirds() -> None:
    groups = shot_groups([90, 80, 70, 60, 50, 40, 30, 20, 10, 5])
    assert groups.rule == "index 3/4/3"
    assert (groups.many, groups.few) == ((0, 1, 2), (7, 8, 9))


def test_classes_that_are_not_sorted_by_size_are_grouped_by_rank() -> None:
    groups = shot_groups([5, 400, 30])
    assert groups.rule == "rank by train images 1/1/1"
    assert (groups.many, groups.medium, groups.few) == ((1,), (2,), (0,))


@pytest.mark.parametrize("classes", range(1, 13))
def test_every_class_is_in_one_group(classes: int) -> None:
    groups = shot_groups(list(range(10 * classes, 0, -10)))
    assert sorted([*groups.many, *groups.medium, *groups.few]) == list(range(classes))


# Identity


@pytest.fixture
def part() -> tuple[np.ndarray, np.ndarray]:
    images = np.arange(4 * 2 * 3 * 1, dtype=np.uint8).reshape(4, 2, 3, 1)
    return images, np.array([1, 0, 1, 0])


def test_the_identity_is_the_documented_bytes(part: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = part
    records = sorted(
        int(label).to_bytes(4, "big")
        + hashlib.sha256(
            (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + (1).to_bytes(4, "big") + one.tobytes()
        ).digest()
        for one, label in zip(images, labels, strict=True)
    )
    written = b"\0\0\0\2" + b"\0\0\0\3ant" + b"\0\0\0\4b\xc3\xa9e" + (4).to_bytes(8, "big")
    expected = hashlib.sha256(written + b"".join(records)).hexdigest()
    assert identity(images, labels, ["ant", "bée"]) == expected


def test_the_identity_knows_no_order(part: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = part
    order = [2, 0, 3, 1]
    assert identity(images[order], labels[order], "ab") == identity(images, labels, "ab")


def test_the_identity_sees_every_change(part: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = part
    pixel = images.copy()
    pixel[3, 1, 2, 0] ^= 1
    doubled = [*range(4), 0]
    ids = [
        identity(images, labels, "ab"),
        identity(pixel, labels, "ab"),
        identity(images.reshape(4, 3, 2, 1), labels, "ab"),
        identity(images.reshape(4, 1, 2, 3), labels, "ab"),
        identity(images, 1 - labels, "ab"),
        identity(images, labels, "ba"),
        identity(images, labels, "abc"),
        identity(images[:3], labels[:3], "ab"),
        identity(images[doubled], labels[doubled], "ab"),
    ]
    assert len(set(ids)) == len(ids)


def test_image_hashes_do_not_depend_on_how_the_array_lies() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    turned = np.asfortranarray(images)
    assert (image_hashes(turned) == image_hashes(images)).all()
