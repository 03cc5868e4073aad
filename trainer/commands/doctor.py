"""`trainer doctor`: the means of this machine to train classifiers, and the banks at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from stylegan_mix import console, process, store

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def doctor(as_json: bool, debug: bool) -> None:
    """Check the machine for training: versions, devices, banks at hand, disk, number formats."""
    console.print_findings(examine(), as_json=as_json)


def examine() -> dict[str, Any]:
    """Collects the findings as plain data, name -> finding."""
    from stylegan_mix.banks import store as bank_store

    banks = bank_store.find()
    here = Path.cwd()
    writable = os.access(here, os.W_OK)
    free = shutil.disk_usage(here).free / 1e9
    return {
        **process.machine(),
        "store": str(store.home()),
        "banks": f"{len(banks)}" + (f", the newest {_bank(banks[0].facts)}" if banks else ""),
        "runs": f"{here / 'runs'} ({'can' if writable else 'CANNOT'} be written, "
        f"{free:,.1f} GB free)",
    }


def _bank(facts: dict[str, Any]) -> str:
    return f"{facts['key'][:12]} of {facts['dataset']}, space {facts['space']}, {facts['n']:,} rows"
