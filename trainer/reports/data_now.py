"""The data sets of finished runs as they are now: a set may have been prepared again; no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

import numpy as np

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
    draws: dict[DataSpec, tuple[str, str] | None] = {}
    for result in results:
        asked = result.spec.data
        now = draws[asked] if asked in draws else draws.setdefault(asked, _ids_now(asked))
        if now is not None and data_ids(result) != now:
            told = f"{asked.name} has now (split {now[0][:12]}, test part {now[1][:12]})"
            found.setdefault(told, []).append(result)
    return [
        f"{len(runs)} run(s), such as {runs[0].path}, saw other images (split "
        f"{data_ids(runs[0])[0][:12]}, test part {data_ids(runs[0])[1][:12]}) than {now}: their "
        "accuracies are of the old images; `trainer run` with a --name of its own makes new ones"
        for now, runs in found.items()
    ]


def _ids_now(asked: DataSpec) -> tuple[str, str] | None:
    """Returns the ids of split and test part of a prepared draw, None without a sound one.

    They follow from the hashes of the images, which are kept beside them. No image is read.
    """
    if asked.name in EMBEDDED or find_folder(asked.name) is None:
        return None
    draw = {name: value for name, value in asdict(asked).items() if name != "name"}
    try:
        pool = open_pool(asked.name, verify=False)[0]
        unread = np.zeros((len(pool.images), 1, 1, pool.images.shape[3]), np.uint8)
        data = from_pool(replace(pool, images=unread), **draw)
    except Failure:
        return None
    return data.split_id, data.test_id
