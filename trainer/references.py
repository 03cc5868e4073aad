"""The parts of a run's settings that have a name of their own: data, bank, teacher, judge, votes.

`BankRef`, `TeacherRef`, `AcceptRef` and `LabelRef` carry their folder for convenience; identity is
by content hash. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_mix.banks.reader import control_of

__all__ = [
    "ACCEPTED",
    "ALL_ROWS",
    "BY_LAM",
    "AcceptRef",
    "BankRef",
    "DataSpec",
    "LabelRef",
    "TeacherRef",
    "VoteSpec",
]

ALL_ROWS = "all"
ACCEPTED = ("clean",)
"""The choices among the rows of a bank by its judge, beside `ALL_ROWS`."""

BY_LAM = "lam"
"""The labels of a bank's rows without a judge: the two classes of a row, by their share `lam`."""


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
class LabelRef:
    """The labels of a bank's rows by a judge's annotations, named by content hash and folder.

    `judge_share` in (0, 1] is the share of the judge's posterior in a label; the rest is the two
    classes of the row by `lam`.
    """

    judge_share: float
    content_sha256: str
    folder: str

    @property
    def name(self) -> str:
        """A word for tables, such as "judge" or "judge0.5"."""
        return "judge" if self.judge_share == 1 else f"judge{self.judge_share:g}"


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
