"""Rules of stages that only newer methods meet: heads, draws, several teachers, forwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from trainer.engine.features import HeadToTail, ManifoldMixup
from trainer.engine.portions import Portions
from trainer.models import Head
from trainer.objectives import CrossEntropy, Distill, Needs, Objective, OneHotDistill, Sum
from trainer.objectives import VoteDistill as Votes
from trainer.recipes.stage import Draw, Recipe, Stage
from trainer.spec import RunSpec

CE = CrossEntropy()


@dataclass(frozen=True)
class Wants(Objective):
    """An objective with needs and nothing else."""

    asked: Needs

    @property
    def needs(self) -> Needs:
        return self.asked


def wants(**needs: Any) -> Wants:
    return Wants(Needs(**needs))


TEACHER = Stage("a", CE, rows="real")
HEAD = Stage("b", CE, train="head", rows="real", start="a")
BALANCED, BESIDE = Draw("class"), Draw(judged=False)
CLASH = Sum(((1.0, wants(head=Head("cosine"))), (1.0, wants(head=Head("cosine", 9.0)))))
TWO = (TEACHER, Stage("b", CE, rows="real"))


def student(objective: Objective, **settings: Any) -> Stage:
    return Stage("c", objective, **{"teachers": ("a", "b"), **settings})


def test_recipes_that_newer_methods_need_are_sound() -> None:
    fused = replace(HEAD, head="kept", draws=(BALANCED, BESIDE), forward=HeadToTail())
    ensemble = wants(answers=frozenset({"features"}), ensemble=True)
    for stages in (
        (TEACHER, fused),
        (replace(TEACHER, forward=ManifoldMixup()),),
        (*TWO, student(ensemble)),
        (TEACHER, replace(HEAD, objective=wants(head=Head("scaled")), head="kept")),
        (Stage("a", wants(views=1), views=("plain",)),),
    ):
        assert Recipe("x", "for a test", stages).stages == stages


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ((Stage("a", CLASH),), "one network cannot have the heads"),
        ((*TWO, student(Distill())), "reads one teacher"),
        ((*TWO, student(CE)), "nothing reads teacher 'a'"),
        (
            (TEACHER, student(Sum(((1.0, Votes()), (1.0, OneHotDistill()))), teachers=("a",))),
            "asked for nothing else",
        ),
        (
            (TEACHER, student(Distill(), teachers=("a",), rows="real", forward=ManifoldMixup())),
            "a teacher cannot see what",
        ),
        ((Stage("a", CE, forward=ManifoldMixup()),), "see real rows only"),
        ((replace(TEACHER, draws=()),), "draws with a loss come first"),
        ((replace(TEACHER, draws=(BESIDE, BALANCED)),), "draws with a loss come first"),
        ((replace(TEACHER, draws=(BALANCED, BESIDE)),), "reads 0 draws without a loss"),
        ((replace(TEACHER, forward=HeadToTail()),), "reads 1 draws without a loss"),
        (
            (replace(TEACHER, draws=(BALANCED, replace(BESIDE, share=0.5)), forward=HeadToTail()),),
            "draws of one size",
        ),
        ((replace(TEACHER, draws=(Draw(), BALANCED), forward=ManifoldMixup()),), "one draw with"),
        ((replace(TEACHER, draws=(Draw(share=0.0),)),), "a draw's share must lie in"),
        ((replace(TEACHER, lr=0.0),), "lr must lie in"),
        ((replace(TEACHER, head="old"),), "head must be one of"),
        ((replace(TEACHER, norms="off"),), "norms must be one of"),
        ((replace(TEACHER, views=("strange",)),), "views must be one of"),
        ((Stage("a", wants(views=2), views=("plain",)),), "needs 2 views"),
        (
            (replace(TEACHER, views=("plain",), forward=ManifoldMixup()),),
            r"ManifoldMixup\(alpha=1.0\) does not show further views to the network",
        ),
        ((Stage("a", wants(head=Head("mlp", hidden=4))),), "a projection has no classes"),
        ((replace(TEACHER, head="kept"),), "a head is kept from an earlier stage"),
        ((Stage("a", wants(head=Head("scaled"))),), "a scaled head goes on with one that was kept"),
        (
            (TEACHER, replace(HEAD, objective=wants(head=Head("cosine")), head="kept")),
            "has another head",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_refused(stages: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Recipe("x", "for a test", stages)


def images(stage: Stage) -> int:
    return Portions(RunSpec(batch=128), stage, images=1000, steps=1).images


def test_a_step_sees_the_images_of_all_draws() -> None:
    assert images(TEACHER) == 128
    assert images(replace(TEACHER, draws=(BALANCED, BESIDE))) == 256
    assert images(replace(TEACHER, draws=(Draw(share=0.5),))) == 64
