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
    """List the classifiers, with their size for colour images.

    Parameters and multiply-adds are those for the classes and pixels of the set that a network is
    published for: CIFAR-10 or ImageNet. A network of your classes differs by its last layer. Any
    network can be trained at any size; the fewer pixels, the fewer multiply-adds. Recipes of
    several experts have more: each expert has last layers and a head of its own.
    """
    from trainer.models import MODELS, Head
    from trainer.models.size import parameters, size_of, without_memory
    from trainer.recipes.catalogue import RECIPES

    experts = sorted({one.head.experts for one in RECIPES.values()} - {1})
    found: list[dict[str, Any]] = []
    for name, one in MODELS.items():
        size = size_of(name, classes=one.classes, channels=3, side=one.side)
        more = {
            str(n): parameters(
                without_memory(name, classes=one.classes, channels=3, head=Head(experts=n))
            )
            for n in experts
        }
        found.append(
            {
                "name": name,
                "parameters": size.parameters,
                "multiply_adds": size.multiply_adds,
                "with_experts": more,
                "pixels": one.side,
                "classes": one.classes,
                "about": one.about,
            }
        )
    if as_json:
        console.print_json(found)
        return
    names = ("name", "parameters", "multiply-adds", "pixels", "classes", "about")
    lines = [
        (
            str(one["name"]),
            f"{one['parameters'] / 1e6:.3f} M",
            f"{one['multiply_adds'] / 1e6:,.0f} M",
            str(one["pixels"]),
            f"{one['classes']:,}",
            _about(one),
        )
        for one in found
    ]
    console.print_table([names, *lines], right=(1, 2, 3, 4))


def _about(one: dict[str, Any]) -> str:
    """Says what a classifier is for, and its parameters with several experts."""
    more = [f"{n / 1e6:.3f} M with {count} experts" for count, n in one["with_experts"].items()]
    return "; ".join([one["about"], *more])
