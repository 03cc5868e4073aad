"""Named methods as data: a recipe is a list of stages, checked when it is made.

A recipe says what is minimised, on which rows, from which teacher; where data, devices and
folders are is the command's business.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

from stylegan_mix.errors import nearest
from trainer.objectives import (
    Objective,
)

__all__ = ["Recipe", "Stage"]

Rows = Literal["arm", "real"]
Sampler = Literal["instance", "class"]
Trained = Literal["all", "head"]
Schedule = Literal["step", "cosine"]


@dataclass(frozen=True)
class Stage:
    """One training within a recipe.

    share: epochs as a share of the run's; rows: what `--aug` says, or real unmixed rows only;
    sampler: every row once a pass, or classes with equal probability; train: everything, or a new
    head on a frozen backbone; start: the earlier stage whose weights it begins with; teacher: the
    earlier stage that teaches it (a `--teacher` run takes that one's place).
    """

    name: str
    objective: Objective
    share: float = 1.0
    rows: Rows = "arm"
    sampler: Sampler = "instance"
    train: Trained = "all"
    schedule: Schedule = "step"
    start: str | None = None
    teacher: str | None = None

    def epochs(self, run_epochs: int) -> int:
        """How many epochs this stage has in a run of `run_epochs`."""
        return max(1, round(self.share * run_epochs))


@dataclass(frozen=True)
class Recipe:
    """A method: its name, one line about it, and its stages in order; the last is the result.

    A change of the stages, or of code that they call, that changes results takes the next
    `version`: it is part of a run's key, so that no result of the old method passes for the new.
    """

    name: str
    about: str
    stages: tuple[Stage, ...]
    version: int = 1

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"recipe '{self.name}': stages need names of their own, got {names}")
        for index, stage in enumerate(self.stages):
            for problem in _problems(stage, names[:index]):
                raise ValueError(f"recipe '{self.name}', stage '{stage.name}': {problem}")
        used = {name for stage in self.stages for name in (stage.start, stage.teacher)}
        for name in names[:-1]:
            if name not in used:
                raise ValueError(f"recipe '{self.name}': nothing uses stage '{name}'")

    @property
    def teachers(self) -> frozenset[str]:
        """The stages that teach another one."""
        return frozenset(stage.teacher for stage in self.stages if stage.teacher)

    def plain(self) -> dict[str, Any]:
        """The whole recipe as JSON values, defaults included; a value's class is its "kind"."""
        return {"name": self.name, "version": self.version, "stages": _plain(self.stages)}


def _problems(stage: Stage, earlier: list[str]) -> list[str]:
    """What is wrong with a stage that comes after the stages `earlier`."""
    need = stage.objective.needs_teacher
    found = [
        f"{field} must be one of {get_args(known)}, got {getattr(stage, field)!r}"
        for field, known in (
            ("rows", Rows),
            ("sampler", Sampler),
            ("train", Trained),
            ("schedule", Schedule),
        )
        if getattr(stage, field) not in get_args(known)
    ]
    for field in ("start", "teacher"):
        name = getattr(stage, field)
        if name is not None and name not in earlier:
            found.append(f"{field} '{name}' is no earlier stage{nearest(name, earlier)}")
    if need and not stage.teacher:
        found.append(f"objective {stage.objective!r} needs a teacher; name one in `teacher`")
    if stage.teacher and not need:
        found.append(f"nothing reads teacher '{stage.teacher}'")
    if stage.train == "head" and not stage.start:
        found.append("a new head needs the backbone of an earlier stage; name it in `start`")
    if stage.rows == "arm" and (stage.train == "head" or stage.sampler != "instance"):
        found.append("samplers and head training see real rows only; say rows='real'")
    if not 0 < stage.share <= 10:
        found.append(f"share must lie in (0, 10], got {stage.share}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        settings = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **settings}
    return value
