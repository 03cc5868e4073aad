"""Compiled libraries on the disk: their specification, their digest, and looking one up.

A library lies in `<root>/<digest>/` with `build.json` (everything the digest covers, and the hash
of the library) and `build.log`. It appears there by one rename and is never changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import toolchain
from kernels.errors import NativeUnavailable, NothingToBuild
from kernels.toolchain import Target

__all__ = ["PREBUILT", "SOURCES", "Built", "cache", "digest", "search", "specification", "units"]

SOURCES = Path(__file__).resolve().parent / "csrc"
# Libraries of this Python environment, for all its users; looked through before the cache.
PREBUILT = Path(sys.prefix) / "share" / "stylegan-mix" / "kernels"
SUFFIX = {"cpu": ".cpp", "cuda": ".cu"}
HEADERS = (".h", ".cuh")
LARGEST_MANIFEST, LARGEST_LOG, LARGEST_LIBRARY = 1 << 20, 1 << 26, 1 << 30


def cache() -> Path:
    """Returns the folder of cached libraries: `kernels/` in the store (stylegan_mix/store.py)."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    store = os.environ.get("STYLEGAN_MIX_HOME") or f"{caches}/stylegan-mix"
    try:
        return Path(store).expanduser().absolute() / "kernels"
    except RuntimeError as error:  # a user without a home folder
        raise NativeUnavailable(f"{error} Set STYLEGAN_MIX_HOME to a folder") from error


@dataclass(frozen=True)
class Built:
    """A finished library and its specification."""

    path: Path
    facts: dict[str, Any]

    @property
    def digest(self) -> str:
        return self.path.parent.name

    @property
    def target(self) -> Target:
        return Target(self.facts["device"], self.facts["isa"], self.facts["sanitize"])

    @property
    def isa(self) -> str:
        """The instruction set in one word: "avx2", "sm80.90"."""
        target = self.target
        return target.isa if target.device == "cpu" else f"sm{target.isa.replace(',', '.')}"

    @property
    def log(self) -> str:
        """The messages of the compiler."""
        return _read(self.path.parent / "build.log", LARGEST_LOG).decode(errors="replace")


def sources(device: str) -> dict[str, str]:
    """Hashes every source and header of a device: its path in csrc/ -> SHA-256."""
    folders = [(SOURCES, HEADERS), (SOURCES / device, (*HEADERS, SUFFIX[device]))]
    found = {
        path.relative_to(SOURCES).as_posix(): sha256(path)
        for folder, suffixes in folders
        for path in sorted(folder.glob("[!.]*"))
        if path.suffix in suffixes
    }
    if not any(name.endswith(SUFFIX[device]) for name in found):
        raise NothingToBuild(f"{SOURCES / device} has no sources of compiled operators")
    return found


def specification(target: Target, compiler: str) -> dict[str, Any]:
    """Lists everything that decides the compiler's output; its digest names the library."""
    runtime = toolchain.openmp() if target.device == "cpu" else None
    contents = sources(target.device)
    abi = re.search(r"#define KERNELS_ABI_VERSION (\d+)", (SOURCES / "abi.h").read_text())
    return {
        "abi": int(abi[1]) if abi else 0,
        "device": target.device,
        "isa": target.isa,
        "sanitize": target.sanitize,
        "platform": f"{platform.system()}-{platform.machine()}",
        "openmp": runtime.name if runtime else "",
        "flags": list(toolchain.flags(target)),
        "compiler": compiler,
        "sources": contents,
    }


def digest(data: object) -> str:
    """Computes the SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(_read(path, LARGEST_LIBRARY)).hexdigest()


def _read(path: Path, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes; OSError for anything else.

    Without O_NONBLOCK, a FIFO in its place would be waited for.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise OSError(errno.EINVAL, "it is no regular file, or a very large one", str(path))
        return file.read(status.st_size)


# --------------------------------------------------------------------- looking it up


def search(root: Path, wanted: dict[str, Any]) -> Built | None:
    """Finds a library in `root` that fits; of any compiler if `wanted` names none."""
    for manifest in sorted(root.glob("*/build.json")):
        try:
            facts = json.loads(_read(manifest, LARGEST_MANIFEST))
            built = Built(manifest.parent / Path(facts.pop("library")).name, facts)
            if _fits(built, wanted) and _whole(built):
                return built
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # damaged, or of another version of this file: not ours
    return None


def _fits(built: Built, wanted: dict[str, Any]) -> bool:
    target = Target(wanted["device"], wanted["isa"], wanted["sanitize"])
    free = {"isa"}
    if target.device == "cuda":
        free.add("flags")  # they list the architectures
    if not wanted["compiler"]:
        free.add("compiler")
    same = all(built.facts[key] == value for key, value in wanted.items() if key not in free)
    return same and built.target.covers(target)


def _whole(built: Built) -> bool:
    """Tells if the library is whole: a process that runs code of a truncated one is killed.

    Takes half a millisecond for the library of a CPU.
    """
    return sha256(built.path) == built.facts["library_sha256"]


def units(wanted: dict[str, Any]) -> dict[str, str]:
    """Selects the compiled sources; the others are headers."""
    suffix = SUFFIX[wanted["device"]]
    return {name: sha for name, sha in wanted["sources"].items() if name.endswith(suffix)}
