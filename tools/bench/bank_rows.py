"""Batches of a bank in PyTorch, compared with plain indexing of its memory map.

    python tools/bench/bank_rows.py --rounds 60 --out tools/results/banks/rows-cpu.json
    python tools/bench/bank_rows.py --table tools/results/banks/rows-cpu.json   # for Markdown

Each way reads one batch of random rows a call: `map` indexes the images alone, `rows` is
`BankDataset.__getitems__`, which adds the soft labels, `loader` a shuffled `DataLoader` of it, and
`hybrid` a `HybridLoader` of a data set of this project. `nothing` is a shuffled `DataLoader` that
reads no row: the time that PyTorch takes for itself. The speed is given as a share of that of
`map`. The bank is made up, of noise, in a temporary folder. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from stylegan_mix import arrays, datasets, process
from stylegan_mix.banks import BankDataset, HybridLoader
from stylegan_mix.banks.request import KIND, SCHEMA_VERSION
from tools.bench import timing

WAYS = ("rows", "loader", "hybrid")
CLASSES = [str(number) for number in range(10)]


def main() -> None:
    """Measures banks of some sizes, prints a table, writes JSON."""
    options = _options()
    if options.table:
        print(table(json.loads(options.table.read_text())["rows"]))
        return
    process.set_up_process(1)
    rows = []
    print("pixels   map us  nothing us   rows  loader  hybrid   (speed as a share of the map's)")
    for side in options.side:
        with tempfile.TemporaryDirectory() as folder:
            bank = made_up(Path(folder), options.rows, side)
            rows.append(_measured(bank, options.batch, options.rounds))
        print(_line(rows[-1]), flush=True)
    if options.out:
        facts = {"machine": timing.machine(torch.device("cpu")), "batch": options.batch}
        timing.write_json(options.out, {"schema": "bench-bank-rows/1", **facts, "rows": rows})


def made_up(folder: Path, rows: int, side: int) -> BankDataset:
    """Writes a bank of noise, `rows` images of `side` x `side` pixels, and opens it."""
    draws = np.random.default_rng(0)
    key = "0" * 64
    found: dict[str, np.ndarray] = {
        "images": draws.integers(0, 256, (rows, side, side, 3), dtype=np.uint8),
        "pair": draws.integers(0, len(CLASSES), (rows, 2)).astype(np.int32),
        "lam": draws.random(rows).astype(np.float32),
    }
    names = ("key", "request_key", "split_id", "generator")
    facts = {
        **dict.fromkeys(names, key),
        "schema_version": SCHEMA_VERSION,
        "dataset": "noise",
        "classes": CLASSES,
        "space": "w",
        "command": "none",
        "n": rows,
        "image_shape": [side, side, 3],
    }
    arrays.write(folder / key, found, kind=KIND, facts=facts, file="bank.h5")
    return BankDataset(folder / key)


def _measured(bank: BankDataset, batch: int, rounds: int) -> dict[str, Any]:
    images = bank.bank.images
    orders = _endless(lambda: np.random.default_rng(0).permutation(len(bank)).reshape(-1, batch))
    loader = _endless(lambda: DataLoader(bank, batch_size=batch, shuffle=True))
    empty = _endless(lambda: DataLoader(_Nothing(len(bank)), batch_size=batch, shuffle=True))
    real = _real(bank)
    hybrid = _endless(lambda: HybridLoader(real, bank, batch=batch))
    variants: dict[str, Callable[[], object]] = {
        "map": lambda: images[next(orders)],
        "nothing": lambda: next(empty),
        "rows": lambda: bank.__getitems__(next(orders)),
        "loader": lambda: next(loader),
        "hybrid": lambda: next(hybrid),
    }
    taken = timing.alternate(variants, device=torch.device("cpu"), rounds=rounds)
    plain = taken["map"].seconds
    return {
        "side": int(images.shape[1]),
        "times": {name: one.plain() for name, one in taken.items()},
        "share": {name: round(plain / one.seconds, 3) for name, one in taken.items()},
    }


class _Nothing(Dataset[Any]):
    """A data set whose batches are no rows."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, rows: list[int]) -> list[int]:
        return [0]


def _real(bank: BankDataset) -> datasets.Dataset:
    """Makes a data set of the split of a bank, whose images are the bank's."""
    images = np.array(bank.bank.images)
    labels = np.arange(len(bank)) % len(CLASSES)
    return datasets.Dataset(
        name="noise",
        classes=bank.classes,
        train=datasets.Part(images, labels),
        test=datasets.Part(images[:1], labels[:1]),
        split_id=bank.bank.split_id,
        test_id="",
        profile="natural",
        imbalance=None,
        split_seed=0,
        counts=np.bincount(labels),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=False,
    )


def _endless(made: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    while True:
        yield from made()


def _line(row: dict[str, Any]) -> str:
    share, (plain, empty) = row["share"], _microseconds(row)
    shares = "  ".join(f"{share[name]:6.2f}" for name in WAYS)
    return f"{row['side']:>6} {plain:8.1f} {empty:11.1f} {shares}"


def table(rows: list[dict[str, Any]]) -> str:
    """Renders the speeds as Markdown: shares of indexing, which stands in microseconds."""
    titles = ("`__getitems__`", "shuffled `DataLoader`", "`HybridLoader`")
    heads = ("pixels", "indexing", *titles, "`DataLoader` alone")
    lines = [f"| {' | '.join(heads)} |", "| ---: " * len(heads) + "|"]
    for row in rows:
        plain, empty = (f"{time:.0f} us" for time in _microseconds(row))
        shares = [f"{row['share'][name]:.2f}" for name in WAYS]
        lines.append(f"| {' | '.join([str(row['side']), plain, *shares, empty])} |")
    return "\n".join(lines)


def _microseconds(row: dict[str, Any]) -> tuple[float, float]:
    return 1e3 * row["times"]["map"]["ms"], 1e3 * row["times"]["nothing"]["ms"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--side", type=int, nargs="+", default=[16, 32, 64], help="pixels (16 32 64)")
    add("--rows", type=int, default=12_800, help="of the bank, a multiple of the batch (12800)")
    add("--batch", type=int, default=128)
    add("--rounds", type=int, default=15)
    add("--out", type=Path)
    add("--table", type=Path, help="print this earlier file as Markdown, and stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
