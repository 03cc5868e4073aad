"""`stylegan-mix doctor`: what this machine has, and what the commands will use of it."""

from __future__ import annotations

import shutil
from typing import Any

import click

from stylegan_mix import console, store

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def doctor(as_json: bool, debug: bool) -> None:
    """Check the machine and the store: versions, devices, operators, disk, locks."""
    console.print_findings(examine(), as_json=as_json)


def examine() -> dict[str, Any]:
    """The findings as plain data, name -> what was found."""
    import h5py

    home = store.home()
    home.mkdir(parents=True, exist_ok=True)
    probe = home / ".doctor"
    with store.locked(home / ".doctor.lock"):
        store.write_bytes(probe, b"written, synced, renamed")
        probe.unlink()
    return {
        **console.machine(),
        "h5py": f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})",
        "store": f"{home} ({shutil.disk_usage(home).free / 1e9:,.1f} GB free; "
        "writing, renaming and locking work)",
        "shared": str(store.shared() or "none"),
    }
