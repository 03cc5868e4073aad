"""One run as plain data: checked once, printed, saved, and hashed into the name of its folder.

Paths, devices and thread counts are no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, Literal, get_args

from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.store import digest
from trainer.engine.arms import ARMS
from trainer.engine.augmentation import policies
from trainer.limits import milestones, one_of, within
from trainer.references import (
    ACCEPTED,
    ALL_ROWS,
    BY_LAM,
    AcceptRef,
    BankRef,
    DataSpec,
    LabelRef,
    TeacherRef,
    VoteSpec,
)
from trainer.schedule import CONSTANT, FORMS, Schedule

__all__ = [
    "ACCEPTED",
    "ALL_ROWS",
    "BY_LAM",
    "EQUAL_REAL",
    "EQUAL_STEPS",
    "FEWEST_IN_BATCH",
    "LOOP_VERSION",
    "AcceptRef",
    "BankRef",
    "DataSpec",
    "LabelRef",
    "Precision",
    "RunSpec",
    "TeacherRef",
    "VoteSpec",
    "exact",
]

EQUAL_STEPS, EQUAL_REAL = _FAIR = ("equal-steps", "equal-real")
"""The ways to be fair to all arms: rows of a bank take the place of real ones, or are added."""

LOOP_VERSION = 2
"""The number of the training loop's definition.

1: the rate falls between epochs only, and heads compute in the run's precision. 2: milestones are
shares of the steps, and heads compute in float32. Operators that only round differently are no
version: the environment of a record names them.
"""

Precision = Literal["float32", "bfloat16"]

# Batch norm needs two images.
FEWEST_IN_BATCH = 2
# Of a bank, added to the real rows: more would be a mistake.
_MOST_TIMES_REAL = 16.0


@dataclass(frozen=True)
class RunSpec:
    """One run of the trainer. Defaults are the protocol of the field (trainer/README.md).

    `aug` is an arm of `arms.ARMS`. `milestones` are shares of the steps at which the rate falls
    to `decay` times `lr`. As many rows as `bank_share` of `batch` come from the bank, at weight
    `bank_weight` in the loss; `bank_schedule` says when (see `Schedule`). By `fair` "equal-steps"
    they take the place of real rows, by "equal-real" they are added to `batch` real ones.
    `mix_bank_real` mixes each of them with a real row. `accept` are the annotations of the bank
    that choose its rows, None takes all; `label` are those that give its labels, None takes the
    share `lam` of two classes. In the arms that mix, the last `final_real_fraction` of the steps
    sees real unmixed images only. `drw` is the share of the steps after which losses are weighted
    by class, None never does. `head_epochs` are added for a new head on class-balanced rows. `h2t`
    trains the head with feature maps of other rows (H2T). `augment` is the policy of all training
    rows, by its name (see `policies.FORMS`). `pad` None means an eighth of the image side, `flip`
    None the data set's default. `teacher` is a finished run that replaces the recipe's own teacher
    stage; `teacher_model` is the network of that stage, None for the student's. `eval_every` 0
    means every epoch unless that would cost much (see `evaluate.interval`). `recipe_version` is the
    number of the recipe's definition (see `Recipe.version`), `aug_version` that of the arm's,
    `loop_version` that of the loop's (see `LOOP_VERSION`).
    """

    data: DataSpec = field(default_factory=DataSpec)
    aug: str = "none"
    recipe: str = "ce"
    model: str = "resnet32"
    seed: int = 0
    epochs: int = 200
    batch: int = 128
    lr: float = 0.1
    warmup_epochs: float = 5.0
    milestones: tuple[float, ...] = (0.8, 0.9)
    decay: tuple[float, ...] = (0.1, 0.01)
    weight_decay: float = 2e-4
    momentum: float = 0.9
    precision: Precision = "float32"
    alpha: float = 1.0
    bank: BankRef | None = None
    bank_share: float = 0.5
    bank_weight: float = 1.0
    final_real_fraction: float = 0.1
    bn_refresh_batches: int = 200
    pad: int | None = None
    flip: bool | None = None
    eval_every: int = 0
    teacher: TeacherRef | None = None
    teacher_model: str | None = None
    votes: VoteSpec = field(default_factory=VoteSpec)
    # Fields from here on are left out of the identity at their default.
    recipe_version: int = 1
    accept: AcceptRef | None = None
    label: LabelRef | None = None
    fair: str = EQUAL_STEPS
    bank_schedule: str = CONSTANT
    mix_bank_real: bool = False
    drw: float | None = None
    head_epochs: int = 0
    h2t: bool = False
    augment: str = policies.PLAIN.name
    aug_version: int = 1
    # Part of the identity only where the versions of the loop differ.
    loop_version: int = LOOP_VERSION

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.type == "float"):
            if type(getattr(self, name)) is int:  # 1 and 1.0 are one experiment, so one key
                object.__setattr__(self, name, float(getattr(self, name)))
        augment = policies.one_name(str(self.augment))  # a record may hold another type
        object.__setattr__(self, "augment", augment)
        problems = [text for text in _problems(self) if text]
        if problems:
            raise UsageFailure("invalid run settings:\n  " + "\n  ".join(problems))

    @property
    def uses_bank(self) -> bool:
        return self.aug in ARMS and ARMS[self.aug].bank

    @property
    def arm(self) -> str:
        """The name of `aug`, with a control's bank and with each lever off its default.

        So no table can mix them up.
        """
        parts = (
            self.aug,
            self.bank.control if self.bank else "",
            self.accept.rule if self.accept else "",
            self.label.name if self.label else "",
            "crossed" if self.mix_bank_real else "",
            self.schedule.name,
            self.fair if self.fair != EQUAL_STEPS else "",
            "drw" if self.drw is not None else "",
            "head" if self.head_epochs else "",
            "h2t" if self.h2t else "",
            self.augment if self.augment != RunSpec.augment else "",
        )
        return "-".join(part for part in parts if part)

    @property
    def fairness(self) -> str:
        """The way in which the arm is fair: `fair`, and "equal-real" for arms that are only so."""
        return EQUAL_REAL if self.aug in ARMS and ARMS[self.aug].even else self.fair

    @property
    def policy(self) -> policies.Policy:
        """The policy of `augment`."""
        found = policies.policy(self.augment)
        assert found is not None  # or there were no such spec
        return found

    @property
    def schedule(self) -> Schedule:
        """The schedule of the bank."""
        return Schedule.parse(self.bank_schedule) or Schedule()

    @property
    def extra_rows(self) -> int:
        """The number of rows of a batch that are no plain real ones: a bank's, or drawn evenly."""
        arm = ARMS.get(self.aug)
        return round(self.batch * self.bank_share) if arm and (arm.bank or arm.even) else 0

    @property
    def most_rows(self) -> int:
        """The largest number of rows of a batch."""
        return self.batch + (self.extra_rows if self.fairness == EQUAL_REAL else 0)

    def plain(self) -> dict[str, Any]:
        """Returns everything as JSON values; `RunSpec.from_plain` is the inverse."""
        return _lists(asdict(self))

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> RunSpec:
        """Rebuilds a spec from `plain()`; unknown names are `InvalidInput` with the nearest.

        Settings of the first version of the loop do not name it.
        """
        known = {f.name for f in fields(cls)}
        inner: dict[str, Any] = {
            "data": DataSpec,
            "bank": BankRef,
            "teacher": TeacherRef,
            "accept": AcceptRef,
            "label": LabelRef,
            "votes": VoteSpec,
        }
        made: dict[str, Any] = {"loop_version": 1}
        for name, value in values.items():
            if name not in known:
                raise InvalidInput(f"a run has no setting '{name}'{nearest(name, known)}")
            value = tuple(value) if isinstance(value, list) else value
            if name in inner and isinstance(value, Mapping):
                value = _inner(inner[name], name, value)
            made[name] = value
        return cls(**made)

    def identity(self) -> dict[str, Any]:
        """Lists the settings that define the experiment: all but the seed and the folders.

        Settings added after the first committed results are left out at their default, so a new one
        renames no run that does not use it.
        """
        plain = _naming(RunSpec, self.plain())
        plain["data"] = _naming(DataSpec, plain["data"], "data.")
        plain["votes"] = _naming(VoteSpec, plain["votes"], "votes.")
        del plain["seed"]
        if self.loop_version != 1 and self.depends_on_loop:
            plain["loop_version"] = self.loop_version
        for name in ("bank", "teacher", "accept", "label"):
            if plain.get(name):
                del plain[name]["folder"]
        return plain

    @property
    def versions(self) -> dict[str, int]:
        """The versions of arm, recipe and loop, also where the identity leaves them out."""
        loop = self.loop_version if self.depends_on_loop else 1
        return {
            "aug_version": self.aug_version,
            "recipe_version": self.recipe_version,
            "loop_version": loop,
        }

    @property
    def depends_on_loop(self) -> bool:
        """True if the versions of the loop train this run differently.

        They agree on a float32 run whose rate falls between two epochs, such as one of 200 epochs.
        """
        falls = ((mark * self.epochs, exact(mark) * self.epochs) for mark in self.milestones)
        between_epochs = all(math.floor(rounded) == true for rounded, true in falls)
        return self.precision != "float32" or not between_epochs

    @property
    def key(self) -> str:
        """Eight hex digits that name the experiment, for every seed."""
        return digest(self.identity())[:8]

    @property
    def folder(self) -> str:
        """The run's folder below ``runs/``."""
        return f"{self.data.name}-{self.recipe}-{self.arm}-{self.key}/seed-{self.seed}"


def exact(share: float) -> Fraction:
    """Returns the number that a share was written as: 0.9 * 70 is 63, and not a little less."""
    return Fraction(str(share))


# The settings of the first committed results, which every key holds at any value.
_NAMES = (
    "data aug recipe model seed epochs batch lr warmup_epochs milestones decay weight_decay "
    "momentum precision alpha bank bank_share bank_weight final_real_fraction bn_refresh_batches "
    "pad flip eval_every teacher teacher_model votes data.name data.imbalance data.profile "
    "data.split_seed data.drop_overlap data.val_per_class votes.views votes.full_share "
    "votes.sides"
)
_FIRST = frozenset(_NAMES.split())


def _naming(kind: type[RunSpec | DataSpec | VoteSpec], plain: Any, before: str = "") -> Any:
    """Removes, from plain settings, those later than `_FIRST` that have their default."""
    defaults = _lists(asdict(kind()))
    return {
        name: value
        for name, value in plain.items()
        if f"{before}{name}" in _FIRST or (value != defaults[name] and name != "loop_version")
    }


def _inner(kind: type, name: str, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    for key in values:
        if key not in known:
            raise InvalidInput(f"'{name}' has no setting '{key}'{nearest(key, known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _problems(spec: RunSpec) -> list[str]:
    """Lists the faults of a spec, each with its bounds; empty strings where right."""
    votes = spec.votes
    return [
        _aug(spec),
        _augment(spec),
        one_of("precision", spec.precision, get_args(Precision)),
        within("epochs", spec.epochs, 1, 100_000),
        within("batch", spec.batch, FEWEST_IN_BATCH, 65_536),
        within("lr", spec.lr, 0.0, 1e3, open_low=True),
        within("warmup_epochs", spec.warmup_epochs, 0.0, 1e5),
        within("weight_decay", spec.weight_decay, 0.0, 1.0),
        within("momentum", spec.momentum, 0.0, 1.0, open_high=True),
        within("alpha", spec.alpha, 0.0, 1e3, open_low=True),
        _bank_share(spec),
        one_of("accept.rule", spec.accept.rule, ACCEPTED) if spec.accept else "",
        "" if spec.bank or not spec.accept else f"aug '{spec.aug}' reads no bank to accept rows of",
        _judge_share(spec.label) if spec.label else "",
        "" if spec.bank or not spec.label else f"aug '{spec.aug}' reads no bank to label rows of",
        one_of("fair", spec.fair, _FAIR),
        "" if type(spec.mix_bank_real) is bool else "mix_bank_real must be true or false",
        _schedule(spec),
        ""
        if spec.drw is None
        else within("drw", spec.drw, 0.0, 1.0, open_low=True, open_high=True),
        _head_epochs(spec),
        "" if type(spec.h2t) is bool else "h2t must be true or false",
        within("bank_weight", spec.bank_weight, 0.0, 1e3, open_low=True),
        within("final_real_fraction", spec.final_real_fraction, 0.0, 1.0),
        within("bn_refresh_batches", spec.bn_refresh_batches, 0, 100_000),
        within("eval_every", spec.eval_every, 0, 100_000),
        within("recipe_version", spec.recipe_version, 1, 10**6),
        within("aug_version", spec.aug_version, 1, 10**6),
        within("loop_version", spec.loop_version, 1, LOOP_VERSION),
        within("val_per_class", spec.data.val_per_class, 0, 10**6),
        within("seed", spec.seed, 0, 2**63 - 1),
        "" if spec.pad is None else within("pad", spec.pad, 0, 64),
        within("votes.views", votes.views, 1, 65_535),
        within("votes.full_share", votes.full_share, 0.0, 1.0),
        *(within("votes.sides", side, 0.0, 1.0, open_low=True) for side in votes.sides),
        "" if votes.sides or votes.full_share == 1 else "votes.sides must name at least one size",
        milestones(spec.milestones, spec.decay),
        "" if spec.bank or not spec.uses_bank else f"aug '{spec.aug}' needs a bank",
        "" if spec.uses_bank or not spec.bank else f"aug '{spec.aug}' reads no bank",
    ]


def _aug(spec: RunSpec) -> str:
    wrong = one_of("aug", spec.aug, tuple(ARMS))
    if wrong and policies.policy(str(spec.aug)):
        wrong += f". '{spec.aug}' is a policy of augmentation: --augment {spec.aug}"
    return wrong


def _augment(spec: RunSpec) -> str:
    if policies.policy(spec.augment):
        return ""
    arm = f", but an arm: --aug {spec.augment}" if spec.augment in ARMS else ""
    unknown = f"augment '{spec.augment}' is no policy{arm}"
    return f"{unknown}{nearest(spec.augment, policies.FORMS)}, where N is {policies.NUMBERS}"


def _bank_share(spec: RunSpec) -> str:
    """Checks the share of a bank, which can be above 1 only where its rows are added."""
    if spec.fairness == EQUAL_REAL:
        wrong = within("bank_share", spec.bank_share, 0.0, _MOST_TIMES_REAL, open_low=True)
    else:
        wrong = within("bank_share", spec.bank_share, 0.0, 1.0, open_low=True, open_high=True)
    arm = ARMS.get(spec.aug)
    if wrong or not arm or not (arm.bank or arm.even):
        return wrong
    if spec.extra_rows > 0 and (spec.fairness == EQUAL_REAL or spec.extra_rows < spec.batch):
        return ""
    kind = "no real or no bank row" if arm.bank else "no extra row"
    return f"bank_share {spec.bank_share} leaves {kind} of {spec.batch}"


def _head_epochs(spec: RunSpec) -> str:
    wrong = within("head_epochs", spec.head_epochs, 0, 100_000)
    more = f"head_epochs must not be more than epochs, {spec.epochs}, got {spec.head_epochs}"
    return wrong or ("" if spec.head_epochs <= spec.epochs else more)


def _judge_share(label: LabelRef) -> str:
    return within("label.judge_share", label.judge_share, 0.0, 1.0, open_low=True)


def _schedule(spec: RunSpec) -> str:
    """Checks the schedule of a bank, and that its epoch lies in the arm's own phase."""
    found = Schedule.parse(spec.bank_schedule)
    if found is None:
        return f"bank_schedule must be one of {', '.join(FORMS)}, got '{spec.bank_schedule}'"
    if not found.epoch:
        return ""
    own = spec.epochs * (1 - spec.final_real_fraction)
    return (
        ""
        if found.epoch < own
        else f"bank_schedule '{spec.bank_schedule}': EPOCH must be below {own:g}, as the last "
        f"{spec.final_real_fraction:g} of {spec.epochs} epochs see real rows only"
    )
