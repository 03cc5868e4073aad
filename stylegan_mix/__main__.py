"""The command `stylegan-mix`, as `python -m stylegan_mix`."""

from __future__ import annotations

from stylegan_mix.cli import main

main()
