"""`stylegan-mix export-generator`: a generator of the store in one file, for another store."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import click

from stylegan_mix import console, output, special_files
from stylegan_mix.console import result
from stylegan_mix.errors import UsageFailure
from stylegan_mix.progress import say
from stylegan_mix.reading import sha256_file

__all__ = ["export_generator"]

_ELSEWHERE = "name another FILE"


@click.command("export-generator")
@click.argument("generator")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="float32 is exact; bfloat16 takes half the space, and makes another generator.",
)
@click.option("--replace", is_flag=True, help="Replace a FILE with different content.")
@console.json_option
@console.debug_option
def export_generator(generator: str, file: Path, dtype: str, replace: bool, as_json: bool) -> None:
    """Write a generator, with its card, to one safetensors FILE.

    GENERATOR is the hash of one, or its beginning. `import-generator FILE` takes it into another
    store. In float32 it keeps its hash there, and its banks keep their bytes. In bfloat16 its
    weights are rounded: the card says so, and the hash is that of the rounded weights.

    \b
    stylegan-mix export-generator HASH cifar10-lt.safetensors --dtype bfloat16
    stylegan-mix import-generator cifar10-lt.safetensors
    """
    from stylegan_mix.generators import store as generator_store

    published = generator_store.load(generator)
    output.check(file, elsewhere=_ELSEWHERE)

    from stylegan_mix.interop import exported

    content, name = exported.pack(published, dtype)
    sha256 = hashlib.sha256(content).hexdigest()
    state = "written"
    if file.exists() and not special_files.is_special(file):
        state = "exists" if sha256_file(file) == sha256 else "replaced"
        if state == "replaced" and not replace:
            raise UsageFailure(
                f"{file} exists, with other content than generator {published.hash[:12]} in "
                f"{dtype}",
                remedy=f"--replace replaces it; or {_ELSEWHERE}",
            )
    if state != "exists":
        output.write_bytes(file, content, elsewhere=_ELSEWHERE)
    facts = {
        "state": state,
        "file": str(file),
        "bytes": len(content),
        "sha256": sha256,
        "dtype": dtype,
        "generator": published.hash,
        "imported_as": name,
    }
    if as_json:
        console.print_json(facts)
        return
    result(f"generator {published.hash[:12]} in {dtype}, {len(content):,} bytes, {state}: {file}")
    say(f"SHA-256 {sha256}")
    if name != published.hash:
        say(f"its weights are rounded: imported, it is generator {name[:12]}")
    say(f"next    stylegan-mix import-generator {shlex.quote(str(file))}")
