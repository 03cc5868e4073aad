"""The report of `ptxas -v` on each CUDA kernel, as a table: registers, spills, shared memory."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Usage", "parse", "table"]

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\w+)'")
_SPILL = re.compile(r"(\d+) bytes spill (?:stores|loads)")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """One kernel on one architecture. Bytes are per thread; `shared` bytes are per block."""

    kernel: str
    architecture: str
    registers: int
    spilled: int
    shared: int


def parse(log: str) -> list[Usage]:
    """Reads the kernels of a log, in its order, under their readable names."""
    found = list(_entries(log))
    names = _demangle([usage.kernel for usage in found])
    return [
        Usage(name, usage.architecture, usage.registers, usage.spilled, usage.shared)
        for name, usage in zip(names, found, strict=True)
    ]


def _entries(log: str) -> Iterator[Usage]:
    kernel, architecture, spilled = "", "", 0
    for line in log.splitlines():
        entry, used = _ENTRY.search(line), _USED.search(line)
        if entry:
            kernel, architecture, spilled = entry[1], entry[2], 0
        elif _SPILL.search(line):
            spilled += sum(map(int, _SPILL.findall(line)))
        elif used and kernel:
            shared = _SHARED.search(line)
            yield Usage(
                kernel, architecture, int(used[1]), spilled, int(shared[1]) if shared else 0
            )
            kernel = ""


def _demangle(names: Sequence[str]) -> list[str]:
    program = shutil.which("c++filt") or shutil.which("cu++filt")
    if program is None or not names:
        return list(names)
    done = subprocess.run(
        [program], input="\n".join(names), capture_output=True, text=True, errors="replace"
    )
    told = done.stdout.splitlines()
    if done.returncode or len(told) != len(names):
        return list(names)
    # `void name<...>(arguments)`: the arguments do not tell kernels apart.
    short = (name.replace("(anonymous namespace)::", "").removeprefix("void ") for name in told)
    return [name.partition("(")[0] or name for name in short]


def table(usages: Sequence[Usage]) -> str:
    """Draws a row for each kernel and architecture; the heaviest users of registers first."""
    rows: list[tuple[str, ...]] = [("kernel", "sm", "registers", "spilled", "shared")]
    rows += [
        (
            usage.kernel,
            usage.architecture,
            *map(str, (usage.registers, usage.spilled, usage.shared)),
        )
        for usage in sorted(usages, key=lambda usage: (-usage.spilled, -usage.registers))
    ]
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(width[0]), *(cell.rjust(width[at]) for at, cell in enumerate(row) if at)]
        )
        for row in rows
    )
