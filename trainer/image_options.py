"""The images that `trainer eval` and `trainer predict` ask a network about, as options; no torch.

They are a part of a data set, or the files of a folder, tar or zip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stylegan_mix import console
from stylegan_mix.errors import UsageFailure

if TYPE_CHECKING:
    from stylegan_mix.datasets.loose_labels import Wanted
    from trainer.predict import Answers
    from trainer.spec import DataSpec

__all__ = ["answers_of", "image_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = [
    click.option(
        "--part",
        metavar="NAME",
        help="Part of a data set, or of IMAGES: train, test, val; of IMAGES also all.  "
        "[default: test]",
    ),
    click.option("--val-per-class", type=click.IntRange(0), help="Images a class in part val."),
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Labels of IMAGES: CSV, TSV or JSON lines with a header, as `dataset prepare` takes "
        "them.",
    ),
    click.option("--file-column", metavar="NAME", help="Column of --labels that names the images."),
    click.option("--label-column", metavar="NAME", help="Column of --labels with their classes."),
    click.option("--resize", is_flag=True, help="Bring images to the size of the training images."),
    click.option(
        "--fit",
        type=click.Choice(["crop", "pad", "stretch", "centre"]),
        help="How --resize makes squares.  [default: as its data set was prepared]",
    ),
    click.option(
        "--convert",
        is_flag=True,
        help="Take 16-bit images (their upper 8 bits), CMYK, and the first frame of animations.",
    ),
    click.option(
        "--on-bad-image",
        type=click.Choice(["error", "skip"]),
        default="error",
        show_default=True,
        help="Files of IMAGES that cannot be read.",
    ),
]


def image_options(command: Command) -> Command:
    """Adds the argument IMAGES, and the options of `answers_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    command = console.data_options(command)
    return click.argument("images", required=False, type=click.Path(path_type=Path))(command)


def answers_of(run: Path, options: Mapping[str, Any], *, device: str) -> Answers:
    """Computes the answers of a run's network to the images that the options name.

    Raises `UsageFailure` (exit code 2) for options that contradict one another or would not be
    read, and the errors of `predict.answers` and `predict.answers_on_files`.
    """
    from stylegan_mix.datasets.loose_labels import Wanted
    from trainer import predict

    images, fit = options["images"], options["fit"]
    if fit and not options["resize"]:
        raise UsageFailure("--fit says how --resize makes squares", remedy="add --resize")
    other = _other_data(options)
    if images is not None and other is not None:
        raise UsageFailure(
            f"--dataset names images of a data set; {images} has others",
            remedy="leave one of them out",
        )
    named = (options["labels"], options["file_column"], options["label_column"])
    wanted = Wanted(options["part"], *named)
    _check(images, wanted, convert=options["convert"])
    how = (fit or predict.AS_PREPARED) if options["resize"] else None
    if images is None:
        return predict.answers(run, options["part"] or "test", other, device=device, fit=how)
    return predict.answers_on_files(
        *(run, images, wanted),
        device=device,
        fit=how,
        convert=options["convert"],
        skip_bad=options["on_bad_image"] == "skip",
    )


def _check(images: Path | None, wanted: Wanted, *, convert: bool) -> None:
    """Raises `UsageFailure` (exit code 2) for options that would not be read."""
    if images is None and (wanted.labels or convert):
        raise UsageFailure(
            "--labels and --convert are for files: there are no IMAGES",
            remedy="name a folder, tar, zip or image after RUN",
        )
    if (wanted.file_column or wanted.label_column) and not wanted.labels:
        raise UsageFailure("--file-column and --label-column need --labels FILE")


def _other_data(options: Mapping[str, Any]) -> DataSpec | None:
    """Describes the data set named by the options, or None if they name none."""
    from trainer.spec import DataSpec

    names = ("imbalance", "profile", "split_seed")
    given = {name: options[name] for name in names if options[name]}
    if options["dataset"] is not None:
        held = options["val_per_class"] or 0
        return DataSpec(name=options["dataset"], val_per_class=held, **given)
    if given or options["val_per_class"]:
        raise UsageFailure("a split needs --dataset, too")
    return None
