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
    network can be trained at any size; the fewer pixels, the fewer multiply-adds.
    """
    from trainer.models import MODELS
    from trainer.models.size import size_of

    found: list[dict[str, Any]] = []
    for name, one in MODELS.items():
        size = size_of(name, classes=one.classes, channels=3, side=one.side)
        counts = {"parameters": size.parameters, "multiply_adds": size.multiply_adds}
        found.append(
            {"name": name, **counts, "pixels": one.side, "classes": one.classes, "about": one.about}
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
            str(one["about"]),
        )
        for one in found
    ]
    console.print_table([names, *lines], right=(1, 2, 3, 4))
