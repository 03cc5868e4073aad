"""The plan of judging a bank: its data set, and whether the annotations are there already."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.asked import dataset_of
from stylegan_mix.judging.annotations import Annotations

__all__ = ["Plan", "decide"]


@dataclass(frozen=True, eq=False)
class Plan:
    """A bank to judge with the data set of its generator; `existing` if that has been done."""

    bank: Bank
    dataset: Dataset
    folds: int
    seed: int
    existing: Annotations | None

    @property
    def state(self) -> str:
        """Tells if the annotations exist or are made now."""
        return "exists" if self.existing is not None else "judged"

    def line(self) -> str:
        """Puts the plan into words."""
        about = f"bank {self.bank.key[:12]}: {len(self.bank):,} rows of {self.dataset.name}"
        if self.existing is not None:
            return f"{about}, judged before by {self.existing.judge[:12]}"
        return f"{about}, to be judged by {self.folds} classifiers of its training part"


def decide(bank: Bank, *, folds: int, seed: int) -> Plan:
    """Loads the data set that the bank's generator was trained on, and looks for annotations.

    Raises `InvalidInput` (exit code 3) if the set of that name now has another split.
    """
    from stylegan_mix.judging.annotate import existing

    dataset = dataset_of(bank.facts, f"bank {bank.key[:12]}")
    return Plan(bank, dataset, folds, seed, existing(bank, dataset, folds=folds, seed=seed))
