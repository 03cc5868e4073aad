"""Loading: a named data set as one long-tailed draw, ready for training.

`N` images, `K` classes, `C` channels.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from stylegan_mix.datasets import official
from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.hashes import identity_of
from stylegan_mix.datasets.pool import Pool, draw, find_folder, open_pool
from stylegan_mix.datasets.records import Dataset, Part
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure, nearest
from stylegan_mix.rng import stream
from stylegan_mix.store import roots

__all__ = ["available", "from_pool", "ids_of", "load", "pool_named", "prepared_names"]


def prepared_names() -> list[str]:
    """Lists the names of the prepared sets in the stores, sorted."""
    folders = [path for root in roots() for path in (root / "datasets").glob("*")]
    return sorted({path.name for path in folders if path.is_dir() and path.name[0] != "."})


def available(name: str) -> bool:
    """Tells if a data set can be loaded: it is embedded, or prepared in a store."""
    return name in EMBEDDED or find_folder(name) is not None


def pool_named(name: str) -> Pool:
    """Opens the pool of a data set, embedded or prepared.

    Raises `MissingEnvironment` (exit code 4), with the files to get, for a known set that is not
    prepared, and `UsageFailure` (2) for an unknown name.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if find_folder(name) is not None:
        return open_pool(name)[0]
    if name in official.SETS:
        raise MissingEnvironment(
            f"data set {name} is not prepared", remedy=official.what_to_get(name)
        )
    known = {*EMBEDDED, *official.SETS, *prepared_names()}
    raise UsageFailure(
        f"no data set '{name}'{nearest(name, known)}",
        remedy=f"stylegan-mix dataset prepare {name} --from PATH makes one of an image folder",
    )


def load(
    name: str,
    *,
    imbalance: float | None = None,
    profile: str | None = None,
    split_seed: int | None = None,
    drop_overlap: bool = False,
    val_per_class: int = 0,
    streamed: bool = False,
) -> Dataset:
    """Loads one draw of a data set; the same arguments give the same images in the same order.

    Without `imbalance` and `profile` the data set's default draw is taken. `imbalance` alone means
    the exponential profile; without `split_seed` the seed is 0. `drop_overlap` removes training
    images that are also in the test part. `val_per_class` images a class, keyed by `split_seed`,
    are returned as `.val`. If the data set has a validation part of its own, they are taken from
    it, as far as there are so many; else they are cut from the training part, and split id, counts
    and statistics describe the rest. `streamed` admits a set whose images are files
    (`streamed.FileImages`), in the place of arrays.

    Raises `UsageFailure` (exit code 2) for an impossible draw, `InvalidInput` (3) for a draw that
    this source cannot give or a damaged set, `MissingEnvironment` (4) for absent data.
    """
    pool = pool_named(name)
    files = as_files(pool.images)
    if files is not None and not streamed:
        raise InvalidInput(
            f"{name} was prepared with --stream: its images stay in their files, which only "
            "classifiers are trained on",
            remedy="prepare it once more, under another name, as squares of one size: "
            f"stylegan-mix dataset prepare NAME --from {shlex.quote(str(files.root))} --size 64",
        )
    return from_pool(
        pool,
        imbalance=imbalance,
        profile=profile,
        split_seed=split_seed or 0,
        drop_overlap=drop_overlap,
        val_per_class=val_per_class,
    )


def from_pool(
    pool: Pool,
    *,
    imbalance: float | None = None,
    profile: str | None = None,
    split_seed: int = 0,
    drop_overlap: bool = False,
    val_per_class: int = 0,
) -> Dataset:
    """Loads a draw of an open pool; see `load`."""
    chosen = _choose(pool, imbalance, profile, split_seed, drop_overlap, val_per_class)
    rows, held = chosen.rows, chosen.held
    labels = pool.labels[rows]
    counts = np.bincount(labels, minlength=len(pool.classes))
    mean, std = _statistics(pool, rows)
    return Dataset(
        name=pool.name,
        classes=pool.classes,
        train=Part(_taken(pool.images, rows), labels),
        test=Part(pool.test_images, pool.test_labels),
        **_ids(pool, chosen),
        profile=chosen.profile,
        imbalance=chosen.imbalance,
        split_seed=split_seed,
        counts=counts,
        mean=mean,
        std=std,
        flip=pool.flip,
        overlap=np.flatnonzero(chosen.doubled),
        dropped=chosen.dropped,
        val=None if held is None else Part(_taken(held.images, held.rows), held.labels),
        notes=(*_notes(pool, counts, chosen.imbalance), *chosen.notes),
    )


def ids_of(
    pool: Pool,
    *,
    imbalance: float | None = None,
    profile: str | None = None,
    split_seed: int = 0,
    drop_overlap: bool = False,
    val_per_class: int = 0,
) -> dict[str, str | None]:
    """Computes `split_id`, `test_id` and `val_id` of a draw, reading no image; see `load`."""
    return _ids(pool, _choose(pool, imbalance, profile, split_seed, drop_overlap, val_per_class))


@dataclass(frozen=True, eq=False)
class _Held:
    """A validation part: its rows among some images, and their labels and hashes."""

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The rows of a draw; `doubled` marks those whose image is also in the test part."""

    profile: str
    imbalance: float | None
    rows: np.ndarray
    doubled: np.ndarray
    dropped: int
    held: _Held | None
    notes: tuple[str, ...]


def _choose(
    pool: Pool,
    imbalance: float | None,
    profile: str | None,
    split_seed: int,
    drop_overlap: bool,
    val_per_class: int,
) -> _Chosen:
    profile, imbalance = _resolved(pool, profile, imbalance)
    rows = draw(pool, profile, imbalance, split_seed)
    doubled = _in_test(pool, rows)
    dropped = int(doubled.sum()) if drop_overlap else 0
    if dropped:
        rows, doubled = rows[~doubled], np.zeros(len(rows) - dropped, bool)
    held, kept, few = _validation_part(pool, rows, val_per_class, split_seed)
    rows, doubled = rows[kept], doubled[kept]
    _require_images(pool, np.bincount(pool.labels[rows], minlength=len(pool.classes)))
    return _Chosen(profile, imbalance, rows, doubled, dropped, held, tuple(few))


def _ids(pool: Pool, chosen: _Chosen) -> dict[str, Any]:
    rows, held, classes = chosen.rows, chosen.held, pool.classes
    return {
        "split_id": identity_of(pool.hashes[rows], pool.labels[rows], classes),
        "test_id": identity_of(pool.test_hashes, pool.test_labels, classes),
        "val_id": None if held is None else identity_of(held.hashes, held.labels, classes),
    }


def _resolved(pool: Pool, profile: str | None, imbalance: float | None) -> tuple[str, float | None]:
    if profile is None:
        profile = pool.default[0] if imbalance is None else "exp"
    if imbalance is None and profile != "natural":
        imbalance = pool.default[1]
    return profile, None if imbalance is None else float(imbalance)


def _taken(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    files = as_files(images)
    if files is not None:
        return cast(np.ndarray, files.chosen(rows))
    # All rows: the memory map itself, so that a large set stays on the disk.
    return images if len(rows) == len(images) else np.asarray(images[rows])


def _records(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view("V32")[:, 0]


def _in_test(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Marks the rows whose image is also in the test part -> bool [N]."""
    return np.isin(_records(pool.hashes[rows]), _records(pool.test_hashes))


def _validation(pool: Pool, rows: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Marks the rows of the validation part -> bool [N].

    Only images that occur once in the draw qualify: a repeated one would be in both parts.
    """
    _, first, times = np.unique(_records(pool.hashes[rows]), return_index=True, return_counts=True)
    once = np.zeros(len(rows), bool)
    once[first[times == 1]] = True
    labels = pool.labels[rows]
    chosen = np.zeros(len(rows), bool)
    for c, name in enumerate(pool.classes):
        candidates = np.flatnonzero(once & (labels == c))
        if np.count_nonzero(labels == c) <= per_class or len(candidates) < per_class:
            raise UsageFailure(
                f"--val-per-class {per_class} leaves no training image of class '{name}', which "
                f"has {np.count_nonzero(labels == c)}",
                remedy="choose a smaller number or a smaller imbalance",
            )
        order = stream(seed, "data.validation", c).permutation(len(candidates))
        chosen[candidates[order[:per_class]]] = True
    return chosen


def _validation_part(
    pool: Pool, rows: np.ndarray, per_class: int, seed: int
) -> tuple[_Held | None, np.ndarray, list[str]]:
    """Takes a validation part -> it or None, a mark of the rows that stay [N], and notes."""
    if per_class < 0:
        raise UsageFailure(f"--val-per-class must be 0 or more, got {per_class}")
    whole = np.ones(len(rows), bool)
    if not per_class:
        return None, whole, []
    if pool.val is not None and pool.val_hashes is not None:
        chosen, few = _own_validation(pool.val, pool.classes, per_class, seed)
        held = _Held(pool.val.images, chosen, pool.val.labels[chosen], pool.val_hashes[chosen])
        return held, whole, [f"{pool.name}: {few}"] if few else []
    cut = _validation(pool, rows, per_class, seed)
    chosen = rows[cut]
    held = _Held(pool.images, chosen, pool.labels[chosen], pool.hashes[chosen])
    return held, ~cut, []


def _own_validation(
    held: Part, classes: tuple[str, ...], per_class: int, seed: int
) -> tuple[np.ndarray, str]:
    """Chooses rows of the data set's own validation part -> them, and a note if they are few."""
    rows, few = [], []
    for c, name in enumerate(classes):
        there = np.flatnonzero(held.labels == c)
        order = stream(seed, "data.validation", c).permutation(len(there))
        rows.append(there[order[:per_class]])
        if len(there) < per_class:
            few.append(f"{name} {len(there)}")
    more = f" and {len(few) - 10:,} more" if len(few) > 10 else ""
    note = f"fewer than {per_class} validation images of {', '.join(few[:10])}{more}" if few else ""
    return np.sort(np.concatenate(rows)), note


def _require_images(pool: Pool, counts: np.ndarray) -> None:
    """Raises `InvalidInput` where a class of the draw has no training image."""
    empty = [pool.classes[c] for c in np.flatnonzero(counts == 0)]
    if empty:
        raise InvalidInput(f"{pool.name}: no training image is left of {', '.join(empty[:10])}")


def _notes(pool: Pool, counts: np.ndarray, imbalance: float | None) -> tuple[str, ...]:
    """Notes classes with a single training image, if there are any."""
    raised = 0 if imbalance is None else np.count_nonzero(pool.head / imbalance < 1)
    single = np.count_nonzero(counts == 1)
    if not (raised or single):
        return ()
    why = "; the rule would keep none of the last ones, at least 1 is kept" if raised else ""
    text = f"{pool.name}: {single} of {len(counts)} classes have a single training image{why}"
    return (text,)


def _statistics(pool: Pool, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes mean and deviation of each channel, on the scale 0..1, from exact sums."""
    pixels = len(rows) * pool.images.shape[1] * pool.images.shape[2]
    total, squares = pool.sums[rows].sum(axis=0)
    mean = total / (255.0 * pixels)
    variance = np.maximum(squares / (255.0**2 * pixels) - mean**2, 0.0)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
