"""The request of a report, its key, and its place in the store; no torch.

A report is an annotation of its subject: `annotations/<hash of generator or bank>/metrics-<key>` is
a container. Its facts are the report, its arrays the figures and the answers sample by sample. The
key hashes declared values only, so repeating a request finds the same report at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylegan_mix import arrays, store
from stylegan_mix.errors import InvalidInput, fitting
from stylegan_mix.metrics import report
from stylegan_mix.progress import say

__all__ = [
    "KIND",
    "Found",
    "Request",
    "find",
    "folder",
]

KIND = "metrics"
_ALGORITHM = {"samples": 1, "figures": 1}


@dataclass(frozen=True)
class Request:
    """The request of a report.

    `subject` is the hash of a generator's weights or of a bank's content; `kind` tells the two
    apart. `against` are names of `choices.AGAINST`; `labels` of `choices.LABELS`, or "rows" of a
    bank. `features` is "probe" or the SHA-256 of a TorchScript file, `probe` the key of the probe.
    `truncation` is None for a bank. `cas`: with the classification accuracy score, which trains a
    classifier.
    """

    subject: str
    kind: str
    split_id: str
    test_id: str
    against: tuple[str, ...]
    labels: str
    n: int
    seeds: tuple[int, ...]
    truncation: float | None
    features: str
    probe: str
    cas: bool

    def spec(self) -> dict[str, Any]:
        """Lists the declared values."""
        values = asdict(self)
        if self.truncation is not None:
            values["truncation"] = float(self.truncation)
        return {"report": KIND, "algorithm": dict(_ALGORITHM), **values}

    @property
    def key(self) -> str:
        """The SHA-256 of the declared values: 64 hex digits."""
        return store.digest(self.spec())


@dataclass(frozen=True)
class Found:
    """A finished report: plain data, and the folder of its container."""

    report: dict[str, Any]
    folder: Path


def folder(request: Request) -> Path:
    """Returns the report's folder in this store."""
    return store.home() / "annotations" / request.subject / f"{KIND}-{request.key}"


def find(request: Request, say: Callable[[str], None] = say) -> Found | None:
    """Finds a report that was made before; an altered one is left out, and reported to `say`."""
    place = folder(request).relative_to(store.home())
    for root in store.roots():
        found = _read(root / place, say) if (root / place).is_dir() else None
        if found is not None:
            return found
    return None


def _read(place: Path, say: Callable[[str], None]) -> Found | None:
    try:
        kept = arrays.open_container(place, kind=KIND)
        if kept.facts.get("schema_version") != report.SCHEMA_VERSION:
            return None  # of another version of this project: it is made again
        with fitting(f"{place} is no report"):
            rows = report.unpacked(kept.facts["figures"], {name: kept[name] for name in kept})
    except InvalidInput as error:
        say(f"left out: {error}")
        return None
    return Found({**kept.facts, "figures": rows}, place)
