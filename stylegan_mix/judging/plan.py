"""The plan of judging a bank: its data set, and whether the annotations are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_mix import output
from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.asked import AskedDraw
from stylegan_mix.errors import InvalidInput
from stylegan_mix.judging.annotations import Annotations
from stylegan_mix.session import Session

if TYPE_CHECKING:
    import torch

__all__ = ["Plan", "decide", "made", "picture"]


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

    draw = {name: bank.facts.get(name) for name in ("imbalance", "profile", "split_seed")}
    dataset = AskedDraw(str(bank.facts["dataset"]), **draw).load()
    if dataset.split_id != bank.split_id:
        raise InvalidInput(
            f"bank {bank.key[:12]} comes from training split {bank.split_id[:12]} of "
            f"{dataset.name}; its split is now {dataset.split_id[:12]}",
            remedy="prepare the data set as it was, or generate a bank of the set as it is",
        )
    return Plan(bank, dataset, folds, seed, existing(bank, dataset, folds=folds, seed=seed))


def made(plan: Plan, device: torch.device | str, session: Session = Session()) -> Annotations:
    """Makes the annotations of a plan, unless they exist."""
    import torch

    from stylegan_mix.judging.annotate import annotate

    if plan.existing is not None:
        return plan.existing
    return annotate(
        plan.bank,
        plan.dataset,
        folds=plan.folds,
        seed=plan.seed,
        device=torch.device(device),
        session=session,
    )


def picture(plan: Plan, found: Annotations, out: Path | None) -> Path:
    """Draws the judged bank to `out`, by default a PNG named by the bank in the working folder."""
    from stylegan_mix.drawing.plots import png
    from stylegan_mix.judging.picture import draw

    path = out or Path(f"judged-{plan.bank.key[:12]}.png")
    output.write_bytes(path, png(draw(plan.bank, found, plan.dataset)))
    return path
