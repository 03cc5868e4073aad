"""A draw of a data set as a command asks for it, and the one that is taken where none is named."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stylegan_mix.console import DEFAULT_DATASET
from stylegan_mix.datasets.loading import load
from stylegan_mix.datasets.records import Dataset

__all__ = ["AskedDraw"]


@dataclass(frozen=True)
class AskedDraw:
    """A data set and its draw; None where nothing was said. See `datasets.load`."""

    dataset: str | None = None
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int | None = None

    @property
    def why(self) -> tuple[str, ...]:
        """The reason for the data set, where none was named."""
        if self.dataset is not None:
            return ()
        return (
            f"data set {DEFAULT_DATASET}: the default, small and built in (choose with --dataset)",
        )

    @property
    def draw(self) -> dict[str, Any]:
        """Everything but the data set: the arguments of `datasets.load`."""
        return {name: value for name, value in asdict(self).items() if name != "dataset"}

    def load(self) -> Dataset:
        """Loads the draw, of the default where no data set was named."""
        return load(self.dataset or DEFAULT_DATASET, **self.draw)
