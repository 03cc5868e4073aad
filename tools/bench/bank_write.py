"""Speed of `generate`, as a share of the speed of its generator alone.

    python tools/bench/bank_write.py --out bank-write.json

In every round the network makes as many blocks of 64 images as a bank of `--rows` rows has
(`forward`: z and labels to float images), and then a bank of that size is written, in a temporary
store. `blocks` is the speed up to the last block, and has plan, mix, noise, uint8, hashes and files
in it. `bank` is the speed of the whole, with the end: filling and sealing the container, card and
picture, whose cost hardly grows with the bank. One process; the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

# The root replaces this folder, whose kernels.py is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from stylegan_mix import process
from stylegan_mix.banks.request import Request
from stylegan_mix.banks.write import write_bank
from stylegan_mix.generators.store import Published
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.networks import Generator
from stylegan_mix.numerics import numerics_class
from stylegan_mix.progress import Silent
from stylegan_mix.session import Session
from tools.bench import timing

CLASSES = 10
HASH = "0" * 64


def main() -> None:
    """Measures each precision, prints a table, writes JSON."""
    options = _options()
    process.set_up_process(options.threads)
    device = torch.device(process.resolve_device(options.device))
    rows = []
    print("pixels channels precision   forward    blocks      bank   (images/s, and its share)")
    for precision in options.precision:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["STYLEGAN_MIX_HOME"] = folder
            rows.append(_measured(options, device, precision))
        print(_line(rows[-1]), flush=True)
    if options.out:
        facts = {"machine": timing.machine(device), "rows_of_bank": options.rows}
        timing.write_json(options.out, {"schema": "bench-bank-write/1", **facts, "rows": rows})


class Listener(Silent):
    """A reporter that keeps the times of the first and the last block."""

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Any:
        self.began = time.perf_counter()
        return self

    def update(self, done: float, **facts: object) -> None:
        self.last = time.perf_counter()

    def close(self) -> None:
        pass


def _measured(options: argparse.Namespace, device: torch.device, precision: str) -> dict[str, Any]:
    network = _network(options, device, precision)
    blocks = -(-options.rows // BLOCK)
    _forward(network, 2)
    taken: dict[str, list[float]] = {"forward": [], "blocks": [], "bank": []}
    for seed in range(options.rounds):
        taken["forward"].append(_forward(network, blocks))
        heard = Listener()
        request = Request(HASH, HASH, CLASSES, options.side, 3, n=blocks * BLOCK, seed=seed)
        began = time.perf_counter()
        numerics = numerics_class(str(device), precision)
        write_bank(request, _published(options.side), numerics, network, Session(reporter=heard))
        taken["bank"].append(time.perf_counter() - began)
        taken["blocks"].append(heard.last - heard.began)
    shares = {
        name: [alone / one for alone, one in zip(taken["forward"], found, strict=True)]
        for name, found in taken.items()
    }
    return {
        "side": options.side,
        "channels": options.channels,
        "precision": precision,
        "rounds": options.rounds,
        "images_s": {
            name: round(blocks * BLOCK / statistics.median(found), 1)
            for name, found in taken.items()
        },
        "share": {name: round(statistics.median(found), 3) for name, found in shares.items()},
    }


@torch.inference_mode()
def _forward(network: Generator, blocks: int) -> float:
    """Measures the seconds of as many blocks of the network alone."""
    device = next(network.parameters()).device
    z = torch.randn(BLOCK, network.z_dim, device=device)
    label = torch.randint(CLASSES, (BLOCK,), device=device)
    began = _now(device)
    for _ in range(blocks):
        network(z, label)
    return _now(device) - began


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _published(side: int) -> Published:
    """Makes up the card of a generator."""
    card = {
        "dataset": "noise",
        "split_id": HASH,
        "test_id": HASH,
        "classes": [str(number) for number in range(CLASSES)],
        "counts": [10] * CLASSES,
        "resolution": side,
        "channels": 3,
        "preset": {"name": "bench"},
        "kimg": 0.0,
        "seed": 0,
        "diversity": [None] * CLASSES,
    }
    return Published(HASH, Path(), card)


def _network(options: argparse.Namespace, device: torch.device, precision: str) -> Generator:
    torch.manual_seed(0)
    network = Generator(
        resolution=options.side,
        image_channels=3,
        classes=CLASSES,
        z_dim=options.channels,
        w_dim=options.channels,
        channel_base=options.channels * options.side,
        channel_max=options.channels,
        compute_dtype=getattr(torch, precision),
    )
    return network.to(device).eval().requires_grad_(False)


def _line(row: dict[str, Any]) -> str:
    rates, share = row["images_s"], row["share"]
    more = "".join(f" {rates[name]:>7,.0f} {share[name]:.2f}" for name in ("blocks", "bank"))
    network = f"{row['side']:>6} {row['channels']:>8} {row['precision']:>9}"
    return f"{network} {rates['forward']:>9,.0f}{more}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--side", type=int, default=32, help="pixels (32)")
    add("--channels", type=int, default=64, help="at every resolution (64)")
    add("--precision", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    add("--rows", type=int, default=6_400, help="of each bank (6400)")
    add("--device", default="auto")
    add("--threads", type=int)
    add("--rounds", type=int, default=5)
    add("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
