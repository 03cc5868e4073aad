"""The facts of a finished generator as a small JSON: its card, its training time, its losses.

    python tools/experiments/generator_facts.py HASH --out tools/results/generators/NAME.json

Time and losses come from the log of the training, which must still be in the store.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from stylegan_mix import output, store
from stylegan_mix.generators import store as generator_store
from stylegan_mix.reading import parse_json, read_lines


def facts(reference: str) -> dict[str, Any]:
    """Joins the card of the generator with the end of its log, up to its budget."""
    published = generator_store.load(reference)
    card = published.card
    log = store.home() / "training" / card["training"] / "metrics.jsonl"
    lines = [parse_json(line) for line in read_lines(log) if line]
    lines = [line for line in lines if line["kimg"] <= card["kimg"] + 1e-9]
    return {
        **card,
        "generator": published.hash,
        "training_seconds": round(sum(line["seconds"] for line in lines), 1),
        "last_log": lines[-1],
        "hardware": platform.machine(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Prints the JSON, or writes it with --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("generator", help="hash of a generator, or how it begins")
    parser.add_argument("--out", type=Path, help="write there")
    options = parser.parse_args()
    found = facts(options.generator)
    if options.out:
        output.write_json(options.out, found)
    else:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
