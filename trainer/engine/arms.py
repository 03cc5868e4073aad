"""The arms of `--aug`: which images a batch holds, and how they are mixed.

A new name of `--aug` is one line of `ARMS`. No torch is needed to read them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.engine.mixing import CutMix, Mixer, Mixup, Remix, UniMix
from trainer.engine.second_draw import BalancedMixup, ContextMix, Joiner

__all__ = ["ARMS", "READ_BY_ARMS", "Arm"]


@dataclass(frozen=True)
class Arm:
    """A way to make batches, by its name in `--aug`.

    mixer: makes the mixer of real rows among themselves from `--alpha`; joiner: makes that of each
    real row with one of a second draw, even over the classes; without either they stay unmixed.
    bank: True if rows of a bank are in each batch; even: True if real rows drawn evenly over the
    classes are added to each batch, in the place of a bank's, and mixed among themselves; balanced:
    True if all real rows are drawn evenly, to the last step. alpha: the default of `--alpha`.

    A change of an arm, or of code that it calls, takes the next `version` if it changes results.
    The version is part of a run's key, so no result of the old arm passes for one of the new.
    """

    mixer: Callable[[float], Mixer] | None = None
    joiner: Callable[[float], Joiner] | None = None
    bank: bool = False
    even: bool = False
    balanced: bool = False
    alpha: float = 1.0
    version: int = 1

    def __post_init__(self) -> None:
        if self.joiner and (self.mixer or self.even):
            raise ValueError("an arm has a mixer or a joiner, and adds no even rows to a joiner's")

    @property
    def reads(self) -> frozenset[str]:
        """The settings of a run, of those in `READ_BY_ARMS`, that have an effect on this arm."""
        read = {"alpha"} if self.mixer or self.joiner else set()
        read |= {"accept", "bank", "fair", "label"} if self.bank else set()
        read |= {"mix_bank_real"} if self.bank and self.mixer else set()
        extra = {"bank_schedule", "bank_share", "bank_weight"}
        read |= extra if self.bank or self.even else set()
        return frozenset(read | {"final_real_fraction"} if read else read)


READ_BY_ARMS = frozenset(
    {
        "accept",
        "alpha",
        "bank",
        "bank_schedule",
        "bank_share",
        "bank_weight",
        "fair",
        "final_real_fraction",
        "label",
        "mix_bank_real",
    }
)
"""The settings of a run that some arms read and others do not."""


ARMS: dict[str, Arm] = {
    "none": Arm(),
    "mixup": Arm(mixer=Mixup),
    "mixup-even": Arm(mixer=Mixup, even=True),
    "cutmix": Arm(mixer=CutMix),
    "remix": Arm(mixer=Remix),
    "cmo": Arm(joiner=ContextMix),
    "unimix": Arm(mixer=UniMix, alpha=0.8),
    "lob-mixup": Arm(joiner=BalancedMixup, balanced=True),
    "bank": Arm(bank=True),
    "hybrid": Arm(mixer=Mixup, bank=True),
}
"""The arms in the order of a table."""
