"""One run as plain data: checked once, printed, saved, and hashed into the name of its folder.

Paths, devices and thread counts are no part of it. `BankRef` and `TeacherRef` carry their folder
for convenience; identity is by content hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, Literal, get_args

from stylegan_mix.banks.reader import control_of
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.store import digest
from trainer.engine.mixing import ARMS

__all__ = [
    "ACCEPTED",
    "ALL_ROWS",
    "FEWEST_IN_BATCH",
    "LOOP_VERSION",
    "AcceptRef",
    "BankRef",
    "DataSpec",
    "Precision",
    "RunSpec",
    "TeacherRef",
    "VoteSpec",
    "exact",
]

ALL_ROWS = "all"
ACCEPTED = ("clean",)
"""The choices among the rows of a bank by its judge, beside `ALL_ROWS`."""

LOOP_VERSION = 2
"""The number of the training loop's definition.

1: the rate falls between epochs only, and heads compute in the run's precision. 2: milestones are
shares of the steps, and heads compute in float32.
"""

Precision = Literal["float32", "bfloat16"]

# Batch norm needs two images.
FEWEST_IN_BATCH = 2


@dataclass(frozen=True)
class DataSpec:
    """A data set and a long-tailed draw of it: the arguments of `datasets.load`."""

    name: str = "digits_lt"
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int = 0
    drop_overlap: bool = False
    val_per_class: int = 0


@dataclass(frozen=True)
class BankRef:
    """A bank: its hashes, its kind of mixing, and the folder in which it was found."""

    key: str
    request_key: str
    content_sha256: str
    space: str
    folder: str

    @property
    def control(self) -> str:
        """The name of the control, such as "unmixed"; "" for a bank of the method."""
        return control_of({"space": self.space})


@dataclass(frozen=True)
class AcceptRef:
    """A choice among the rows of a bank by a judge's annotations.

    `rule` is a name of `ACCEPTED`; the annotations are named by content hash and folder.
    """

    rule: str
    content_sha256: str
    folder: str


@dataclass(frozen=True)
class TeacherRef:
    """A finished run that teaches: hash of its weights, and its folder."""

    sha256: str
    folder: str


@dataclass(frozen=True)
class VoteSpec:
    """The questions to a label-only teacher about patches (trainer/README.md, patched one-hot).

    `views` K per training image; `full_share` of them show the whole image, shifted and flipped;
    the others are square patches whose sides are `sides` times the image's, in equal shares.
    """

    views: int = 64
    full_share: float = 0.25
    sides: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875)


@dataclass(frozen=True)
class RunSpec:
    """One run of the trainer. Defaults are the protocol of the field (trainer/README.md).

    `aug` is an arm of `mixing.ARMS`. `milestones` are shares of the steps at which the rate falls
    to `decay` times `lr`. `bank_share` of each batch comes from the bank, at weight `bank_weight`
    in the loss. `accept` are the annotations of the bank that choose its rows, None takes all. In
    the arms that mix, the last `final_real_fraction` of the steps sees real unmixed images only.
    `pad` None means an eighth of the image side, `flip` None the data set's default. `teacher` is a
    finished run that replaces the recipe's own teacher stage; `teacher_model` is the network of
    that stage, None for the student's. `eval_every` 0 means every epoch unless that would cost much
    (see `evaluate.interval`). `recipe_version` is the number of the recipe's definition (see
    `Recipe.version`), `loop_version` that of the loop's (see `LOOP_VERSION`).
    """

    data: DataSpec = DataSpec()
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
    # Part of the identity only where the versions of the loop differ.
    loop_version: int = LOOP_VERSION

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.type == "float"):
            if type(getattr(self, name)) is int:  # 1 and 1.0 are one experiment, so one key
                object.__setattr__(self, name, float(getattr(self, name)))
        problems = [text for text in _problems(self) if text]
        if problems:
            raise UsageFailure("invalid run settings:\n  " + "\n  ".join(problems))

    @property
    def uses_bank(self) -> bool:
        return self.aug in ARMS and ARMS[self.aug].bank

    @property
    def arm(self) -> str:
        """The name of `aug`, with the control if the bank is one, and with the accepted rows.

        So no table can mix them up.
        """
        control = self.bank.control if self.bank else ""
        accepted = self.accept.rule if self.accept else ""
        return "-".join(part for part in (self.aug, control, accepted) if part)

    @property
    def bank_rows(self) -> int:
        """The number of rows of a batch that come from the bank while it is in use."""
        return round(self.batch * self.bank_share) if self.uses_bank else 0

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
        for name in ("bank", "teacher", "accept"):
            if plain.get(name):
                del plain[name]["folder"]
        return plain

    @property
    def versions(self) -> dict[str, int]:
        """The versions of recipe and loop, also where the identity leaves them out."""
        loop = self.loop_version if self.depends_on_loop else 1
        return {"recipe_version": self.recipe_version, "loop_version": loop}

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
        _one_of("aug", spec.aug, tuple(ARMS)),
        _one_of("precision", spec.precision, get_args(Precision)),
        _within("epochs", spec.epochs, 1, 100_000),
        _within("batch", spec.batch, FEWEST_IN_BATCH, 65_536),
        _within("lr", spec.lr, 0.0, 1e3, open_low=True),
        _within("warmup_epochs", spec.warmup_epochs, 0.0, 1e5),
        _within("weight_decay", spec.weight_decay, 0.0, 1.0),
        _within("momentum", spec.momentum, 0.0, 1.0, open_high=True),
        _within("alpha", spec.alpha, 0.0, 1e3, open_low=True),
        _within("bank_share", spec.bank_share, 0.0, 1.0, open_low=True, open_high=True),
        _one_of("accept.rule", spec.accept.rule, ACCEPTED) if spec.accept else "",
        "" if spec.bank or not spec.accept else f"aug '{spec.aug}' reads no bank to accept rows of",
        _within("bank_weight", spec.bank_weight, 0.0, 1e3, open_low=True),
        _within("final_real_fraction", spec.final_real_fraction, 0.0, 1.0),
        _within("bn_refresh_batches", spec.bn_refresh_batches, 0, 100_000),
        _within("eval_every", spec.eval_every, 0, 100_000),
        _within("recipe_version", spec.recipe_version, 1, 10**6),
        _within("loop_version", spec.loop_version, 1, LOOP_VERSION),
        _within("val_per_class", spec.data.val_per_class, 0, 10**6),
        _within("seed", spec.seed, 0, 2**63 - 1),
        "" if spec.pad is None else _within("pad", spec.pad, 0, 64),
        _within("votes.views", votes.views, 1, 65_535),
        _within("votes.full_share", votes.full_share, 0.0, 1.0),
        *(_within("votes.sides", side, 0.0, 1.0, open_low=True) for side in votes.sides),
        "" if votes.sides or votes.full_share == 1 else "votes.sides must name at least one size",
        _milestones(spec),
        "" if spec.bank or not spec.uses_bank else f"aug '{spec.aug}' needs a bank",
        "" if spec.uses_bank or not spec.bank else f"aug '{spec.aug}' reads no bank",
        ""
        if not spec.uses_bank or 0 < spec.bank_rows < spec.batch
        else f"bank_share {spec.bank_share} leaves no real or no bank row of {spec.batch}",
    ]


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    return "" if value in known else f"{name} '{value}' is unknown{nearest(str(value), known)}"


def _within(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and isinstance(low, int) and not isinstance(value, int):
        return f"{name} must be a whole number, got {value!r}"
    # Compared first: Python cannot tell if a very large whole number is finite.
    if number and low <= value <= high and math.isfinite(value):
        open_end = (open_low and value == low) or (open_high and value == high)
        if not open_end:
            return ""
    left, right = "(" if open_low else "[", ")" if open_high else "]"
    return f"{name} must be a number in {left}{low:,}, {high:,}{right}, got {value!r}"


def _milestones(spec: RunSpec) -> str:
    marks = spec.milestones
    if len(marks) != len(spec.decay):
        return f"{len(marks)} milestones need as many decay factors, got {len(spec.decay)}"
    if list(marks) != sorted(marks) or not all(0 < mark < 1 for mark in marks):
        return f"milestones must rise within (0, 1), got {list(marks)}"
    if not all(0 < factor <= 1 for factor in spec.decay):
        return f"decay factors must lie in (0, 1], got {list(spec.decay)}"
    return ""
