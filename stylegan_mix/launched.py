"""The place of this process among those that torchrun started, read from the environment."""

from __future__ import annotations

import os

from stylegan_mix.errors import UsageFailure

__all__ = ["by_torchrun", "number_in", "own_device", "several", "speaks"]


def by_torchrun() -> bool:
    """Tells if torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def several() -> bool:
    """Tells if this process is one of several that train together."""
    return number_in("WORLD_SIZE", 1) > 1 and "RANK" in os.environ


def speaks() -> bool:
    """Tells if this process prints to the terminal; only torchrun's first one does."""
    return os.environ.get("RANK", "0") == "0"


def own_device(device: str) -> str:
    """Chooses this process's GPU by LOCAL_RANK, where "cuda" leaves the choice; any other stays.

    Processes beyond the number of GPUs share them.
    """
    import torch

    if device != "cuda" or not by_torchrun():
        return device
    return f"cuda:{number_in('LOCAL_RANK', 0) % max(torch.cuda.device_count(), 1)}"


def number_in(variable: str, default: int) -> int:
    """Reads a whole number of the environment; `UsageFailure` (exit code 2) for anything else."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise UsageFailure(
            f"the environment variable {variable} must be a whole number, got '{text}'",
            remedy="start several processes with torchrun, which sets it",
        )
    return int(text)
