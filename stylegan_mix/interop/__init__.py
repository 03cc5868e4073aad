"""Networks of other projects: their checkpoints read as arrays, without running their code."""

from __future__ import annotations

__all__: list[str] = []
