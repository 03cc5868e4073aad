"""Loading: the embedded digits, draws from a pool, overlap, and the validation part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix import datasets
from stylegan_mix.datasets import loading, pool
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure

DIGITS_ID = "51e030806adf549ad50f220e820bd051c2edb338542ad0d042f42a83ee37de2b"
DIGITS_TEST_ID = "6435eb886de91233249c5dca4ace8f21feb3128b40775d79b8ba7d1ae5fb792d"


def test_digits_are_scikit_learns_with_the_last_74_of_each_class_for_testing() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    found = datasets.load("digits_lt", profile="natural")
    images = np.rint(source.images * 255 / 16).astype(np.uint8)[..., None]
    tested = np.concatenate([np.flatnonzero(source.target == c)[-74:] for c in range(10)])
    rest = np.setdiff1d(np.arange(1797), tested)
    assert np.array_equal(found.test.images, images[np.sort(tested)])
    assert np.array_equal(found.train.images, images[rest])
    assert np.array_equal(found.train.labels, source.target[rest])
    assert found.train.images.min() == 0
    assert found.train.images.max() == 255


def test_the_default_draw_of_digits_is_100_down_to_5_and_is_pinned() -> None:
    data = datasets.load("digits_lt")
    assert data.counts.tolist() == [100, 71, 51, 36, 26, 18, 13, 9, 6, 5]
    assert (data.profile, data.imbalance, data.flip) == ("exp", 20.0, False)
    assert (data.resolution, data.channels, data.num_classes) == (8, 1, 10)
    assert (data.split_id, data.test_id) == (DIGITS_ID, DIGITS_TEST_ID)
    assert data.groups.rule == "index 3/4/3"
    assert data.test_counts.tolist() == [74] * 10


def test_statistics_ids_and_counts_are_of_the_training_part() -> None:
    data = datasets.load("digits_lt", imbalance=10, split_seed=3)
    scaled = data.train.images / 255.0
    assert data.mean == pytest.approx((scaled.mean(),), abs=1e-12)
    assert data.std == pytest.approx((scaled.std(),), abs=1e-12)
    assert data.split_id == datasets.identity(data.train.images, data.train.labels, data.classes)
    assert data.counts.tolist() == np.bincount(data.train.labels).tolist()


def test_another_seed_draws_other_images_of_the_same_number() -> None:
    first, second = (datasets.load("digits_lt", split_seed=seed) for seed in (0, 1))
    assert first.counts.tolist() == second.counts.tolist()
    assert first.split_id != second.split_id
    assert first.test_id == second.test_id


@pytest.mark.parametrize(
    "draw",
    [
        {},
        {"imbalance": 10.0, "split_seed": 3},
        {"imbalance": 37.03703703803704},  # in six digits it would draw another split
        {"imbalance": 5.0, "profile": "step"},
        {"profile": "natural"},
    ],
)
def test_the_options_of_a_draw_name_it(draw: dict[str, Any]) -> None:
    data = datasets.load("digits_lt", **draw)
    words = data.options
    given = dict(zip(words[::2], words[1::2], strict=True))
    again = datasets.load(
        given["--dataset"],
        imbalance=float(given["--imbalance"]) if "--imbalance" in given else None,
        profile=given.get("--profile"),
        split_seed=int(given["--split-seed"]) if "--split-seed" in given else None,
    )
    assert again.split_id == data.split_id


def test_an_extreme_imbalance_keeps_one_image_and_says_so() -> None:
    data = datasets.load("digits_lt", imbalance=1e9)
    assert data.counts.min() == 1
    assert "single training image" in data.notes[0]


def test_what_a_pool_cannot_give_is_invalid_input_that_names_what_it_can() -> None:
    images = np.zeros((30, 4, 4, 1), np.uint8)
    labels = np.repeat([0, 1, 2], [20, 8, 2])
    tail = pool.from_arrays(
        "tail", "abc", (images, labels), (images, labels), head=20, flip=True,
        default=("natural", None),
    )  # fmt: skip
    assert loading.from_pool(tail).counts.tolist() == [20, 8, 2]
    assert loading.from_pool(tail, imbalance=10).counts.tolist() == [20, 6, 2]
    with pytest.raises(
        InvalidInput, match="asks 14 images of class 'b', and the source has 8"
    ) as e:
        loading.from_pool(tail, imbalance=2)
    assert "it can give exp 10, 20, 50" in str(e.value)
    assert str(e.value).endswith("natural")


def test_an_image_that_is_listed_and_absent_is_missed_only_by_draws_that_keep_it() -> None:
    whole = datasets.load("digits_lt", imbalance=10)
    full = loading.pool_named("digits_lt")
    drawn = pool.draw(full, "exp", 10, 0)
    partial = pool.Pool(
        **{
            **{name: getattr(full, name) for name in full.__dataclass_fields__},
            **{name: getattr(full, name)[drawn] for name in ("images", "labels", "hashes", "sums")},
            "position": full.position[drawn],
        }
    )
    again = loading.from_pool(partial, imbalance=10)
    assert again.split_id == whole.split_id
    assert np.array_equal(again.train.images, whole.train.images)
    with pytest.raises(InvalidInput, match="images that the rule keeps are not there"):
        loading.from_pool(partial, imbalance=5)
    with pytest.raises(InvalidInput, match="it lists are not there"):
        loading.from_pool(partial, profile="natural")


@pytest.fixture
def doubled() -> pool.Pool:
    """Two training images, one of each class, are also test images under another label."""
    images = np.arange(24, dtype=np.uint8).reshape(24, 1, 1, 1).repeat(2, 1).repeat(2, 2)
    labels = np.arange(16) % 2
    test = np.concatenate([images[16:], images[[3, 8]]])
    return pool.from_arrays(
        "doubled", "ab", (images[:16], labels), (test, np.arange(10) % 2), head=8, flip=True,
        default=("natural", None),
    )  # fmt: skip


def test_images_in_both_parts_are_listed_and_can_be_dropped(doubled: pool.Pool) -> None:
    data = loading.from_pool(doubled)
    assert data.overlap.tolist() == [3, 8]
    assert data.dropped == 0
    without = loading.from_pool(doubled, drop_overlap=True)
    assert (len(without.train), without.dropped, len(without.overlap)) == (14, 2, 0)
    assert without.split_id != data.split_id
    assert without.test_id == data.test_id


def test_validation_images_leave_the_training_part_and_change_its_id() -> None:
    plain = datasets.load("digits_lt")
    data = datasets.load("digits_lt", val_per_class=2)
    assert data.val is not None
    assert np.bincount(data.val.labels).tolist() == [2] * 10
    assert (data.counts == plain.counts - 2).all()
    assert data.split_id != plain.split_id
    both = np.concatenate([data.train.images, data.val.images])
    labels = np.concatenate([data.train.labels, data.val.labels])
    assert datasets.identity(both, labels, data.classes) == plain.split_id
    assert plain.val is None


def test_no_validation_image_has_a_twin_in_training() -> None:
    images = np.array([0, 0, 1, 2, 3, 4], np.uint8).reshape(6, 1, 1, 1)
    source = pool.from_arrays(
        "twins", "a", (images, np.zeros(6, int)), (images[:1] + 9, np.zeros(1, int)), head=6,
        flip=True, default=("natural", None),
    )  # fmt: skip
    data = loading.from_pool(source, val_per_class=4)
    assert data.val is not None
    assert sorted(data.val.images.ravel().tolist()) == [1, 2, 3, 4]
    with pytest.raises(UsageFailure, match="val-per-class 5"):
        loading.from_pool(source, val_per_class=5)


def test_asking_too_many_validation_images_is_a_usage_error() -> None:
    with pytest.raises(UsageFailure, match="leaves no training image of class '9'"):
        datasets.load("digits_lt", val_per_class=5)


def test_absent_data_says_what_to_get_and_where_to_put_it(home: Path) -> None:
    with pytest.raises(MissingEnvironment) as e:
        datasets.load("cifar100_lt")
    assert e.value.remedy is not None
    for part in ("cifar-100-binary.tar.gz", "03b5dce01913", str(home / "downloads"), "prepare"):
        assert part in e.value.remedy
    with pytest.raises(UsageFailure, match="did you mean 'cifar100_lt'"):
        datasets.load("cifar100-lt")


def test_loading_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from stylegan_mix import datasets; datasets.load('digits_lt');"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
