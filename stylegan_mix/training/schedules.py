"""Schedules of a training: numbers that follow the images seen, or the steps taken."""

from __future__ import annotations

import math

from stylegan_mix.presets import Preset

__all__ = ["faded_in", "half_steps", "is_half", "warming_share"]


def faded_in(kimg: float, start: float, end: float) -> float:
    """Computes a share: 0 up to `start`, then linear to 1 at `end`, in thousands of images seen.

    With `end` = `start` it is a step. ValueError unless 0 <= `start` <= `end`.
    """
    if not 0 <= start <= end:
        raise ValueError(f"fading in needs 0 <= start <= end, got {start:g} to {end:g}")
    if kimg >= end:
        return 1.0
    return max((kimg - start) / (end - start), 0.0) if end > start else 0.0


def half_steps(preset: Preset) -> int:
    """Counts the first steps, whose images have half the size: those before `grow_start` kimg."""
    return math.ceil(preset.grow_start * 1000 / preset.batch) if preset.grow_end else 0


def is_half(preset: Preset, step: int) -> bool:
    """Tells if the images of a step have half the size."""
    return step < half_steps(preset)


def warming_share(preset: Preset, step: int) -> float:
    """Computes the share of the learning rate at a step: linear to 1 at `lr_warmup` kimg."""
    if not preset.lr_warmup:
        return 1.0
    return min((step + 1) * preset.batch / (1000 * preset.lr_warmup), 1.0)
