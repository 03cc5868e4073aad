"""`stylegan-mix generators`: the generators of the store, and the training of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console
from stylegan_mix.console import result
from stylegan_mix.progress import say
from stylegan_mix.removing import remove_command
from stylegan_mix.showing import one_line

if TYPE_CHECKING:
    from stylegan_mix.generators.store import Published

__all__ = ["generators"]

_COLUMNS = (
    "generator",
    "dataset",
    "imbalance",
    "preset",
    "kimg",
    "diversity",
    "size",
    "age",
    "state",
)
_HEADINGS = {"kimg": "thousand images"}


# Hashes that its table of facts ends with.
_IDS = {"training split id": "split_id", "test part id": "test_id", "training": "training"}


@click.group("generators", cls=console.Group)
def generators() -> None:
    """Finished generators: list, show, remove.

    GENERATOR is the hash of one, or its beginning.
    """


@generators.command("list")
@click.option("--dataset", metavar="NAME", help="Only generators of this data set.")
@console.json_option
@console.debug_option
def list_generators(dataset: str | None, as_json: bool) -> None:
    """List the generators of the store, the newest first.

    `thousand images` are those that it was shown, and the budget of its preset. `diversity` is
    that of the least diverse class: 1 is as diverse as the data, 0 one picture.
    """
    from stylegan_mix import store
    from stylegan_mix.generators import store as generator_store

    found = generator_store.find()
    rows = [_row(one) for one in found if dataset in (None, one.card["dataset"])]
    if dataset is None:
        rows += [_damaged_row(path) for path, _ in generator_store.damaged()]
    if as_json:
        console.print_json(rows)
    elif rows:
        cells = ([_cell(name, row) for name in _COLUMNS] for row in rows)
        console.print_table([[_HEADINGS.get(name, name) for name in _COLUMNS], *cells])
    else:
        say(f"no generators in {store.home() / 'generators'}")
        say("  stylegan-mix train --dataset digits_lt trains one")


def _row(published: Published) -> dict[str, Any]:
    card = published.card
    known = [ratio for ratio in card["diversity"] or () if ratio is not None]
    return {
        "generator": published.hash,
        "dataset": card["dataset"],
        "imbalance": card["imbalance"],
        "preset": card["preset"]["name"],
        "kimg": card["kimg"],
        "preset_kimg": card["preset"].get("kimg"),
        "diversity": min(known, default=None),
        "size": published.size,
        "age": max(time.time() - published.made, 0.0),
        "state": _state(published),
        "folder": str(published.folder),
    }


def _state(published: Published) -> str:
    if published.imported:
        return "imported"
    return "rounded" if "rounded" in published.card else "published"


def _damaged_row(path: Path) -> dict[str, Any]:
    row = dict.fromkeys(_COLUMNS)
    return {**row, "generator": path.name, "state": "damaged", "folder": str(path)}


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if value is None:
        return "-"
    if name == "kimg":
        budget = row["preset_kimg"]
        return f"{value:,g}" if budget is None else f"{value:,g} of {budget:,g}"
    if name == "generator":
        return str(value)[:12]
    if name == "size":
        return f"{value / 1e6:,.1f} MB"
    if name == "age":
        return console.age(value)
    if name == "diversity":
        return f"{value:.2f}"
    return f"{value:,g}" if isinstance(value, (int, float)) else str(value)


@generators.command("show")
@click.argument("generator")
@console.json_option
@console.debug_option
def show(generator: str, as_json: bool) -> None:
    """Show everything about a generator: origin, settings, diversity of its classes."""
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.generators.in_words import in_words

    published = generator_store.load(generator)
    facts = {"folder": str(published.folder), **published.card, "hash": published.hash}
    if as_json:
        console.print_json(facts)
        return
    told = [
        ("generator", published.hash),
        *in_words(published),
        ("picture", str(published.folder / "grid.png")),
        ("folder", str(published.folder)),
        *((name, str(published.card.get(field) or "")) for name, field in _IDS.items()),
    ]
    console.print_table([(name, one_line(text)) for name, text in told if text])
    for title in ("rounded", "imported", "init", "preset", "network"):
        settings = published.card.get(title)
        if settings:
            result(f"\n{title}")
            console.print_table(
                [(f"  {one_line(name)}", one_line(one)) for name, one in settings.items()]
            )
    _print_classes(published.card)


def _print_classes(card: dict[str, Any]) -> None:
    from stylegan_mix.generators.card import class_table

    if not card["classes"]:
        result("\nunconditional: it draws images of no known class")
        return
    result("")
    console.print_table(class_table(card), right=(1, 2))


generators.add_command(
    remove_command("generator", "GENERATOR", "Generators that banks name are refused.")
)
