"""Annotations: what a judge says of each row of a bank, kept beside the sealed bank; no torch.

`annotations/<content hash of the bank>/judge-<judge key>/` in the store is a container of its own.
Nothing is generated again, and the bank stays as it was. `N` rows, `K` classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays, store
from stylegan_mix.banks.reader import Bank
from stylegan_mix.errors import InvalidInput
from stylegan_mix.judging.acceptance import dominant, far, third

__all__ = ["KIND", "Annotations", "find_annotations", "named", "open_annotations", "places"]

KIND = "annotations"
SCHEMA_VERSION = 1
_BY_JUDGE = "judge-"
_ARRAYS = {"posterior": ("f2", 2), "distance": ("f4", 2), "nearest": ("f4", 1), "copy": ("i4", 1)}


@dataclass(frozen=True, eq=False)
class Annotations:
    """The opened annotations of a bank.

    `posterior` [N,K] float16 is the judge's, `distance` [N,2] the cosine distance of a row's
    features to the prototypes of a and b, `nearest` [N] that to the nearest training image, whose
    row of the training part is `copy` [N]. `facts` are those of the manifest, and `content_sha256`
    is the hash of the arrays.
    """

    facts: dict[str, Any]
    content_sha256: str
    posterior: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray
    copy: np.ndarray

    @property
    def judge(self) -> str:
        """The key of the judge."""
        return str(self.facts["judge"])

    def third(self, bank: Bank) -> np.ndarray:
        """Tells for each row if the judge is confident of a third class: bool [N]."""
        return third(self.posterior, bank.pair)

    def far(self, bank: Bank) -> np.ndarray:
        """Tells for each row if it is far from both of its classes: bool [N]."""
        return far(self.distance, np.array(self.facts["reach"]), bank.pair)

    def clean(self, bank: Bank) -> np.ndarray:
        """Tells for each row if it is neither of a third class nor far: bool [N]."""
        return ~(self.third(bank) | self.far(bank))

    def dominant(self, bank: Bank) -> np.ndarray:
        """Finds the class with the larger share of each row: [N]."""
        return dominant(bank.pair, bank.lam)


def places(bank: Bank) -> list[Path]:
    """Lists the folders that can hold annotations of a bank, that of our own store first."""
    return [root / "annotations" / bank.content_sha256 for root in store.roots()]


def named(judge_key: str) -> str:
    """Names the annotations by a judge."""
    return f"{_BY_JUDGE}{judge_key}"


def find_annotations(bank: Bank) -> list[Path]:
    """Finds the annotations of a bank, the newest first; our own store's before the shared one's.

    Only names are read here; `open_annotations` checks the content.
    """
    found = []
    for place in places(bank):
        there = [one for one in place.iterdir() if _is_judges(one.name)] if place.is_dir() else []
        made = [one for one in there if (one / arrays.MANIFEST).is_file()]
        found += sorted(made, key=lambda one: -(one / arrays.MANIFEST).stat().st_mtime)
    return found


def _is_judges(name: str) -> bool:
    key = name.removeprefix(_BY_JUDGE)
    return name != key and len(key) == 64 and set(key) <= set("0123456789abcdef")


def open_annotations(place: Path, bank: Bank) -> Annotations:
    """Opens annotations after checking manifest, hash and that they are those of the bank.

    Raises `InvalidInput` (exit code 3) for annotations that are damaged, of another bank, of other
    bytes of it, or by a judge of another split.
    """
    try:
        container = arrays.open_container(place, kind=KIND)
        _check(container, bank)
    except InvalidInput as error:
        raise InvalidInput(
            f"annotations {place.name[:18]} of bank {bank.key[:12]}: {error}",
            remedy=f"move {place} away and make them again: stylegan-mix bank judge "
            f"{bank.key[:12]}",
        ) from error
    held = {name: container[name] for name in _ARRAYS}
    return Annotations(container.facts, container.content_sha256, **held)


def _check(container: arrays.Container, bank: Bank) -> None:
    facts, entries = container.facts, container.manifest["arrays"]
    if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
        raise InvalidInput(f"they are not of schema {SCHEMA_VERSION}")
    wanted = {
        "bank": bank.key,
        "content_sha256": bank.content_sha256,
        "split_id": bank.split_id,
        "classes": list(bank.classes),
        "judge": container.folder.name.removeprefix(_BY_JUDGE),
    }
    for name, value in wanted.items():
        if facts.get(name) != value:
            words = name.replace("_", " ")
            raise InvalidInput(f"their {words} is {_brief(facts.get(name))}, not {_brief(value)}")
    rows, classes = len(bank), len(bank.classes)
    shapes = {"posterior": [rows, classes], "distance": [rows, 2], "nearest": [rows]}
    shapes["copy"] = [rows]
    for name, (dtype, _) in _ARRAYS.items():
        entry = entries.get(name, {})
        if (entry.get("dtype"), entry.get("shape")) != (dtype, shapes[name]):
            raise InvalidInput(f"'{name}' must be {dtype} {shapes[name]}, got {entry or 'nothing'}")
    reach = facts.get("reach")
    if (
        not isinstance(reach, list)
        or len(reach) != classes
        or not all(isinstance(one, float) for one in reach)
    ):
        raise InvalidInput(f"'reach' must be {classes} numbers")
    if not np.isfinite(container["posterior"]).all():
        raise InvalidInput("a posterior is not finite")


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
