"""`trainer compare`: the difference of two experiments, by their paired seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stylegan_mix import console, errors, progress

if TYPE_CHECKING:
    from trainer.reports.records import Result

__all__ = ["compare"]


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--in",
    "places",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder to search for named arms; may be repeated. Default: runs.",
)
@click.option(
    "--level", type=console.FiniteRange(0.5, 0.999), help="Level of the interval. Default: 0.95."
)
@click.option(
    "--equivalence",
    type=console.FiniteRange(0, min_open=True),
    metavar="POINTS",
    help="Ask whether the 90 % interval lies within so many points.",
)
@console.groups_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def compare(
    a: str,
    b: str,
    places: tuple[Path, ...],
    level: float | None,
    equivalence: float | None,
    groups: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Compare experiments A and B seed by seed: mean difference and interval.

    The share of all test images (overall) decides. Where some classes have more test images than
    others, the mean over classes (balanced) does.

    A and B are folders (of a run, or of its seeds), or names as reports print them: an arm, with
    recipe, model or key where the arm alone is not enough, separated by slashes.

    \b
    trainer compare hybrid none
    trainer compare hybrid/kd/resnet8 none/kd/resnet8 --in tools/results
    """
    from trainer.reports import data_now, records
    from trainer.reports.compare import compare_runs

    chosen = level or (0.95 if equivalence is None else 0.90)
    left, right = (
        records.regrouped(_group(reference, places or (Path("runs"),)), groups)
        for reference in (a, b)
    )
    for line in data_now.changed([*left, *right]):
        progress.say(line)
    found = compare_runs(left, right, level=chosen, margin=equivalence)
    if as_json:
        console.print_json(found.plain())
    else:
        console.result(found.text())


def _group(reference: str, places: tuple[Path, ...]) -> list[Result]:
    from trainer.reports import records

    path = Path(reference)
    if path.exists():
        found = records.collect([path])
        if not found:
            raise errors.UsageFailure(f"there is no finished run in {path}")
        return records.only_one(reference, found)
    known = records.sound(places)
    found = records.named(known, reference)
    if not known:
        raise errors.UsageFailure(f"there is no finished run in {', '.join(map(str, places))}")
    if not found:
        arms = {word for one in known for word in (one.arm, one.recipe, one.model)}
        raise errors.UsageFailure(
            f"no finished run of '{reference}' in {', '.join(map(str, places))}"
            f"{errors.nearest(reference, arms)}"
        )
    return records.only_one(reference, found)
