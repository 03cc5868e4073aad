"""The command `remove` of data sets, generators and banks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stylegan_mix import console
from stylegan_mix.progress import say

__all__ = ["remove_command", "runs_option"]


def runs_option(about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes the option `--runs` of a command that searches folders for runs, with its help."""
    return click.option("--runs", multiple=True, type=click.Path(path_type=Path), help=about)


def remove_command(kind: str, metavar: str, about: str) -> click.Command:
    """Makes the command for a kind of entries; `about` is its help after the first sentence."""

    @click.command("remove", help=f"Move {metavar} into the trash of the store. {about}")
    @click.argument("names", metavar=f"{metavar}...", nargs=-1, required=True)
    @runs_option("Folder of runs that may need it; may be repeated.  [default: runs]")
    @click.option("--dry-run", is_flag=True, help="Say what would be moved, then stop.")
    @console.json_option
    @console.debug_option
    def remove(
        names: tuple[str, ...], runs: tuple[Path, ...], dry_run: bool, as_json: bool
    ) -> None:
        _remove(kind, names, runs or (Path("runs"),), dry_run, as_json)

    return remove


def _remove(
    kind: str, names: tuple[str, ...], runs: tuple[Path, ...], dry_run: bool, as_json: bool
) -> None:
    from stylegan_mix import removal, store

    moved = []
    for one in removal.plan(kind, names, runs):
        place = one.place() if dry_run else removal.carry_out(one)
        moved.append({"name": one.name, "folder": str(one.folder), "trash": str(place)})
        if not as_json:
            console.result(f"{one.name}: {'would be' if dry_run else 'is'} in the trash, {place}")
            say(f"  to get it back: {shlex.join(['mv', str(place), str(one.folder)])}")
    locks = 0 if dry_run else store.remove_free_locks(store.home())
    if as_json:
        console.print_json({"moved": moved, "dry_run": dry_run, "locks_removed": locks})
    elif locks:
        say(f"{locks} lock files that no process holds were removed")
