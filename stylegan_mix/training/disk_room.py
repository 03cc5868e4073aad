"""The disk space that a training needs, asked for before its first step."""

from __future__ import annotations

from typing import Any

import torch

from stylegan_mix import store
from stylegan_mix.generators.class_grid import shown_classes
from stylegan_mix.training.loop import Rhythm
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.state import TrainState

__all__ = ["disk_bytes", "require_disk_room"]

# Two checkpoints, the state kept for a collapse, and one that is being written. When that is done,
# its space is enough for the published averages, which are part of a state.
_STATES = 4
# A large array begins at a multiple of these bytes. The names and the hash of each stand beside it.
_ALIGNED, _BESIDE_ARRAY = 4096, 1024
# Real and generated images in a row of a picture.
_IMAGES_OF_A_CLASS = 15


def disk_bytes(plan: TrainPlan) -> int:
    """Computes the bytes that a training takes at most in the store: its states and pictures.

    Its log takes some kilobytes for each ten thousand images, so the reserve is enough for it.
    """
    return _STATES * _bytes_of_state(plan) + _bytes_of_pictures(plan)


def require_disk_room(plan: TrainPlan) -> None:
    """Raises `MissingEnvironment` (exit code 4) if the store's disk is too small for a training.

    The files of an earlier part of the training have their space already.
    """
    store.free_space(
        plan.folder,
        max(disk_bytes(plan) - store.bytes_in(plan.folder), 0),
        f"training {plan.key[:12]} in {plan.folder}",
    )


def _bytes_of_pictures(plan: TrainPlan) -> int:
    """Computes the bytes of the pictures as those of their images, which are shown enlarged."""
    data = plan.dataset
    pixels = _IMAGES_OF_A_CLASS * len(shown_classes(data.counts)) * data.resolution**2
    return (plan.steps // plan.steps_for(Rhythm().picture_kimg) + 1) * 3 * pixels


def _bytes_of_state(plan: TrainPlan) -> int:
    """Computes the bytes of the plan's state after a step, without a network of that size."""
    state = TrainState.without_memory(plan.preset, plan.dataset)
    return _bytes(state.structure(state.half_steps + 1))


def _bytes(part: Any) -> int:
    if isinstance(part, torch.Tensor):
        own = part.numel() * part.element_size()
        return own + _BESIDE_ARRAY + (_ALIGNED if own >= _ALIGNED else 0)
    if isinstance(part, dict):
        return sum(_bytes(one) for one in part.values())
    if isinstance(part, list):
        return sum(_bytes(one) for one in part)
    return 0
