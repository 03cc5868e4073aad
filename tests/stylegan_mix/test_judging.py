"""The judge of a split, and the annotations of a bank's rows."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix import arrays, datasets
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import Bank, open_bank
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.generators.store import Published
from stylegan_mix.judging import annotate, annotations, judge
from stylegan_mix.judging.acceptance import calibration, dominant, far, few, kept_by_class, third
from stylegan_mix.judging.folds import KEPT, folds_of
from stylegan_mix.judging.judge import Judge, ensure_judge
from stylegan_mix.metrics import probe
from stylegan_mix.metrics.probe import Schedule

Run = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")


TRAINED: dict[tuple[bytes, int], probe.SmallNet] = {}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers of a few steps, enough to tell zeros from ones, each trained once."""

    def remembered(part: datasets.Part, **settings: Any) -> probe.SmallNet:
        key = part.labels.tobytes(), settings["seed"]
        if key not in TRAINED:
            TRAINED[key] = probe.train_classifier(part, **settings)
        return copy.deepcopy(TRAINED[key])

    monkeypatch.setattr(judge, "schedule_for", lambda resolution: Schedule(steps=60))
    monkeypatch.setattr(judge, "train_classifier", remembered)


@pytest.fixture
def judged(home: Path, quick: None) -> Judge:
    return ensure_judge(datasets.load("digits_lt"), device=CPU)


# --------------------------------------------------------------------- folds


def test_every_image_is_held_out_once_and_every_class_stays_in_every_fold() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 7, 2, 1])
    dealt = folds_of(labels, 3, 0)
    assert set(dealt[:100]) == {0, 1, 2}
    assert np.bincount(dealt[:100]).tolist() == [34, 33, 33]
    assert sorted(np.bincount(dealt[100:107]).tolist()) == [2, 2, 3]
    assert sorted(dealt[107:109]) == [0, 1]
    assert dealt[109] == KEPT
    for fold in range(3):
        assert set(labels[dealt != fold]) == {0, 1, 2, 3}
    assert (folds_of(labels, 3, 0) == dealt).all()
    assert (folds_of(labels, 3, 1) != dealt).any()


# --------------------------------------------------------------------- the judge


def test_a_training_image_is_judged_by_the_classifier_that_has_not_seen_it(
    judged: Judge,
) -> None:
    data = datasets.load("digits_lt")
    dealt = folds_of(data.train.labels, 3, 0)
    assert len(judged.labels) == (dealt != KEPT).sum()
    row = int(np.flatnonzero(dealt == 1)[0])
    _, logits = probe.outputs(judged.networks[1], data.train.images[row : row + 1])
    expected = torch.softmax(torch.from_numpy(logits), dim=1).numpy()[0]
    place = int(np.flatnonzero(np.flatnonzero(dealt != KEPT) == row)[0])
    np.testing.assert_allclose(judged.held_out[place], expected, atol=1e-5)


def test_classifiers_learn_other_folds_and_are_corrected_for_the_prior(
    monkeypatch: pytest.MonkeyPatch, home: Path, quick: None
) -> None:
    data = datasets.load("digits_lt")
    dealt = folds_of(data.train.labels, 3, 0)
    asked = []

    def train(part: Any, **settings: Any) -> Any:
        asked.append((part.labels, settings["adjusted"], settings["seed"]))
        return original(part, **settings)

    original = judge.train_classifier
    monkeypatch.setattr(judge, "train_classifier", train)
    ensure_judge(data, device=CPU)
    for fold, (labels, adjusted, seed) in enumerate(asked):
        np.testing.assert_array_equal(labels, data.train.labels[dealt != fold])
        assert (adjusted, seed) == (True, fold)
    assert len(asked) == 3
    ensure_judge(data, device=CPU)
    assert len(asked) == 3


def test_adjustment_gives_rare_classes_their_due(home: Path) -> None:
    """Of two classes that look alike, the logits do not prefer the frequent one."""
    images = np.random.default_rng(0).integers(0, 256, (220, 8, 8, 1), np.uint8)
    part = datasets.Part(images, np.repeat([0, 1], [200, 20]))
    network = probe.train_classifier(
        part,
        classes=2,
        flip=False,
        schedule=Schedule(steps=40, lr=0.02),
        seed=0,
        device=CPU,
        label="test",
        adjusted=True,
    )
    new = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 1), np.uint8)
    # A tenth of the training images, and of the answers of a network that is not adjusted.
    assert probe.answers(network, new).said.mean() > 0.25


def test_the_verdict_is_the_mean_of_the_classifiers(judged: Judge) -> None:
    images = datasets.load("digits_lt").test.images[:50]
    verdict = judged.verdict(images)
    each = [
        torch.softmax(torch.from_numpy(probe.outputs(one, images)[1]), dim=1).numpy()
        for one in judged.networks
    ]
    np.testing.assert_allclose(verdict.posterior, np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(verdict.features, axis=1), 1, atol=1e-5)


def test_prototypes_and_reaches_separate_classes(judged: Judge) -> None:
    data = datasets.load("digits_lt")
    verdict = judged.verdict(data.test.images)
    labels = data.test.labels.astype(np.int64)
    own = judged.distance(verdict.features, labels)
    other = judged.distance(verdict.features, (labels + 1) % 10)
    assert (own < other).mean() > 0.8
    assert judged.reach.shape == (10,)
    assert (judged.reach > 0).all()
    assert np.nanmean(judged.accuracy()) > 0.4
    rows = judged.confusion().sum(axis=1)
    np.testing.assert_allclose(rows[rows > 0], 1, atol=1e-3)


def test_near_classes_are_those_most_confused_in_both_directions(
    judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (judged.near().sum(axis=1) == 3).all()  # a third of ten
    table = np.zeros((10, 10))
    table[3, 8], table[5, 3], table[1, 7] = 0.4, 0.5, 0.9
    monkeypatch.setattr(Judge, "confusion", lambda self: table)
    two = judged.near(2)
    assert np.flatnonzero(two[3]).tolist() == [5, 8]
    assert two[7, 1]
    assert two[1, 7]
    assert (two.sum(axis=1) == 2).all()
    assert not two.diagonal().any()


def test_an_altered_classifier_is_refused(judged: Judge, home: Path) -> None:
    folder = next((home / "judges").glob("*/fold-1"))
    file = next(folder.glob("*.h5"))
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="not as it was written"):
        ensure_judge(datasets.load("digits_lt"), device=CPU)


def test_a_judge_of_one_fold_is_refused(home: Path) -> None:
    with pytest.raises(UsageFailure, match="from 2 to 20, got 1"):
        ensure_judge(datasets.load("digits_lt"), folds=1, device=CPU)


# --------------------------------------------------------------------- acceptance


def test_a_row_of_a_confident_third_class_is_seen() -> None:
    posterior = np.array(
        [[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.3, 0.22, 0.48], [0, 0, 1.0]]
    )
    pair = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [2, 0]])
    assert third(posterior, pair).tolist() == [True, False, False, False, False]


def test_a_row_is_far_if_both_of_its_classes_are() -> None:
    reach = np.array([0.1, 0.2, 0.3])
    distance = np.array([[0.3, 0.5], [0.3, 0.3], [0.1, 0.9]])
    assert far(distance, reach, np.array([[0, 1], [0, 1], [0, 1]])).tolist() == [
        True,
        False,
        False,
    ]
    assert not far(distance[:1], reach, np.array([[2, 1]]))[0]


def test_rows_count_for_the_class_of_the_larger_share() -> None:
    pair, lam = np.array([[0, 1], [0, 1], [2, 0]]), np.array([0.6, 0.4, 0.5])
    classes = dominant(pair, lam)
    assert classes.tolist() == [0, 1, 2]
    kept = kept_by_class(np.array([True, False, True]), classes, 4)
    assert kept == [1.0, 0.0, 1.0, None]
    assert few(("ant", "bee", "cat", "dog"), kept) == ["bee"]


def test_the_calibration_is_the_mean_share_among_the_two_classes() -> None:
    pair = np.array([[0, 1], [0, 1], [1, 2], [1, 1]])
    lam = np.array([0.04, 0.06, 1.0, 0.5])
    posterior = np.array([[0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.0, 0.9, 0.1], [0, 1, 0]])
    curve = calibration(posterior, pair, lam)
    assert curve.rows == (2, 1)
    assert curve.lam == pytest.approx((0.05, 1.0))
    assert curve.seen == pytest.approx(((0.25 + 0.5) / 2, 0.9))


# --------------------------------------------------------------------- annotations


@dataclass
class Made:
    bank: Bank
    found: annotations.Annotations
    folder: Path


@pytest.fixture
def made(generator: Published, run: Run, quick: None) -> Iterator[Made]:
    code, out, err = run("generate", "--n", 130, "--json")
    assert code == 0, err
    bank = open_bank(banks.resolve(json.loads(out)["key"]))
    found = annotate.annotate(bank, datasets.load("digits_lt"), device=CPU)
    yield Made(bank, found, annotations.places(bank)[0] / annotations.named(found.judge))


def test_annotations_say_of_each_row_what_the_judge_does(made: Made) -> None:
    data = datasets.load("digits_lt")
    by = ensure_judge(data, device=CPU)
    verdict = by.verdict(np.asarray(made.bank.images))
    np.testing.assert_allclose(made.found.posterior, verdict.posterior, atol=1e-3)
    for side in (0, 1):
        expected = by.distance(verdict.features, np.asarray(made.bank.pair[:, side]))
        np.testing.assert_allclose(made.found.distance[:, side], expected, atol=1e-5)
    apart = 1 - verdict.features @ by.training.T
    np.testing.assert_allclose(made.found.nearest, apart.min(axis=1), atol=1e-5)
    rows = np.arange(len(made.bank))
    np.testing.assert_allclose(apart[rows, made.found.copy], apart.min(axis=1), atol=1e-5)
    assert [place.name for place in annotations.find_annotations(made.bank)] == [f"judge-{by.key}"]
    clean = made.found.clean(made.bank)
    assert made.found.facts["kept"] == kept_by_class(clean, made.found.dominant(made.bank), 10)


def test_annotations_are_made_once_and_leave_the_bank(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made.bank.content_sha256
    monkeypatch.setattr(annotate, "_judged", lambda *_: pytest.fail("judged again"))
    again = annotate.annotate(made.bank, datasets.load("digits_lt"), device=CPU)
    np.testing.assert_array_equal(again.posterior, made.found.posterior)
    assert open_bank(made.bank.folder).content_sha256 == before


def test_annotations_of_another_bank_are_refused(made: Made, run: Run) -> None:
    code, out, _ = run("generate", "--n", 130, "--seed", 5, "--json")
    assert code == 0
    other = open_bank(banks.resolve(json.loads(out)["key"]))
    place = annotations.places(other)[0] / annotations.named(made.found.judge)
    shutil.copytree(made.folder, place)
    with pytest.raises(InvalidInput, match=f"their bank is {made.bank.key[:12]}") as caught:
        annotations.open_annotations(place, other)
    assert f"stylegan-mix bank judge {other.key[:12]}" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"split_id": "0" * 64}, "their split id is 000000000000"),
        ({"content_sha256": "0" * 64}, "their content sha256 is"),
        ({"judge": "0" * 64}, "their judge is"),
        ({"classes": ["a"]}, "their classes is"),
        ({"schema_version": 2}, "not of schema 1"),
        ({"reach": [0.1]}, "'reach' must be 10 numbers"),
        ({"reach": "x"}, "'reach' must be 10 numbers"),
    ],
)
def test_sealed_annotations_that_do_not_fit_are_refused(
    made: Made, change: dict[str, Any], text: str
) -> None:
    container = arrays.open_container(made.folder, kind=annotations.KIND)
    held = {name: np.array(container[name]) for name in container.manifest["arrays"]}
    facts = {**container.facts, **change}
    shutil.rmtree(made.folder)
    arrays.write(made.folder, held, kind=annotations.KIND, facts=facts)
    with pytest.raises(InvalidInput, match=text):
        annotations.open_annotations(made.folder, made.bank)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("posterior", np.full((130, 10), np.nan, "<f2")),
        ("posterior", np.zeros((130, 9), "<f2")),
        ("distance", np.zeros((129, 2), "<f4")),
        ("nearest", np.zeros(130, "<f8")),
    ],
)
def test_sealed_arrays_that_do_not_fit_are_refused(
    made: Made, name: str, value: np.ndarray
) -> None:
    container = arrays.open_container(made.folder, kind=annotations.KIND)
    held = {one: np.array(container[one]) for one in container.manifest["arrays"]}
    facts = container.facts
    shutil.rmtree(made.folder)
    arrays.write(made.folder, {**held, name: value}, kind=annotations.KIND, facts=facts)
    with pytest.raises(InvalidInput, match=name):
        annotations.open_annotations(made.folder, made.bank)


def test_a_bank_of_another_split_is_not_judged(made: Made) -> None:
    other = datasets.load("digits_lt", split_seed=3)
    with pytest.raises(InvalidInput, match="this run trains on split"):
        annotate.annotate(made.bank, other, device=CPU)


# --------------------------------------------------------------------- the command


def test_a_bank_is_judged_by_a_command(
    generator: Published, run: Run, quick: None, tmp_path: Path
) -> None:
    key = json.loads(run("generate", "--n", 130, "--json")[1])["key"]
    code, out, err = run("bank", "judge", key[:12], "--dry-run")
    assert (code, "would judge 130 rows" in out) == (0, True), err
    assert list(annotations.find_annotations(open_bank(banks.resolve(key)))) == []
    picture = tmp_path / "judged.png"
    code, out, err = run("bank", "judge", key[:12], "--out", picture)
    assert code == 0, err
    assert "to be judged by 3 classifiers" in err
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert out.splitlines()[0].split() == ["class", "kept", "recognised", "held", "out"]
    assert len(out.splitlines()) == 1 + 10 + 2
    code, out, err = run("bank", "judge", key[:12], "--out", picture, "--json")
    facts = json.loads(out)
    assert (code, facts["state"], facts["bank"]) == (0, "exists", key)
    assert "judged before" in err


def test_classes_that_the_generator_draws_badly_are_named(
    made: Made, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    container = arrays.open_container(made.folder, kind=annotations.KIND)
    held = {name: np.array(container[name]) for name in container.manifest["arrays"]}
    facts = {**container.facts, "kept": [0.9] * 8 + [0.29, None]}
    shutil.rmtree(made.folder)
    arrays.write(made.folder, held, kind=annotations.KIND, facts=facts)
    code, out, err = run("bank", "judge", made.bank.key[:12], "--out", tmp_path / "a.png")
    assert code == 0, err
    assert "fewer than 30% of the rows are kept of: 8;" in err
    assert out.splitlines()[10].split()[:2] == ["9", "none"]


@pytest.mark.parametrize("folds", ["1", "21"])
def test_impossible_folds_are_refused(made: Made, run: Run, folds: str) -> None:
    code, _, err = run("bank", "judge", made.bank.key[:12], "--folds", folds)
    assert (code, "from 2 to 20" in err) == (2, True), err


# --------------------------------------------------------------------- near pairs


def test_near_pairs_of_a_bank_are_those_of_its_judge(
    generator: Published, run: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("generate", "--n", 640, "--pairs", "near", "--json")
    code, out, err = run(*asked, "--dry-run")
    assert code == 0, err
    assert "the third of the classes that a judge confuses most with a" in err
    code, out, err = run(*asked)
    assert code == 0, err
    bank = open_bank(banks.resolve(json.loads(out)["key"]))
    by = ensure_judge(datasets.load("digits_lt"), device=CPU)
    assert bank.facts["request"]["judge"] == by.key
    near = by.near()
    assert near[bank.pair[:, 0], bank.pair[:, 1]].all()
    drawn = np.zeros((10, 10), bool)
    drawn[bank.pair[:, 0], bank.pair[:, 1]] = True
    np.testing.assert_array_equal(drawn, near)
    # A bank that exists is found without its judge.
    monkeypatch.setattr(judge, "ensure_judge", lambda *_, **__: pytest.fail("judged again"))
    code, out, err = run(*bank.facts["command"].split()[1:], "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["key"]) == (0, "exists", bank.key), err


def test_near_pairs_of_a_generator_whose_split_is_gone_are_refused(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = datasets.load("digits_lt", split_seed=3)
    monkeypatch.setattr("stylegan_mix.datasets.asked.load", lambda *_, **__: other)
    code, _, err = run("generate", "--generator", generator.hash[:12], "--pairs", "near")
    assert (code, "its split is now" in err) == (3, True), err


def test_a_named_data_set_of_another_split_than_the_generator_is_refused(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("generate", "--dataset", "digits_lt", "--generator", generator.hash[:12], "--dry-run")
    assert run(*words)[0] == 0
    other = datasets.load("digits_lt", split_seed=3)
    monkeypatch.setattr("stylegan_mix.datasets.asked.load", lambda *_, **__: other)
    code, _, err = run(*words)
    assert (code, "its split is now" in err) == (3, True), err
    # Without a name nothing is compared: the bank is one of the generator's own images.
    assert run("generate", "--generator", generator.hash[:12], "--dry-run")[0] == 0
