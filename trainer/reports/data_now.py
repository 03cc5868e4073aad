"""The data sets of finished runs as they are now: a set may have been prepared again; no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.loading import from_pool
from stylegan_mix.datasets.pool import find_folder, open_pool
from stylegan_mix.errors import Failure
from trainer.reports.records import Result, data_ids
from trainer.spec import DataSpec

__all__ = ["changed"]


def changed(results: Iterable[Result]) -> list[str]:
    """Tells, for each data set, of the runs that saw other images than it has now; [] if none did.

    A set that is not in a store is left out: committed results need no data.
    """
    found: dict[str, list[Result]] = {}
    draws: dict[DataSpec, Dataset | None] = {}
    for result in results:
        asked = result.spec.data
        now = draws[asked] if asked in draws else draws.setdefault(asked, _now(asked))
        if now is not None and data_ids(result) != (now.split_id, now.test_id):
            ids = f"split {now.split_id[:12]}, test part {now.test_id[:12]}"
            found.setdefault(f"{now.name} has now ({ids})", []).append(result)
    return [
        f"{len(runs)} run(s), such as {runs[0].path}, saw other images (split "
        f"{data_ids(runs[0])[0][:12]}, test part {data_ids(runs[0])[1][:12]}) than {now}: their "
        "accuracies are of the old images; `trainer run` with a --name of its own makes new ones"
        for now, runs in found.items()
    ]


def _now(asked: DataSpec) -> Dataset | None:
    """Loads a prepared draw without hashing its images; None if it is not there or not sound."""
    if asked.name in EMBEDDED or find_folder(asked.name) is None:
        return None
    draw = {name: value for name, value in asdict(asked).items() if name != "name"}
    try:
        return from_pool(open_pool(asked.name, verify=False)[0], **draw)
    except Failure:
        return None
