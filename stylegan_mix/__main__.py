"""`python -m stylegan_mix` is the command `stylegan-mix`."""

from __future__ import annotations

from stylegan_mix.cli import main

main()
