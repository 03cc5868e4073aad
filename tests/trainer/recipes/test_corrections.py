"""Unequal classes are corrected for once: twice is an error that says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainer.models import Head
from trainer.objectives import (
    BalancedSigmoid,
    CrossEntropy,
    Deferred,
    Focal,
    GaussianClouded,
    LabelAwareSmoothing,
    Ldam,
    LogitAdjusted,
    Objective,
    Reweighted,
    SigmoidFocal,
    Sum,
    VectorScaled,
)
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.posthoc import LogitAdjust, NearestMean, PostHoc, TauNorm, Temperature
from trainer.recipes.stage import Draw, Recipe, Sampler, Stage

CE = CrossEntropy()
CORRECTING: list[Objective] = [
    LogitAdjusted(1.0),
    VectorScaled(),
    BalancedSigmoid(),
    Reweighted(CE),
    Reweighted(SigmoidFocal(), mean="classes"),
    Ldam(beta=0.9999),
    Deferred(CE, LogitAdjusted()),
    Deferred(CE, Reweighted(CE)),
    Sum(((0.5, CE), (0.5, LogitAdjusted()))),
]
OTHERS: list[Objective] = [
    CE,
    Focal(),
    SigmoidFocal(),
    LabelAwareSmoothing(),
    Ldam(),
    GaussianClouded(),
    Deferred(Ldam(), Ldam(largest=0.3)),
]
TWICE = "the classes would be corrected for twice"


def made(*stages: Stage, posthoc: PostHoc | None = None) -> Recipe:
    return Recipe("x", "for a test", stages, posthoc=posthoc)


@pytest.mark.parametrize("objective", CORRECTING, ids=repr)
@pytest.mark.parametrize("sampler", ["class", "square-root", "progressive", "effective-number"])
@pytest.mark.parametrize("rows", ["arm", "real"])
def test_even_draws_beside_a_loss_that_corrects_are_refused(
    objective: Objective, sampler: Any, rows: Any
) -> None:
    assert objective.corrects_prior
    stage = Stage("a", objective, rows=rows, draws=(Draw(sampler),))
    with pytest.raises(ValueError, match=TWICE) as error:
        made(stage)
    assert f"Draw(sampler='{sampler}'" in str(error.value) and repr(objective) in str(error.value)
    made(replace(stage, draws=(Draw(),)))


@pytest.mark.parametrize("objective", OTHERS, ids=repr)
def test_even_draws_beside_any_other_loss_are_accepted(objective: Objective) -> None:
    assert not objective.corrects_prior
    made(Stage("a", objective, draws=(Draw("class"),)))


def test_in_a_later_stage_too_and_only_draws_with_a_loss_count() -> None:
    head = Stage("b", LogitAdjusted(), rows="real", train="head", start="a")
    with pytest.raises(ValueError, match=TWICE):
        made(Stage("a", CE), replace(head, draws=(Draw("class"),)))
    from trainer.engine.features import HeadToTail

    beside = (Draw(), Draw("class", judged=False))
    made(Stage("a", CE), replace(head, draws=beside, forward=HeadToTail()))


@pytest.mark.parametrize("objective", CORRECTING, ids=repr)
@pytest.mark.parametrize("posthoc", [LogitAdjust(), TauNorm()], ids=repr)
def test_a_correction_after_a_loss_that_corrects_is_refused(
    objective: Objective, posthoc: PostHoc
) -> None:
    with pytest.raises(ValueError, match=TWICE) as error:
        made(Stage("a", objective), posthoc=posthoc)
    assert repr(posthoc) in str(error.value) and repr(objective) in str(error.value)


@pytest.mark.parametrize("sampler", ["class", "square-root"])
def test_a_correction_after_even_draws_is_refused(sampler: Sampler) -> None:
    with pytest.raises(
        ValueError, match=rf"Draw\(sampler='{sampler}', .* of stage 'a' did so already"
    ):
        made(Stage("a", CE, draws=(Draw(sampler),)), posthoc=LogitAdjust())
    with pytest.raises(ValueError, match=TWICE):
        replace(RECIPES["crt"], posthoc=TauNorm())


@pytest.mark.parametrize("posthoc", [NearestMean(), Temperature()], ids=repr)
def test_corrections_of_other_things_go_with_every_loss(posthoc: PostHoc) -> None:
    made(Stage("a", LogitAdjusted()), posthoc=posthoc)
    made(Stage("a", CE, draws=(Draw("class"),)), posthoc=posthoc)


@pytest.mark.parametrize("objective", CORRECTING, ids=repr)
def test_weights_around_a_loss_that_corrects_are_refused(objective: Objective) -> None:
    with pytest.raises(ValueError, match="correct for them twice"):
        Reweighted(objective)


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"beta": 1.0}, {"mean": "rows"}])
def test_weights_that_cannot_be_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        Reweighted(CE, **settings)


def test_corrections_of_a_linear_head_are_refused_on_another_one() -> None:
    scaled = Stage(
        "b", CrossEntropy(Head("scaled")), rows="real", train="head", start="a", head="kept"
    )
    for stages in ((Stage("a", Ldam()),), (Stage("a", CE), scaled)):
        for posthoc in (TauNorm(), LogitAdjust(), NearestMean(), Temperature()):
            with pytest.raises(ValueError, match="changes a linear head"):
                made(*stages, posthoc=posthoc)
    kept = Stage("b", CE, rows="real", train="head", start="a", head="kept")
    with pytest.raises(ValueError, match=r"stage 'b' has Head\(form='cosine'"):
        made(Stage("a", Ldam()), kept, posthoc=LogitAdjust())


def test_a_kept_cosine_head_may_have_another_scale() -> None:
    first, then = GaussianClouded(scale=30.0), GaussianClouded(scale=20.0)
    head = Stage("b", then, rows="real", train="head", start="a", head="kept")
    made(Stage("a", first), head)
    with pytest.raises(ValueError, match="has another head"):
        made(Stage("a", CE), head)
