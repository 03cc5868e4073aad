"""`trainer recipes`: the methods by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console

if TYPE_CHECKING:
    from trainer.recipes.stage import Recipe

__all__ = ["recipes"]


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything about them as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def recipes(name: str | None, as_json: bool, debug: bool) -> None:
    """List methods: their stages and sources; with NAME, all about one."""
    from trainer.recipes.catalogue import RECIPES, recipe

    shown = [recipe(name)] if name else list(RECIPES.values())
    if as_json:
        console.print_json([_facts(one) for one in shown])
        return
    if name:
        for line in _told(shown[0]):
            console.result(line)
        return
    width = max(map(len, RECIPES))
    for one in shown:
        stages = " > ".join(stage.name for stage in one.stages)
        console.result(f"{one.name:<{width}}  {one.about}  [{stages}]")


def _facts(one: Recipe) -> dict[str, Any]:
    from trainer.recipes.sources import PAPERS, PUBLISHED

    published = PUBLISHED.get(one.name)
    return {
        "name": one.name,
        "about": one.about,
        "papers": list(PAPERS.get(one.name, ())),
        "published": asdict(published) if published else None,
        "stages": [
            {**plain, "objective": repr(stage.objective)}
            for stage, plain in zip(one.stages, one.plain()["stages"], strict=True)
        ],
        "posthoc": repr(one.posthoc) if one.posthoc else None,
    }


def _told(one: Recipe) -> Iterator[str]:
    """Yields the lines about one recipe."""
    from trainer.recipes.sources import PAPERS, PUBLISHED

    yield f"{one.name}: {one.about}"
    for paper in PAPERS.get(one.name, ()):
        yield f"source: {paper}"
    for stage in one.stages:
        yield f"stage {stage.name}: {stage.objective!r}"
        for line in _departures(stage):
            yield f"  {line}"
    if one.posthoc:
        yield f"then: {one.posthoc!r}"
    tuned = one.posthoc is not None and one.posthoc.needs_validation
    if tuned:
        yield "needs: --val-per-class N"
    if one.name in PUBLISHED:
        yield f"published: {PUBLISHED[one.name]}"
    yield f"command: trainer run --recipe {one.name}{' --val-per-class 10' if tuned else ''}"


def _departures(stage: Any) -> Iterator[str]:
    """Yields what a stage has otherwise than a plain training, and what it needs."""
    from dataclasses import fields

    for field in fields(stage):
        value = getattr(stage, field.name)
        if field.name not in ("name", "objective") and value != field.default:
            yield f"{field.name}: {value if isinstance(value, str | float) else repr(value)}"
    head = stage.objective.needs.head
    if head:
        yield f"needs: {head!r}"
