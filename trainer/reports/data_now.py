"""The data sets of finished runs as they are now: a set may have been prepared again; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.loading import ids_of
from stylegan_mix.datasets.pool import find_folder, open_pool
from stylegan_mix.errors import Failure
from trainer.reports.records import Result, data_ids, is_of
from trainer.spec import DataSpec

__all__ = ["changed"]


def changed(results: Iterable[Result]) -> list[str]:
    """Tells, for each data set, of the runs that saw other images than it has now; [] if none did.

    A set that is not in a store is left out: committed results need no data.
    """
    found: dict[str, list[Result]] = {}
    draws: dict[DataSpec, tuple[str | None, ...] | None] = {}
    for result in results:
        asked = result.spec.data
        now = draws[asked] if asked in draws else draws.setdefault(asked, _ids_now(asked))
        if now is not None and not is_of(result, now):
            told = data_ids(result)
            found.setdefault(f"{asked.name} has now ({_named(now[: len(told)])})", []).append(
                result
            )
    return [
        f"{len(runs)} run(s), such as {runs[0].path}, saw other images "
        f"({_named(data_ids(runs[0]))}) than {now}: their accuracies are of the old images; "
        "`trainer run` with a --name of its own makes new ones"
        for now, runs in found.items()
    ]


def _named(ids: Sequence[str | None]) -> str:
    """Names the parts of a data set by the first digits of their ids."""
    parts = ("split", "test part", "validation part")
    return ", ".join(f"{part} {str(one)[:12]}" for part, one in zip(parts, ids, strict=False))


def _ids_now(asked: DataSpec) -> tuple[str | None, ...] | None:
    """Returns the ids of the parts of a prepared draw, None without a sound one.

    They follow from the hashes of the images, which are kept beside them. No image is read.
    """
    if asked.name in EMBEDDED or find_folder(asked.name) is None:
        return None
    draw = {name: value for name, value in asdict(asked).items() if name != "name"}
    try:
        pool = open_pool(asked.name, verify=False)[0]
        ids = ids_of(pool, **draw)
    except Failure:
        return None
    return ids["split_id"], ids["test_id"], ids["val_id"]
