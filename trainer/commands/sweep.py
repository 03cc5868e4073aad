"""`trainer sweep`: runs what a TOML grid asks for and nobody has run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, errors, progress, stopping

if TYPE_CHECKING:
    from stylegan_mix.stopping import StopSignals
    from trainer.sweep import Settled

__all__ = ["sweep"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder of results: what is there is skipped, what is run is copied there.",
)
@click.option("--out", default="runs", show_default=True, help="Folder of the run folders.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after so long."
)
@click.option("--print-commands", is_flag=True, help="Print the command of every run, then stop.")
@click.option("--dry-run", is_flag=True, help="Say what is there and what would run, then stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def sweep(file: Path, results: Path | None, out: str, **options: Any) -> None:
    """Run the experiments of FILE one after another, skipping those that have a result.

    The same command goes on after a stop. Every run is an ordinary `trainer run`.

    \b
    trainer sweep tools/experiments/digits.toml --results tools/results/digits
    """
    from trainer import sweep as grid
    from trainer.reports.records import collect

    items = grid.load(file)
    if options["print_commands"]:
        for asked in items:
            console.result(asked.command())
        return
    known = collect([results]) if results is not None and results.exists() else []
    settled = grid.settle(items, known, out=out)
    missing = [one for one in settled if one.found is None]
    progress.say(f"{file}: {len(items)} runs, {len(items) - len(missing)} have a result")
    if options["dry_run"]:
        _tell(settled, as_json=options["as_json"])
        return
    failures: list[errors.Failure] = []
    with stopping.StopSignals(options["minutes"]) as stop:
        for number, one in enumerate(missing, start=1):
            progress.say(f"\nrun {number} of {len(missing)}: {one.asked.command()}")
            failure = _run(one, stop, results, options)
            failures += [failure] if failure else []
    if failures:
        progress.say(f"{len(failures)} of {len(missing)} runs failed; the first:")
        raise failures[0]
    _tell(grid.settle(items, collect([results or Path(out)]), out=out), options["as_json"])


def _run(
    one: Settled, stop: StopSignals, results: Path | None, options: dict[str, Any]
) -> errors.Failure | None:
    """Runs one experiment and keeps its result; a failure that is its own is handed back."""
    from trainer import sweep as grid
    from trainer.execute import How, execute

    assert one.plan is not None
    if stop.requested:
        raise stop.failure(saved=True, what="the runs before this one are finished")
    try:
        found = execute(one.plan, stop, How(options["device"], options["threads"], {}))
    except (errors.Diverged, errors.InvalidInput, errors.UsageFailure) as error:
        progress.say(f"failed: {error}")
        return error
    if results is not None:
        progress.say(f"kept: {grid.keep(found[0], results)}")
    return None


def _tell(settled: list[Settled], as_json: bool) -> None:
    lines = [
        {
            "command": one.asked.command(),
            "result": None if one.found is None else str(one.found.path),
            "overall": None if one.found is None else one.found.accuracy("overall"),
            "told": None if one.found is None else one.why,
        }
        for one in settled
    ]
    if as_json:
        console.print_json({"runs": lines})
        return
    for line in lines:
        accuracy = "to run" if line["overall"] is None else f"{line['overall']:.1f}"
        console.result(f"{accuracy:>6}  {line['command']}")
