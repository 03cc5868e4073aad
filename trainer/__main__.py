"""The command `trainer`, as `python -m trainer`."""

from __future__ import annotations

from trainer.cli import main

main()
