"""Prints the table of the operators in kernels/README.md from the files that kernels.py wrote.

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


def rows(
    path: Path, *, dtype: str = "float32", layout: str = "nhwc"
) -> dict[tuple[str, str], dict[str, Any]]:
    """Selects the rows of SHAPE in that form, by (operator, pass)."""
    form = (SHAPE, dtype, layout)
    return {
        (row["operator"], row["pass"]): row
        for row in json.loads(path.read_text())["rows"]
        if (row["shape"], row["dtype"], row["layout"]) == form
    }


def main(folder: Path) -> None:
    """Prints a line for each operator: forward / backward / double backward in every column.

    Forms are compared within one file, whose runs alternate.
    """
    plain, forms = rows(folder / "cpu.json"), folder / "cpu-forms.json"
    usual, nchw, half = rows(forms), rows(forms, layout="nchw"), rows(forms, dtype="bfloat16")
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
            beside = usual[key]["times"]["native"]["ms"]
            columns[3].append(f"{nchw[key]['times']['native']['ms'] / beside:.1f}")
            columns[4].append(f"{half[key]['times']['native']['ms'] / beside:.2f}")
        print(f"| {operator} | " + " | ".join(" / ".join(one) for one in columns) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
