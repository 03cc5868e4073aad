"""The judge on samples of which we know what they are: copies, new images, collapsed classes."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix import arrays, datasets
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.metrics import measure, probe, report
from stylegan_mix.metrics.distances import Labelled, effective_count, kernel_sums
from stylegan_mix.metrics.features import of_probe
from stylegan_mix.metrics.measure import Judge, Stand, Values, as_it_is, compare
from stylegan_mix.metrics.samples import Samples, labels_for

CPU = torch.device("cpu")


@cache
def digits() -> Dataset:
    return datasets.load("digits_lt")


@cache
def network() -> probe.SmallNet:
    return probe.train_classifier(
        digits().train,
        classes=10,
        flip=False,
        schedule=probe.Schedule(steps=120),
        seed=0,
        device=CPU,
        label="probe",
    )


@cache
def judge(*against: str) -> Judge:
    return made(digits(), against)


def made(dataset: Dataset, against: tuple[str, ...]) -> Judge:
    parts = {"train": dataset.train, "test": dataset.test}
    chosen = {name: parts[name] for name in against}
    backbone = of_probe(network(), "0" * 64)
    return Judge(dataset, chosen, network=network(), backbone=backbone, device=CPU)


def figures(samples: Samples, *against: str) -> dict[str, Values]:
    return judge(*(against or ("train", "test"))).judge(samples, seed=0, cas=False)[0]


def at(values: Values, figure: str, scope: str) -> Any:
    return values[figure][[name for name, _ in judge("train", "test").scopes].index(scope)]


def part(images: np.ndarray, labels: np.ndarray) -> Samples:
    order = np.argsort(labels, kind="stable")
    return Samples(np.asarray(images)[order], labels[order])


def new_images() -> Samples:
    return part(digits().test.images, digits().test.labels)


# What samples are


def test_new_images_are_neither_copies_nor_wrong() -> None:
    alone = figures(new_images())[""]
    assert at(alone, "memorisation", "all") == pytest.approx(1)
    assert at(alone, "copies", "all") == pytest.approx(0.01, abs=0.01)
    assert at(alone, "memorisation_pixels", "few") == pytest.approx(1)
    assert at(alone, "label_accuracy", "all") > 0.8
    assert at(alone, "diversity", "all") == pytest.approx(1, abs=0.1)


def test_copies_of_training_images_are_caught() -> None:
    """A few copied classes are seen in them alone."""
    new, train = new_images(), digits().train
    images = np.array(new.images)
    copied = np.flatnonzero(new.labels >= 7)
    for row in copied:
        own = np.flatnonzero(train.labels == new.labels[row])
        images[row] = train.images[own[row % len(own)]]
    alone = figures(Samples(images, new.labels))[""]
    for figure in ("memorisation", "memorisation_pixels"):
        assert at(alone, figure, "few") < 1e-6
        assert at(alone, figure, "7") < 1e-6
        assert at(alone, figure, "many") == pytest.approx(1)
    assert at(alone, "copies", "few") == 1
    assert at(alone, "copies_pixels", "9") == 1
    assert at(alone, "copies", "0") < 0.05


def test_a_collapsed_class_is_seen_in_its_own_figures() -> None:
    new = new_images()
    images = np.array(new.images)
    images[new.labels == 3] = images[new.labels == 3][0]
    before, after = figures(new), figures(Samples(images, new.labels))
    for figure in ("recall", "coverage"):
        assert at(before["test"], figure, "3") == 1
        assert at(after["test"], figure, "3") < 0.3
        assert at(after["test"], figure, "4") == 1
    assert at(after[""], "diversity", "3") == 0
    assert at(after[""], "diversity", "4") == at(before[""], "diversity", "4")
    assert at(after["test"], "kernel", "3") > at(before["test"], "kernel", "3") + 0.05
    assert at(after["test"], "kernel", "4") == at(before["test"], "kernel", "4")


def test_a_class_of_wrong_images_is_seen_by_its_label() -> None:
    new = new_images()
    swapped = np.array(new.images)
    swapped[new.labels == 0] = new.images[new.labels == 1]
    before, after = figures(new), figures(Samples(swapped, new.labels))
    assert at(after[""], "label_accuracy", "0") < 0.1
    assert at(after[""], "label_accuracy", "1") == at(before[""], "label_accuracy", "1")
    assert at(after["test"], "kernel", "0") > 10 * abs(at(before["test"], "kernel", "0"))
    assert at(after["test"], "precision", "0") < 0.5


def test_noise_is_far_from_everything() -> None:
    random = np.random.default_rng(0).integers(0, 256, (740, 8, 8, 1)).astype(np.uint8)
    noise, new = figures(Samples(random, new_images().labels)), figures(new_images())
    for against in ("train", "test"):
        assert at(noise[against], "frechet", "all") > 3 * at(new[against], "frechet", "all")
        assert at(noise[against], "precision", "all") < 0.3


def test_the_order_of_samples_does_not_matter() -> None:
    new = new_images()
    order = np.random.default_rng(0).permutation(len(new.labels))
    plain, turned = figures(new), figures(Samples(new.images[order], new.labels[order]))
    for against, figure in (("test", "frechet"), ("test", "kernel"), ("test", "coverage")):
        for scope in ("all", "few"):
            value = at(plain[against], figure, scope)
            assert at(turned[against], figure, scope) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert turned[""]["label_accuracy"] == plain[""]["label_accuracy"]


def test_a_classifier_of_real_samples_beats_one_of_shuffled_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "schedule_for", lambda _: probe.Schedule(steps=60))
    balanced = datasets.load("digits_lt", imbalance=1).train
    real = Samples(balanced.images, balanced.labels)
    wrong = Samples(balanced.images, np.roll(balanced.labels, 100))
    scores = [
        judge("train", "test").judge(one, seed=0, cas=True)[0][""]["cas"] for one in (real, wrong)
    ]
    assert scores[0][0] is not None
    assert scores[0][0] > 0.8
    assert scores[1][0] is not None
    assert scores[1][0] < 0.1


# Floors


def test_the_floor_is_what_real_images_get_as_samples() -> None:
    new = new_images()
    share = np.full(10, 0.1)
    measured, floors = figures(new), judge("train", "test").floors(share)
    for figure in ("frechet", "kernel", "precision", "coverage"):
        for scope in ("all", "many", "0"):
            value, floor = (at(one["train"], figure, scope) for one in (measured, floors))
            assert value == (None if floor is None else pytest.approx(floor, rel=1e-9))
    for figure in ("label_accuracy", "diversity"):
        assert measured[""][figure] == pytest.approx(floors[""][figure])
    assert floors[""]["cas"] == floors[""]["label_accuracy"]


def test_the_floor_against_test_is_of_training_images_weighted_to_the_labels() -> None:
    both = judge("train", "test")
    uniform, long_tailed = np.full(10, 0.1), digits().counts / digits().counts.sum()
    balanced, tailed = both.floors(uniform)["test"], both.floors(long_tailed)["test"]
    assert at(balanced, "frechet", "all") < 0.7 * at(tailed, "frechet", "all")
    assert at(balanced, "kernel", "all") < 0.7 * at(tailed, "kernel", "all")
    assert at(balanced, "kernel", "0") == at(tailed, "kernel", "0")
    told = both.described(uniform)
    assert told["test"]["floor"].startswith("335 train images")
    assert told["train"] == {
        "images": 335,
        "floor": "740 test images, weighted to the samples' labels: worth 740",
    }


def test_without_the_test_part_no_test_image_is_looked_at() -> None:
    class Untouched:
        """Fails whoever reads an image."""

        shape = digits().test.images.shape

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"a test image was touched: {name}")

        def __getitem__(self, rows: Any) -> Any:
            raise AssertionError("a test image was touched")

        def __len__(self) -> int:
            raise AssertionError("the test images were counted")

    images: Any = Untouched()
    blind = dataclasses.replace(digits(), test=Part(images, digits().test.labels))
    alone = made(blind, ("train",))
    values, _ = alone.judge(new_images(), seed=0, cas=True)
    assert set(values) == {"train", ""}
    assert "cas" not in values[""]
    assert at(values[""], "memorisation", "all") is not None
    assert alone.floors(np.full(10, 0.1)) == {"": {}}
    assert alone.described(np.full(10, 0.1))["train"]["floor"] is None
    with pytest.raises(AssertionError, match="test image"):
        made(blind, ("train", "test"))


# Scopes, weights, cells


def test_a_stand_gives_its_classes_their_shares() -> None:
    rows = Labelled(np.zeros((6, 1)), np.array([0, 0, 0, 1, 1, 2]))
    stand = Stand(rows, np.array([0.2, 0.8, 0.0]))
    weights = stand.weights()
    assert np.bincount(rows.labels, weights=weights).tolist() == pytest.approx([0.2, 0.8, 0.0])
    assert effective_count(weights) == pytest.approx(1 / (3 * (0.2 / 3) ** 2 + 2 * 0.4**2))
    first = stand.of([0, 2])
    assert first is not None
    assert first.share.tolist() == [1, 0, 0]
    assert len(first.rows) == 3
    assert Stand(rows, np.array([0.0, 0.0, 0.0])).of([0]) is None
    assert Stand(rows.of([0]), np.array([0.5, 0.5, 0.0])).of([0, 1]) is None
    assert as_it_is(rows, 4).share.tolist() == pytest.approx([0.5, 1 / 3, 1 / 6, 0])


def test_a_frechet_distance_needs_rows_for_its_covariance() -> None:
    random = np.random.default_rng(0)

    def stand(count: int) -> Stand:
        return as_it_is(Labelled(random.normal(size=(count, 10)), np.zeros(count, int)), 1)

    wanted = [("all", (0,))]
    for count, known in ((19, False), (20, True)):
        y = stand(count)
        values = compare(stand(50), y, kernel_sums(y.rows, None, 1), wanted)
        assert (values["frechet"][0] is not None) == known
        assert values["kernel"][0] is not None


def test_labels_are_uniform_or_follow_the_training_part() -> None:
    counts = np.array([100, 10, 1])
    assert np.bincount(labels_for(counts, "uniform", 100)).tolist() == [34, 33, 33]
    assert np.bincount(labels_for(counts, "frequency", 111)).tolist() == [100, 10, 1]


def test_cells_hold_mean_spread_and_floor() -> None:
    def run(value: float | None) -> dict[str, Values]:
        return {"train": {"kernel": [value, 2.0], "kernel_error": [0.1, None]}, "": {}}

    floors: dict[str, Values] = {"train": {"kernel": [0.5, None]}}
    (row,) = report.cells([run(1.0), run(3.0)], floors)
    assert row["at"][0] == {
        "value": 2.0,
        "std": pytest.approx(np.sqrt(2)),
        "floor": 0.5,
        "error": pytest.approx(0.1),
    }
    assert row["at"][1] == {"value": 2.0, "std": 0.0, "floor": None, "error": None}
    (row,) = report.cells([run(1.0), run(None)], floors)
    assert row["at"][0]["value"] is row["at"][0]["std"] is None
    (row,) = report.cells([run(1.0)], floors)
    assert row["at"][0]["std"] is None


def test_figures_come_back_from_their_arrays_and_of_many_classes_fit_a_manifest(
    tmp_path: Path,
) -> None:
    scopes = 8142  # iNaturalist 2018
    values = [None if scope % 3 else float(scope) for scope in range(scopes)]
    run = {"train": {"kernel": values, "kernel_error": values}, "": {"cas": values}}
    rows = report.cells([run, run], {"train": {"kernel": [None] * scopes}, "": {"cas": values}})
    named, cells = report.packed(rows)
    arrays.write(tmp_path / "kept", cells, kind="metrics", facts={"figures": named})
    kept = arrays.open_container(tmp_path / "kept", kind="metrics")
    assert report.unpacked(kept.facts["figures"], {name: kept[name] for name in kept}) == rows


def test_checkpoints_are_chosen_by_the_training_part() -> None:
    def rows(against: str, *values: float | None) -> list[dict[str, Any]]:
        cells = [{"value": value} for value in values]
        return [{"figure": "kernel", "against": against, "at": cells}]

    assert report.chosen_by(rows("train", 9.0, 1.0, 3.0), 2)["value"] == 2
    assert report.chosen_by(rows("test", 9.0, 1.0, 3.0), 2)["value"] is None
    assert report.chosen_by(rows("train", 9.0, 1.0, None), 2)["value"] is None
