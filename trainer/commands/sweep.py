"""`trainer sweep`: runs the experiments of a TOML grid that have no result yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, errors, process, progress, stopping
from stylegan_mix.session import Session
from trainer.curves import TENSORBOARD, require_tensorboard

if TYPE_CHECKING:
    from trainer.sweep import Settled

__all__ = ["sweep"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder of results: runs found there are skipped, new ones are copied there.",
)
@click.option("--out", default="runs", show_default=True, help="Folder of the run folders.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Runs side by side, each in a process of its own.",
)
@click.option(
    "--threads",
    type=console.THREADS,
    help="CPU threads of a run. Default: with several workers, an equal share of the cores.",
)
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after so long."
)
@console.progress_option
@click.option("--tensorboard", type=click.Path(path_type=Path), help=TENSORBOARD)
@click.option("--print-commands", is_flag=True, help="Print the command of every run, then stop.")
@click.option("--dry-run", is_flag=True, help="List existing results and missing runs, then stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def sweep(file: Path, results: Path | None, out: str, **options: Any) -> None:
    """Run the experiments of FILE, skipping those that have a result.

    The same command goes on after a stop. Typed twice at once, both share the runs. Every run is
    an ordinary `trainer run`. At the same --threads, any number of workers gives the same results.

    \b
    trainer sweep tools/experiments/digits_lt.toml --results my_results
    """
    from trainer import sweep as grid
    from trainer.carry_out import carry_out
    from trainer.execute import How
    from trainer.reports.records import RESULT_FILE, read, sound

    if options["tensorboard"]:
        require_tensorboard()
    items = grid.load(file)
    known = sound([results]) if results is not None and results.exists() else []
    if options["print_commands"]:
        for command in grid.commands(items, known, out=out):
            console.result(command)
        return
    settled = grid.settle(items, known, out=out)
    missing = [one for one in settled if one.found is None]
    progress.say(f"{file}: {len(items)} runs, {len(items) - len(missing)} have a result")
    for reason in dict.fromkeys(why for one in missing if one.plan for why in one.plan.why):
        progress.say(reason)
    if options["dry_run"]:
        _require_startable(missing, options["device"])
        _tell(settled, as_json=options["as_json"])
        return
    grid.check_place(results)
    how = How(options["device"], options["threads"], {}, options["progress"], options["tensorboard"])
    plans = [one.plan for one in missing if one.plan is not None]
    for plan in plans:  # before the first begins, so that all have the banks of now
        plan.keep_choice()
    reporter = progress.reporter_for(options["progress"])
    failures = []
    with stopping.StopSignals(options["minutes"]) as stop:
        session = Session(stop, reporter)
        for plan, failure in carry_out(plans, options["workers"], how, session):
            if failure is not None:
                session.say(f"failed: {failure}")
                failures.append(failure)
            elif results is not None:
                found = read(plan.folder(plan.spec.seed) / RESULT_FILE)
                session.say(f"kept: {grid.keep(found, results)}")
    if failures:
        progress.say(f"{len(failures)} of {len(missing)} runs failed; the first:")
        raise failures[0]
    _tell(grid.settle(items, sound([results or Path(out)]), out=out), options["as_json"])


def _require_startable(missing: list[Settled], device: str) -> None:
    """Raises the failure with which a run would be refused, as `trainer run --dry-run` does."""
    if device != "auto":
        process.resolve_device(device)
    refused: list[errors.Failure] = []
    for plan in (one.plan for one in missing if one.plan is not None):
        try:
            plan.finished(plan.spec.seed)
        except (errors.InvalidInput, errors.UsageFailure) as failure:
            progress.say(f"refused: {plan.command(plan.spec.seed)}")
            refused.append(failure)
    if refused:
        progress.say(f"{len(refused)} of {len(missing)} runs would be refused; the first:")
        raise refused[0]


def _tell(settled: list[Settled], as_json: bool) -> None:
    lines = [
        {
            "command": one.asked.command(),
            "result": None if one.found is None else str(one.found.path),
            "overall": None if one.found is None else one.found.accuracy("overall"),
            "balanced": None if one.found is None else one.found.accuracy("balanced"),
            "told": None if one.found is None else one.why,
        }
        for one in settled
    ]
    if as_json:
        console.print_json({"runs": lines})
        return
    for line in lines:
        console.result(f"{_accuracies(line):>28}  {line['command']}")


def _accuracies(line: dict[str, Any]) -> str:
    if line["overall"] is None:
        return "to run"
    return f"overall {line['overall']:5.1f}, balanced {line['balanced']:5.1f}"
