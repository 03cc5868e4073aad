"""The batches that a step can have: whole groups for minibatch-std, and pairs for NoisyTwins."""

from __future__ import annotations

from stylegan_mix.presets import Preset

__all__ = ["batches_up_to", "can_be", "largest_within"]

_FEWEST = 2


def can_be(preset: Preset, batch: int) -> bool:
    """Tells if a step of the preset can have a batch of this size in one process."""
    whole_groups = batch % min(preset.minibatch_std_group, batch) == 0
    return batch >= _FEWEST and whole_groups and not (preset.twins and batch % 2)


def largest_within(preset: Preset, images: int) -> int:
    """Finds the largest batch of at most `images`, and of at most the preset's own."""
    if preset.batch <= images:
        return preset.batch
    most = max(min(preset.batch, images), _FEWEST)
    return next((size for size in range(most, _FEWEST, -1) if can_be(preset, size)), _FEWEST)


def batches_up_to(preset: Preset) -> list[int]:
    """Lists the preset's batch quartered again and again, ascending, as a step can have it."""
    quartered = {preset.batch >> times for times in range(0, preset.batch.bit_length() - 1, 2)}
    return sorted(size for size in quartered if can_be(preset, size) or size == preset.batch)
