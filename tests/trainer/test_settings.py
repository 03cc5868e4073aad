"""Settings without an effect are refused: every setting, in every arm, with every recipe."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from other_settings import BANK, CHOSEN, KINDS, NUMBERS, data_for

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from trainer import settings
from trainer.defaults import versions
from trainer.engine.arms import ARMS, READ_BY_ARMS
from trainer.plan import Asked, decide
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import READ_BY_RECIPES
from trainer.settings import check, refuse_unread, unread
from trainer.spec import RunSpec

# Read by every run, whatever its arm and recipe.
ALWAYS = {
    *("data", "recipe", "model", "seed", "epochs", "batch", "lr", "momentum", "precision"),
    *("pad", "flip", "augment", "eval_every", "aug_version", "recipe_version", "loop_version"),
}
OTHER = {**CHOSEN, **NUMBERS}
PAIRS = [(aug, name) for aug in ARMS for name in RECIPES]


def corrects(name: str) -> bool:
    """True if a recipe corrects for unequal classes on the rows of an arm, or draws them itself."""
    stages, posthoc = RECIPES[name].stages, RECIPES[name].posthoc
    on_arm = [stage for stage in stages if stage.rows == "arm"]
    own = any(stage.objective.corrects_prior or stage.draws_evenly for stage in on_arm)
    return own or (posthoc is not None and posthoc.corrects_prior and stages[-1] in on_arm)


# Every class evenly by the arm, and a correction for unequal classes by the recipe.
TWICE = [(aug, name) for aug, name in PAIRS if ARMS[aug].balanced and corrects(name)]
# Recipes without a row of an arm.
REAL_ONLY = [
    (aug, name) for aug, name in PAIRS if aug != "none" and not RECIPES[name].follows_arm()
]
GRID = [pair for pair in PAIRS if pair not in {*TWICE, *REAL_ONLY}]
# Every recipe in an arm without and with a bank, and some in all arms; the rest is slow together.
SOME = [
    pair
    if pair[0] in ("none", "hybrid") or pair[1] in KINDS
    else pytest.param(*pair, marks=pytest.mark.slow)
    for pair in GRID
]


def base(aug: str, name: str, **changes: Any) -> RunSpec:
    bank = BANK if ARMS[aug].bank else None
    settings = {"aug": aug, "recipe": name, "bank": bank, "data": data_for(name), **changes}
    return RunSpec(**versions(aug, name), **settings)


def option(setting: str) -> str:
    return {"votes": "views"}.get(setting, setting)


def test_every_setting_is_read_by_all_runs_or_has_its_readers() -> None:
    sometimes = READ_BY_ARMS | READ_BY_RECIPES | {"aug"}
    assert sometimes == set(OTHER)
    assert {field.name for field in fields(RunSpec)} == ALWAYS | sometimes
    assert not ALWAYS & sometimes


def test_every_setting_has_a_reader_and_only_known_ones_are_named() -> None:
    assert frozenset[str]().union(*(arm.reads for arm in ARMS.values())) == READ_BY_ARMS
    assert frozenset[str]().union(*(one.reads() for one in RECIPES.values())) == READ_BY_RECIPES


@pytest.mark.parametrize(("aug", "name"), SOME)
def test_an_option_changes_the_key_or_is_refused(aug: str, name: str) -> None:
    gone = unread(aug, RECIPES[name], given_teacher=False)
    for setting in OTHER.keys() - {"aug"}:
        asked = {"aug": aug, "recipe": name, option(setting): "typed"}
        if setting == "teacher" and name == "cbd" and aug != "none":
            continue  # its other stage is on real images alone
        if setting in gone:
            with pytest.raises(UsageFailure, match=f"--{option(setting).replace('_', '-')} typed"):
                refuse_unread(asked)
            if setting != "bank":  # which a spec refuses itself
                with pytest.raises(UsageFailure):
                    check(base(aug, name, **{setting: OTHER[setting]}))
        else:
            refuse_unread(asked)
            other = replace(BANK, content_sha256="other") if setting == "bank" else OTHER[setting]
            changed = base(aug, name, **{setting: other})
            check(changed)
            assert changed.key != base(aug, name).key


@pytest.mark.parametrize(("aug", "name"), SOME)
def test_a_plain_run_of_every_arm_and_recipe_is_accepted(aug: str, name: str) -> None:
    check(base(aug, name))
    refuse_unread({"aug": aug, "recipe": name})


@pytest.mark.parametrize(("aug", "name"), REAL_ONLY)
def test_an_arm_is_refused_by_a_recipe_without_rows_of_it(aug: str, name: str) -> None:
    with pytest.raises(UsageFailure, match=f"recipe {name} trains on real images alone"):
        refuse_unread({"aug": aug, "recipe": name})
    with pytest.raises(UsageFailure, match=f"recipe '{name}' does not read it"):
        check(base(aug, name))


def test_classes_are_corrected_for_once() -> None:
    twice = {name for aug, name in TWICE if aug == "lob-mixup"}
    assert {"balanced-softmax", "ldam-drw", "tau-norm", "logit-adjust-posthoc"} <= twice
    assert {"class-balanced", "progressive", "balanced-sigmoid", "cb-ce"} <= twice
    assert not twice & {"ce", "focal", "ldam", "crt", "mislas", "gcl", "kd", "ncm", "temperature"}
    assert len(TWICE) == len(twice)


@pytest.mark.parametrize(("aug", "name"), TWICE)
def test_an_arm_of_even_classes_refuses_a_second_correction(aug: str, name: str) -> None:
    with pytest.raises(UsageFailure, match="draws all classes evenly, and") as error:
        check(base(aug, name))
    assert error.value.remedy and f"--recipe ce with --aug {aug}" in error.value.remedy
    assert ("corrected for twice" in str(error.value)) != (
        "only one of the two" in str(error.value)
    )


def test_weights_by_class_of_even_classes_are_refused(home: Path) -> None:
    with pytest.raises(UsageFailure) as error:
        decide(Asked(dataset="digits_lt", aug="lob-mixup", drw=0.8))
    told = "--drw 0.8: --aug lob-mixup draws all classes evenly, so weights by class would change"
    assert told in str(error.value)
    with pytest.raises(UsageFailure, match="recipe crt reads no drw, as it corrects"):
        decide(Asked(dataset="digits_lt", aug="lob-mixup", recipe="crt", drw=0.8))


def test_with_a_teacher_run_the_teacher_stage_reads_nothing() -> None:
    asked = {"recipe": "cbd", "teacher": "runs/x"}
    refuse_unread(asked)
    for more in ({"aug": "hybrid"}, {"aug": "mixup", "alpha": 0.5}, {"teacher_model": "resnet8"}):
        with pytest.raises(UsageFailure):
            refuse_unread({**asked, **more})
    refuse_unread({"recipe": "kd", "teacher": "runs/x", "aug": "mixup", "alpha": 0.5})


def test_the_error_names_who_reads_it(home: Path) -> None:
    with pytest.raises(UsageFailure) as error:
        decide(Asked(dataset="digits_lt", alpha=0.5, views=4, bank="w"))
    told = str(error.value)
    assert (
        "--alpha 0.5: --aug none reads no alpha; arms that do: mixup, mixup-even, cutmix, remix"
        in told
    )
    assert "--views 4: recipe ce reads no views; recipes that do: patched-one-hot" in told
    assert "--bank w: --aug none reads no bank; arms that do: bank, hybrid" in told


def test_votes_that_no_memory_holds_are_refused_before_a_step(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "memory_bytes", lambda: 4000)
    decide(Asked(dataset="digits_lt", recipe="one-hot"))
    # 335 images of 10 classes, and twice 100 pairs of classes in float64.
    with pytest.raises(MissingEnvironment, match="votes on 335 images of 10 classes"):
        decide(Asked(dataset="digits_lt", recipe="patched-one-hot"))
    monkeypatch.setattr(process, "memory_bytes", lambda: 335 * 10 + 2 * 8 * 100)
    decide(Asked(dataset="digits_lt", recipe="patched-one-hot"))


def test_an_unknown_arm_or_recipe_is_told_as_such(home: Path) -> None:
    with pytest.raises(UsageFailure, match="did you mean 'mixup'"):
        decide(Asked(dataset="digits_lt", aug="mixpu", alpha=0.5))
    with pytest.raises(UsageFailure, match="did you mean 'kd'"):
        decide(Asked(dataset="digits_lt", recipe="kdd", views=4))


def test_a_new_arm_and_recipe_are_read_by_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARMS, "new", replace(ARMS["bank"]))
    assert "bank" not in unread("new", RECIPES["ce"], given_teacher=False)
    assert "alpha" in unread("new", RECIPES["ce"], given_teacher=False)
    assert settings.unread_options({"aug": "new", "alpha": 1.0, "bank": "w"}) == {"alpha"}
