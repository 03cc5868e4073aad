"""Recipes are checked when they are made; every joint of the design has one."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import UsageFailure
from trainer.objectives import CrossEntropy, Distill, Sum
from trainer.recipes.catalogue import RECIPES, recipe
from trainer.recipes.stage import Recipe, Stage

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
    from trainer.recipes import stage

    names = {**vars(objectives), **vars(stage)}
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
    if not is_dataclass(value):
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
    return departures(pinned, item.stages, item.name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_its_definition_until_it_takes_a_new_version(name: str) -> None:
    """An edit of a recipe needs the next `version`, and a pin: its `plain()["stages"]`."""
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
    assert unpinned(replace(RECIPES["crt"], stages=RECIPES["crt"].stages[:1])) != []


def test_the_plain_form_of_a_recipe_is_the_whole_of_it() -> None:
    plain = RECIPES["kd"].plain()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["name"], plain["version"]) == ("kd", 1)
    student = plain["stages"][1]
    assert (student["kind"], student["teacher"], student["share"]) == ("Stage", "teacher", 1.0)
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
