"""A draw of a data set as a command requests it, and the default draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stylegan_mix.console import DEFAULT_DATASET
from stylegan_mix.datasets.loading import load
from stylegan_mix.datasets.records import Dataset

__all__ = ["AskedDraw"]


@dataclass(frozen=True)
class AskedDraw:
    """A requested data set and its draw; None for options not given. See `datasets.load`."""

    dataset: str | None = None
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int | None = None

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
        """Loads the draw, of the default where no data set was named."""
        return load(self.dataset or DEFAULT_DATASET, **self.draw)
