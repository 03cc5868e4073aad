"""Scores: by class, by group, overall; what has no images has no score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trainer import models
from trainer.engine import evaluate
from trainer.engine.transform import Transform
from trainer.spec import RunSpec

GROUPS = {"many": (0,), "medium": (1, 2), "few": (3,)}


def test_confusion_counts_called_by_true() -> None:
    found = evaluate.confusion_of(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 2]), 4)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[0, 1] = expected[1, 1] = expected[3, 2] = 1
    assert np.array_equal(found, expected)


def test_groups_are_means_of_classes_and_empty_ones_are_none() -> None:
    labels, said = np.array([0, 0, 0, 0, 1, 3]), np.array([0, 0, 0, 1, 1, 0])
    found = evaluate.scores(labels, said, 4, GROUPS)
    assert found["per_class"] == [75.0, 100.0, None, 0.0]
    assert found["overall"] == pytest.approx(100 * 4 / 6)
    assert found["balanced"] == pytest.approx(175 / 3)
    assert (found["many"], found["medium"], found["few"]) == (75.0, 100.0, 0.0)
    nobody = {"many": (), "medium": (2,), "few": (0, 1)}
    empty = evaluate.scores(labels, said, 4, nobody)
    assert (empty["many"], empty["medium"], empty["few"]) == (None, None, 87.5)


def test_scores_need_no_memory_for_pairs_of_classes() -> None:
    classes = 200_000  # pairs of them would take 320 GB
    labels = np.arange(classes)
    few = {"many": (0,), "medium": (1, 2), "few": tuple(range(3, classes))}
    found = evaluate.scores(labels, np.where(labels % 2, labels, 0), classes, few)
    assert found["overall"] == pytest.approx(50.0, abs=0.01)


def test_predictions_are_those_of_the_logits(data: Any) -> None:
    model = models.build("resnet8", classes=3, channels=2)
    models.initialise(model, 0)
    cpu = torch.device("cpu")
    transform = Transform(data.mean, data.std, pad=2, flip=True, device=cpu)
    how: dict[str, Any] = {"device": cpu, "precision": "float32"}
    logits = evaluate.logits_of(model, data.train, transform, **how)
    said = evaluate.predicted_by(model, data.train, transform, **how)
    assert said.tolist() == logits.argmax(1).tolist()


def test_logits_do_not_depend_on_the_batch_they_are_computed_in(data: Any) -> None:
    model = models.build("resnet8", classes=3, channels=2)
    models.initialise(model, 0)
    model(torch.randn(8, 2, 8, 8))
    cpu = torch.device("cpu")
    transform = Transform(data.mean, data.std, pad=2, flip=True, device=cpu)
    one, other = (
        evaluate.logits_of(
            model, data.train, transform, device=cpu, precision="float32", batch=batch
        )
        for batch in (4, 500)
    )
    assert one.shape == (21, 3)
    torch.testing.assert_close(one, other)
    planes = transform.plain(torch.from_numpy(data.train.images))
    torch.testing.assert_close(one, model.eval()(planes).logits)


def test_evaluations_stay_within_their_budget() -> None:
    assert evaluate.interval(RunSpec(epochs=200), 335, 740) == 1
    assert evaluate.interval(RunSpec(epochs=20), 12_406, 10_000) == 2
    for epochs in (20, 200):
        every = evaluate.interval(RunSpec(epochs=epochs), 12_406, 10_000)
        allowed = max(evaluate.EVALUATED_IMAGES, epochs * 12_406 // 8)
        assert epochs / every * 10_000 <= allowed
    assert evaluate.interval(RunSpec(eval_every=7), 12_406, 10_000) == 7
