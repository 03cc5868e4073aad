"""`trainer eval`: scores a finished run again, and compares with its stored scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, process, progress

__all__ = ["evaluate"]


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def evaluate(run: Path, device: str, threads: int | None, as_json: bool, debug: bool) -> None:
    """Score the network of RUN, the folder of a finished run, on its test part.

    \b
    trainer eval runs/digits_lt-ce-hybrid-1a2b3c4d/seed-0
    """
    from trainer import predict
    from trainer.reports import tables

    process.set_up_process(threads)
    found = predict.answers(run, "test", None, device=device)
    scores, stored = found.scores(), found.result.record["accuracy"]
    if as_json:
        console.print_json({"accuracy": scores, "stored": stored, "same": scores == stored})
        return
    console.result("\n".join(_lines(found.data, scores, tables.PARTS)))
    if scores == stored:
        progress.say("the same as when the run ended")
    else:
        progress.say(
            f"the run had found {stored['overall']:.2f} overall: another device, torch or version "
            "of this package rounds differently, and images at the border change sides"
        )


def _lines(data: Any, scores: dict[str, Any], parts: tuple[str, ...]) -> list[str]:
    lines = [f"{part:<24} {_shown(scores[part])}" for part in parts]
    classes = zip(data.classes, data.counts, scores["per_class"], strict=True)
    for name, count, value in classes:
        lines.append(f"{name:<24} {_shown(value)}   {int(count):>7,} training images")
    return [*lines, f"shot groups by {data.groups.rule}"]


def _shown(value: float | None) -> str:
    return "   n/a" if value is None else f"{value:6.2f}"
