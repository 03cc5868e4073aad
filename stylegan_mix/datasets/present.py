"""The prepared set that is there already under a name, compared with a new preparation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_mix import arrays
from stylegan_mix.arrays import Container
from stylegan_mix.datasets.archives import Archive
from stylegan_mix.datasets.facts import check_facts
from stylegan_mix.datasets.layouts import recognise
from stylegan_mix.datasets.pool import KIND
from stylegan_mix.datasets.request import Request
from stylegan_mix.datasets.sources import without
from stylegan_mix.errors import InvalidInput, UsageFailure, fitting

__all__ = ["FOLDER_RULES", "differs", "made_of", "other_content", "present_set", "same"]

# The version of the rules that recognise folders: a set that earlier rules made is checked anew.
FOLDER_RULES = 3

DECLARED = ("classes", "flip", "default", "head")
# Facts that are known before an image is decoded.
FORESEEN = ("classes", "flip", "shape", "train_images", "train_listed", "test_images", "val_images")


def present_set(final: Path, replace: bool) -> Container | None:
    """Opens the set that is there; None without one, or if a damaged one is to be replaced.

    Raises `InvalidInput` (exit code 3) for a damaged one.
    """
    if not final.is_dir():
        return None
    try:
        container = arrays.open_container(final, kind=KIND)
        with fitting("its facts"):
            check_facts(container.facts)
        return container
    except InvalidInput as error:
        if replace:
            return None
        raise InvalidInput(
            f"the set that is there is damaged: {error}",
            remedy="run the same command with --replace",
        ) from error


def made_of(present: Container, key: str, request: Request, archive: Archive) -> bool:
    """Tells if a set was made by this request, and its folders are still understood alike."""
    facts = present.facts
    if facts.get("request") != key:
        return False
    if facts["source"]["kind"] != "image folder" or facts.get("folder_rules") == FOLDER_RULES:
        return True
    listing = without(recognise(archive, request)[1], facts["skipped"])
    found = {"labels": listing.train, "test_labels": listing.test}
    return list(listing.classes) == facts["classes"] and all(
        [entry.label for entry in part] == present[name].tolist() for name, part in found.items()
    )


def same(present: Container, made: Container) -> bool:
    """Tells if two sets have the same images, labels, classes and defaults."""
    alike = all(present.facts.get(name) == made.facts[name] for name in DECLARED)
    return alike and present.content_sha256 == made.content_sha256


def differs(facts: Mapping[str, Any], foreseen: Mapping[str, Any]) -> bool:
    """Tells if a set is surely another one than a plan foresees, from names and headers alone.

    `facts` are those of the set, `foreseen` those of the plan. Where images may be left out,
    nothing is sure before they are decoded.
    """
    return any(facts.get(name, 0) != foreseen[name] for name in FORESEEN)


def other_content(name: str, present: Mapping[str, Any], made: Mapping[str, Any]) -> UsageFailure:
    """Makes the error (exit code 2) for a name that is taken, from the facts of both sets."""
    return UsageFailure(
        f"data set '{name}' exists with other content ({_summary(present)}; this one would have "
        f"{_summary(made)})",
        remedy="choose another name, or add --replace",
    )


def _summary(facts: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, facts["shape"]))
    known = f", test id {facts['test_id'][:12]}" if "test_id" in facts else ""
    return (
        f"{facts['train_images']:,} + {facts['test_images']:,} images of {shape}, "
        f"{len(facts['classes'])} classes{known}"
    )
