"""Records of a loaded data set: its parts of images and its class sizes.

`N` images, `K` classes, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stylegan_mix.console import as_typed
from stylegan_mix.datasets.groups import ShotGroups, shot_groups

__all__ = ["Dataset", "Part", "draw_name", "draw_options"]


@dataclass(frozen=True, eq=False)
class Part:
    """`images` uint8 [N,H,W,C] in 0..255, `labels` int64 [N].

    Images are an array, a read-only memory map, or files that are decoded when they are indexed
    (`streamed.FileImages`).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One long-tailed draw of a data set, with its whole test part.

    `counts` [K], `mean` and `std` are those of the training part; the latter have one number a
    channel, on the scale 0..1. `overlap` lists the training rows whose image, pixel for pixel, is
    also in the test part; with `drop_overlap` it is empty and `dropped` counts them. `flip`: a
    mirrored image keeps its label. `imbalance` is None for the natural profile. `val_id` names the
    images of the validation part, None without one. `notes` are facts to know of the draw, in
    words.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part
    split_id: str
    test_id: str
    profile: str
    imbalance: float | None
    split_seed: int
    counts: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    overlap: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    dropped: int = 0
    val: Part | None = None
    val_id: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.classes)

    @property
    def resolution(self) -> int:
        """H, in pixels; prepared images are square."""
        return int(self.train.images.shape[1])

    @property
    def channels(self) -> int:
        """The number of channels, C: 1 grey, 3 colour, 4 colour with alpha."""
        return int(self.train.images.shape[3])

    @property
    def test_counts(self) -> np.ndarray:
        """Test images of each class -> int64 [K]; a class may have none in a small natural set."""
        return np.bincount(self.test.labels, minlength=len(self.classes))

    @property
    def options(self) -> list[str]:
        """The words of a command line that name this draw."""
        return draw_options(
            self.name,
            imbalance=self.imbalance,
            profile=self.profile,
            split_seed=self.split_seed,
        )

    @property
    def groups(self) -> ShotGroups:
        """The shot groups, by the training part."""
        return shot_groups(self.counts)


def draw_name(imbalance: float | None) -> str:
    """Names the class sizes of a draw: "imbalance 100", or "natural class sizes"."""
    return "natural class sizes" if imbalance is None else f"imbalance {imbalance:g}"


def draw_options(
    name: str, *, imbalance: float | None, profile: str | None, split_seed: int | None
) -> list[str]:
    """Composes the words of a command line for a draw of a data set, without common defaults."""
    words = ["--dataset", name]
    if imbalance is not None:
        words += ["--imbalance", as_typed(imbalance)]
    if profile not in (None, "exp"):
        words += ["--profile", str(profile)]
    return words + (["--split-seed", str(split_seed)] if split_seed else [])
