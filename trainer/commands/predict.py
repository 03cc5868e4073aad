"""`trainer predict`: a finished run's answers, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, errors, output, process

__all__ = ["other_data", "predict"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@console.data_options
@click.option("--part", default="test", show_default=True, help="train, test or val.")
@click.option("--val-per-class", type=int, help="Images a class in part val.")
@click.option("--out", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def predict(run: Path, part: str, out: Path | None, **options: Any) -> None:
    """Write index, label, prediction and probabilities of every image as CSV.

    RUN is the folder of a finished run. Its own data set is read, or another one with the same
    classes, named by --dataset.

    \b
    trainer predict runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0 --out answers.csv
    """
    from trainer import predict as network

    output.check(out)
    process.set_up_process(options["threads"])
    found = network.answers(run, part, other_data(options), device=options["device"])
    text = network.as_csv(found)
    if out is None:
        console.result(text.rstrip("\n"))
        return
    output.write_text(out, text)
    right = 100 * float((found.predicted == found.labels).mean())
    console.result(f"{out}: {len(found.labels):,} images, {right:.1f} % right")


def other_data(options: dict[str, Any]) -> Any:
    """Describes the data set named by the options, or None if they name none."""
    from trainer.spec import DataSpec

    names = ("imbalance", "profile", "split_seed")
    given = {name: options[name] for name in names if options[name]}
    kept = options["val_per_class"] or 0
    if options["dataset"] is None:
        if given or kept:
            raise errors.UsageFailure("a split needs --dataset, too")
        return None
    return DataSpec(name=options["dataset"], val_per_class=kept, **given)
