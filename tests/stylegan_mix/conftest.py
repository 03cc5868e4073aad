"""What the tests of banks share: a network of a few exact operations, and banks made with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def toy() -> Any:
    """A generator of 3 classes and 4x4 grey images whose arithmetic is exact on every machine.

    Its noise is one of two levels per pixel, from integer draws; class c adds c / 4 to w.
    """
    import torch

    class Mapping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w_avg", torch.full((4,), 0.25))

        def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            if not label.is_floating_point():
                label = torch.nn.functional.one_hot(label, len(CLASSES)).float()
            level = (label * torch.arange(len(CLASSES)) / 4).sum(dim=1, keepdim=True)
            return (z * 8).round() / 32 + level

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.z_dim, self.classes = 4, len(CLASSES)
            self.mapping = Mapping()
            self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)
            self.batches: list[int] = []

        def truncate(self, w: torch.Tensor, truncation: float) -> torch.Tensor:
            return self.mapping.w_avg + truncation * (w - self.mapping.w_avg)

        def broadcast(self, w: torch.Tensor) -> torch.Tensor:
            return w[:, None, :].expand(-1, 2, -1)

        def synthesis(
            self, ws: torch.Tensor, *, noise: str, generator: torch.Generator | None
        ) -> torch.Tensor:
            self.batches.append(len(ws))
            images = (ws[:, 0, :, None] + ws[:, 1, None, :])[:, None] * self.weight
            if noise == "random":
                draws = torch.randint(0, 2, images.shape, generator=generator)
                images = images + draws / 16
            return images

    return Toy().eval()


@pytest.fixture
def card() -> dict[str, Any]:
    """The card of a generator that the toy stands for."""
    return {
        "dataset": "letters",
        "profile": "exp",
        "imbalance": 10.0,
        "split_seed": 0,
        "split_id": "5" * 64,
        "test_id": "7" * 64,
        "classes": list(CLASSES),
        "counts": [30, 10, 3],
        "resolution": 4,
        "channels": 1,
        "preset": {"name": "toy"},
        "kimg": 1.5,
        "seed": 0,
        "diversity": [0.9, 0.8, None],
    }


@pytest.fixture
def published(card: dict[str, Any], tmp_path: Path) -> Any:
    """The toy as if it had been trained."""
    from stylegan_mix.generators import Published

    return Published(hash="ab" * 32, folder=tmp_path / "generator", card=card)


@pytest.fixture
def ask(published: Any) -> Callable[..., Any]:
    """`ask(n=100, space="w", ...)` is a request for a bank of the toy's images."""
    from stylegan_mix.banks.request import Request

    def request(**changes: Any) -> Request:
        plain = Request(published.hash, published.card["split_id"], 3, 4, 1, n=100)
        return dataclasses.replace(plain, **changes)

    return request


@pytest.fixture
def write(home: Path, toy: Any, published: Any, ask: Callable[..., Any]) -> Callable[..., Path]:
    """`write(n=100, ...)` writes such a bank into the store and returns its folder."""
    from stylegan_mix.banks.generate import numerics_class, write_bank

    def written(network: Any = None, **changes: Any) -> Path:
        numerics = numerics_class("cpu", "float32")
        return write_bank(ask(**changes), published, numerics, network or toy)

    return written
