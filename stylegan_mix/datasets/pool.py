"""The pool: all images of a source, from which any long-tailed draw is taken at load time.

`M` training images held, `O` training images that the source lists (its official order, which
the rule's shuffles need), `T` test images, `K` classes, `H W` pixels, `C` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import store
from stylegan_mix.arrays import Container, open_container, read_manifest
from stylegan_mix.datasets.facts import check_arrays, check_facts
from stylegan_mix.datasets.hashes import image_hashes
from stylegan_mix.datasets.image_files import FITS
from stylegan_mix.datasets.records import Part
from stylegan_mix.datasets.splits import (
    PROFILES,
    check_draw,
    long_tailed_counts,
    long_tailed_indices,
)
from stylegan_mix.datasets.streamed import file_images
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure, fitting

__all__ = [
    "KIND",
    "Pool",
    "draw",
    "find_folder",
    "from_arrays",
    "is_streamed",
    "moments",
    "offers",
    "open_pool",
    "prepared_fit",
]

KIND = "stylegan-mix-dataset"

# Draws that an error message tries, to suggest possible ones.
_USUAL_FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 256, 500, 1000)
# The same, those that are long-tailed and leave several images to the smallest class first.
_MEANT = (10, 5, 20, 2, 50, 100, 200, 256, 500, 1000, 1)


@dataclass(frozen=True, eq=False)
class Pool:
    """Images uint8 [M,H,W,C] in official order, and the test part.

    `position` [M], ascending, is each image's place in the official order; `listed` [O] is the
    label of every place, held or not. `hashes` [M,32] are image hashes, `sums` int64 [M,2,C] the
    sum and the sum of squares of each channel. `head` is the n_max of the long-tailed rule.
    `default` is the (profile, imbalance) of a load that names none. `val` is the source's own
    validation part, if it has one, with its `val_hashes`.
    """

    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    position: np.ndarray
    listed: np.ndarray
    hashes: np.ndarray
    sums: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    test_hashes: np.ndarray
    head: int
    flip: bool
    default: tuple[str, float | None]
    val: Part | None = None
    val_hashes: np.ndarray | None = None

    @property
    def held(self) -> np.ndarray:
        """Training images of each class that are held -> int64 [K]."""
        return np.bincount(self.labels, minlength=len(self.classes))


def moments(images: np.ndarray) -> np.ndarray:
    """Sums channels and their squares of uint8 [N,H,W,C] -> int64 [N,2,C], exactly."""
    found = np.empty((len(images), 2, images.shape[3]), np.int64)
    for start in range(0, len(images), 1024):
        block = images[start : start + 1024].astype(np.uint32)
        found[start : start + 1024, 0] = block.sum(axis=(1, 2), dtype=np.int64)
        found[start : start + 1024, 1] = (block * block).sum(axis=(1, 2), dtype=np.int64)
    return found


def from_arrays(
    name: str,
    classes: Sequence[str],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    **facts: Any,
) -> Pool:
    """Makes a complete pool in memory: (images, labels) of both parts, and the other facts."""
    images, labels = train
    return Pool(
        name=name,
        classes=tuple(classes),
        images=images,
        labels=np.asarray(labels, np.int64),
        position=np.arange(len(labels)),
        listed=np.asarray(labels, np.int64),
        hashes=image_hashes(images),
        sums=moments(images),
        test_images=test[0],
        test_labels=np.asarray(test[1], np.int64),
        test_hashes=image_hashes(test[0]),
        **facts,
    )


def find_folder(name: str) -> Path | None:
    """Finds the folder of a prepared set in our store, else in the shared one, else None."""
    for root in store.roots():
        folder = root / "datasets" / name
        if folder.is_dir():
            return folder
    return None


def is_streamed(name: str) -> bool:
    """Tells if a prepared set is a table of files; false if there is no sound set of that name."""
    folder = find_folder(name)
    try:
        return bool(folder and read_manifest(folder, kind=KIND)["facts"].get("streamed"))
    except InvalidInput:
        return False


def prepared_fit(name: str) -> str | None:
    """Tells how the images of a prepared set were made square: a name of `FITS`.

    None if they were not, or if there is no sound set of that name.
    """
    folder = find_folder(name)
    if folder is None:
        return None
    try:
        fit = open_container(folder, kind=KIND, verify=False).facts.get("fit")
    except InvalidInput:
        return None
    return fit if fit in FITS else None


def open_pool(name: str, *, verify: bool = True) -> tuple[Pool, Container]:
    """Opens a prepared set; the images stay on the disk, memory-mapped.

    Raises `MissingEnvironment` (exit code 4) if there is none of that name, `InvalidInput` (3)
    if it is damaged or of another version.
    """
    folder = find_folder(name)
    if folder is None:
        raise MissingEnvironment(
            f"data set '{name}' is not prepared in {store.home() / 'datasets'}",
            remedy=f"stylegan-mix dataset prepare {name} --from PATH",
        )
    container = open_container(folder, kind=KIND, verify=verify)
    with fitting(
        f"{folder} is not a prepared data set of this version",
        remedy=f"stylegan-mix dataset prepare {name} --from PATH --replace",
    ):
        check_facts(container.facts)
        check_arrays(container)
        return _from_container(name, container), container


def _from_container(name: str, container: Container) -> Pool:
    facts = container.facts
    profile, imbalance = facts["default"]
    val = val_hashes = None

    def images(part: str) -> np.ndarray:
        if facts.get("streamed"):
            return file_images(container, name, part)
        return container["images" if part == "train" else f"{part}_images"]

    if "val_labels" in container.names:
        val = Part(images("val"), np.asarray(container["val_labels"]))
        val_hashes = np.asarray(container["val_hashes"])
    return Pool(
        name=name,
        classes=tuple(facts["classes"]),
        images=images("train"),
        labels=np.asarray(container["labels"]),
        position=np.asarray(container["position"]),
        listed=np.asarray(container["listed"]),
        hashes=np.asarray(container["hashes"]),
        sums=np.asarray(container["sums"]),
        test_images=images("test"),
        test_labels=np.asarray(container["test_labels"]),
        test_hashes=np.asarray(container["test_hashes"]),
        head=facts["head"],
        flip=facts["flip"],
        default=(profile, None if imbalance is None else float(imbalance)),
        val=val,
        val_hashes=val_hashes,
    )


def draw(pool: Pool, profile: str, imbalance: float | None, seed: int) -> np.ndarray:
    """Selects the rows of the pool that a draw keeps, ascending -> int64.

    Raises `UsageFailure` (exit code 2) for an impossible draw, and `InvalidInput` (3), which names
    the images that the source holds, for a draw that it cannot give.
    """
    if profile in PROFILES and profile != "natural" and imbalance is None:
        raise UsageFailure(
            f"profile {profile} needs an imbalance factor, and {pool.name} has none of its own",
            remedy=_example(pool, profile, seed),
        )
    check_draw(profile, imbalance, seed)
    rows, missing = _try(pool, profile, imbalance, seed)
    if missing is None:
        return rows
    asked = profile if imbalance is None else f"imbalance {imbalance:g} ({profile})"
    held = pool.held
    raise InvalidInput(
        f"{pool.name} cannot give {asked}, seed {seed}: {missing}. It holds "
        f"{held.sum():,} training images, {held.max():,} to {held.min():,} a class; "
        f"with this seed it can give {offers(pool, seed)}",
        remedy=f"{_example(pool, profile, seed)}; or prepare a source that holds more",
    )


def _example(pool: Pool, profile: str, seed: int) -> str:
    """Composes the options of a draw that a pool can give, of this profile if it can."""
    for one in dict.fromkeys((profile, *PROFILES)):
        factors = [f for f in _MEANT if one != "natural" and _try(pool, one, f, seed)[1] is None]
        if factors:
            return f"such as: --profile {one} --imbalance {factors[0]}"
        if one == "natural" and _try(pool, one, None, seed)[1] is None:
            return "give --profile natural, which takes all images"
    return "it can give no usual draw"


def offers(pool: Pool, seed: int) -> str:
    """Lists the usual draws that a pool can give, in words."""
    found = []
    for profile in PROFILES[:2]:
        factors = [f for f in _USUAL_FACTORS if _try(pool, profile, f, seed)[1] is None]
        if factors:
            found.append(f"{profile} {', '.join(map(str, factors))}")
    if _try(pool, "natural", None, seed)[1] is None:
        found.append("natural")
    return "; ".join(found) or "no usual draw"


def _try(
    pool: Pool, profile: str, imbalance: float | None, seed: int
) -> tuple[np.ndarray, str | None]:
    """Tries a draw: (rows, None), or (nothing, the missing images)."""
    nothing = np.empty(0, np.int64)
    if imbalance is None:
        absent = len(pool.listed) - len(pool.position)
        if absent:
            return nothing, f"{absent:,} of the {len(pool.listed):,} images it lists are not there"
        return np.arange(len(pool.labels)), None
    counts = long_tailed_counts(pool.head, len(pool.classes), imbalance, profile)
    listed = np.bincount(pool.listed, minlength=len(pool.classes))
    short = np.flatnonzero(listed < counts)
    if len(short):
        c = int(short[0])
        return nothing, (
            f"the rule asks {counts[c]:,} images of class '{pool.classes[c]}', "
            f"and the source has {listed[c]:,}"
        )
    kept = np.sort(long_tailed_indices(pool.listed, counts, seed))
    rows = np.searchsorted(pool.position, kept)
    there = pool.position[np.minimum(rows, len(pool.position) - 1)] == kept
    if there.all():
        return rows, None
    c = int(pool.listed[kept[~there]][0])
    return nothing, (
        f"{np.count_nonzero(~there):,} of the {len(kept):,} images that the rule keeps are not "
        f"there, the first of class '{pool.classes[c]}'"
    )
