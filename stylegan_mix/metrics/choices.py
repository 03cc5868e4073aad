"""The choices of a report by name: reference parts, labels of samples, their number."""

from __future__ import annotations

from stylegan_mix.errors import UsageFailure, nearest

__all__ = ["AGAINST", "LABELS", "SAMPLES", "parse_against"]

AGAINST = ("train", "balanced", "test")
"""The long-tailed training part, the balanced training set it was drawn from, the test part."""
LABELS = ("uniform", "frequency")
SAMPLES = 10_000
"""Samples of a seed where nothing else is asked for; of a bank, at most its rows."""


def parse_against(text: str) -> tuple[str, ...]:
    """ "train,test" as names of `AGAINST` in their order; `UsageFailure` (exit code 2) else."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in AGAINST:
            raise UsageFailure(f"--against: no part '{name}'{nearest(name, AGAINST)}")
    if not names:
        raise UsageFailure(f"--against needs at least one of {', '.join(AGAINST)}")
    return tuple(name for name in AGAINST if name in names)
