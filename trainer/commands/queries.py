"""`trainer queries`: the stored votes of label-only teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, errors, fields, progress, store

__all__ = ["queries"]

_FACTS = {
    "views": fields.OBJECT,
    "teacher_sha256": fields.TEXT,
    "split_id": fields.TEXT,
    "seed": fields.WHOLE,
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything about them as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def queries(as_json: bool, debug: bool) -> None:
    """List the stored votes of label-only teachers over patches of the training images.

    Runs of the recipe patched-one-hot collect votes once, and share them by teacher and split.
    """
    found = stored()
    if as_json:
        console.print_json(found)
        return
    if not found:
        progress.say(f"no votes in {store.home()}; trainer run --recipe patched-one-hot makes some")
    for one in found:
        facts = one["facts"]
        console.result(
            f"{one['key'][:12]}  {one['images']:,} images x {facts['views']['views']} views  "
            f"teacher {facts['teacher_sha256'][:12]}  split {facts['split_id'][:12]}  "
            f"seed {facts['seed']}"
        )


def stored() -> list[dict[str, Any]]:
    """Lists votes in the stores: key, folder, facts, number of images; reports damaged ones."""
    found = []
    for root in store.roots():
        for folder in sorted(root.glob("annotations/*/votes")):
            try:
                found.append(_record(folder))
            except errors.InvalidInput as error:
                progress.say(f"left out: {error}")
    return found


def _record(folder: Path) -> dict[str, Any]:
    """Describes the votes in a folder; `InvalidInput` if there are none."""
    from stylegan_mix import arrays

    manifest = arrays.read_manifest(folder, kind="votes")
    facts = manifest["facts"]
    with errors.fitting(f"{folder} holds no votes"):
        fields.check_types(facts, _FACTS)
        fields.check_types(facts["views"], {"views": fields.WHOLE})
        images = manifest["arrays"]["counts"]["shape"][0]
    return {"key": folder.parent.name, "folder": str(folder), "images": images, "facts": facts}
