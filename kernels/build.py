"""Builds the compiled operators: sources -> digest -> ninja -> a shared library in the cache.

    python -m kernels.build                  for this machine's CPU, into the cache
    python -m kernels.build --device cuda    for its GPUs, or three common ones
    python -m kernels.build --isa all --environment
                                             for all users of this Python environment: nothing is
                                             built later, and no compiler is needed any more

Objects stay in `<root>/.objects/`, so that only changed sources are compiled again.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernels import libraries, ptxas, toolchain
from kernels.errors import NativeUnavailable
from kernels.libraries import Built
from kernels.toolchain import Target, Toolchain, target_for

__all__ = ["build", "main", "obtain"]

KEPT = 4
LOG_LINES = 15
# Lines of compilers, and of the GNU linker, which prints its own after the cause.
_ERROR = re.compile("error|undefined reference")


def say(text: str) -> None:
    """Prints a line for the waiting user."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def obtain(target: Target, *, verbose: bool = False) -> Built:
    """Finds or builds the library for `target`: in this Python environment, else in the cache.

    Raises `NativeUnavailable`, with the cause and the remedy.
    """
    wanted = libraries.specification(target, "")
    prebuilt = libraries.search(libraries.PREBUILT, wanted)
    if prebuilt is not None:
        return prebuilt
    root = libraries.cache()
    try:
        tools = toolchain.find(target)
    except NativeUnavailable:
        # A machine without a compiler takes a library that another one put into a shared cache.
        elsewhere = libraries.search(root, wanted)
        if elsewhere is None:
            raise
        return elsewhere
    return build(target, root, tools, verbose=verbose)


# --------------------------------------------------------------------- building


def build(
    target: Target,
    root: Path,
    tools: Toolchain | None = None,
    *,
    tell: Callable[[str], None] = say,
    verbose: bool = False,
) -> Built:
    """Finds the library in `root`, or builds it there under a lock. Raises `NativeUnavailable`."""
    tools = tools or toolchain.find(target)
    found = libraries.search(root, libraries.specification(target, tools.version))
    if found is not None:
        return found
    with _disk_errors(root):
        work = root / ".objects" / target.label
        work.mkdir(parents=True, exist_ok=True)
        with _locked(work / "lock", tell) as lock:
            while True:
                wanted = libraries.specification(target, tools.version)
                found = libraries.search(root, wanted)
                if found is not None:
                    return found
                tell(f"building the compiled operators {target.label}, once, with {tools.version}")
                library = _compile(work, target, tools, wanted, lock=lock, verbose=verbose)
                # Sources may change during compilation: the library then matches neither version.
                if libraries.specification(target, tools.version) == wanted:
                    return _publish(root, work, library, wanted)


def _compile(
    work: Path,
    target: Target,
    tools: Toolchain,
    wanted: dict[str, Any],
    *,
    lock: int,
    verbose: bool,
) -> str:
    """Runs ninja in `work`; returns the name of the library there."""
    library = f"kernels_{target.label}.so"
    (work / library).unlink(missing_ok=True)  # linked anew: ninja does not see a damaged one
    (work / "build.ninja").write_text(_ninja_file(tools, wanted, library), encoding="utf-8")
    # The lock goes along to ninja and its compilers: they outlive a killed parent by seconds, in
    # which nobody else may write here.
    done = subprocess.run(
        [toolchain.ninja(), "-C", str(work), *(["-v"] if verbose else [])],
        stdin=subprocess.DEVNULL,
        stdout=None if verbose else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
        env={**os.environ, "LC_ALL": "C", "NINJA_STATUS": ""},
    )
    logs = [work / f"{_object(name)}.log" for name in libraries.units(wanted)]
    log = "".join(path.read_text(errors="replace") for path in logs if path.exists())
    (work / "build.log").write_text(log + (done.stdout or ""), encoding="utf-8")
    if done.returncode != 0:
        raise NativeUnavailable(_failed(tools, done.stdout or log, work / "build.log"))
    return library


def _ninja_file(tools: Toolchain, wanted: dict[str, Any], library: str) -> str:
    """Writes the rules for ninja: one edge for each source, one for the library.

    ninja runs a command again when its text changes, so hashes of the contents go into it: after an
    installation of older sources, modification times prove nothing. A changed header compiles all.
    """
    units = libraries.units(wanted)
    headers = libraries.digest(
        {name: sha for name, sha in wanted["sources"].items() if name not in units}
    )
    edges = []
    for name, sha in units.items():
        out, source = _object(name), str(libraries.SOURCES / name)
        line = shlex.join([*tools.compile, f"-I{libraries.SOURCES}", "-c", source, "-o", out])
        line += f" >{out}.log 2>&1 || {{ cat {out}.log; exit 1; }}"
        edges.append(_edge(out, [source], f"{line} # {sha} {headers} {tools.version}"))
    objects = [_object(name) for name in units]
    line = shlex.join([*tools.link, "-o", library, *objects, *tools.libraries])
    edges.append(_edge(library, objects, line))
    return "rule run\n  command = $line\n  description = $out\n" + "".join(edges)


def _object(name: str) -> str:
    return f"{name.replace('/', '.')}.o"


def _edge(out: str, inputs: list[str], line: str) -> str:
    paths = " ".join(re.sub(r"([$ :])", r"$\1", path) for path in inputs)
    return f"build {out}: run {paths}\n  line = {line.replace('$', '$$')}\n"


def _failed(tools: Toolchain, output: str, log: Path) -> str:
    if os.strerror(errno.ENOSPC) in output:
        return _full(log.parent)
    ours = (tools.program, "ninja: ", "FAILED: ")
    lines = [line for line in output.splitlines() if not line.startswith(ours)]
    first = next((at for at, line in enumerate(lines) if _ERROR.search(line)), -LOG_LINES)
    tail = "\n".join(f"  {line}" for line in lines[first:][:LOG_LINES])
    return (
        f"{tools.program} ({tools.version}) could not compile the operators:\n{tail}\n"
        f"All of it is in {log}. A newer compiler may do better (GCC 9 or CUDA 12 are enough): "
        "name it with CXX or CUDA_HOME, or report this"
    )


def _publish(root: Path, work: Path, library: str, wanted: dict[str, Any]) -> Built:
    final = root / libraries.digest(wanted)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        for name in (library, "build.log"):
            shutil.copyfile(work / name, temporary / name)
        facts = {"library_sha256": libraries.sha256(work / library), **wanted}
        manifest = json.dumps({"library": library, **facts}, indent=1) + "\n"
        (temporary / "build.json").write_text(manifest, encoding="utf-8")
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o555 if path.suffix == ".so" else 0o444)
        temporary.chmod(0o755)
        if final.exists():  # damaged, or it would have been found
            shutil.rmtree(final)
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Built(final / library, facts)


# --------------------------------------------------------------------- locks and disks


@contextmanager
def _locked(path: Path, tell: Callable[[str], None]) -> Iterator[int]:
    """Holds the lock file; the kernel frees it once this process and its compilers have ended."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            tell(f"waiting for {holder or 'another process'}, which builds the same operators")
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NativeUnavailable(_full(root)) from error
        raise NativeUnavailable(
            f"{error.filename or root} cannot be written ({error.strerror}); name a folder that "
            "can with STYLEGAN_MIX_HOME"
        ) from error


def _full(folder: Path) -> str:
    return f"the disk of {folder} is full; free some space, or move with STYLEGAN_MIX_HOME"


# --------------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """Builds, and prints the path of each library.

    Returns 0; 4 if a library could not be built; 1 if registers spill (--check-spills).
    """
    options = _options(arguments)
    status = 0
    for target in _targets(options):
        try:
            if options.into is None:
                built = obtain(target, verbose=options.verbose)
            else:
                built = build(target, options.into.absolute(), verbose=options.verbose)
                _drop_outdated(options.into, target)
        except NativeUnavailable as error:
            say(f"error: {target.label}: {error}")
            status = 4
            continue
        sys.stdout.write(f"{built.path}\n")
        if options.check_spills:
            usages = ptxas.parse(built.log)
            sys.stdout.write(f"{ptxas.table(usages)}\n")
            status = status or int(any(usage.spilled for usage in usages))
    return status


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.build", description="Builds the compiled operators."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--isa",
        metavar="NAME",
        default="",
        help=f"of a CPU {', '.join(toolchain.INSTRUCTION_SETS)} or all, of GPUs numbers as "
        f"{toolchain.ARCHITECTURES}; the default is that of this machine",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--into", type=Path, metavar="FOLDER", help="instead of the cache")
    place.add_argument(
        "--environment",
        action="store_const",
        dest="into",
        const=libraries.PREBUILT,
        help=f"into {libraries.PREBUILT}, where this Python environment finds it first",
    )
    parser.add_argument(
        "--sanitize",
        choices=[name for name in toolchain.SANITIZERS if name],
        help="of a CPU: a library for KERNELS_SANITIZE, which ends the process at a mistake",
    )
    parser.add_argument("--verbose", action="store_true", help="show commands and their output")
    parser.add_argument(
        "--check-spills",
        action="store_true",
        help="print what each CUDA kernel uses; status 1 if registers spill",
    )
    options = parser.parse_args(arguments)
    known = (*toolchain.INSTRUCTION_SETS, "all", "")
    if options.device == "cpu" and options.isa not in known:
        parser.error(f"--isa of a CPU is one of {', '.join(known[:-1])}, not {options.isa}")
    if options.device == "cuda" and options.sanitize:
        parser.error(
            f"--sanitize {options.sanitize} is for --device cpu: compilers have no sanitizers for "
            "GPU code; NVIDIA's compute-sanitizer checks the library as it is (tools/gpu/kernels)"
        )
    return options


def _targets(options: argparse.Namespace) -> list[Target]:
    every = options.device == "cpu" and options.isa == "all"
    names = list(toolchain.INSTRUCTION_SETS) if every else [options.isa]
    return [target_for(options.device, isa=name, sanitize=options.sanitize) for name in names]


def _drop_outdated(root: Path, target: Target) -> None:
    """Removes all but the newest few libraries of a target: each change of a source makes one."""
    found = root.glob(f"*/kernels_{target.label}.so")
    for path in sorted(found, key=lambda path: -path.stat().st_mtime)[KEPT:]:
        shutil.rmtree(path.parent, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
