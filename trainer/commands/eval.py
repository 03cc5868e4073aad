"""`trainer eval`: scores a finished run on its test part again, or on other images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import columns, console, errors, output, process, progress
from trainer.image_options import answers_of, image_options

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["evaluate"]

_ENDINGS = (".csv", ".png")
_ELSEWHERE = "choose another place with --confusion"


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@image_options
@console.groups_option
@click.option(
    "--confusion",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Write the confusion matrix here: .csv counts images, .png is a picture.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=console.THREADS, help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def evaluate(
    run: Path,
    groups: str | None,
    confusion: tuple[Path, ...],
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
    have more images than others, "balanced" stands first. The calibration error
    (ECE) is the mean distance of confidence and accuracy, over 15 bins of confidence.

    \b
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0 --part train
    trainer eval runs/plankton-ce-none-1a2b3c4d/seed-0 photos --resize
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0 --confusion who.csv --confusion who.png
    """
    from trainer.reports import records

    _check_places(confusion)
    process.set_up_process(threads)
    found = answers_of(run, options, device=device)
    again = found.rescored()
    if again is None:
        raise errors.InvalidInput(
            f"none of the {len(found.labels):,} images has a label of this network",
            remedy="put them into folders that are named after the classes, or name a file with "
            "--labels; trainer predict answers without labels",
        )
    before, now = records.regrouped([found.result, again], groups)
    own = options["images"] is None and options["dataset"] is None
    stored = before if own and options["part"] in (None, "test") else None
    for path in confusion:
        _write_confusion(now, path)
    if as_json:
        shown = _plain(now, stored) | {"images": int(found.labelled.sum())}
        shown["calibration_error"] = found.calibration_error
        console.print_json({**shown, "groups": now.dataset["groups"]})
        return
    kind = "scored" if stored is None else "test"
    console.result("\n".join(_lines(now, found.calibration_error, kind)))
    if stored is None:
        progress.say(f"{found.labelled.sum():,} of {len(found.labels):,} images have a label")
    else:
        _compare(now, stored)


def _scores(result: Result) -> dict[str, Any]:
    from trainer.reports.figures import FIGURES

    return {name: result.accuracy(name) for name in FIGURES} | {"per_class": result.per_class}


def _plain(now: Result, stored: Result | None) -> dict[str, Any]:
    """Returns the scores beside the stored ones, which are None if they are of other images."""
    scores, before = _scores(now), None if stored is None else _scores(stored)
    same = None if before is None else scores == before
    return {"accuracy": scores, "stored": before, "same": same}


def _compare(now: Result, stored: Result) -> None:
    """Says if the scores are those that were stored when the run ended."""
    before = _scores(stored)
    if _scores(now) == before:
        progress.say("the same as when the run ended")
    else:
        progress.say(
            f"the run had found {before['overall']:.2f} overall, {before['balanced']:.2f} "
            "balanced: another device, torch or version of this package rounds differently, and "
            "images at the border change sides"
        )


def _check_places(paths: tuple[Path, ...]) -> None:
    """Raises the errors of writing the matrix that can be foreseen, before the network is asked."""
    for path in paths:
        if path.suffix not in _ENDINGS:
            raise errors.UsageFailure(
                f"--confusion {path} ends in neither of {', '.join(_ENDINGS)}",
                remedy=f"name it {path.with_suffix('.csv').name} for counts of images",
            )
        output.check(path, elsewhere=_ELSEWHERE)


def _write_confusion(result: Result, path: Path) -> None:
    """Writes the confusion matrix of a result, as a table or as a picture by the ending of `path`.

    `InvalidInput` (exit code 3) if it has too many classes for one.
    """
    from stylegan_mix.drawing.plots import png
    from trainer import answers
    from trainer.reports import plots
    from trainer.reports.tables import Row

    if result.record["confusion"] is None:
        raise errors.InvalidInput(
            f"there is no confusion matrix of {len(result.per_class):,} classes: it would grow "
            "with the square of their number",
            remedy="trainer predict RUN --out answers.csv has the answer to every image",
        )
    if path.suffix == ".csv":
        output.write_text(path, answers.confusion_csv(result), elsewhere=_ELSEWHERE)
    else:
        figure = plots.confusion(Row((result,)))
        assert figure is not None  # as there is a matrix
        output.write_bytes(path, png(figure), elsewhere=_ELSEWHERE)
    progress.say(f"confusion matrix: {path}")


def _lines(result: Result, calibration_error: float | None, kind: str) -> list[str]:
    """Renders the figures, then each class with its training images and those of some kind."""
    from trainer.reports import figures, notes
    from trainer.reports.calibration import BINS

    shown = figures.shown([result])
    data, tested = result.dataset, result.test_counts or []
    names = [columns.one_line(name) for name in data["classes"]]
    headings = [figures.heading(name, [result]) for name in shown]
    calibration = f"calibration error ({BINS} bins)"
    wide = max(map(columns.width, [*names, *headings, calibration]))
    lines = [
        f"{columns.padded(text, wide)}  {_percent(result.accuracy(name))}"
        for text, name in zip(headings, shown, strict=True)
    ]
    lines += [f"{columns.padded(calibration, wide)}  {_percent(calibration_error)}", ""]
    for name, value, count, images in zip(
        names, result.per_class, data["counts"], tested, strict=True
    ):
        about = f"{count:>7,} training, {images:>6,} {kind} images"
        lines.append(f"{columns.padded(name, wide)}  {_percent(value)}  {about}")
    return [*lines, "", f"Figures: {figures.explained([result])}", notes.groups_note(data)]


def _percent(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.2f}"
