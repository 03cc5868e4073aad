"""Recipes are checked when they are made; every joint of the design has one."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import UsageFailure
from trainer.engine.features import HeadToTail
from trainer.models import Head
from trainer.objectives import CrossEntropy, Deferred, Distill, FeatureDistill, Ldam, Sum
from trainer.recipes.catalogue import RECIPES, recipe
from trainer.recipes.posthoc import TauNorm
from trainer.recipes.stage import Draw, Recipe, Stage

CE = CrossEntropy()


def made(*stages: Stage) -> Recipe:
    return Recipe("x", "for a test", stages)


def test_the_joints_have_recipes() -> None:
    needs = {name: set(r.stages[-1].objective.needs.answers) for name, r in RECIPES.items()}
    assert {name: answers for name, answers in needs.items() if answers} == {
        "kd": {"logits"},
        "one-hot": {"label"},
        "patched-one-hot": {"votes"},
        "cbd": {"features"},
    }
    assert list(needs) == [
        *("ce", "balanced-softmax", "crt", "kd", "one-hot", "patched-one-hot", "ldam-drw"),
        *("tau-norm", "h2t", "cbd", "memory-kt", "memory-llw", "memory-asm", "memory-sum-logits"),
        *("memory-sum-probabilities", "memory-max", "memory-weighted-logits"),
        *("memory-weighted-probabilities", "memory-scaled-logits", "memory-attention"),
        *("focal", "cb-ce", "cb-focal", "ce-drw", "ldam"),
        *("balanced-sigmoid", "logit-adjust", "logit-adjust-posthoc", "label-aware-smoothing"),
        *("vs-loss", "ncm", "temperature", "class-balanced", "square-root", "progressive"),
        *("effective-number", "lws", "mislas", "gcl", "gcl-angular", "balms", "manifold-mixup"),
        *("breadcrumbs", "balpoe", "bcl", "proco", "glmc", "paco"),
    ]
    head = RECIPES["crt"].stages[1]
    assert (head.draws, head.train, head.start) == ((Draw("class"),), "head", "train")
    assert (head.rows, head.head, head.norms) == ("real", "new", "frozen")


def test_late_re_weighting_is_within_a_stage() -> None:
    """LDAM-DRW: from epoch 160 of 200 on, with undisturbed optimiser and learning rate."""
    (stage,) = RECIPES["ldam-drw"].stages
    assert stage.objective == Deferred(Ldam(0.5, 30.0), Ldam(0.5, 30.0, beta=0.9999), at=0.8)


def test_head_to_tail_is_as_published() -> None:
    """Ten of 200 epochs, cosine from 0.02, the head kept, batch norms follow, rho = 1/4."""
    head = RECIPES["h2t"].stages[1]
    assert (head.train, head.head, head.norms, head.schedule) == (
        "head",
        "kept",
        "follow",
        "cosine",
    )
    assert (head.epochs(200), head.lr, head.weight_decay) == (10, 0.2, 5e-4)
    assert head.draws == (Draw("class"), Draw("instance", judged=False))
    assert head.forward == HeadToTail(rho=0.25)


def test_balanced_distillation_is_as_published() -> None:
    """(1 - alpha) CE + alpha beta (1 - cos), alpha = 0.4, beta = 100, cosine heads of scale 20."""
    teacher, student = RECIPES["cbd"].stages
    (label_weight, label), (feature_weight, features) = student.objective.terms
    assert (label_weight, feature_weight) == (0.6, 40.0)
    assert label == teacher.objective == CrossEntropy(Head("cosine", 20.0))
    assert student.objective.needs.head == teacher.objective.needs.head == Head("cosine", 20.0)
    assert features == FeatureDistill()
    assert (student.start, student.draws) == (None, (Draw("class"),))


def test_a_recipe_prints_as_its_source() -> None:
    from trainer import objectives
    from trainer.engine import features
    from trainer.models import heads
    from trainer.recipes import posthoc, stage, with_memory

    names = {}
    for module in (features, heads, objectives, posthoc, stage, with_memory):
        names.update(vars(module))
    for item in RECIPES.values():
        assert eval(repr(item), names) == item


PINNED = json.loads((Path(__file__).parent / "recipes.json").read_text())


def departures(pinned: Any, value: Any, where: str) -> list[str]:
    """Where a value says otherwise than its pin; fields newer than the pin may have defaults."""
    if isinstance(pinned, list) and isinstance(value, tuple) and len(pinned) == len(value):
        pairs = zip(pinned, value, strict=True)
        return [
            text for i, (a, b) in enumerate(pairs) for text in departures(a, b, f"{where}[{i}]")
        ]
    if not (is_dataclass(value) and isinstance(pinned, dict)):
        return [] if pinned == value else [f"{where} is {value!r}, pinned as {pinned!r}"]
    if pinned["kind"] != type(value).__name__:
        return [f"{where} is a {type(value).__name__}, pinned as a {pinned['kind']}"]
    found = []
    settings = {field.name: field.default for field in fields(value)}
    for name, default in settings.items():
        now = getattr(value, name)
        if name in pinned:
            found += departures(pinned[name], now, f"{where}.{name}")
        elif now != default:
            found.append(f"{where}.{name} is {now!r}, newer than the pin")
    return found + [f"{where}.{name} is gone" for name in pinned if name not in {*settings, "kind"}]


def unpinned(item: Recipe) -> list[str]:
    """In which points a recipe is not the one that is pinned under its name and version."""
    pinned = PINNED.get(f"{item.name} {item.version}")
    if pinned is None:
        return [f"{item.name} {item.version} is not pinned"]
    after = departures(pinned["posthoc"], item.posthoc, f"{item.name} posthoc")
    return departures(pinned["stages"], item.stages, item.name) + after


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_its_definition_until_it_takes_a_new_version(name: str) -> None:
    """An edit of a recipe needs the next `version`, and a pin: of its `plain()`."""
    assert unpinned(RECIPES[name]) == []


def test_an_edit_without_a_new_version_is_noticed() -> None:
    kd = RECIPES["kd"]
    teacher, student = kd.stages
    sharper = Sum(((0.1, CE), (0.9, Distill(2.0))))
    edits = {
        "temperature": replace(student, objective=sharper),
        "pinned as 0.1": replace(student, objective=Sum(((0.2, CE), (0.9, Distill(4.0))))),
        "pinned as a Sum": replace(student, objective=Distill(4.0)),
        "share": replace(student, share=0.5),
        "schedule": replace(student, schedule="cosine"),
    }
    for told, edited in edits.items():
        (problem,) = unpinned(replace(kd, stages=(teacher, edited)))
        assert told in problem
    assert unpinned(replace(kd, version=2)) == ["kd 2 is not pinned"]
    (problem,) = unpinned(replace(RECIPES["tau-norm"], posthoc=TauNorm(0.5)))
    assert "posthoc.tau" in problem
    (problem,) = unpinned(replace(RECIPES["ce"], posthoc=TauNorm()))
    assert "pinned as None" in problem
    assert unpinned(replace(RECIPES["crt"], stages=RECIPES["crt"].stages[:1])) != []


def test_the_plain_form_of_a_recipe_is_the_whole_of_it() -> None:
    plain = RECIPES["kd"].plain()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["name"], plain["version"]) == ("kd", 1)
    student = plain["stages"][1]
    assert (student["kind"], student["teachers"], student["share"]) == ("Stage", ["teacher"], 1.0)
    assert student["forward"] == {"kind": "Plain"}
    assert student["draws"] == [
        {"kind": "Draw", "sampler": "instance", "share": 1.0, "judged": True}
    ]
    assert student["objective"]["terms"][1] == [0.9, {"kind": "Distill", "temperature": 4.0}]


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
            r"objective Distill\(temperature=4.0\) needs a teacher; name one in `teachers`",
        ),
        ((Stage("a", CE), Stage("b", CE, teachers=("a",))), "nothing reads teacher 'a'"),
        ((Stage("a", CE), Stage("b", CE)), "nothing uses stage 'a'"),
        ((Stage("a", CE, train="head", rows="real"),), "needs the backbone of an earlier stage"),
        ((Stage("a", CE, draws=(Draw("class"), Draw())),), "see real rows only"),
        (
            (Stage("a", CE), Stage("b", CE, train="head", start="a")),
            "head training, mixing forwards, and draws other than one of the whole batch",
        ),
        ((Stage("a", CE, share=0.0),), "share must lie in"),
        ((Stage("a", CE, rows="bank"),), "rows must be one of"),
        ((Stage("a", CE, draws=(Draw("sqrt"),), rows="real"),), "sampler must be one of"),
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
