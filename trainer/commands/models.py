"""`trainer models`: the classifiers by name."""

from __future__ import annotations

from typing import Any

import click

from stylegan_mix import console

__all__ = ["models"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def models(as_json: bool, debug: bool) -> None:
    """List classifiers, with their parameters for 10 classes of colour images."""
    from trainer.models import MODELS, build

    found: list[dict[str, Any]] = []
    for name in MODELS:
        network = build(name, classes=10, channels=3)
        count = sum(one.numel() for one in network.parameters())
        about = (type(network).__doc__ or "").strip().splitlines()[0]
        found.append({"name": name, "parameters": count, "about": about})
    if as_json:
        console.print_json(found)
        return
    lines = [(str(one["name"]), f"{one['parameters']:,}", str(one["about"])) for one in found]
    console.print_table(lines, right=(1,))
