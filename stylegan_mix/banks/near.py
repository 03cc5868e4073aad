"""The pairs of a bank that a judge chooses: a class with those most confused with it.

The request names the judge by its key, so a bank is found without it. The judge is trained when
the bank is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stylegan_mix.banks.request import Request
from stylegan_mix.datasets.asked import AskedDraw
from stylegan_mix.errors import InvalidInput
from stylegan_mix.session import Session

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["judge_for", "judge_of", "with_pairs"]


def judge_for(dataset: Dataset) -> str:
    """Names the judge of a data set."""
    from stylegan_mix.judging.judge import judge_key

    return judge_key(dataset)


def judge_of(card: Mapping[str, Any]) -> str:
    """Names the judge of the data set on a generator's card."""
    return judge_for(_dataset(card))


def with_pairs(
    request: Request, card: Mapping[str, Any], device: str, session: Session = Session()
) -> Request:
    """Lists the pairs in a request, by its judge, which is trained if it must be."""
    import torch

    from stylegan_mix.judging.judge import ensure_judge, near_pairs

    judge = ensure_judge(_dataset(card), device=torch.device(device), session=session)
    return replace(request, listed=near_pairs(judge))


def _dataset(card: Mapping[str, Any]) -> Dataset:
    """Loads the data set and draw on a card; `InvalidInput` if it now has another split."""
    draw = {name: card.get(name) for name in ("imbalance", "profile", "split_seed")}
    dataset = AskedDraw(str(card["dataset"]), **draw).load()
    if dataset.split_id != card["split_id"]:
        raise InvalidInput(
            f"the generator was trained on split {card['split_id'][:12]} of {dataset.name}; its "
            f"split is now {dataset.split_id[:12]}, and a judge of it would choose other pairs",
            remedy="prepare the data set as it was, or train a generator on the set as it is",
        )
    return dataset
