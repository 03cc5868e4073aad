"""Banks of generated images: written once in blocks, named by their recipe, read by memory map.

`reader` and `store` import no torch, so a trainer reads banks without the generator's code.
`BankDataset` and `HybridLoader` are for PyTorch, which they import when they are first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan_mix.banks.dataset import BankDataset
    from stylegan_mix.banks.hybrid_loader import HybridLoader

__all__ = ["BankDataset", "HybridLoader"]


def __getattr__(name: str) -> Any:
    if name == "BankDataset":
        from stylegan_mix.banks.dataset import BankDataset

        return BankDataset
    if name == "HybridLoader":
        from stylegan_mix.banks.hybrid_loader import HybridLoader

        return HybridLoader
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
