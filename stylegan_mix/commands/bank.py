"""`stylegan-mix bank`: the banks of the store, their content, and checks of their bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, output
from stylegan_mix.console import result
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.progress import say
from stylegan_mix.removing import remove_command
from stylegan_mix.showing import one_line

if TYPE_CHECKING:
    from stylegan_mix.banks.reader import Bank

__all__ = ["bank"]

_COLUMNS = (
    "key",
    "dataset",
    "imbalance",
    "space",
    "draw",
    "n",
    "size",
    "generator",
    "age",
    "state",
)


@click.group("bank", cls=console.Group)
def bank() -> None:
    """Banks of hybrid images: list, show, preview, judge, verify, remove.

    KEY is a bank's key, the beginning of one, or a path.
    """


@bank.command("list")
@click.option("--dataset", metavar="NAME", help="Only banks of this data set.")
@console.json_option
@console.debug_option
def list_banks(dataset: str | None, as_json: bool) -> None:
    """List the banks of the store, the newest first."""
    from stylegan_mix.banks import policy, store

    rows = [
        {
            "key": record.key,
            "dataset": record.facts["dataset"],
            "imbalance": record.facts.get("imbalance"),
            "space": record.facts["space"],
            "draw": policy.in_brief(record.facts.get("request", {})),
            "n": record.facts["n"],
            "size": record.size,
            "generator": record.facts["generator"],
            "age": max(time.time() - record.made, 0.0),
            "state": "published",
            "folder": str(record.folder),
        }
        for record in store.find(dataset=dataset)
    ]
    if dataset is None:
        rows += [_unfinished_row(one) for one in store.unfinished()]
        rows += [_damaged_row(path) for path, _ in store.damaged()]
    if as_json:
        console.print_json(rows)
    elif rows:
        console.print_table(
            [_COLUMNS, *([_cell(name, row[name]) for name in _COLUMNS] for row in rows)]
        )
    else:
        say(f"no banks in {store.folder()}")
        say(
            f"  stylegan-mix generate --dataset digits_lt --n 20000 makes one; {store.TRAINS_FIRST}"
        )


def _unfinished_row(one: Any) -> dict[str, Any]:
    row = dict.fromkeys(_COLUMNS)
    request = one.request
    state = f"partial, {one.landed} of {one.blocks} blocks"
    known = {"space": request["space"], "n": request["n"], "generator": request["generator"]}
    return {**row, **known, "key": one.key, "state": state, "folder": str(one.folder)}


def _damaged_row(path: Path) -> dict[str, Any]:
    return {**dict.fromkeys(_COLUMNS), "key": path.name, "state": "damaged", "folder": str(path)}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("key", "generator"):
        return str(value)[:12]
    if name == "size":
        return f"{value / 1e6:,.1f} MB"
    if name == "age":
        return console.age(value)
    return f"{value:,}" if name == "n" else f"{value:g}" if name == "imbalance" else str(value)


@bank.command("show")
@click.argument("key")
@console.json_option
@console.debug_option
def show(key: str, as_json: bool) -> None:
    """Show everything about a bank: origin, label mass per class, histogram of lam."""
    from stylegan_mix.banks.in_words import in_words

    opened = _open(key, verify=False)
    numbers = _numbers(opened)
    if as_json:
        console.print_json({"folder": str(opened.folder), **opened.facts, **numbers})
        return
    same = numbers["same_class_share"]
    console.print_table([(name, one_line(text)) for name, text in in_words(opened, same)])
    result("\nlabel mass: rows that count for each class, shared by lam")
    _print_bars(opened.classes, numbers["class_mass"])
    result("\nrows by lam, the share of class a")
    _print_bars(
        [f"{index / 10:.1f} to {(index + 1) / 10:.1f}" for index in range(10)],
        numbers["lam_histogram"],
    )


def _numbers(opened: Bank) -> dict[str, Any]:
    import numpy as np

    histogram, _ = np.histogram(opened.lam, bins=10, range=(0.0, 1.0))
    return {
        "content_sha256": opened.content_sha256,
        "class_mass": [round(float(mass), 3) for mass in opened.class_mass()],
        "lam_histogram": [int(count) for count in histogram],
        "same_class_share": float((opened.pair[:, 0] == opened.pair[:, 1]).mean()),
    }


def _warn(opened: Bank) -> None:
    """Warns of a bank whose generator saw a small share of its preset's budget."""
    from stylegan_mix.generators.budget import short_for_bank

    if text := short_for_bank(opened.facts):
        say(f"warning: {text}")


def _print_bars(names: Sequence[str], values: Sequence[float]) -> None:
    most = max(*values, 1e-9)
    bars = ("#" * round(40 * value / most) for value in values)
    rows = [
        (f"  {name}", f"{value:,.1f}", bar)
        for name, value, bar in zip(names, values, bars, strict=True)
    ]
    console.print_table(rows, right=(1,))


@bank.command("card")
@click.argument("key")
@console.debug_option
def show_card(key: str) -> None:
    """Print a bank's card."""
    from stylegan_mix.banks.card import card
    from stylegan_mix.errors import fitting

    opened = _open(key, verify=False)
    # Written anew: nothing seals the file beside the bank.
    with fitting(f"the facts of {opened.folder} make no card"):
        text = card(opened.facts, content_sha256=opened.content_sha256, size=opened.size)
    result(text.rstrip())


@bank.command("preview")
@click.argument("key")
@click.option("--pair", "pairs", multiple=True, metavar="A,B", help="Two classes; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG file to write.")
@console.debug_option
def preview(key: str, pairs: tuple[str, ...], out: Path | None) -> None:
    """Draw stored rows of a bank: pairs of classes in rows, binned by lam.

    `preview.png` in the bank's folder is another picture: fixed latents, not rows.
    """
    from stylegan_mix.banks.preview import lines_to_draw, stored_sheet
    from stylegan_mix.drawing.png import as_png
    from stylegan_mix.drawing.sheet import draw

    output.check(out)
    opened = _open(key, verify=True)
    asked = [_pair(text, opened.classes) for text in pairs]
    sheet, empty = stored_sheet(opened, lines_to_draw(opened, asked))
    if asked and not opened.mixes:
        say(
            f"bank {opened.key[:12]} is unmixed (space {opened.space}): no image is between two "
            "classes, so each class of a pair has a row of its own"
        )
    for line in empty:
        say(f"no stored row of {line}: their cells stay grey")
    path = out or Path(f"preview-{opened.key[:12]}.png")
    output.write_bytes(path, as_png(draw(sheet)))
    _warn(opened)
    result(str(path))


def _pair(text: str, classes: Sequence[str]) -> tuple[int, int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise UsageFailure(f"--pair is two classes with a comma between them, got '{text}'")
    return _class_index(parts[0], classes), _class_index(parts[1], classes)


def _class_index(text: str, classes: Sequence[str]) -> int:
    if text in classes:
        return list(classes).index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    raise UsageFailure(f"no class '{text}'{nearest(text, classes)}")


@bank.command("judge")
@click.argument("key")
@click.option("--folds", type=int, default=3, show_default=True, help="Classifiers of the judge.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG file to write.")
@console.progress_option
@console.run_options
def judge(
    key: str,
    folds: int,
    seed: int,
    out: Path | None,
    device: str,
    threads: int | None,
    progress: Path | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Judge every row of a bank by classifiers of its training part.

    The judge is trained once for a split, on folds of the training part. What it says of the
    rows is kept beside the bank, which stays as it is; the same command again reads it. A row
    is left out if the judge is confident of a class that is neither of its own, or if it is far
    from both. The picture shows the calibration of lam, and rows of both kinds.

    \b
    stylegan-mix bank judge 9061f3c614e8
    """
    import torch

    from stylegan_mix import process
    from stylegan_mix.banks.card import training_command
    from stylegan_mix.drawing.plots import png
    from stylegan_mix.judging import acceptance, picture, plan
    from stylegan_mix.judging.annotate import annotate
    from stylegan_mix.progress import reporter_for
    from stylegan_mix.session import Session
    from stylegan_mix.stopping import StopSignals

    output.check(out)
    opened = _open(key, verify=True)
    _warn(opened)
    asked = plan.decide(opened, folds=folds, seed=seed)
    say(asked.line())
    if dry_run and asked.existing is None:
        result(f"would judge {len(opened):,} rows of bank {opened.key[:12]}")
        return
    if asked.existing is None:
        process.set_up_process(threads)
    with StopSignals() as stop:
        found = asked.existing or annotate(
            opened,
            asked.dataset,
            folds=folds,
            seed=seed,
            device=torch.device(process.resolve_device(device)),
            session=Session(stop, reporter_for(progress)),
        )
    path = out or Path(f"judged-{opened.key[:12]}.png")
    output.write_bytes(path, png(picture.draw(opened, found, asked.dataset)))
    facts = found.facts
    if as_json:
        console.print_json({**facts, "state": asked.state, "picture": str(path)})
        return
    rows = zip(opened.classes, facts["kept"], facts["judge_accuracy"], strict=True)
    heads = ("class", "kept", "recognised held out")
    lines = [(name, _percent(kept), _percent(accuracy)) for name, kept, accuracy in rows]
    console.print_table([heads, *lines], right=(1, 2))
    result(
        f"third class {facts['third_share']:.1%}, far {facts['far_share']:.1%} of "
        f"{len(opened):,} rows"
    )
    result(str(path))
    say(f"next    {training_command(opened.facts)} --accept clean")
    few = acceptance.few(opened.classes, facts["kept"])
    if few:
        say(
            f"fewer than {acceptance.FEW:.0%} of the rows are kept of: {', '.join(few)}; "
            "the generator draws these classes badly"
        )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}"


@bank.command("verify")
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Every bank of the store.")
@console.json_option
@console.debug_option
def verify(key: str | None, everything: bool, as_json: bool) -> None:
    """Hash a bank again and check its values; exit code 3 if anything is wrong."""
    from stylegan_mix.banks import store

    if everything == (key is not None):
        raise UsageFailure("give one KEY, or --all")
    folders = [store.resolve(key)] if key is not None else store.folders()
    reports = [_verified(folder) for folder in folders]
    if as_json:
        console.print_json(reports)
    for report in reports:
        if not as_json:
            result(f"{report['key'][:12]}  {report['state']}  {report['detail']}")
    wrong = [report["key"][:12] for report in reports if report["state"] != "whole"]
    if wrong:
        raise InvalidInput(
            f"{len(wrong)} of {len(reports)} banks are not whole: {', '.join(wrong)}",
            remedy="move each away and make it again with the command on its card",
        )


def _verified(folder: Path) -> dict[str, Any]:
    from stylegan_mix.banks.reader import open_bank

    try:
        opened = open_bank(folder)
    except InvalidInput as error:
        return {"key": folder.name, "state": "damaged", "detail": str(error)}
    constant, repeated = _odd_images(opened)
    return {
        "key": opened.key,
        "state": "whole",
        "detail": f"{len(opened):,} rows, {constant} of one colour, {repeated} repeated",
        "rows": len(opened),
        "constant": constant,
        "repeated": repeated,
        "content_sha256": opened.content_sha256,
    }


def _odd_images(opened: Bank) -> tuple[int, int]:
    """Counts the images of one value only, and the copies of an earlier one."""
    import hashlib

    constant = 0
    seen: set[bytes] = set()
    for start in range(0, len(opened), 4096):
        flat = opened.images[start : start + 4096].reshape(-1, opened.images[0].size)
        constant += int((flat == flat[:, :1]).all(axis=1).sum())
        seen.update(hashlib.blake2b(row.data, digest_size=16).digest() for row in flat)
    return constant, len(opened) - len(seen)


def _open(key: str, *, verify: bool) -> Bank:
    from stylegan_mix.banks import store
    from stylegan_mix.banks.reader import open_bank

    return open_bank(store.resolve(key), verify=verify)


bank.add_command(
    remove_command("bank", "KEY", "Banks that runs in the working folder name are refused.")
)
