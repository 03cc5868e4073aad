"""`stylegan-mix dataset`: the data sets, preparing one, and the content of a draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, errors
from stylegan_mix import dataset_words as words
from stylegan_mix.console import result
from stylegan_mix.errors import UsageFailure
from stylegan_mix.progress import reporter_for, say
from stylegan_mix.removing import remove_command, runs_option
from stylegan_mix.session import Session

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset
    from stylegan_mix.users import User

__all__ = ["dataset"]


@click.group("dataset", cls=console.Group)
def dataset() -> None:
    """Data sets: list, prepare, show, verify, remove.

    A source is prepared once; every long-tailed draw of it is taken when it is used.
    """


_file = click.Path(path_type=Path)


# list


@dataset.command("list")
@console.json_option
@console.debug_option
def list_datasets(as_json: bool) -> None:
    """List the built-in, published and prepared data sets."""
    rows = _rows()
    if as_json:
        console.print_json(rows)
        return
    columns = ("name", "classes", "train", "test", "shape", "default draw", "state")
    console.print_table([columns, *([words.cell(row[name]) for name in columns] for row in rows)])
    if any(row["state"] == "not prepared" for row in rows):
        say("\n  stylegan-mix dataset prepare NAME downloads a published one; --from PATH takes")
        say("  an official archive, or a folder, tar or zip of images, that you have")


def _rows() -> list[dict[str, Any]]:
    from stylegan_mix.datasets import loading, official
    from stylegan_mix.datasets.embedded import EMBEDDED

    rows = [_pool_row(pool(), "built in") for pool in EMBEDDED.values()]
    prepared = loading.prepared_names()
    rows += [_prepared_row(name) for name in prepared]
    for name, known in official.SETS.items():
        if name not in prepared:
            row = dict.fromkeys(rows[0])
            draw = words.draw(*known.default)
            state = {"default draw": draw, "state": "not prepared"}
            rows.append({**row, "name": name, "classes": known.classes, **state})
    return rows


def _pool_row(pool: Any, state: str, folder: Path | None = None) -> dict[str, Any]:
    return {
        "name": pool.name,
        "classes": len(pool.classes),
        "train": len(pool.labels),
        "test": len(pool.test_labels),
        "shape": list(pool.images.shape[1:]),
        "default draw": words.draw(*pool.default),
        "state": state,
        "folder": None if folder is None else str(folder),
    }


def _prepared_row(name: str) -> dict[str, Any]:
    from stylegan_mix.datasets.pool import find_folder, open_pool

    try:
        pool, container = open_pool(name, verify=False)
    except errors.InvalidInput:
        row = dict.fromkeys(("classes", "train", "test", "shape", "default draw"))
        return {"name": name, **row, "state": "damaged", "folder": str(find_folder(name))}
    state = "streamed" if container.facts.get("streamed") else "prepared"
    return _pool_row(pool, state, container.folder)


# prepare


@dataset.command("prepare")
@click.argument("name")
@click.option("--from", "source", type=_file, help="Official archive, folder, tar or zip.")
@click.option(
    "--index", type=_file, help="CSV of split,official_index,class,path; an empty path: not there."
)
@click.option("--train-list", type=_file, help="Lines of 'path label', or iNaturalist JSON.")
@click.option("--test-list", type=_file, help="The same for the test part.")
@click.option(
    "--labels",
    type=_file,
    multiple=True,
    help="CSV, TSV or JSON lines with a header, on the disk or in the source. Twice for two parts.",
)
@click.option("--file-column", metavar="NAME", help="Column of --labels that names the images.")
@click.option("--label-column", metavar="NAME", help="Column of --labels with their classes.")
@click.option(
    "--train-dir",
    metavar="FOLDER",
    multiple=True,
    help="Training part, as a path in the source. May be repeated, as the next two may.",
)
@click.option("--test-dir", metavar="FOLDER", multiple=True, help="Test part. Needs --train-dir.")
@click.option(
    "--val-dir", metavar="FOLDER", multiple=True, help="Validation part. Needs --train-dir."
)
@click.option(
    "--levels",
    metavar="N|leaf|top",
    help="Folder of a part that is a class: the first (top), the N-th or the innermost (leaf).",
)
@click.option(
    "--names-encoding",
    metavar="NAME",
    help="Encoding of names in a zip or tar that are not UTF-8, such as cp932 or gbk.",
)
@click.option("--size", type=int, metavar="PIXELS", help="Bring all images to this square.")
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch", "centre"]),
    help="Way to make squares of other shapes.  [default: crop; centre with --stream]",
)
@click.option(
    "--convert",
    is_flag=True,
    help="Take 16-bit images (their upper 8 bits), CMYK, and the first frame of animations.",
)
@click.option("--channels", type=int, help="1 grey, 3 colour, 4 with alpha. Default: unchanged.")
@click.option(
    "--flip/--no-flip",
    default=True,
    show_default=True,
    help="Mirrored images keep their label, or not.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Images that cannot be read.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Leave the images in their files, which are read while a classifier trains.",
)
@click.option("--allow-unknown-hash", is_flag=True, help="Trust a CIFAR archive of another hash.")
@click.option("--replace", is_flag=True, help="Replace different content of the same name.")
@runs_option("Folder of runs, to name those of the old images; may be repeated.  [default: runs]")
@console.progress_option
@click.option("--dry-run", is_flag=True, help="Say what would be written, then stop.")
@console.json_option
@console.debug_option
def prepare(
    name: str,
    source: Path | None,
    replace: bool,
    runs: tuple[Path, ...],
    progress: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Decode a source once, so that NAME can be drawn from.

    Folders are classes: train/<class>/<file> and test/<class>/<file>, or <class>/<file>, of
    which a fifth is held out for testing. Or a file beside the images has their labels. In
    doubt, the error names the options that settle it. Without --from, cifar10_lt and
    cifar100_lt are downloaded.

    \b
    stylegan-mix dataset prepare cifar10_lt --from cifar-10-python.tar.gz
    stylegan-mix dataset prepare plankton --from plankton.tar --size 64 --fit pad --channels 1
    stylegan-mix dataset prepare dogs --from dogs.zip --labels labels.csv --label-column breed
    stylegan-mix dataset prepare imagenet_lt --from imagenet --stream \
    --train-list ImageNet_LT_train.txt --test-list ImageNet_LT_test.txt
    """
    from stylegan_mix.datasets import prepare as preparing
    from stylegan_mix.datasets.pool import find_folder, open_pool
    from stylegan_mix.outdated import outdated
    from stylegan_mix.users import users_of_dataset

    session = Session(reporter=reporter_for(progress))
    if source is None and find_folder(name) is not None and not replace:
        container = open_pool(name)[1]
        _print_prepared(container.folder, True, container.facts, [], as_json)
        return
    if source is None:
        source = _fetched(name, dry_run, session)
    request = preparing.Request(name=name, source=source, **options)
    places = runs or (Path("runs"),)
    if dry_run:
        facts = preparing.plan(request, session, replace=replace)
        is_new = facts["outcome"] != "already there"
        _print_plan(facts, users_of_dataset(name, places) if is_new else [], as_json)
        return
    done = preparing.prepare(request, replace=replace, session=session)
    old = [] if done.existed else outdated(name, places)
    _print_prepared(done.folder, done.existed, done.facts, old, as_json)


def _fetched(name: str, dry_run: bool, session: Session) -> Path:
    """Returns the archive of a published set, from the store or downloaded."""
    from stylegan_mix.datasets import official
    from stylegan_mix.datasets.embedded import EMBEDDED, no_preparation

    if name in EMBEDDED:
        raise UsageFailure(
            no_preparation(name), remedy=f"use it: stylegan-mix train --dataset {name}"
        )
    if name not in official.SETS:
        raise UsageFailure(
            f"--from is needed: only {', '.join(official.SETS)} can be downloaded",
            remedy=f"stylegan-mix dataset prepare {name} --from FOLDER, TAR or ZIP",
        )
    found = official.present(name)
    if found is None and dry_run:
        raise errors.MissingEnvironment(
            f"the archive of {name} would be downloaded", remedy=official.what_to_get(name)
        )
    return found or official.fetch(name, session)


def _print_plan(facts: dict[str, Any], users: Sequence[User], as_json: bool) -> None:
    if as_json:
        console.print_json({**facts, "outdated": [_plain(user) for user in users]})
        return
    name, folder = facts["name"], facts["folder"]
    if facts["outcome"] == "already there":
        result(f"{name}: already there, {folder}")
    else:
        what = "a table of the files" if facts.get("streamed") else "images"
        size = f"{facts['bytes'] / 1e6:,.1f} MB of {what}"
        over = {"replacement": ", in the place of other images"}.get(facts["outcome"], "")
        result(f"would write {folder}: {size}{over}")
    _print_origin(facts)
    if facts["outcome"] == "comparison":
        say("note: a set of this name is there; its images are compared when these are decoded")
    _print_outdated(name, users, sure=False)


def _print_prepared(
    folder: Path, existed: bool, facts: dict[str, Any], users: Sequence[User], as_json: bool
) -> None:
    if as_json:
        outdated = [_plain(user) for user in users]
        console.print_json(
            {"folder": str(folder), "existed": existed, **facts, "outdated": outdated}
        )
        return
    name = facts["name"]
    result(f"{name}: {'already there' if existed else 'prepared'}, {folder}")
    _print_origin(facts)
    result(f"test id {facts['test_id']}")
    _print_outdated(name, users, sure=True)
    result(f"next: stylegan-mix dataset show {name}")


def _print_origin(facts: dict[str, Any]) -> None:
    result(words.origin(facts))
    for note in facts["notes"]:
        say(f"note: {note}")
    for bad, why in facts.get("skipped", {}).items():
        say(f"left out: '{bad}' {why}")


def _plain(user: User) -> dict[str, str]:
    return {"kind": user.kind, "name": user.name}


def _print_outdated(name: str, users: Sequence[User], *, sure: bool) -> None:
    from stylegan_mix import outdated

    for line in outdated.in_words(name, users, sure=sure):
        say(line)
    for line in outdated.commands(name, users):
        say(f"  for the new images: {line}")


# show


def _draw_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "--imbalance", type=float, metavar="FACTOR", help="Largest over smallest."
            ),
            click.option("--profile", metavar="NAME", help="exp, step or natural."),
            click.option(
                "--split-seed", type=int, default=0, show_default=True, help="Seed of the draw."
            ),
            click.option("--drop-overlap", is_flag=True, help="Without images of the test part."),
        ]
    ):
        command = option(command)
    return command


@dataset.command("show")
@click.argument("name")
@_draw_options
@click.option("--out", type=_file, help="The contact sheet's file.  [default: in the store]")
@click.option("--no-sheet", is_flag=True, help="Draw no contact sheet.")
@console.json_option
@console.debug_option
def show(name: str, out: Path | None, no_sheet: bool, as_json: bool, **draw: Any) -> None:
    """Show a draw: class sizes, shot groups, ids, overlap, and a contact sheet of its images."""
    from stylegan_mix import output
    from stylegan_mix.datasets import loading

    output.check(out)
    pool = loading.pool_named(name)
    data = loading.from_pool(pool, **draw)
    for note in data.notes:
        say(note)
    facts = {**words.draw_facts(data), "val_images": 0 if pool.val is None else len(pool.val)}
    facts["contact_sheet"] = None if no_sheet else str(_save_sheet(data, out))
    if as_json:
        console.print_json(facts)
        return
    result(f"{name}: {words.draw(data.profile, data.imbalance)}, split seed {data.split_seed}")
    _print_classes(data)
    result(f"train {len(data.train):,} images, split id {data.split_id}")
    result(f"test  {len(data.test):,} images, test id {data.test_id}")
    if facts["val_images"]:
        result(f"val   {facts['val_images']:,} images, which --val-per-class takes")
    result(
        f"shape {words.cell(facts['shape'])}, mirrored images {'' if data.flip else 'do not '}keep "
        "their label"
    )
    result(f"mean  {words.numbers(data.mean)}, std {words.numbers(data.std)}")
    result(words.overlap(facts))
    if facts["contact_sheet"]:
        result(f"contact sheet: {facts['contact_sheet']}")


def _print_classes(data: Dataset) -> None:
    rows, groups = words.class_table(data)
    console.print_table(rows, right=(0, 2, 3))
    if groups:
        result(groups)


def _save_sheet(data: Dataset, out: Path | None) -> Path:
    from stylegan_mix import output, store
    from stylegan_mix.datasets.sheet import contact_sheet
    from stylegan_mix.drawing.png import as_png

    content = as_png(contact_sheet(data))
    if out is not None:
        output.write_bytes(out, content)
        return out
    path = store.home() / "previews" / f"{data.name}-{data.split_id[:8]}.png"
    store.write_bytes(path, content)
    return path


# verify


@dataset.command("verify")
@click.argument("name")
@console.json_option
@console.debug_option
def verify(name: str, as_json: bool) -> None:
    """Check a prepared set down to the pixels: its file, every image hash, its ids.

    Of a streamed set, every file is read and compared with its hash.
    """
    from stylegan_mix import datasets
    from stylegan_mix.datasets import prepare as preparing
    from stylegan_mix.datasets.embedded import EMBEDDED
    from stylegan_mix.datasets.streamed import as_files

    if name in EMBEDDED:
        facts: dict[str, Any] = {"name": name, "folder": None}
    else:
        facts = preparing.verify(name)
    data = datasets.load(name, streamed=True)
    # The files of a streamed set were compared one by one.
    again = data.split_id
    if as_files(data.train.images) is None:
        again = datasets.identity(data.train.images, data.train.labels, data.classes)
    if again != data.split_id:
        raise errors.InvalidInput(
            f"{name}: the split id is {data.split_id}, its images say {again}"
        )
    facts.update(test_id=data.test_id, split_id=data.split_id)
    facts["draw"] = words.draw(data.profile, data.imbalance)
    if as_json:
        console.print_json(facts)
        return
    result(f"{name}: whole")
    for key, value in facts.items():
        result(f"  {key:15} {words.cell(value)}")


# remove


dataset.add_command(
    remove_command("dataset", "NAME", "Data sets that generators, banks or runs name are refused.")
)
