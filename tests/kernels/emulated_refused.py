"""What the CUDA sources refuse, on a CPU (emulated.py): the table that every library keeps to."""

from __future__ import annotations

import ctypes
import sys

from emulated import STREAM, run_cases
from refused import calls, wrong

CALLS = calls("cuda")


def check_refused(library: ctypes.CDLL, name: str) -> str | None:
    library.emulator_order(0)
    return wrong(library, CALLS[name], STREAM)


if __name__ == "__main__":
    sys.exit(run_cases(CALLS, check_refused))
