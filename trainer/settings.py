"""The settings of a run against its arm and its recipe: read, or refused; no torch.

A setting without an effect would make two experiments, with two keys, of one training. `Arm.reads`
and `Stage.reads` say who reads which setting; all others are read by every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from trainer import models
from trainer.engine.arms import ARMS, READ_BY_ARMS
from trainer.recipes.catalogue import RECIPES, recipe
from trainer.recipes.levers import with_levers
from trainer.recipes.stage import READ_BY_RECIPES, Recipe
from trainer.spec import LOOP_VERSION, RunSpec

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["check", "method", "refuse_unread", "require_memory", "unread", "unread_options"]

# The option of a setting, where it is not called the same.
_OPTIONS = {"votes": "views"}
# Why a recipe does not read a lever.
_REFUSED_BY_RECIPES = {
    "drw": ", as it corrects for class frequencies itself",
    "head_epochs": ", as it ends with class-balanced rows, a changed network or two heads",
    "h2t": ", as it has fusion or draws of its own, a second head, or one that is changed at the end",
}
# The arm itself is read by recipes that have a stage of the arm's rows.
_SOMETIMES_READ = READ_BY_ARMS | READ_BY_RECIPES | {"aug"}


def unread(aug: str, chosen: Recipe, *, given_teacher: bool) -> frozenset[str]:
    """Lists the settings of `RunSpec` that have no effect on a run of an arm and a recipe.

    `given_teacher` is True if a finished run teaches in place of the recipe's own teacher stage.
    """
    read = chosen.reads(given_teacher=given_teacher)
    if chosen.follows_arm(given_teacher=given_teacher):
        read |= ARMS[aug].reads | {"aug"}
        if ARMS[aug].balanced:  # whose weights by class are all 1
            read -= {"drw"}
        if not chosen.reads_shares(given_teacher=given_teacher):
            read -= {"label"}
    return _SOMETIMES_READ - read


def unread_options(asked: Mapping[str, Any]) -> set[str]:
    """Lists the given options without an effect; none for an arm or a recipe that is unknown."""
    aug = asked.get("aug") or RunSpec.aug
    name = asked.get("recipe") or RunSpec.recipe
    if aug not in ARMS or name not in RECIPES:
        return set()
    gone = unread(aug, RECIPES[name], given_teacher=bool(asked.get("teacher")))
    options = {_OPTIONS.get(setting, setting) for setting in gone}
    if aug == RunSpec.aug:  # the arm without anything to read
        options.discard("aug")
    return {option for option in options if asked.get(option) is not None}


def refuse_unread(asked: Mapping[str, Any]) -> None:
    """Raises `UsageFailure` (exit code 2) for options that were given and have no effect."""
    gone = sorted(unread_options(asked))
    if not gone:
        return
    lines = [f"--{name.replace('_', '-')} {asked[name]}: {_why(asked, name)}" for name in gone]
    raise UsageFailure(
        "without an effect on this run:\n  " + "\n  ".join(lines),
        remedy="leave out what has no effect, or choose an arm and a recipe that read it",
    )


def _why(asked: Mapping[str, Any], option: str) -> str:
    """Says who does not read an option, and who would."""
    aug, name = asked.get("aug") or RunSpec.aug, asked.get("recipe") or RunSpec.recipe
    setting = next((one for one, called in _OPTIONS.items() if called == option), option)
    taught = bool(asked.get("teacher"))
    whole = f"recipe {name} with --teacher" if taught else f"recipe {name}"
    if setting == "aug":
        return f"{whole} trains on real images alone"
    if setting in READ_BY_ARMS:
        if not RECIPES[name].follows_arm(given_teacher=taught):
            return f"{whole} trains on real images alone, so it reads no setting of an arm"
        readers = [arm for arm, one in ARMS.items() if setting in one.reads]
        if aug in readers:
            able = [one.name for one in RECIPES.values() if one.reads_shares()]
            return (
                f"recipe {name} cannot read a label of all classes; recipes that can: "
                f"{', '.join(able)}"
            )
        return f"--aug {aug} reads no {option}; arms that do: {', '.join(readers)}"
    if setting == "teacher_model" and taught:
        return "a teacher run is given, so no teacher network is trained"
    if setting == "drw" and ARMS[aug].balanced and RECIPES[name].takes_drw:
        return f"--aug {aug} draws all classes evenly, so weights by class would change nothing"
    readers = [one.name for one in RECIPES.values() if setting in one.reads()]
    why = _REFUSED_BY_RECIPES.get(setting, "")
    return f"recipe {name} reads no {option}{why}; recipes that do: {', '.join(readers) or 'none'}"


def method(spec: RunSpec) -> Recipe:
    """Makes the recipe of a run, with the levers of the run."""
    return with_levers(
        recipe(spec.recipe),
        drw=spec.drw,
        head_epochs=spec.head_epochs,
        h2t=spec.h2t,
        epochs=spec.epochs,
    )


def check(spec: RunSpec) -> Recipe:
    """Makes the recipe of a run, and checks the run against it; `UsageFailure` (exit code 2)."""
    for problem, remedy in _misfits(spec, recipe(spec.recipe)):
        raise UsageFailure(problem, remedy=remedy)
    return method(spec)


def _misfits(spec: RunSpec, chosen: Recipe) -> Iterable[tuple[str, str | None]]:
    """Yields each reason why a run cannot be of its recipe, with the remedy."""
    ours = "run it with the release of its time, or ask for the recipe as it is now"
    if spec.recipe_version != chosen.version:
        yield (
            (
                f"recipe '{spec.recipe}' is at version {chosen.version}, "
                f"but the run asks for version {spec.recipe_version}"
            ),
            ours,
        )
    if spec.depends_on_loop and spec.loop_version != LOOP_VERSION:
        yield (
            (
                f"the training loop is at version {LOOP_VERSION}, "
                f"but the run asks for version {spec.loop_version}"
            ),
            ours,
        )
    if spec.aug_version != ARMS[spec.aug].version:
        yield (
            (
                f"arm '{spec.aug}' is at version {ARMS[spec.aug].version}, "
                f"but the run asks for version {spec.aug_version}"
            ),
            ours,
        )
    for name in (spec.model, spec.teacher_model):
        models.require(name or spec.model)
    if ARMS[spec.aug].balanced:
        yield from _evenly_drawn_twice(spec, chosen)
    if not chosen.teachers and (spec.teacher or spec.teacher_model):
        yield f"recipe '{spec.recipe}' has no teacher", "leave out --teacher and --teacher-model"
    if spec.teacher and spec.teacher_model:
        yield "a teacher run is given, so no teacher network is trained", "leave one of them out"
    if spec.teacher and len(chosen.teachers) > 1:
        yield f"recipe '{spec.recipe}' has {len(chosen.teachers)} teachers of its own", None
    for name in sorted(unread(spec.aug, chosen, given_teacher=bool(spec.teacher))):
        value = getattr(spec, name)
        if value != _default(name):
            yield (
                (
                    f"'{name}' is set to {value}, but a run of arm '{spec.aug}' and recipe "
                    f"'{spec.recipe}' does not read it"
                ),
                f"leave it at its default, {_default(name)}",
            )
    if chosen.posthoc and chosen.posthoc.needs_validation and not spec.data.val_per_class:
        tuned = f"recipe '{spec.recipe}' tunes {chosen.posthoc!r} on validation images"
        yield tuned, "give --val-per-class N"


def _evenly_drawn_twice(spec: RunSpec, chosen: Recipe) -> Iterable[tuple[str, str]]:
    """Yields the reasons why a recipe does not go with an arm that draws all classes evenly.

    Its own correction for unequal classes would find equal ones, and do nothing or too much.
    """
    arm = f"--aug {spec.aug} draws all classes evenly"
    remedy = f"take --recipe ce with --aug {spec.aug}, or recipe {chosen.name} with --aug mixup"
    twice = "the classes would be corrected for twice"
    stages = chosen.own_stages(given_teacher=bool(spec.teacher))
    for stage in stages:
        who = f"stage '{stage.name}' of recipe {chosen.name}"
        if stage.rows == "arm" and stage.objective.corrects_prior:
            yield f"{arm}, and {stage.objective!r} of {who} corrects for them: {twice}", remedy
        if stage.rows == "arm" and stage.draws_evenly:
            sampler = stage.draws[0].sampler
            yield f"{arm}, and {who} draws rows by '{sampler}': only one of the two can be", remedy
    if chosen.posthoc and chosen.posthoc.corrects_prior and stages[-1].rows == "arm":
        yield f"{arm}, and {chosen.posthoc!r} of recipe {chosen.name} corrects: {twice}", remedy


def require_memory(chosen: Recipe, data: Dataset, views: int) -> None:
    """Raises `MissingEnvironment` (exit code 4) for votes that cannot fit into this machine.

    They are counts by image and class, and shares by pair of classes in float64, twice.
    """
    if "votes" not in chosen.reads():
        return
    images, classes = len(data.train.labels), data.num_classes
    needed = images * classes * (1 if views <= 255 else 4) + 2 * 8 * classes**2
    there = process.memory_bytes()
    if needed > there:
        raise MissingEnvironment(
            f"votes on {images:,} images of {classes:,} classes need more than "
            f"{needed / 1e9:,.1f} GB; this machine has {there / 1e9:,.1f} GB",
            remedy="take another recipe: one-hot asks the same teacher and keeps no votes",
        )


def _default(name: str) -> Any:
    """Returns the default of a setting of `RunSpec`."""
    return getattr(RunSpec(), name)
