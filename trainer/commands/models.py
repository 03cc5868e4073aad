"""`trainer models`: the classifiers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console

if TYPE_CHECKING:
    from trainer.models.classifier import Classifier

__all__ = ["models"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def models(as_json: bool, debug: bool) -> None:
    """List classifiers, with their parameters for 10 classes of colour images.

    Recipes of several experts have more: each expert has last layers and a head of its own.
    """
    from trainer.models import MODELS, Head, build
    from trainer.recipes.catalogue import RECIPES

    experts = sorted({one.head.experts for one in RECIPES.values()} - {1})
    found: list[dict[str, Any]] = []
    for name in MODELS:
        network = build(name, classes=10, channels=3)
        several = {n: build(name, classes=10, channels=3, head=Head(experts=n)) for n in experts}
        about = (type(network).__doc__ or "").strip().splitlines()[0]
        found.append(
            {
                "name": name,
                "parameters": _count(network),
                "with_experts": {str(n): _count(one) for n, one in several.items()},
                "about": about,
            }
        )
    if as_json:
        console.print_json(found)
        return
    lines = [(str(one["name"]), f"{one['parameters']:,}", _about(one)) for one in found]
    console.print_table(lines, right=(1,))


def _count(network: Classifier) -> int:
    return sum(one.numel() for one in network.parameters())


def _about(one: dict[str, Any]) -> str:
    """Says what a classifier is, and its parameters with several experts."""
    more = "; ".join(
        f"{count:,} with {number} experts" for number, count in one["with_experts"].items()
    )
    return f"{one['about']} {more}".strip()
