"""`trainer recipes NAME`, and the papers and published accuracies that it tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.recipes.catalogue import RECIPES
from trainer.recipes.sources import PAPERS, PUBLISHED

Trainer = Callable[..., tuple[int, str, str]]
# Recipes that cannot do without validation images.
TUNED = {
    "temperature",
    "memory-weighted-logits",
    "memory-weighted-probabilities",
    "memory-scaled-logits",
}
PAGE = Path(__file__).parents[3] / "trainer" / "recipes" / "README.md"


def test_every_recipe_has_its_papers_and_only_recipes_have() -> None:
    assert set(PAPERS) == set(RECIPES)
    assert [name for name, papers in PAPERS.items() if not papers] == ["ce"]
    assert set(PUBLISHED) <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_told_whole(name: str, trainer: Trainer) -> None:
    code, out, _ = trainer("recipes", name)
    assert code == 0
    recipe = RECIPES[name]
    assert out.startswith(f"{name}: {recipe.about}\n")
    for paper in PAPERS[name]:
        assert f"source: {paper}\n" in out
    for stage in recipe.stages:
        assert f"stage {stage.name}: {stage.objective!r}\n" in out
    assert ("published: " in out) == (name in PUBLISHED)
    assert ("needs: --val-per-class N" in out) == (name in TUNED)
    option = " --val-per-class 10" if name in TUNED else ""
    assert out.endswith(f"command: trainer run --recipe {name}{option}\n")


def test_what_a_stage_has_of_its_own_is_told(trainer: Trainer) -> None:
    _, out, _ = trainer("recipes", "gcl")
    for told in (
        "share: 0.15",
        "Draw(sampler='class'",
        "lr: 0.02",
        "norms: frozen",
        "start: train",
        "needs: Head(form='cosine', scale=20.0",
        "published: 48.61 % on cifar100_lt at imbalance 100",
    ):
        assert told in out


def test_the_json_of_one_recipe_holds_all_of_it(trainer: Trainer) -> None:
    code, out, _ = trainer("recipes", "logit-adjust-posthoc", "--json")
    (one,) = json.loads(out)
    assert code == 0 and one["name"] == "logit-adjust-posthoc"
    assert one["posthoc"] == "LogitAdjust(tau=1.0)"
    assert one["published"]["accuracy"] == 77.32
    assert "Menon" in one["papers"][0]
    assert one["stages"][0]["objective"] == "CrossEntropy(head=None)"


def test_an_unknown_name_is_refused_with_the_nearest(trainer: Trainer) -> None:
    code, out, told = trainer("recipes", "mixlas")
    assert (code, out) == (2, "") and "did you mean 'mislas'" in told


def test_published_accuracies_are_percentages_of_sets_that_we_have() -> None:
    for published in PUBLISHED.values():
        assert published.data in ("cifar10_lt", "cifar100_lt")
        assert 30 < published.accuracy < 95


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_paragraph_with_its_command(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(rf"\*\*`{name}`\*\*", text), name
    commands = re.findall(r"`trainer run --recipe ([\w-]+)", text)
    assert set(commands) <= set(RECIPES)
