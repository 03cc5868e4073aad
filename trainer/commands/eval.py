"""`trainer eval`: scores a finished run on its test part again, or on other images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import columns, console, process, progress
from stylegan_mix.errors import InvalidInput
from trainer.image_options import answers_of, image_options

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["evaluate"]


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@image_options
@console.groups_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=console.THREADS, help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def evaluate(
    run: Path,
    groups: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Score the network of RUN, the folder of a finished run, on its test part or other images.

    IMAGES is a folder, tar or zip of image files, with labels as in `trainer predict`; images
    without a label are not counted. Without IMAGES, a part of the run's own data set is scored, or
    of another one with the same classes, named by --dataset.

    "overall" is the share of all images, "balanced" the mean over the classes. Where some classes
    have more images than others, "balanced" stands first.

    \b
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0 --part train
    trainer eval runs/plankton-ce-none-1a2b3c4d/seed-0 photos --resize
    """
    from trainer.reports import records

    process.set_up_process(threads)
    found = answers_of(run, options, device=device)
    again = found.rescored()
    if again is None:
        raise InvalidInput(
            f"none of the {len(found.labels):,} images has a label of this network",
            remedy="put them into folders that are named after the classes, or name a file with "
            "--labels; trainer predict answers without labels",
        )
    before, now = records.regrouped([found.result, again], groups)
    own = all(options[name] is None for name in ("images", "dataset"))
    own = own and options["part"] in (None, "test")
    if as_json:
        _print_json(before if own else None, now, int(found.labelled.sum()))
        return
    console.result("\n".join(_lines(now, "test" if own else "scored")))
    if own:
        _compare(before, now)
    else:
        progress.say(f"{found.labelled.sum():,} of {len(found.labels):,} images have a label")


def _scores(result: Result) -> dict[str, Any]:
    from trainer.reports.figures import FIGURES

    return {name: result.accuracy(name) for name in FIGURES} | {"per_class": result.per_class}


def _print_json(before: Result | None, now: Result, images: int) -> None:
    """Prints the scores, beside the stored ones if they are of the same images."""
    stored = None if before is None else _scores(before)
    same = None if stored is None else _scores(now) == stored
    shown = {"accuracy": _scores(now), "stored": stored, "same": same, "images": images}
    console.print_json({**shown, "groups": now.dataset["groups"]})


def _compare(before: Result, now: Result) -> None:
    """Says if the scores are those that were stored when the run ended."""
    stored = _scores(before)
    if _scores(now) == stored:
        progress.say("the same as when the run ended")
    else:
        progress.say(
            f"the run had found {stored['overall']:.2f} overall, {stored['balanced']:.2f} "
            "balanced: another device, torch or version of this package rounds differently, and "
            "images at the border change sides"
        )


def _lines(result: Result, kind: str) -> list[str]:
    """Renders the figures, then each class with its training images and those of some kind."""
    from trainer.reports import figures, notes

    shown = figures.shown([result])
    data, tested = result.dataset, result.test_counts or []
    names = [columns.one_line(name) for name in data["classes"]]
    headings = [figures.heading(name, [result]) for name in shown]
    wide = max(map(columns.width, [*names, *headings]))
    lines = [
        f"{columns.padded(text, wide)}  {_percent(result.accuracy(name))}"
        for text, name in zip(headings, shown, strict=True)
    ]
    lines.append("")
    for name, value, count, images in zip(
        names, result.per_class, data["counts"], tested, strict=True
    ):
        about = f"{count:>7,} training, {images:>6,} {kind} images"
        lines.append(f"{columns.padded(name, wide)}  {_percent(value)}  {about}")
    return [*lines, "", f"Figures: {figures.explained([result])}", notes.groups_note(data)]


def _percent(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.2f}"
