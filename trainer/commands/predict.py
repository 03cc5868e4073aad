"""`trainer predict`: a finished run's answers, image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, errors, output, process, progress

if TYPE_CHECKING:
    from stylegan_mix.datasets.loose_labels import Wanted
    from trainer.spec import DataSpec

__all__ = ["predict"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", required=False, type=click.Path(path_type=Path))
@console.data_options
@click.option(
    "--part",
    metavar="NAME",
    help="Part of a data set, or of IMAGES: train, test, val; of IMAGES also all.  [default: test]",
)
@click.option("--val-per-class", type=click.IntRange(0), help="Images a class in part val.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Labels of IMAGES: CSV, TSV or JSON lines with a header, as `dataset prepare` takes them.",
)
@click.option("--file-column", metavar="NAME", help="Column of --labels that names the images.")
@click.option("--label-column", metavar="NAME", help="Column of --labels with their classes.")
@click.option("--resize", is_flag=True, help="Bring images to the size of the training images.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch"]),
    help="How --resize makes squares.  [default: as its data set was prepared]",
)
@click.option(
    "--convert",
    is_flag=True,
    help="Take 16-bit images (their upper 8 bits), CMYK, and the first frame of animations.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Files of IMAGES that cannot be read.",
)
@console.groups_option
@click.option("--out", type=click.Path(path_type=Path), help="Write here; .json means --json.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=console.THREADS, help="CPU threads.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def predict(
    run: Path,
    images: Path | None,
    dataset: str | None,
    imbalance: float | None,
    profile: str | None,
    split_seed: int | None,
    part: str | None,
    val_per_class: int | None,
    labels: tuple[Path, ...],
    file_column: str | None,
    label_column: str | None,
    resize: bool,
    fit: str | None,
    convert: bool,
    on_bad_image: str,
    groups: str | None,
    out: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    debug: bool,
) -> None:
    """Write prediction and probabilities of every image as CSV or JSON.

    RUN is the folder of a finished run. IMAGES is a folder, tar or zip of image files, or one file.
    A label stands in a file that --labels names, in a metadata.csv, metadata.jsonl or dataset.json
    beside the images, or it is the class after which a folder around the image is named; other
    images have none. Without IMAGES, the run's own data set is read, or another one with the same
    classes, named by --dataset.

    \b
    trainer predict runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0 --out answers.csv
    trainer predict runs/plankton-ce-none-1a2b3c4d/seed-0 photos --resize --out answers.json
    """
    from stylegan_mix.datasets.loose_labels import Wanted
    from trainer import answers
    from trainer import predict as network
    from trainer.reports import records

    if fit and not resize:
        raise errors.UsageFailure("--fit says how --resize makes squares", remedy="add --resize")
    draw = {"imbalance": imbalance, "profile": profile, "split_seed": split_seed}
    other = _other_data(dataset, val_per_class, draw)
    if images is not None and other is not None:
        raise errors.UsageFailure(
            f"--dataset names images of a data set; {images} has others",
            remedy="leave one of them out",
        )
    wanted = Wanted(part, labels, file_column, label_column)
    _check_options(images, wanted, convert)
    how = (fit or network.AS_PREPARED) if resize else None
    output.check(out)
    process.set_up_process(threads)
    if images is None:
        found = network.answers(run, part or "test", other, device=device, fit=how)
    else:
        found = network.answers_on_files(
            *(run, images, wanted),
            device=device,
            fit=how,
            convert=convert,
            skip_bad=on_bad_image == "skip",
        )
    (grouped,) = records.regrouped([found.result], groups)
    found = replace(found, result=grouped)
    plain = as_json or (out is not None and out.suffix == ".json")
    text = console.as_json(answers.as_plain(found)) if plain else answers.as_csv(found)
    if out is None:
        console.result(text.rstrip("\n"))
        progress.say(answers.in_brief(found))
        return
    output.write_text(out, f"{text.rstrip()}\n")
    console.result(f"{out}: {answers.in_brief(found)}")


def _check_options(images: Path | None, wanted: Wanted, convert: bool) -> None:
    """Raises `UsageFailure` (exit code 2) for options that would not be read."""
    if images is None and (wanted.labels or convert):
        raise errors.UsageFailure(
            "--labels and --convert are for files: there are no IMAGES",
            remedy="name a folder, tar, zip or image after RUN",
        )
    if (wanted.file_column or wanted.label_column) and not wanted.labels:
        raise errors.UsageFailure("--file-column and --label-column need --labels FILE")


def _other_data(
    name: str | None, val_per_class: int | None, draw: dict[str, Any]
) -> DataSpec | None:
    """Describes the data set named by the options, or None if they name none."""
    from trainer.spec import DataSpec

    given = {option: value for option, value in draw.items() if value}
    if name is not None:
        return DataSpec(name=name, val_per_class=val_per_class or 0, **given)
    if given or val_per_class:
        raise errors.UsageFailure("a split needs --dataset, too")
    return None
