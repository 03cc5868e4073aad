"""`stylegan-mix import-generator`: a generator of another store or project, read as data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stylegan_mix import console, process
from stylegan_mix.console import result
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.progress import say

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset
    from stylegan_mix.datasets.asked import AskedDraw
    from stylegan_mix.generators.store import Published
    from stylegan_mix.interop.importing import ImportPlan

__all__ = ["import_generator"]


@click.command("import-generator")
@click.argument("file", type=click.Path(path_type=Path))
@console.data_options
@console.run_options
def import_generator(
    file: Path,
    dataset: str | None,
    imbalance: float | None,
    profile: str | None,
    split_seed: int | None,
    device: str,
    threads: int | None,
    seed: int,
    dry_run: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Take over a generator from a FILE, without running anything in it.

    A file of `export-generator` brings its own card: its data set, split and training stand
    there, and `generate` finds it by its split as if it had been trained here.

    Of other projects it reads network pickles (.pkl) of StyleGAN2-ADA, and of StyleGAN3's
    StyleGAN2, and checkpoints (.pt) of the PyTorch port by rosinality. It takes tensors and plain
    values; other content is named and left. A file that calls anything else is refused.

    Such a file does not say what its generator was trained on. The data set and split that you
    name are declared by you, and its card and its banks say so. Its class numbers are taken for
    the classes of that data set, in their order. A generator without classes needs no data set;
    it can be looked at, but writes no bank. `generate` takes an imported generator if you name it.

    \b
    stylegan-mix import-generator cifar10-lt.safetensors
    stylegan-mix import-generator cifar10.pkl --dataset cifar10_lt --profile natural
    stylegan-mix generate --dataset cifar10_lt --profile natural --generator HASH
    """
    from stylegan_mix.datasets.asked import AskedDraw
    from stylegan_mix.interop import foreign, safetensors

    content, sha256 = foreign.read_bytes(file)
    draw = AskedDraw(dataset, imbalance, profile, split_seed)
    if safetensors.begins_like(content) or file.suffix == ".safetensors":
        _take_back(content, file, draw, device=device, dry_run=dry_run, as_json=as_json)
        return
    # Before the data set: a file that is refused is no reason to fetch one.
    opened = foreign.open_generator(content, file)
    data = _declared(draw)

    from stylegan_mix.interop import importing

    process.set_up_process(threads)
    plan = importing.ImportPlan(
        path=file,
        sha256=sha256,
        size=len(content),
        foreign=opened,
        dataset=data,
        seed=seed,
        command=_spelled(file, data),
    )
    there = importing.found(plan)
    _show_plan(plan)
    if dry_run:
        opened.network()
        _answer(there, plan, as_json, state="exists" if there else "absent")
        return
    if there is not None:
        _answer(there, plan, as_json, state="exists")
        return
    from stylegan_mix.process import resolve_device

    published = importing.publish(plan, resolve_device(device))
    _answer(published, plan, as_json, state="imported")


def _take_back(
    content: bytes, file: Path, draw: AskedDraw, *, device: str, dry_run: bool, as_json: bool
) -> None:
    """Takes a generator out of a file of `export-generator`."""
    from stylegan_mix.interop import exported

    found = exported.open_file(content, file)
    card = found.card
    data = _declared(draw)
    if data is not None and data.split_id != card["split_id"]:
        raise InvalidInput(
            f"the card in {file} names the training split {str(card['split_id'])[:12]} of "
            f"{card['dataset']}, not {data.split_id[:12]} of {data.name}",
            remedy="leave out --dataset and its options: the card says what it was trained on",
        )
    for line in exported.lines(found):
        say(line)
    there = exported.found(found)
    state = "exists" if there else "absent" if dry_run else "imported"
    if there is None and not dry_run:
        from stylegan_mix.process import resolve_device

        there = exported.publish(found, resolve_device(device))
    if as_json:
        folder = None if there is None else str(there.folder)
        facts = {"file": str(file), "kind": "export-generator", "dtype": found.dtype}
        of = {"dataset": card["dataset"], "split_id": card["split_id"]}
        console.print_json(
            {"state": state, "generator": found.hash, "folder": folder, **facts, **of}
        )
        return
    if there is None:
        result(f"would import generator {found.hash[:12]}: everything in it fits")
        return
    result(f"generator {there.hash[:12]} {state}: {there.folder}")
    say(f"picture {there.folder / 'grid.png'}")
    if card["classes"]:
        say(f"next    stylegan-mix generate --generator {there.hash[:12]} --n 50000")


def _declared(draw: AskedDraw) -> Dataset | None:
    """Loads the data set that the user declares; None if none is named."""
    if draw.dataset is not None:
        return draw.load()
    if any(value is not None for value in draw.draw.values()):
        raise UsageFailure(
            "--imbalance, --profile and --split-seed say which draw of a --dataset: name it"
        )
    return None


def _spelled(file: Path, dataset: Dataset | None) -> str:
    """Composes the command for the card, without the folder of the file."""
    words = ["stylegan-mix", "import-generator", file.name]
    return shlex.join([*words, *(dataset.options if dataset else [])])


def _show_plan(plan: ImportPlan) -> None:
    from stylegan_mix.datasets.records import draw_name
    from stylegan_mix.interop.foreign import KINDS

    network, data = plan.foreign.settings, plan.dataset
    size = network["resolution"]
    classes = f"{network['classes']} classes" if network["classes"] else "unconditional"
    clamp = "" if network["conv_clamp"] is None else f", clamped at {network['conv_clamp']:g}"
    say(
        f"{plan.path}: {KINDS[plan.foreign.kind]}, SHA-256 {plan.sha256[:12]}\n"
        f"{size}x{size}x{network['image_channels']}, {classes}, {network['architecture']}, "
        f"{network['mapping_layers']} mapping layers, z {network['z_dim']}, w {network['w_dim']}, "
        f"at most {network['channel_max']} channels{clamp}\n"
        f"left in the file: {', '.join(plan.foreign.left) or 'nothing'}"
    )
    if data is None:
        say("trained on: not said; having no classes, it can write no bank")
    else:
        say(
            f"trained on: {data.name} ({draw_name(data.imbalance)}, split {data.split_id[:12]}), "
            f"declared by the user; class 0 is {data.classes[0]}, class {data.num_classes - 1} "
            f"{data.classes[-1]}"
        )
        for note in data.notes:
            say(note)


def _answer(published: Published | None, plan: ImportPlan, as_json: bool, *, state: str) -> None:
    if as_json:
        name = None if published is None else published.hash
        folder = None if published is None else str(published.folder)
        facts = {"state": state, "generator": name, "folder": folder}
        console.print_json({**facts, **plan.shown()})
        return
    if published is None:
        result("would import it: everything in it fits")
        return
    result(f"generator {published.hash[:12]} {state}: {published.folder}")
    say(f"picture {published.folder / 'grid.png'}")
    if plan.dataset is not None and published.card["classes"]:
        words = shlex.join(plan.dataset.options)
        say(f"next    stylegan-mix generate {words} --generator {published.hash[:12]}")
