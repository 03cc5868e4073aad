"""What PyTorch's dispatcher calls, noted while a block runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Seen(NamedTuple):
    """An operator's name, and the tensors that it took and gave."""

    name: str
    tensors: list[torch.Tensor]


class Dispatched(TorchDispatchMode):
    """Notes in `calls` every operator that is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Seen] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self.calls.append(Seen(str(func), tensors))
        return out
