"""Named methods as data: a recipe is a list of stages, checked when it is made.

A recipe defines the objectives, their rows and their teachers; data, devices and folders belong to
the command.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from stylegan_mix.errors import nearest
from trainer.engine.augmentation.policies import View
from trainer.engine.features import Forward, Plain
from trainer.models.heads import CORRECTED_FORMS, MEMORY_FORMS, Head
from trainer.objectives import Needs, Objective

if TYPE_CHECKING:
    from trainer.recipes.posthoc import PostHoc

__all__ = ["READ_BY_RECIPES", "Draw", "Recipe", "Stage"]

Rows = Literal["arm", "real"]
Sampler = Literal["instance", "class", "square-root", "progressive", "effective-number"]
Trained = Literal["all", "head"]
Schedule = Literal["step", "cosine", "constant"]
HeadStart = Literal["new", "kept"]
Norms = Literal["follow", "frozen"]

# Forms of heads that go on with the weights of another one.
_UPON_KEPT = ("scaled", "rescaled", *MEMORY_FORMS)
_REMEMBER = "train it with objectives.Remembered"


@dataclass(frozen=True)
class Draw:
    """Training images drawn for each step.

    sampler: "instance" takes every row once a pass, the others of `engine.samplers` draw a class
    by its share, then a row of it. "progressive" goes from natural to equal shares over the stage.
    share: the number of draws as a share of the run's batch; judged: True if they have a loss
    (those without one serve the stage's `forward`).
    """

    sampler: Sampler = "instance"
    share: float = 1.0
    judged: bool = True


READ_BY_RECIPES = frozenset(
    {
        "bn_refresh_batches",
        "decay",
        "drw",
        "h2t",
        "head_epochs",
        "milestones",
        "teacher",
        "teacher_model",
        "votes",
        "warmup_epochs",
        "weight_decay",
    }
)
"""The settings of a run that some recipes read and others do not."""


@dataclass(frozen=True)
class Stage:
    """One training within a recipe.

    share: epochs as a share of the run's; rows: those of `--aug`, or real unmixed rows only; draws:
    the training images of each step; train: everything, or the head on a frozen backbone; schedule:
    that of the learning rate, which begins at `lr` times the run's; weight_decay: replaces the
    run's; rates: factors of the run's rate for single parameters of the network, by name, where
    they are not `lr`. start: the earlier stage whose weights it begins with; head: new, or kept
    from there; norms: batch-norm statistics follow the stage's batches, or stay. teachers: the
    earlier stages that teach it (a `--teacher` run replaces a single one). forward: makes outputs
    from a batch; views: the policies of further views, by their names in `policies.VIEWS`.
    """

    name: str
    objective: Objective
    share: float = 1.0
    rows: Rows = "arm"
    draws: tuple[Draw, ...] = (Draw(),)
    train: Trained = "all"
    schedule: Schedule = "step"
    lr: float = 1.0
    weight_decay: float | None = None
    rates: tuple[tuple[str, float], ...] = ()
    start: str | None = None
    head: HeadStart = "new"
    norms: Norms = "follow"
    teachers: tuple[str, ...] = ()
    forward: Forward = Plain()
    views: tuple[View, ...] = ()

    def epochs(self, run_epochs: int) -> int:
        """Computes the number of epochs of this stage in a run of `run_epochs`."""
        return max(1, round(self.share * run_epochs))

    @property
    def draws_evenly(self) -> bool:
        """True if rows with a loss are drawn more evenly over the classes than they are."""
        return any(draw.judged and draw.sampler != "instance" for draw in self.draws)

    @property
    def can_fuse(self) -> bool:
        """True if it trains a head on balanced classes, and leaves the feature maps as they are."""
        balanced = self.train == "head" and self.draws == (Draw("class"),)
        return balanced and self.forward == Plain()

    @property
    def refreshes_norms(self) -> bool:
        """True if batch-norm statistics are refreshed when the stage ends.

        A head that was trained alone fits the statistics that it was trained with.
        """
        return self.train == "all" and self.norms == "follow"

    @property
    def reads(self) -> frozenset[str]:
        """The settings of a run, of those in `READ_BY_RECIPES`, that have an effect on it."""
        read = {"warmup_epochs", "milestones", "decay"} if self.schedule == "step" else set()
        read |= {"weight_decay"} if self.weight_decay is None else set()
        read |= {"bn_refresh_batches"} if self.refreshes_norms else set()
        return frozenset(read | ({"votes"} if "votes" in self.objective.needs.answers else set()))


@dataclass(frozen=True)
class Recipe:
    """A method: its name, one line about it, and its stages in order; the last is the result.

    `posthoc` changes the finished network before it is scored. A change of a recipe, or of code
    that it calls, takes the next `version` if it changes results. The version is part of a run's
    key, so no result of the old method passes for one of the new.
    """

    name: str
    about: str
    stages: tuple[Stage, ...]
    version: int = 1
    posthoc: PostHoc | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"recipe '{self.name}': stages need names of their own, got {names}")
        for index, stage in enumerate(self.stages):
            for problem in _problems(stage, self.stages[:index]):
                raise ValueError(f"recipe '{self.name}', stage '{stage.name}': {problem}")
        for problem in _of_posthoc(self.posthoc, self.stages) if self.posthoc else ():
            raise ValueError(f"recipe '{self.name}': {problem}")
        used = {name for stage in self.stages for name in (stage.start, *stage.teachers)}
        for name in names[:-1]:
            if name not in used:
                raise ValueError(f"recipe '{self.name}': nothing uses stage '{name}'")

    @property
    def teachers(self) -> frozenset[str]:
        """The stages that teach another one."""
        return frozenset(name for stage in self.stages for name in stage.teachers)

    def own_stages(self, *, given_teacher: bool = False) -> tuple[Stage, ...]:
        """Lists the stages that a run trains: all but a teacher's where a finished run teaches."""
        gone = self.teachers if given_teacher else frozenset()
        return tuple(stage for stage in self.stages if stage.name not in gone)

    def follows_arm(self, *, given_teacher: bool = False) -> bool:
        """Tells if any stage that a run trains has the rows of its arm."""
        return any(stage.rows == "arm" for stage in self.own_stages(given_teacher=given_teacher))

    def reads(self, *, given_teacher: bool = False) -> frozenset[str]:
        """Lists the settings, of those in `READ_BY_RECIPES`, that have an effect on a run."""
        stages = self.own_stages(given_teacher=given_teacher)
        read = frozenset[str]().union(*(stage.reads for stage in stages))
        if self.teachers:
            read |= {"teacher"} if given_teacher else {"teacher", "teacher_model"}
        levers = {"drw": self.takes_drw, "head_epochs": self.takes_head, "h2t": self.takes_h2t}
        return read | {name for name, taken in levers.items() if taken}

    def reads_shares(self, *, given_teacher: bool = False) -> bool:
        """Tells if the rows of an arm may have shares of all classes as labels."""
        stages = self.own_stages(given_teacher=given_teacher)
        return all(stage.objective.reads_shares for stage in stages if stage.rows == "arm")

    @property
    def head(self) -> Head:
        """The head of the network that is the result."""
        return _head_of(self.stages[-1], self.stages)

    @property
    def taught(self) -> Stage:
        """The last stage that has teachers; without any, the last stage."""
        return next((one for one in reversed(self.stages) if one.teachers), self.stages[-1])

    @property
    def takes_drw(self) -> bool:
        """True if losses can be weighted by class: nothing else corrects for their frequencies."""
        own = [stage for stage in self.stages if stage.name not in self.teachers]
        corrected = any(stage.objective.corrects_prior or stage.draws_evenly for stage in own)
        finished = self.posthoc is not None and self.posthoc.corrects_prior
        return not finished and not corrected

    @property
    def takes_head(self) -> bool:
        """True if a new head can follow: the last stage trains a whole network with one head.

        It must not draw classes evenly, nor be corrected when it ends.
        """
        last = self.stages[-1]
        needs = last.objective.needs
        one_head = not needs.others and not (needs.head and needs.head.detached)
        trained = last.train == "all" and not last.draws_evenly
        return self.posthoc is None and trained and one_head

    @property
    def takes_h2t(self) -> bool:
        """True if head-to-tail fusion can be part of it: a head learns on balanced classes, or can.

        In the second case a stage that trains the head, which is kept, follows the last one.
        """
        return self.takes_head or (self.posthoc is None and self.stages[-1].can_fuse)

    def plain(self) -> dict[str, Any]:
        """Returns the recipe as JSON values, with defaults; a value's class is its "kind"."""
        return {
            "name": self.name,
            "version": self.version,
            "stages": _plain(self.stages),
            "posthoc": _plain(self.posthoc),
        }


def _problems(stage: Stage, before: tuple[Stage, ...]) -> list[str]:
    """Lists the faults of a stage that comes after the stages `before`."""
    try:
        needs = stage.objective.needs
    except ValueError as error:  # a sum whose terms want different heads
        return [str(error)]
    return [
        *_vocabulary(stage),
        *_earlier_stages(stage, [other.name for other in before]),
        *_of_teachers(stage, needs),
        *_of_rows(stage, needs),
        *_of_heads(stage, needs.head, before),
        *_of_draws(stage),
    ]


def _vocabulary(stage: Stage) -> list[str]:
    """Lists unknown words and numbers out of range."""
    words: list[tuple[str, Any, Any]] = [
        (name, getattr(stage, name), known)
        for name, known in (
            ("rows", Rows),
            ("train", Trained),
            ("schedule", Schedule),
            ("head", HeadStart),
            ("norms", Norms),
        )
    ]
    words += [("sampler", draw.sampler, Sampler) for draw in stage.draws]
    words += [("views", view, View) for view in stage.views]
    found = [
        f"{name} must be one of {get_args(known)}, got {value!r}"
        for name, value, known in words
        if value not in get_args(known)
    ]
    numbers = [("share", stage.share), ("lr", stage.lr)]
    numbers += [(f"the rate of {name}", rate) for name, rate in stage.rates]
    numbers += [("a draw's share", draw.share) for draw in stage.draws]
    found += [f"{name} must lie in (0, 10], got {x}" for name, x in numbers if not 0 < x <= 10]
    return found


def _earlier_stages(stage: Stage, earlier: list[str]) -> list[str]:
    """Lists names that should be those of earlier stages and are not."""
    named = [("start", stage.start), *(("teacher", name) for name in stage.teachers)]
    return [
        f"{field} '{name}' is no earlier stage{nearest(name, earlier)}"
        for field, name in named
        if name is not None and name not in earlier
    ]


def _of_teachers(stage: Stage, needs: Needs) -> list[str]:
    """Lists teachers that are missing, that nothing reads, or that cannot answer."""
    found = []
    if needs.answers and not stage.teachers:
        found.append(f"objective {stage.objective!r} needs a teacher; name one in `teachers`")
    if stage.teachers and not needs.answers:
        found.append(f"nothing reads teacher '{stage.teachers[0]}'")
    if len(stage.teachers) > 1 and not needs.ensemble:
        found.append(f"objective {stage.objective!r} reads one teacher, got {stage.teachers}")
    if "votes" in needs.answers and (len(needs.answers) > 1 or len(stage.teachers) > 1):
        found.append("a teacher that votes is asked for nothing else, and is the only one")
    if stage.teachers and stage.forward.mixes:
        found.append(f"a teacher cannot see what {stage.forward!r} mixes")
    return found


def _of_rows(stage: Stage, needs: Needs) -> list[str]:
    """Lists draws that do not fit the arm or the forward, and views that are missing."""
    found = []
    own_draws = len(stage.draws) > 1 or any(draw.share != 1 for draw in stage.draws)
    if stage.rows == "arm" and (stage.train == "head" or own_draws or stage.forward.mixes):
        found.append(
            "head training, mixing forwards, and draws other than one of the whole batch "
            "see real rows only: rows='real'"
        )
    judged = [draw.judged for draw in stage.draws]
    if not judged or not judged[0] or judged != sorted(judged, reverse=True):
        found.append("draws with a loss come first, and there is at least one")
    if judged.count(False) != stage.forward.unjudged:
        found.append(f"{stage.forward!r} reads {stage.forward.unjudged} draws without a loss")
    same_size = len({draw.share for draw in stage.draws}) == 1
    if stage.forward != Plain() and not (judged.count(True) == 1 and same_size):
        found.append(f"{stage.forward!r} takes one draw with a loss, and draws of one size")
    if len(stage.views) < needs.views:
        found.append(f"objective {stage.objective!r} needs {needs.views} views")
    if stage.views and not stage.forward.shows_views:
        found.append(f"{stage.forward!r} does not show further views to the network")
    return found


def _of_heads(stage: Stage, head: Head | None, before: tuple[Stage, ...]) -> list[str]:
    """Lists a missing `start`, and a head that its network does not have."""
    found = []
    if head and head.form == "mlp":
        found.append(f"a projection has no classes to answer with: {head!r}")
    kept = stage.start is not None and stage.head == "kept"
    if stage.train == "head" and not stage.start:
        found.append("a head needs the backbone of an earlier stage; name it in `start`")
    if stage.head == "kept" and not stage.start:
        found.append("a head is kept from an earlier stage; name it in `start`")
    if head and head.form in CORRECTED_FORMS:
        found.append(f"no stage trains {head!r}: a correction of a finished network makes it")
    if head and head.form in _UPON_KEPT and not kept:
        found.append(f"a {head.form} head goes on with one that was kept; say head='kept'")
    if head and kept:
        found += _of_kept(stage.start, head, before)
    start = [one for one in before if one.name == stage.start]
    numbers = [_head_of(one, before).experts for one in start]
    own = _head_of(stage, before).experts if start else 1
    found += [
        f"stage '{stage.start}' has a backbone for {number} experts, this one a head for {own}"
        for number in numbers
        if number != own
    ]
    return found


def _of_kept(start: str | None, head: Head, before: tuple[Stage, ...]) -> list[str]:
    """Lists the reasons why a head cannot go on with the one of an earlier stage."""
    theirs = [stage for stage in before if stage.name == start]
    if not theirs:  # told already
        return []
    own = _head_of(theirs[0], before)
    found = []
    if head.form in MEMORY_FORMS and not theirs[0].objective.remembers:
        found.append(f"{head!r} reads class means, and stage '{start}' keeps none: {_REMEMBER}")
    if head.form in MEMORY_FORMS and own.form != "linear":
        found.append(f"{head!r} goes on with a linear head, stage '{start}' has {own!r}")
    if head.form not in _UPON_KEPT and own != replace(head, scale=own.scale):
        found.append(f"stage '{start}' has another head than {head!r}")
    return found


def _of_draws(stage: Stage) -> list[str]:
    """Lists draws that correct for unequal classes once more than the objective does."""
    if not stage.draws_evenly or not stage.objective.corrects_prior:
        return []
    twice = (
        f"objective {stage.objective!r} corrects for unequal classes, and so do its draws, "
        f"{stage.draws[0]!r}: the classes would be corrected for twice; "
        "take cross-entropy on these draws, or draw by 'instance'"
    )
    return [twice]


def _of_posthoc(posthoc: PostHoc, stages: tuple[Stage, ...]) -> list[str]:
    """Lists the reasons why a correction does not fit the network that the last stage trains."""
    found = []
    last = stages[-1]
    if posthoc.corrects_prior and (last.draws_evenly or last.objective.corrects_prior):
        by = f"draws {last.draws[0]!r}" if last.draws_evenly else f"objective {last.objective!r}"
        found.append(
            f"{posthoc!r} corrects for unequal classes, and {by} of stage '{last.name}' did so "
            "already: the classes would be corrected for twice; train without, or leave one out"
        )
    head = _head_of(last, stages)
    if posthoc.linear_head and (head.form != "linear" or head.experts > 1):
        found.append(f"{posthoc!r} changes a linear head, stage '{last.name}' has {head!r}")
    if posthoc.reads_memory and not last.objective.remembers:
        found.append(
            f"{posthoc!r} reads class means, and stage '{last.name}' keeps none: {_REMEMBER}"
        )
    return found


def _head_of(stage: Stage, stages: tuple[Stage, ...]) -> Head:
    """Finds the head that a stage's network has: its objective's, or the kept one, or linear."""
    own = stage.objective.needs.head
    if own or stage.head == "new":
        return own or Head()
    return _head_of(next(one for one in stages if one.name == stage.start), stages)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        settings = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **settings}
    return value
