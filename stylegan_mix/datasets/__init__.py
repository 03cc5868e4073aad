"""Data sets: sources, long-tailed draws, and the identity of a split; no torch.

A source is prepared once into a pool in the store (`prepare`). Any draw of the pool is taken when
it is loaded (`load`). scikit-learn's digits need no preparation.
"""

from __future__ import annotations

from stylegan_mix.datasets.groups import ShotGroups
from stylegan_mix.datasets.hashes import identity
from stylegan_mix.datasets.loading import available, load, prepared_names
from stylegan_mix.datasets.records import Dataset, Part

__all__ = ["Dataset", "Part", "ShotGroups", "available", "identity", "load", "prepared_names"]
