"""Recipes are checked when they are made; every joint of the design has one."""

from __future__ import annotations

from typing import Any

import pytest

from stylegan_mix.console import UsageFailure
from trainer import recipes
from trainer.objectives import CrossEntropy, Distill
from trainer.recipes import RECIPES, Recipe, Stage, recipe

CE = CrossEntropy()


def made(*stages: Stage) -> Recipe:
    return Recipe("x", "for a test", stages)


def test_the_joints_have_recipes() -> None:
    assert list(RECIPES) == ["ce", "balanced-softmax", "crt", "kd", "one-hot", "patched-one-hot"]
    needs = {name: r.stages[-1].objective.needs_teacher for name, r in RECIPES.items()}
    assert needs == {
        "ce": None,
        "balanced-softmax": None,
        "crt": None,
        "kd": "logits",
        "one-hot": "label",
        "patched-one-hot": "votes",
    }
    head = RECIPES["crt"].stages[1]
    assert (head.sampler, head.train, head.start, head.rows) == ("class", "head", "train", "real")


def test_a_recipe_prints_as_its_source() -> None:
    from trainer import objectives

    names = {**vars(objectives), **vars(recipes)}
    for item in RECIPES.values():
        assert eval(repr(item), names) == item


def test_weights_of_label_and_teacher_add_to_one() -> None:
    for name in ("kd", "one-hot", "patched-one-hot"):
        terms = RECIPES[name].stages[-1].objective.terms
        assert sum(weight for weight, _ in terms) == 1.0


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ((), "need names of their own"),
        ((Stage("a", CE), Stage("a", CE)), "need names of their own"),
        ((Stage("a", CE, start="b"),), "start 'b' is no earlier stage"),
        ((Stage("a", CE), Stage("b", CE, start="c")), "start 'c' is no earlier stage"),
        (
            (Stage("a", Distill()),),
            r"objective Distill\(temperature=4.0\) needs a teacher; name one in `teacher`",
        ),
        ((Stage("a", CE), Stage("b", CE, teacher="a")), "nothing reads teacher 'a'"),
        ((Stage("a", CE), Stage("b", CE)), "nothing uses stage 'a'"),
        ((Stage("a", CE, train="head", rows="real"),), "needs the backbone of an earlier stage"),
        ((Stage("a", CE, sampler="class"),), "see real rows only"),
        (
            (Stage("a", CE), Stage("b", CE, train="head", start="a")),
            "samplers and head training see real rows only",
        ),
        ((Stage("a", CE, share=0.0),), "share must lie in"),
        ((Stage("a", CE, rows="bank"),), "rows must be one of"),
        ((Stage("a", CE, sampler="sqrt", rows="real"),), "sampler must be one of"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(stages: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        made(*stages)


def test_a_stage_has_its_share_of_the_epochs_and_at_least_one() -> None:
    assert [Stage("a", CE, share=0.1).epochs(n) for n in (200, 20, 3)] == [20, 2, 1]


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageFailure, match="did you mean 'balanced-softmax'"):
        recipe("balanced_softmax")
