"""Prepared sets and draws in words, as the command line shows them.

`K` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stylegan_mix.columns import one_line

if TYPE_CHECKING:
    from stylegan_mix.datasets.records import Dataset

__all__ = ["cell", "class_table", "draw", "draw_facts", "numbers", "origin", "overlap"]

SHOWN_CLASSES = 40
SHOWN_ROWS = 10


def cell(value: Any) -> str:
    """Spells a value in a table: "32x32x3" for a shape, "-" for none."""
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def draw(profile: str, imbalance: float | None) -> str:
    """Names a draw: "exp 100", "natural"."""
    return profile if imbalance is None else f"{profile} {imbalance:g}"


def numbers(values: Sequence[float]) -> str:
    """Joins numbers of four digits."""
    return " ".join(f"{value:.4f}" for value in values)


def origin(facts: Mapping[str, Any]) -> str:
    """Says how many images of each part, and how many classes, a source has."""
    absent = facts["train_listed"] - facts["train_images"]
    held = facts.get("val_images", 0)
    return (
        f"{facts['source']['kind']}: {facts['train_images']:,} training images"
        f"{f' ({absent:,} more are listed and not there)' if absent else ''}, "
        f"{facts['test_images']:,} test images, "
        f"{f'{held:,} validation images, ' if held else ''}{len(facts['classes']):,} classes, "
        f"{cell(facts['shape'])}"
    )


def draw_facts(data: Dataset) -> dict[str, Any]:
    """Lists the facts of a draw as plain data."""
    groups = data.groups
    return {
        "name": data.name,
        "profile": data.profile,
        "imbalance": data.imbalance,
        "split_seed": data.split_seed,
        "split_id": data.split_id,
        "test_id": data.test_id,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "shape": list(data.train.images.shape[1:]),
        "classes": list(data.classes),
        "counts": data.counts.tolist(),
        "test_counts": data.test_counts.tolist(),
        "groups": {
            "rule": groups.rule,
            **{name: list(members) for name, members in groups.members.items()},
        },
        "overlap": data.overlap.tolist(),
        "dropped": data.dropped,
        "mean": list(data.mean),
        "std": list(data.std),
        "flip": data.flip,
    }


def class_table(data: Dataset) -> tuple[list[tuple[str, ...]], str]:
    """Composes the table of the classes -> rows with a head, and a line on the shot groups.

    The line is empty where the groups tell nothing. Of many classes, the first and last are shown.
    """
    from stylegan_mix.datasets.groups import telling

    groups = telling(data.counts, data.groups.members)
    group = {c: one for one, members in groups.items() for c in members}
    head = ("class", "", "train", "test", "group") if groups else ("class", "", "train", "test")
    tested = data.test_counts
    rows = [
        (str(c), one_line(name), f"{data.counts[c]:,}", f"{tested[c]:,}", group.get(c, ""))
        for c, name in enumerate(data.classes)
    ]
    if len(rows) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        left = f"... {len(rows) - 2 * half:,} more (--json lists all)"
        rows = [*rows[:half], ("", left, "", "", ""), *rows[-half:]]
    sizes = ", ".join(f"{len(members)} {one}" for one, members in groups.items())
    said = f"groups: {sizes}; by {data.groups.rule}" if groups else ""
    return [head, *(row[: len(head)] for row in rows)], said


def overlap(facts: Mapping[str, Any]) -> str:
    """Says how many training images of a draw are in the test part, from `draw_facts`."""
    if facts["dropped"]:
        return f"overlap: {facts['dropped']} training images were dropped (also in the test part)"
    if not facts["overlap"]:
        return "overlap: none of the training images is in the test part"
    rows = ", ".join(map(str, facts["overlap"][:SHOWN_ROWS]))
    more = ", ..." if len(facts["overlap"]) > SHOWN_ROWS else ""
    return (
        f"overlap: {len(facts['overlap'])} training images are also in the test part (rows {rows}"
        f"{more}); --drop-overlap removes them"
    )
