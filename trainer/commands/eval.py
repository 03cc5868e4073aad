"""`trainer eval`: scores a finished run again, and compares with its stored scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stylegan_mix import columns, console, process, progress

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["evaluate"]


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
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
) -> None:
    """Score the network of RUN, the folder of a finished run, on its test part.

    "overall" is the share of all test images, "balanced" the mean over the classes. Where some
    classes have more test images than others, "balanced" stands first.

    \b
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0
    """
    from trainer import predict
    from trainer.reports import records
    from trainer.reports.figures import FIGURES

    process.set_up_process(threads)
    found = predict.answers(run, "test", None, device=device)
    again = found.rescored() or found.result  # a test part is labelled
    before, now = records.regrouped([found.result, again], groups)
    scores, stored = (
        {name: one.accuracy(name) for name in FIGURES} | {"per_class": one.per_class}
        for one in (now, before)
    )
    if as_json:
        shown = {"accuracy": scores, "stored": stored, "same": scores == stored}
        console.print_json({**shown, "groups": now.dataset["groups"]})
        return
    console.result("\n".join(_lines(now)))
    if scores == stored:
        progress.say("the same as when the run ended")
    else:
        progress.say(
            f"the run had found {stored['overall']:.2f} overall, {stored['balanced']:.2f} "
            "balanced: another device, torch or version of this package rounds differently, and "
            "images at the border change sides"
        )


def _lines(result: Result) -> list[str]:
    """Renders the figures, then each class with its training and test images."""
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
        about = f"{count:>7,} training, {images:>6,} test images"
        lines.append(f"{columns.padded(name, wide)}  {_percent(value)}  {about}")
    return [*lines, "", f"Figures: {figures.explained([result])}", notes.groups_note(data)]


def _percent(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.2f}"
