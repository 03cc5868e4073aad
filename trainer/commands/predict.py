"""`trainer predict`: a finished run's answers, image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, output, process, progress
from trainer.image_options import answers_of, image_options

__all__ = ["predict"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@image_options
@console.groups_option
@click.option("--out", type=click.Path(path_type=Path), help="Write here; .json means --json.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of CSV.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=console.THREADS, help="CPU threads.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def predict(
    run: Path,
    groups: str | None,
    out: Path | None,
    as_json: bool,
    device: str,
    threads: int | None,
    debug: bool,
    **options: Any,
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
    from trainer import answers
    from trainer.reports import records

    output.check(out)
    process.set_up_process(threads)
    found = answers_of(run, options, device=device)
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
