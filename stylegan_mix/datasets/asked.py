"""A draw of a data set as a command requests it, and the default draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stylegan_mix.console import DEFAULT_DATASET
from stylegan_mix.datasets.loading import load
from stylegan_mix.datasets.records import Dataset
from stylegan_mix.errors import InvalidInput

__all__ = ["AskedDraw", "dataset_of"]


@dataclass(frozen=True)
class AskedDraw:
    """A requested data set and its draw; None for options not given. See `datasets.load`."""

    dataset: str | None = None
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> AskedDraw:
        """Reads the draw in the facts of a generator or a bank."""
        return cls(**{field.name: facts.get(field.name) for field in fields(cls)})

    @property
    def why(self) -> tuple[str, ...]:
        """The reason for the data set, if none was named."""
        if self.dataset is not None:
            return ()
        return (
            f"data set {DEFAULT_DATASET}: the default, small and built in (choose with --dataset)",
        )

    @property
    def draw(self) -> dict[str, Any]:
        """The arguments of `datasets.load`, without the data set."""
        return {name: value for name, value in asdict(self).items() if name != "dataset"}

    def load(self) -> Dataset:
        """Loads the draw, of the default data set if none was named."""
        return load(self.dataset or DEFAULT_DATASET, **self.draw)


def dataset_of(facts: Mapping[str, Any], what: str) -> Dataset:
    """Loads the draw that a generator or a bank, called `what` in an error, comes from.

    `facts` are those of its card or manifest. Raises `InvalidInput` (exit code 3) if the data set
    of that name has other images by now, and the errors of `datasets.load`.
    """
    dataset = AskedDraw.of(facts).load()
    if dataset.split_id != facts["split_id"]:
        raise InvalidInput(
            f"{what} comes from training split {facts['split_id'][:12]} of {dataset.name}; its "
            f"split is now {dataset.split_id[:12]}",
            remedy="prepare the data set as it was; or train a generator, and write a bank, of the "
            "images that are there now",
        )
    return dataset
