"""A lower bound on the memory of a report, which grows with the square of the classes.

A system that overcommits memory kills a process that asks for too much, without a message.
"""

from __future__ import annotations

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment
from stylegan_mix.metrics.distances import groups_for

__all__ = ["check_memory", "least_bytes"]

_FLOAT64 = 8
# Beside one for each reference: the samples' own, theirs with the reference, and a summand.
_MORE_KERNELS = 3


def least_bytes(classes: int, references: int) -> int:
    """Computes a lower bound on the bytes of the kernel sums of a report (see `kernel_sums`)."""
    cells = classes * groups_for(classes)
    return (references + _MORE_KERNELS) * _FLOAT64 * cells**2


def check_memory(classes: int, references: int) -> None:
    """Raises `MissingEnvironment` (exit code 4) if a report cannot fit into this machine."""
    needed, there = least_bytes(classes, references), process.memory_bytes()
    if needed > there:
        fewer = "--against train needs least; else " if references > 1 else ""
        raise MissingEnvironment(
            f"distances of {classes:,} classes to {references} reference(s) need more than "
            f"{needed / 1e9:,.1f} GB; this machine has {there / 1e9:,.1f} GB",
            remedy=f"{fewer}run it on a machine with more memory",
        )
