"""The pairs of a bank that a judge chooses: a class with those most confused with it.

The request names the judge by its key, so a bank is found without it. The judge is trained when
the bank is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stylegan_mix.banks.request import Request
from stylegan_mix.datasets.asked import dataset_of
from stylegan_mix.session import Session

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["judge_for", "judge_of", "with_pairs"]


def judge_for(dataset: Dataset) -> str:
    """Names the judge of a data set."""
    from stylegan_mix.judging.judge import judge_key

    return judge_key(dataset)


def judge_of(card: Mapping[str, Any]) -> str:
    """Names the judge of the data set on a generator's card; see `dataset_of` for its errors."""
    return judge_for(dataset_of(card, "the generator"))


def with_pairs(
    request: Request, card: Mapping[str, Any], device: str, session: Session = Session()
) -> Request:
    """Lists the pairs in a request, by its judge, which is trained if it must be.

    `card` is that of the request's generator. Raises the errors of `dataset_of`.
    """
    import torch

    from stylegan_mix.judging.judge import ensure_judge, near_pairs

    judge = ensure_judge(
        dataset_of(card, "the generator"), device=torch.device(device), session=session
    )
    return replace(request, listed=near_pairs(judge))
