"""Named state to and from the container: no pickle, every byte hashed, written atomically.

A state is a nested dictionary (string or integer names), with lists, of tensors and JSON values, as
`state_dict()` of modules and optimisers returns it. Tensors become arrays of the container. The
rest, and the shape of the nesting, lies in its manifest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_mix import arrays
from stylegan_mix.errors import InvalidInput
from stylegan_mix.progress import say

__all__ = ["Checkpoints", "load", "save", "weights_sha256"]

_STORED = {
    torch.float32: "f4",
    torch.float64: "f8",
    torch.float16: "f2",
    torch.bfloat16: "i2",
    torch.int64: "i8",
    torch.int32: "i4",
    torch.int16: "i2",
    torch.uint8: "u1",
    torch.bool: "u1",
}
_TORCH = {str(dtype).removeprefix("torch."): dtype for dtype in _STORED}


def save(folder: Path, state: Mapping[Any, Any], *, kind: str, facts: Mapping[str, Any]) -> None:
    """Writes `state` and `facts` as a container; `folder` appears complete or not at all."""
    found: dict[str, np.ndarray] = {}
    tree = _take(state, "state", found)
    arrays.write(folder, found, kind=kind, facts={"state": tree, "facts": dict(facts)})


def load(folder: Path, *, kind: str) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Reads the output of `save`, on the CPU: (state, facts). Raises `InvalidInput` if altered."""
    container = arrays.open_container(folder, kind=kind)
    try:
        state = _give(container.facts["state"], container)
        facts: dict[str, Any] = container.facts["facts"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InvalidInput(f"{folder} is not a checkpoint of kind '{kind}': {error!r}") from error
    return state, facts


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hashes a flat dictionary of tensors: the identity of a network's weights."""
    return arrays.fingerprint({name: _array(tensor) for name, tensor in state.items()})


def _take(value: Any, name: str, found: dict[str, np.ndarray]) -> Any:
    if isinstance(value, torch.Tensor):
        if value.dtype not in _STORED:
            raise TypeError(f"{name}: tensors of {value.dtype} are not stored")
        found[name] = np.atleast_1d(_array(value))
        return {"$tensor": [name, str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if isinstance(value, Mapping):
        kind = "$integers" if value and all(type(key) is int for key in value) else "$names"
        return {
            kind: {str(key): _take(item, f"{name}/{key}", found) for key, item in value.items()}
        }
    if isinstance(value, (list, tuple)):
        return [_take(item, f"{name}/{index}", found) for index, item in enumerate(value)]
    return value


def _array(tensor: torch.Tensor) -> np.ndarray:
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    if plain.dtype == torch.bool:
        plain = plain.view(torch.uint8)
    return plain.numpy()


def _give(tree: Any, container: arrays.Container) -> Any:
    if isinstance(tree, list):
        return [_give(item, container) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        name, dtype, shape = tree["$tensor"]
        tensor = torch.from_numpy(np.array(container[name]))
        target = _TORCH[dtype]
        if target in (torch.bfloat16, torch.bool):
            tensor = tensor.view(target)
        if tensor.dtype != target:
            raise ValueError(f"{name} is {tensor.dtype}, {dtype} was declared")
        return tensor.reshape(shape)
    if "$integers" in tree:
        return {int(key): _give(item, container) for key, item in tree["$integers"].items()}
    return {key: _give(item, container) for key, item in tree["$names"].items()}


class Checkpoints:
    """The newest checkpoints of a run, `step-<number>` under one folder; the last `keep` stay."""

    def __init__(self, folder: Path, kind: str, keep: int = 2) -> None:
        self.folder, self._kind, self._keep = folder, kind, keep

    def save(self, step: int, state: Mapping[Any, Any], facts: Mapping[str, Any]) -> None:
        """Writes the checkpoint of `step`, then removes those that are no longer kept.

        Those of later steps go first: a run at `step` could not use them.
        """
        target = self.folder / f"step-{step:09d}"
        if not target.exists():
            save(target, state, kind=self._kind, facts=facts)
        else:  # of the same step, perhaps unreadable: removed once another one is written
            fresh = target.with_name(f".{target.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            save(fresh, state, kind=self._kind, facts=facts)
            shutil.rmtree(target)
            fresh.rename(target)
        steps = self._steps()
        at = steps.index(step)
        for old in steps[:at] + steps[at + self._keep :]:
            shutil.rmtree(self.folder / f"step-{old:09d}", ignore_errors=True)
        self._remove_leftovers()

    def latest(
        self, say: Callable[[str], None] = say
    ) -> tuple[int, dict[Any, Any], dict[str, Any]] | None:
        """Reads the newest sound checkpoint: (step, state, facts), or None if there never was one.

        A damaged one is reported to `say` and the previous one taken; if all are damaged, raises
        `InvalidInput`.
        """
        steps = self._steps()
        for step in steps:
            try:
                state, facts = load(self.folder / f"step-{step:09d}", kind=self._kind)
                return step, state, facts
            except InvalidInput as error:
                say(f"damaged checkpoint, trying the one before: {error}")
        if steps:
            raise InvalidInput(
                f"every checkpoint in {self.folder} is damaged",
                remedy="move that folder away to start again",
            )
        return None

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint, which is not read; None if there never was one."""
        return max(self._steps(), default=None)

    def clear(self) -> None:
        """Removes all checkpoints, once the run that needed them is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = (re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.iterdir())
        return sorted((int(name.group(1)) for name in names if name), reverse=True)

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(".step-*"):
            if not path.name.endswith(f".{os.getpid()}"):
                shutil.rmtree(path, ignore_errors=True)
