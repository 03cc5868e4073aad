"""`stylegan-mix doctor`: the means of this machine, and those that the commands will use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, process, store
from stylegan_mix.errors import Failure, MissingEnvironment

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def doctor(as_json: bool, debug: bool) -> None:
    """Check the machine and the store: versions, devices, operators, disk, locks."""
    problem = _unwritable(store.home())
    console.print_findings(_findings(problem), as_json=as_json)
    if problem:
        raise problem


def _findings(problem: Failure | None) -> dict[str, Any]:
    """Collects the findings as plain data, name -> finding."""
    import h5py

    home = store.home()
    there = next(place for place in (home, *home.parents) if place.is_dir())
    works = f"cannot be used: {problem}" if problem else "writing, renaming and locking work"
    return {
        **process.machine(),
        "h5py": f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})",
        "store": f"{home} ({shutil.disk_usage(there).free / 1e9:,.1f} GB free; {works})",
        "shared": str(store.shared() or "none"),
    }


def _unwritable(home: Path) -> Failure | None:
    """Returns the reason why the store cannot be written to, or None if it can."""
    probe = home / ".doctor"
    try:
        with store.locked(home / ".doctor.lock"):
            store.write_bytes(probe, b"written, synced, renamed")
            probe.unlink()
    except Failure as error:
        return error
    except OSError as error:  # a disk that fails, a file system without locks
        return MissingEnvironment(
            f"{home} does not work ({error.strerror})",
            remedy="choose another place with STYLEGAN_MIX_HOME",
        )
    return None
