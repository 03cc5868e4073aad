"""Every method and every mixer from the command line, on the digits and in miniature."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.engine.folder import Finished, load_network
from trainer.models.heads import MEMORY_FORMS
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
    code, _, told = trainer("run", *TINY, *words)
    (folder,) = Path("runs").glob("*/seed-0")
    model, facts = load_network(folder)
    tau = facts["posthoc"]["tau"]
    assert code == 0 and tau in [step / 10 for step in range(21)]
    assert f"correction of the finished network: tau {tau:g}\n" in told
    record = records.read(folder / records.RESULT_FILE).record
    assert record["diagnostics"]["posthoc"] == {"tau": tau}
    assert facts["validation"] is not None
    assert not model.head.bias.any()


MEMORIES = [name for name in RECIPES if name.startswith("memory-") and name != "memory-kt"]


@pytest.mark.parametrize(
    "recipe", ["memory-llw", "memory-asm", "memory-weighted-probabilities", "memory-max"]
)
def test_a_network_with_a_memory_is_ce_with_the_same_bits_and_answers_as_it_was_scored(
    recipe: str, trainer: Trainer, home: Path
) -> None:
    words = ("--val-per-class", "1")
    folder = tried(trainer, "--recipe", recipe, *words)
    code, out, _ = trainer("eval", str(folder), "--json")
    assert code == 0 and json.loads(out)["same"] is True
    model, facts = load_network(folder)
    memory = Finished.load(folder / "weights" / "train").memory
    assert memory is not None and torch.equal(model.head.memory, memory)
    assert facts["head"]["form"] in MEMORY_FORMS
    code, _, told = trainer("run", *TINY, "--recipe", "ce", *words, "--name", "plain")
    assert code == 0, told
    plain, _ = load_network(Path("runs/plain/seed-0"))
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())
    kept = records.read(folder / records.RESULT_FILE).record["diagnostics"].get("posthoc")
    assert kept == (facts["posthoc"] or None)


@pytest.mark.parametrize(
    "recipe", [name for name in MEMORIES if "weighted" in name or "scaled" in name]
)
def test_a_tuned_fusion_without_validation_images_is_refused_with_the_option(
    recipe: str, trainer: Trainer, home: Path
) -> None:
    code, out, told = trainer("run", *TINY, "--recipe", recipe)
    assert (code, out) == (2, "")
    assert f"recipe '{recipe}' tunes" in told and "--val-per-class N" in told
    assert not Path("runs").exists()


def test_weights_by_class_are_learned_at_the_rate_of_the_run(trainer: Trainer, home: Path) -> None:
    folder = tried(trainer, "--recipe", "memory-llw", "--lr", "0.05", "--warmup-epochs", "0")
    events = records.read(folder / records.RESULT_FILE).record["history"]
    assert [event["lr"] for event in events if event["stage"] == "head"] == [0.05]
    model, _ = load_network(folder)
    assert all((one - 1).any() for one in (model.head.plain_scale, model.head.memory_scale))
