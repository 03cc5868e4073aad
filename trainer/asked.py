"""The options of `trainer run` as plain data, typed at a terminal or read from a file; no torch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from stylegan_mix.banks import store as bank_store
from stylegan_mix.console import as_typed
from stylegan_mix.errors import UsageFailure, nearest
from trainer.engine.augmentation.policies import one_name
from trainer.spec import ALL_ROWS, BY_LAM, DataSpec

__all__ = ["SPLIT", "Asked"]

_BY_JUDGE = "judge"

SPLIT = ("imbalance", "profile", "split_seed", "drop_overlap", "val_per_class")
"""The options that name a draw of a data set."""


@dataclass(frozen=True)
class Asked:
    """The options of `trainer run` that describe the run; None for options not given.

    `split_seed` is 0 if only a data set is named; without a data set it can be a bank's, as the
    data set is. `bank` is a key, the beginning of one, a path, or a space or control, meaning the
    newest bank of that space for the data set and split. `label` is "lam", "judge", or the share of
    the judge as a number in (0, 1), kept as text. `teacher` is the folder of a finished run;
    `views` is the number of questions to a label-only teacher about each image.
    """

    dataset: str | None = None
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int | None = None
    drop_overlap: bool = False
    val_per_class: int = 0
    aug: str | None = None
    recipe: str | None = None
    model: str | None = None
    bank: str | None = None
    teacher: str | None = None
    teacher_model: str | None = None
    views: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    precision: str | None = None
    warmup_epochs: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    alpha: float | None = None
    bank_share: float | None = None
    bank_weight: float | None = None
    accept: str | None = None
    label: str | float | None = None
    fair: str | None = None
    bank_schedule: str | None = None
    mix_bank_real: bool | None = None
    final_real_fraction: float | None = None
    drw: float | None = None
    head_epochs: int | None = None
    h2t: bool | None = None
    augment: str | None = None
    bn_refresh_batches: int | None = None
    pad: int | None = None
    flip: bool | None = None
    eval_every: int | None = None
    seed: int = 0
    seeds: int = 1
    out: str = "runs"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.dataset is not None and self.split_seed is None:
            object.__setattr__(self, "split_seed", DataSpec.split_seed)
        if self.label is not None:  # 0.5 of a file and 0.5 as it is typed are one request
            object.__setattr__(self, "label", str(self.label))
        if self.augment is not None:
            object.__setattr__(self, "augment", one_name(self.augment))

    @property
    def named_bank(self) -> str | None:
        """The value of `bank` if it names one bank, not the newest of a space."""
        return None if bank_store.space_named(self.bank) else self.bank

    @property
    def accepted(self) -> str | None:
        """The rule that chooses rows of the bank, None for all of them."""
        return None if self.accept == ALL_ROWS else self.accept

    @property
    def judge_share(self) -> float | None:
        """The share of the judge in the labels of a bank's rows, in (0, 1]; None without one.

        Raises `UsageFailure` (exit code 2) for a `label` that is none.
        """
        known = {None: None, BY_LAM: None, _BY_JUDGE: 1.0}
        if self.label in known:
            return known[self.label]
        try:
            share = float(str(self.label))
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            hint = nearest(str(self.label), (BY_LAM, _BY_JUDGE))
            raise UsageFailure(
                f"label must be {BY_LAM}, {_BY_JUDGE} or a number in (0, 1), the share of the "
                f"judge; got '{self.label}'{hint}"
            )
        return share

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Asked:
        """Reads a table of a file; `UsageFailure` for an unknown name or a wrong type."""
        known = {field.name: str(field.type) for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in known:
                raise UsageFailure(f"{where}: no option '{key}'{nearest(name, known)}")
            values[name] = _typed(value, known[name], f"{where}: '{key}'")
        return cls(**values)

    def words(self) -> list[str]:
        """Composes the command line of this request, as words, one seed at a time."""
        words = ["trainer", "run"] + (["--dataset", self.dataset] if self.dataset else [])
        plain = Asked(dataset=self.dataset)
        for field in fields(self):
            value = getattr(self, field.name)
            if value == getattr(plain, field.name) or field.name in ("seeds", "out"):
                continue
            option = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", as_typed(value)]
        return words

    def command(self) -> str:
        """Composes the command line of this request, as it is typed."""
        return shlex.join(self.words())


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str | float": (str, int, float),
}


def _typed(value: Any, declared: str, where: str) -> Any:
    kind = declared.removesuffix(" | None")
    right = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not right:
        raise UsageFailure(f"{where} must be {kind}, got {type(value).__name__} {value!r}")
    return float(value) if kind == "float" else value
