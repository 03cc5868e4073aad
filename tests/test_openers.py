"""Every file is opened, and every text parsed, by code that bounds what it takes.

`stylegan_mix.reading` opens regular files up to a limit and parses JSON, TOML and tables with
bounds. Any other call that opens or parses stands in the list below, with the reason why it may.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("kernels", "stylegan_mix", "trainer", "tools")
OPENERS = {
    *("open", "os.open", "io.open", "np.load", "np.loadtxt", "np.fromfile", "np.memmap"),
    *("h5py.File", "Image.open", "torch.load", "zipfile.ZipFile", "tarfile.open", "gzip.open"),
    *("gzip.GzipFile", "gzip.decompress", "pickle.load", "pickle.loads", "json.load"),
    *("json.loads", "tomllib.load", "tomllib.loads", "csv.reader", "csv.DictReader"),
}
METHODS = {"open", "read_text", "read_bytes"}
# Modules whose functions have these names.
BOUNDED = {"reading", "foreign", "os", "io", "Image", "tarfile", "gzip"}

ALLOWED = {
    # the openers themselves
    "stylegan_mix/reading.py": {"os.open", "json.loads", "tomllib.loads", "csv.reader"},
    "kernels/libraries.py": {"os.open", "json.loads", ".read_text"},  # knows only torch; own source
    "stylegan_mix/zips.py": {"zipfile.ZipFile"},
    "stylegan_mix/datasets/archives.py": {"gzip.GzipFile", "tarfile.open"},  # a limited stream
    "stylegan_mix/datasets/image_files.py": {"Image.open"},  # of bytes, with limits on pieces
    "stylegan_mix/pictures/grid.py": {"Image.open"},  # of bytes that were read with a limit
    "stylegan_mix/pictures/picture.py": {"Image.open"},  # of a picture that was just drawn
    "stylegan_mix/arrays.py": {"np.memmap", "h5py.File", "open"},  # after the size; own files
    # written by this process a moment ago
    "kernels/build.py": {"open", "os.open", ".read_text"},
    "stylegan_mix/datasets/official.py": {".open", ".read_bytes"},
    "tools/gpu/generator.py": {"Image.open", "tarfile.open", "json.loads", ".read_text"},
    # for writing
    "stylegan_mix/output.py": {"os.open"},
    "stylegan_mix/special_files.py": {"os.open"},
    "stylegan_mix/progress.py": {"os.open"},
    "stylegan_mix/console.py": {"open", "os.open"},  # /dev/null
    "stylegan_mix/store.py": {"os.open"},  # temporary files, locks, folders
    "stylegan_mix/banks/blocks.py": {"open"},  # a new file
    "trainer/curves.py": {".open"},  # appends to a new file
    # of the machine, of an installed package, of this repository
    "stylegan_mix/process.py": {".read_text"},
    "stylegan_mix/datasets/digits.py": {"np.loadtxt", "gzip.decompress", ".read_bytes"},
    "tools/budgets.py": {".read_text"},
    "tools/faults.py": {".read_text", "tomllib.loads"},
}
# Scripts that measure and read what they have written.
SCRIPTS = ("tools/bench/", "tools/experiments/")


def calls(path: Path) -> Iterator[str]:
    """Names the calls of a file that may open or parse: `open`, `np.load`, `.read_text`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        of, _, method = name.rpartition(".")
        if name in OPENERS:
            yield name
        elif of and method in METHODS and of not in BOUNDED:
            yield f".{method}"


def test_all_else_goes_through_the_reader_with_limits(repo_root: Path) -> None:
    wrong, used = [], set()
    for folder in FOLDERS:
        for path in sorted((repo_root / folder).rglob("*.py")):
            name = path.relative_to(repo_root).as_posix()
            if name.startswith(SCRIPTS):
                continue
            found = set(calls(path))
            used |= {(name, one) for one in found}
            wrong += [f"{name}: {one}" for one in sorted(found - ALLOWED.get(name, set()))]
    assert not wrong, wrong
    stale = {(name, one) for name, names in ALLOWED.items() for one in names} - used
    assert not stale, f"no longer needed: {sorted(stale)}"
