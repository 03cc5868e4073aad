"""The card of a generator: its fields checked in one place, and its Markdown text.

A card comes out of a manifest, and anyone can write a manifest with a fitting hash. Readers rely on
the checks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from stylegan_mix.datasets.records import draw_name
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, Types, check_each, check_types
from stylegan_mix.generators.budget import in_thousands, of_preset, short
from stylegan_mix.presets import preset_of
from stylegan_mix.showing import for_markdown, one_line, shown_command

__all__ = ["card_text", "check", "class_table", "command", "rounding", "trained_for"]

_EVERY: dict[str, Types] = {
    "classes": LIST,
    "counts": LIST,
    "resolution": WHOLE,
    "channels": WHOLE,
    "preset": OBJECT,
    "profile": (*TEXT, NoneType),
    "imbalance": (*NUMBER, NoneType),
    "split_seed": (*WHOLE, NoneType),
    "test_id": (*TEXT, NoneType),
}
# Fields that an imported generator may lack.
_ORIGIN: dict[str, Types] = {
    "dataset": TEXT,
    "split_id": TEXT,
    "training": TEXT,
    "kimg": NUMBER,
    "seed": WHOLE,
    "diversity": LIST,
}
_TRAINED = {**_EVERY, **_ORIGIN}
_IMPORTED = {
    **_EVERY,
    **{name: (*types, NoneType) for name, types in _ORIGIN.items()},
    "network": OBJECT,
    "imported": OBJECT,
}
_SOURCE: dict[str, Types] = {"file": TEXT, "sha256": TEXT, "what": TEXT, "split": TEXT}
_OF_CLASSES: dict[str, Types] = {
    "classes": TEXT,
    "counts": WHOLE,
    "diversity": (*NUMBER, NoneType),
}
_SOMETIMES: dict[str, Types] = {
    "command": TEXT,
    "operators": TEXT,
    "half_life": NUMBER,
    "init": OBJECT,
    "lineage_kimg": NUMBER,
    "rounded": OBJECT,
}
_INIT: dict[str, Types] = {"generator": TEXT, "critic": (*TEXT, NoneType), "kimg": NUMBER}
_SEEN: dict[str, Types] = {"dataset": (*TEXT, NoneType), "split_id": (*TEXT, NoneType)}
_ROUNDED: dict[str, Types] = {"dtype": TEXT, "generator": TEXT}


def check(card: Any) -> None:
    """Raises ValueError, with the reason, unless this is the card of a generator."""
    check_types(card, {})
    imported = card.get("imported") is not None
    check_types(card, _IMPORTED if imported else _TRAINED)
    check_types(card, {name: _SOMETIMES[name] for name in _SOMETIMES if name in card})
    _check_lists(card)
    if "rounded" in card:
        check_types(card["rounded"], _ROUNDED)
    _check_init(card)
    if min(card["resolution"], card["channels"]) < 1:
        raise ValueError("'resolution' and 'channels' must be positive")
    check_types(card["preset"], {"name": TEXT})
    if imported:
        check_types(card["imported"], _SOURCE)
        return
    preset_of(card["preset"])
    if not card["classes"]:
        raise ValueError("'classes' is empty: only an imported one is unconditional")


def _check_lists(card: Mapping[str, Any]) -> None:
    """Checks names, counts and diversity of each class; none without classes."""
    classes = card["classes"]
    for name, types in _OF_CLASSES.items():
        values = card[name] or []
        check_each(values, types, name)
        if classes and card[name] is not None and len(values) != len(classes):
            raise ValueError(f"'{name}' has {len(values)} values for {len(classes)} classes")


def _check_init(card: Mapping[str, Any]) -> None:
    """Checks the start of a training that began with another generator, and all it had seen."""
    if "init" not in card:
        return
    check_types(card["init"], _INIT)
    check_types(card, {"lineage_kimg": NUMBER})
    others = card["init"].get("others", [])
    check_each(others, OBJECT, "others")
    for one in others:
        check_types(one, _SEEN)


# In words


def command(card: Mapping[str, Any]) -> str | None:
    """Shows the command on a card, if it is a plain one that makes generators; None without one."""
    if "command" not in card:
        return None
    verb = "train" if card.get("imported") is None else "import-generator"
    return shown_command(card["command"], "stylegan-mix", verb)


def rounding(card: Mapping[str, Any]) -> str:
    """Describes the rounding of exported weights; "" for weights as they were trained."""
    if "rounded" not in card:
        return ""
    one = card["rounded"]
    return (
        f"rounded to {one_line(one['dtype'])[:20]} from generator {one_line(one['generator'])[:12]}"
    )


def class_table(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Lists name, training images and diversity of each class as text, below a head."""
    ratios = card["diversity"] or [None] * len(card["classes"])
    rows = [
        (str(name), f"{count:,}", "n/a" if ratio is None else f"{ratio:.2f}")
        for name, count, ratio in zip(card["classes"], card["counts"], ratios, strict=True)
    ]
    return [("class", "training images", "diversity"), *rows]


def card_text(name: str, card: Mapping[str, Any]) -> str:
    """Renders `GENERATOR_CARD.md` of the generator whose weights have the hash `name`."""
    return _trained_text(name, card) if card.get("imported") is None else _imported_text(name, card)


def _trained_text(name: str, card: Mapping[str, Any]) -> str:
    head, *rows = (f"| {' | '.join(map(for_markdown, cells))} |" for cells in class_table(card))
    table = "\n".join([head, "|---|---|---|", *rows])
    split = f"split `{card['split_id'][:12]}` ({draw_name(card['imbalance'])})"
    average = "moving average"
    if "half_life" in card:
        average += f" of half-life {card['half_life']:g} thousand images, kept beside the main one"
    if found := rounding(card):
        average += f", {_coded(found)}"
    return f"""# Generator {name[:12]}

StyleGAN2 of preset `{card["preset"]["name"]}`, trained on {for_markdown(card["dataset"])},
{split}, for {trained_for(card)}, seed {card["seed"]}, in
{card["preset"]["precision"]}. Weights: {average}, SHA-256 `{name}`.
{_start_text(card)}{_warned(card)}
Diversity is the mean pairwise pixel distance among a class's samples over that among its real
training images: 1 is as diverse as the data, 0 a single picture.

{table}

![samples of every class](grid.png)

{_seen_text(card)} What its images may be
used for follows from the terms of that data. {_written_by(card)}
"""


def _start_text(card: Mapping[str, Any]) -> str:
    """Describes the generator that a training began with; nothing if there was none."""
    if "init" not in card:
        return ""
    start = card["init"]
    critic = "its discriminator" if start["critic"] else "a fresh discriminator"
    return f"""
It began with the weights of generator `{one_line(start["generator"])[:12]}` and {critic}, after
{start["kimg"]:g} thousand images: {card["lineage_kimg"]:g} thousand in all.
"""


def _seen_text(card: Mapping[str, Any]) -> str:
    others = card.get("init", {}).get("others", [])
    if not others:
        return "Trained on exactly the training part of that split, and on nothing else."
    named = ", ".join(
        f"{for_markdown(str(one['dataset']))} (split `{one_line(str(one['split_id']))[:12]}`)"
        for one in others
    )
    return f"""**It has seen other images, too**: it began with weights that were trained on
{named}. If test images were among them, results with its banks are worth nothing."""


def trained_for(card: Mapping[str, Any]) -> str:
    """Describes the images that a generator was shown, beside the budget of its preset."""
    kimg, budget = card["kimg"], card["preset"].get("kimg")
    return in_thousands(kimg) if budget is None else of_preset(kimg, budget)


def _warned(card: Mapping[str, Any]) -> str:
    """Renders the warning of a barely trained generator as a paragraph; "" without one."""
    text = short(card)
    return f"\n**Warning: {text}.**\n" if text else ""


def _imported_text(name: str, card: Mapping[str, Any]) -> str:
    source, network = card["imported"], card["network"]
    rounded = f", {rounding(card)}" if "rounded" in card else ""
    size, classes = card["resolution"], card["classes"]
    left = ", ".join(f"`{one}`" for one in source["left"]) or "nothing"
    settings = "\n".join(f"| {key} | {value} |" for key, value in network.items())
    return f"""# Generator {name[:12]}

Imported from `{_coded(source["file"])}`, a {source["what"]}, of {source["bytes"]:,} bytes.
It was read as data: no code in it or named by it was run. Left in it: {left}.

| | |
|---|---|
| file, SHA-256 | `{source["sha256"]}` |
| weights, SHA-256 | `{name}`{_coded(rounded)} |
| images | {size}x{size}, {card["channels"]} channel(s) |

## What it was trained on

{_declared_text(card)}

{_use_text(classes, card["counts"])}

![samples](grid.png)

## Network

| | |
|---|---|
{settings}

What its images may be used for follows from the terms of its publication and of its training
images. {_written_by(card)}
"""


def _written_by(card: Mapping[str, Any]) -> str:
    found = command(card)
    if found is None:
        return ""
    before = ", before it is rounded," if "rounded" in card else ""
    return f"Written again{before} by: `{found}`"


def _coded(text: str) -> str:
    """Prepares a text for a place between backticks."""
    return one_line(text).replace("`", "'")


def _declared_text(card: Mapping[str, Any]) -> str:
    if card["split_id"] is None:
        return "Not said when it was imported: nothing is known of the images that it has seen."
    factor = card["imbalance"]
    drawn = f"profile {card['profile']}" if factor is None else f"imbalance {factor:g}"
    word = card["imported"]["split"]
    return f"""{for_markdown(card["dataset"])} ({drawn}), split `{card["split_id"]}`: **{word}** who
imported it. Nothing in the file says so and nothing here could check it. If it has seen other
images of this data set, test images among them, results with its banks are worth nothing."""


def _use_text(classes: list[str], counts: list[int]) -> str:
    if not classes:
        return """It is unconditional: it draws images of no known class, so no bank, whose rows
need labels, can be written from it. It can be looked at, and its latent space searched."""
    rows = "\n".join(
        f"| {index} | {for_markdown(label)} | {count} |"
        for index, (label, count) in enumerate(zip(classes, counts, strict=True))
    )
    return f"""Its class numbers are taken for these, in this order; the picture shows, in each row,
real images of the class beside what it draws for that number.

| number | class | training images of that split |
|---|---|---|
{rows}"""
