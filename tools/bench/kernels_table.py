"""Prints the README's table of the operators from the files that kernels.py wrote into FOLDER.

python tools/bench/kernels_table.py tools/results/kernels
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHAPE = [32, 128, 32, 32]
COLUMNS = (
    *("operator", "× the floor", "plain / ours", "fallback / ours"),
    *("NCHW / NHWC", "bfloat16 / float32"),
)


def rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of SHAPE by (operator, pass)."""
    found = json.loads(path.read_text())["rows"]
    return {(row["operator"], row["pass"]): row for row in found if row["shape"] == SHAPE}


def main(folder: Path) -> None:
    """One line for each operator: forward / backward / double backward in every column."""
    plain, nchw, half = (
        rows(folder / name) for name in ("cpu.json", "cpu-nchw.json", "cpu-bfloat16.json")
    )
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|")
    for operator in dict.fromkeys(operator for operator, _ in plain):
        columns: list[list[str]] = [[], [], [], [], []]
        for key in (key for key in plain if key[0] == operator):
            times = {name: one["ms"] for name, one in plain[key]["times"].items()}
            ours = times["native"]
            columns[0].append(f"{plain[key]['native_over_floor']:.1f}")
            columns[1].append(f"{times['plain'] / ours:.1f}")
            columns[2].append(f"{times['fallback'] / ours:.1f}")
            columns[3].append(f"{nchw[key]['times']['native']['ms'] / ours:.1f}")
            columns[4].append(f"{half[key]['times']['native']['ms'] / ours:.2f}")
        print(f"| {operator} | " + " | ".join(" / ".join(one) for one in columns) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
