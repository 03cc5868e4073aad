"""The folder of a page: checking it before it is overwritten, and writing it; no torch.

`page.json` lies beside the page and lists its files, so that an earlier page is recognised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_mix import output, store
from stylegan_mix.errors import InvalidInput, UsageFailure

__all__ = ["INDEX", "check", "write"]

INDEX = "index.html"
_RECORD = "page.json"
_SCHEMA = "stylegan-mix-page"
_ANOTHER = "choose another --page FOLDER"


def check(folder: Path) -> list[str]:
    """Lists the files of the earlier page in a folder; none if it is empty or not there.

    `UsageFailure` (exit code 2) for a folder with other files and no page, for a file, and for a
    path that cannot be made; `MissingEnvironment` (4) if writing is not permitted.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageFailure(f"a page needs a folder, {folder} is a file", remedy=_ANOTHER)
    with store.disk_errors(folder, elsewhere=_ANOTHER):
        _try(folder)
    if not folder.exists():
        return []
    if (folder / _RECORD).is_file():
        return _files(folder)
    with store.disk_errors(folder):
        found = sorted(path.name for path in folder.iterdir())
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageFailure(
            f"{folder} holds no earlier page but other files ({', '.join(found[:3])}{more}), "
            "which are left as they are",
            remedy="choose a new or an empty folder with --page FOLDER",
        )
    return []


def _try(folder: Path) -> None:
    """Raises OSError unless the folder, or the first existing one above it, can be written to."""
    while not folder.exists():
        folder = folder.parent
    Path(tempfile.mkdtemp(prefix=".page-", dir=folder)).rmdir()


def _files(folder: Path) -> list[str]:
    try:
        record = store.read_json(folder / _RECORD)
        files = [str(name) for name in record["files"]] if record["schema"] == _SCHEMA else None
    except (InvalidInput, KeyError, TypeError) as error:
        raise UsageFailure(
            f"{folder / _RECORD} is not the record of a page: {error}",
            remedy=_ANOTHER,
        ) from error
    if files is None or any(Path(name).name != name for name in files):
        raise UsageFailure(f"{folder / _RECORD} is not the record of a page", remedy=_ANOTHER)
    return files


def write(folder: Path, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Writes a page and its record in place of an earlier one, whose other files are removed.

    The record comes first, with the names of both, so that an interrupted page is recognised.
    `UsageFailure` (exit code 2) as in `check`, and for a file that is not of a page;
    `MissingEnvironment` (4) if space or permission is missing.
    """
    before = check(folder)
    foreign = [name for name in files if name not in before and (folder / name).exists()]
    if foreign:
        raise UsageFailure(
            f"{folder} holds {', '.join(foreign)}, not of the earlier page there",
            remedy="choose a new or an empty folder with --page FOLDER",
        )
    with store.disk_errors(folder):
        need = sum(map(len, files.values()))
        store.free_space(folder, need, f"the page in {folder}", elsewhere=_ANOTHER)
    record = {"schema": _SCHEMA, "schema_version": 1, **facts}
    output.write_json(
        folder / _RECORD, {**record, "files": sorted({*before, *files})}, elsewhere=_ANOTHER
    )
    for name, data in files.items():
        output.write_bytes(folder / name, data, elsewhere=_ANOTHER)
    with store.disk_errors(folder):
        for name in set(before) - set(files):
            (folder / name).unlink(missing_ok=True)
    output.write_json(folder / _RECORD, {**record, "files": sorted(files)}, elsewhere=_ANOTHER)
