"""`stylegan-mix metrics`: judges the samples of a generator, or the rows of a bank."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, output, process
from stylegan_mix.console import result
from stylegan_mix.errors import UsageFailure
from stylegan_mix.metrics.choices import AGAINST, LABELS, SAMPLES
from stylegan_mix.progress import reporter_for, say
from stylegan_mix.session import Session
from stylegan_mix.special_files import is_special

if TYPE_CHECKING:
    import torch

    from stylegan_mix.generators.store import Published
    from stylegan_mix.metrics.plan import Asked, Plan
    from stylegan_mix.metrics.request import Found

__all__ = ["metrics"]


@click.command("metrics")
@click.argument("generator", required=False)
@click.option("--bank", metavar="KEY", help="Judge rows of this bank, not a generator.")
@partial(console.data_options, default=f"{console.DEFAULT_DATASET}, or that of the subject")
@click.option(
    "--against",
    default=",".join(AGAINST),
    show_default=True,
    metavar="PARTS",
    help="Real images to compare with; balanced is left out where it does not exist.",
)
@click.option(
    "--labels",
    type=click.Choice(LABELS),
    help="Labels of the samples: uniform, or as in the training part.  [default: uniform]",
)
@click.option(
    "--n",
    "--num-images",
    type=click.IntRange(2, 1 << 40),
    help=f"Samples a seed.  [default: {SAMPLES}]",
)
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Sets of samples."
)
@click.option(
    "--truncation", type=console.FiniteRange(0, 2), help="psi of a generator.  [default: 1]"
)
@click.option(
    "--features",
    default="probe",
    show_default=True,
    metavar="probe|FILE",
    help="Space of distances: the probe, or a TorchScript file, which is a program and is run.",
)
@click.option("--features-sha256", metavar="HEX", help="The hash that the file must have.")
@click.option(
    "--probe-seed",
    type=console.SEED,
    default=0,
    show_default=True,
    help="Seed of the probe's training.",
)
@click.option(
    "--cas/--no-cas", default=True, help="Train a classifier on the samples and test it on reals."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report: .json or .md.")
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Draw the generator's pictures and write them there with an index.html.",
)
@console.progress_option
@console.run_options
def metrics(
    dataset: str | None,
    imbalance: float | None,
    profile: str | None,
    split_seed: int | None,
    out: Path | None,
    page: Path | None,
    device: str,
    threads: int | None,
    progress: Path | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Judge the samples of a generator, or a bank, against real images, with the floor beside.

    GENERATOR is a hash or its beginning; the default is the newest of the data set and split.
    Distances are taken in the features of a probe, a small classifier that is trained once on
    the training part; they are not FID. To choose a checkpoint, use --against train, which uses
    no test image. The same request again is answered at once.

    \b
    stylegan-mix metrics --dataset digits_lt
    stylegan-mix metrics 3fa9c1 --against train,test --seeds 3 --out report.md
    stylegan-mix metrics 3fa9c1 --page pictures
    stylegan-mix metrics --bank 9061f3c614e8 --n 5000
    """
    from stylegan_mix.datasets.asked import AskedDraw
    from stylegan_mix.metrics.plan import Asked, decide, without_reals

    asked = Asked(draw=AskedDraw(dataset, imbalance, profile, split_seed), **options)
    _check(asked, out, page)
    session = Session(reporter=reporter_for(progress))
    process.set_up_process(threads)
    if page and (without := without_reals(asked)):
        facts = _page_alone(*without, asked, page, None if dry_run else device, session)
        if as_json:
            console.print_json(facts)
        else:
            result(f"{'would write ' if dry_run else ''}page {facts['page']}")
        return
    plan = decide(asked)
    for line in plan.lines():
        say(line)
    if dry_run:
        _print_cost(plan, _device(device), as_json)
        return
    state, found = ("exists", plan.found) if plan.found else ("made", _made(plan, device, session))
    index = _page(plan, found, page, device, session) if page else None
    _write(found, out, as_json)
    _answer(found, state, out, index, as_json)


def _check(asked: Asked, out: Path | None, page: Path | None) -> None:
    problems = asked.problems()
    if asked.bank and page:
        problems.append("--page shows a generator: `bank preview` draws rows of a bank")
    if out is not None and out.suffix not in (".json", ".md") and not is_special(out):
        problems.append(f"--out ends in .json or .md, got '{out}'")
    if problems:
        raise UsageFailure("; ".join(problems))
    output.check(out)
    if page:
        from stylegan_mix.pictures import folder

        folder.check(page)


def _device(name: str) -> torch.device:
    import torch

    return torch.device(process.resolve_device(name))


def _print_cost(plan: Plan, device: torch.device, as_json: bool) -> None:
    """Prints the cost: rows and a few steps are timed on this machine."""
    from stylegan_mix.metrics import cost

    facts = cost.estimate(plan, device)
    if as_json:
        console.print_json({**facts, "seconds": facts["seconds"].plain()})
        return
    result(
        f"would draw {facts['samples']:,} samples and train {facts['classifiers_to_train']} small "
        f"classifiers ({facts['training_steps']:,} steps): {facts['seconds'].in_words()}, "
        "and the time of the distances"
        if plan.found is None
        else f"report {plan.request.key[:12]} exists"
    )


def _made(plan: Plan, device: str, session: Session) -> Found:
    from stylegan_mix.metrics.make import make

    return make(plan, _device(device), session)


def _page(plan: Plan, found: Found, into: Path, device: str, session: Session) -> Path:
    from stylegan_mix.pictures.make import Measured, make_page

    published, truncation = plan.subject.published, plan.request.truncation
    if published is None or truncation is None:
        raise ValueError("a page shows a generator")
    return make_page(
        into,
        published,
        Measured(plan.subject.dataset, found),
        seed=plan.request.seeds[0],
        truncation=truncation,
        device=_device(device),
        session=session,
    )


def _page_alone(
    published: Published,
    why: str,
    asked: Asked,
    into: Path,
    device: str | None,
    session: Session,
) -> dict[str, Any]:
    """Writes the page of a generator without its data set; without a device, names it only."""
    from stylegan_mix.pictures.make import make_page

    say(f"generator {published.hash[:12]}: no report and no real images, {why}")
    facts = {"generator": published.hash, "page": str(into), "report": None, "why": why}
    if device is not None:
        index = make_page(
            into,
            published,
            None,
            why_not=why,
            seed=asked.seed,
            truncation=1.0 if asked.truncation is None else asked.truncation,
            device=_device(device),
            session=session,
        )
        facts["page"] = str(index)
    return facts


def _write(found: Found, out: Path | None, as_json: bool) -> None:
    """Writes the report to a file, as JSON or Markdown by its name; a device has no such name."""
    from stylegan_mix.metrics import report

    if out is None:
        return
    if out.suffix == ".json" or (as_json and out.suffix != ".md"):
        output.write_json(out, found.report)
    else:
        output.write_text(out, report.markdown(found.report))


def _answer(found: Found, state: str, out: Path | None, index: Path | None, as_json: bool) -> None:
    from stylegan_mix.metrics import report

    if as_json:
        page = {} if index is None else {"page": str(index)}
        console.print_json({"state": state, "folder": str(found.folder), **page, **found.report})
        return
    for line in report.text_lines(found.report):
        result(line)
    say(f"report {found.report['key'][:12]} {state}: {out or found.folder}")
    if index is not None:
        say(f"page {index}")
