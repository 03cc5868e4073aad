"""Every method and every mixer from the command line, on the digits and in miniature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.engine.folder import load_network
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.posthoc import TauNorm
from trainer.reports import records

Trainer = Callable[..., tuple[int, str, str]]
TINY = ("--epochs", "2", "--bn-refresh-batches", "1", "--dataset", "digits_lt")


def tried(trainer: Trainer, *words: str) -> Path:
    """The folder of a finished run of two epochs."""
    code, _, told = trainer("run", *TINY, *words)
    assert code == 0, told
    (folder,) = Path("runs").glob("*/seed-0")
    return folder


@pytest.mark.parametrize(
    "recipe", ["ldam-drw", "h2t", "cbd", "memory-kt", "tau-norm", "manifold-mixup"]
)
def test_a_method_runs_by_its_name_and_leaves_its_network(
    recipe: str, trainer: Trainer, home: Path
) -> None:
    folder = tried(trainer, "--recipe", recipe)
    record = records.read(folder / records.RESULT_FILE).record
    assert record["recipe"] == recipe
    assert all(math.isfinite(event["loss"]) for event in record["history"])
    model, facts = load_network(folder)
    assert model(torch.randn(2, 1, 8, 8)).logits.shape == (2, 10)
    assert facts["accuracy"] == record["accuracy"]


@pytest.mark.parametrize("aug", ["cutmix", "remix", "cmo", "unimix", "lob-mixup"])
def test_a_mixer_runs_by_its_name(aug: str, trainer: Trainer, home: Path) -> None:
    record = records.read(tried(trainer, "--aug", aug) / records.RESULT_FILE).record
    assert (record["arm"], record["recipe"]) == (aug, "ce")
    assert all(math.isfinite(event["loss"]) for event in record["history"])


def test_tau_is_chosen_on_validation_images_where_there_are_some(
    trainer: Trainer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untuned = replace(RECIPES["tau-norm"], posthoc=TauNorm(7.0))
    monkeypatch.setitem(RECIPES, "tau-norm", untuned)
    words = ("--recipe", "tau-norm", "--val-per-class", "2")
    model, facts = load_network(tried(trainer, *words))
    assert facts["posthoc"]["tau"] in [step / 10 for step in range(21)]
    assert facts["validation"] is not None
    assert not model.head.bias.any()
