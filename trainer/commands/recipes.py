"""`trainer recipes`: the methods by name."""

from __future__ import annotations

import click

from stylegan_mix import console

__all__ = ["recipes"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything about them as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def recipes(as_json: bool, debug: bool) -> None:
    """List methods: their objectives, stages and sources."""
    from trainer.recipes.catalogue import RECIPES

    if as_json:
        console.print_json(
            [
                {
                    "name": recipe.name,
                    "about": recipe.about,
                    "stages": [
                        {**plain, "objective": repr(stage.objective)}
                        for stage, plain in zip(
                            recipe.stages, recipe.plain()["stages"], strict=True
                        )
                    ],
                }
                for recipe in RECIPES.values()
            ]
        )
        return
    lines = []
    for recipe in RECIPES.values():
        stages = " > ".join(stage.name for stage in recipe.stages)
        lines.append((recipe.name, f"{recipe.about}  [{stages}]"))
    console.print_table(lines)
