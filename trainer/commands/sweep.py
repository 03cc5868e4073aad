"""`trainer sweep`: runs the experiments of a TOML grid that have no result yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stylegan_mix import console, errors, launched, process, progress, stopping
from stylegan_mix.session import Session
from trainer.curves import TENSORBOARD, require_tensorboard

if TYPE_CHECKING:
    from trainer.cluster import Jobs
    from trainer.plan import Plan
    from trainer.sweep import Settled

__all__ = ["sweep"]

Command = TypeVar("Command", bound=Callable[..., Any])

# The options of jobs by their names in `Jobs`; each needs --slurm.
_OF_JOBS = {
    "partition": "partition",
    "job_minutes": "minutes",
    "cpus": "cpus",
    "gpus": "gpus",
    "jobs_at_once": "parallel",
    "per_job": "runs",
    "sbatch": "more",
}


def _job_options(command: Command) -> Command:
    """Adds the options of jobs on a cluster."""
    whole = click.IntRange(1, 100_000)
    for option in reversed(
        [
            click.option("--slurm", is_flag=True, help="Submit the missing runs to SLURM as jobs."),
            click.option("--partition", help="Partition of the jobs."),
            click.option(
                "--job-minutes",
                type=click.IntRange(3, 1_000_000),
                help="Time of a job, which saves at its end and queues again. Default: 60.",
            ),
            click.option(
                "--cpus", type=whole, help="CPUs of a job, threads of its run. Default: 1."
            ),
            click.option("--gpus", type=whole, help="GPUs of a job. Default: none."),
            click.option("--per-job", type=whole, help="Runs of a job, in turn. Default: 1."),
            click.option("--jobs-at-once", type=whole, help="Most jobs at once. Default: 256."),
            click.option(
                "--sbatch",
                multiple=True,
                metavar="NAME=VALUE",
                help="Any other option of sbatch, such as account=lab; several times.",
            ),
        ]
    ):
        command = option(command)
    return command


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
    help="Runs side by side, each in a process of its own. Default: on a CPU one a core, on a GPU "
    "one.",
)
@click.option(
    "--threads",
    type=console.THREADS,
    help="CPU threads of a run. Default: with several workers, an equal share of the cores.",
)
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after so long."
)
@_job_options
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

    if launched.several():
        raise errors.UsageFailure(
            "a sweep is one process, which starts others; torchrun started several",
            remedy="leave torchrun out, or give it each of the commands of --print-commands",
        )
    if options["tensorboard"]:
        require_tensorboard()
    jobs = _jobs(options)
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
    if jobs is not None:
        _submit(missing, jobs, out, options)
        return
    how = How(
        options["device"], options["threads"], {}, options["progress"], options["tensorboard"]
    )
    plans = [one.plan for one in missing if one.plan is not None]
    for plan in plans:  # before the first begins, so that all have the banks of now
        plan.keep_choice()
    reporter = progress.reporter_for(options["progress"])
    workers = _workers(options, len(plans))
    failed: list[tuple[Plan, errors.Failure]] = []
    with stopping.StopSignals(options["minutes"]) as stop:
        session = Session(stop, reporter)
        try:
            for plan, failure in carry_out(plans, workers, how, session):
                if failure is not None:
                    session.say(f"failed: {failure}")
                    failed.append((plan, failure))
                elif results is not None:
                    found = read(plan.folder(plan.spec.seed) / RESULT_FILE)
                    session.say(f"kept: {grid.keep(found, results)}")
        finally:
            _tell_failed(failed, len(missing))
    if failed:
        raise failed[0][1]
    _tell(grid.settle(items, sound([results or Path(out)]), out=out), options["as_json"])


def _workers(options: dict[str, Any], runs: int) -> int:
    """Takes the number of runs side by side that was asked for, or one that is fast."""
    from trainer.workers import workers_for

    if options["workers"] is not None:
        return int(options["workers"])
    if runs < 2:
        return 1
    device = process.resolve_device(options["device"]).partition(":")[0]
    return workers_for(runs, options["threads"], device)


def _tell_failed(failed: Sequence[tuple[Plan, errors.Failure]], count: int) -> None:
    """Lists the runs that failed with their commands, after all others, however the sweep ends."""
    if not failed:
        return
    progress.say(f"{len(failed)} of {count} runs failed:")
    for plan, failure in failed:
        why = f"{failure}".partition("\n")[0]
        progress.say(f"  {plan.command(plan.spec.seed)}\n    exit code {failure.code}: {why}")


def _jobs(options: dict[str, Any]) -> Jobs | None:
    """Reads the options of jobs; None without --slurm, which they need (exit code 2)."""
    from trainer.cluster import Jobs, require_submitit

    given = {_OF_JOBS[name]: options[name] for name in _OF_JOBS if options[name]}
    if not options["slurm"]:
        if given:
            named = next(name for name in _OF_JOBS if options[name])
            raise errors.UsageFailure(
                f"--{named.replace('_', '-')} is for jobs on a cluster",
                remedy="add --slurm, or leave it out",
            )
        return None
    for name in ("workers", "minutes", "progress"):
        if options[name] is not None:
            raise errors.UsageFailure(
                f"--{name} is for runs on this machine, and --slurm submits them to others",
                remedy="leave one of the two out",
            )
    if "more" in given:
        given["more"] = dict(_option_of_sbatch(text) for text in given["more"])
    require_submitit()
    return Jobs(**given)


def _option_of_sbatch(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name = name.strip().lstrip("-")
    if not equals or not name.replace("-", "").isalnum() or "\n" in value:
        raise errors.UsageFailure(
            f"--sbatch must be NAME=VALUE, in one line, got {text!r}",
            remedy="for example --sbatch account=lab",
        )
    return name, value


def _submit(missing: Sequence[Settled], jobs: Jobs, out: str, options: dict[str, Any]) -> None:
    """Submits the runs that are neither found nor finished, and says where to look for them."""
    from trainer import cluster

    _require_startable(missing, "auto")
    plans = [one.plan for one in missing if one.plan is not None]
    plans = [plan for plan in plans if plan.finished(plan.spec.seed) is None]
    for plan in plans:  # before the first begins, so that all have the banks of now
        plan.keep_choice()
    logs = Path(out).absolute() / "jobs"
    commands = [_words(plan, jobs, options) for plan in plans]
    ids = cluster.submit(commands, jobs, logs) if commands else []
    if options["as_json"]:
        console.print_json({"jobs": ids, "runs": len(plans), "logs": str(logs)})
        return
    for job in ids:
        console.result(job)
    progress.say(f"submitted {len(plans)} runs in {len(ids)} jobs; logs in {logs}")
    progress.say("the same command submits what is missing; without --slurm it gathers the results")


def _words(plan: Plan, jobs: Jobs, options: dict[str, Any]) -> list[str]:
    """Composes the command of a run in a job."""
    words = [*plan.words(plan.spec.seed), "--out", str(plan.root.absolute())]
    words += ["--device", options["device"], "--threads", str(options["threads"] or jobs.cpus)]
    if options["tensorboard"]:
        words += ["--tensorboard", str(options["tensorboard"].absolute())]
    return words


def _require_startable(missing: Sequence[Settled], device: str) -> None:
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
