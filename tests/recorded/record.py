"""Records facts of a commit that later ones must keep: keys and bits, as its commands give them.

    git worktree add ../then 541ec22
    .venv/bin/python tests/recorded/record.py ../then

runs commands of that checkout and writes `facts.json` and `store.zip` beside this file; the tests
run the same commands of today's code. Only command lines and stored files are used and no module
of the packages, so that one file does for every commit.

The commands run on the instructions that every x86-64 processor has (`HELD`), because the order
of float32 sums depends on the instruction set. Tried on an AVX2 processor: the instruction sets of
ATen and of MKL, oneDNN and NNPACK each change the bits; those of NumPy, OpenBLAS and the C library
do not. No AVX-512 processor was at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
FACTS, STORE = HERE / "facts.json", HERE / "store.zip"

HELD = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "KERNELS": "reference",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "Agg",
}

# oneDNN and NNPACK choose their sums by processor and cache, and no variable turns them off.
CHILD = """
import contextlib, io, json, runpy, sys
import torch

torch.backends.mkldnn.set_flags(False)
torch.backends.nnpack.set_flags(False)
told = []
for module, *arguments in json.load(sys.stdin):
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
    told.append(json.loads(out.getvalue()))
json.dump(told, sys.stdout)
"""

TRAIN = (
    "stylegan_mix train --dataset digits_lt --preset tiny8 --kimg 0.32 --batch 16 "
    "--channel-base 64 --channel-max 8 --json"
)
TRAININGS = {
    "plain": "",
    "every part": (
        "--augment ada:blit,color --ada-kimg 0.1 --path-weight 2 --path-interval 2 "
        "--style-mixing 0.9 --twins 0.01 --gsr 0.5 --lecam 0.3 --lecam-kimg 0.12 "
        "--transition-end 0.2 --noise-beta 0.99 --critic-label-noise 0.5 "
        "--more-ema 0.05 --ema-ramp 0"
    ),
    "UTLO": "--augment color,translation,cutout --utlo-resolution 4 --merged-r1 true --seed 1",
}
SPACES = ("w", "none", "pixel", "z", "label")
GENERATE = "stylegan_mix generate --dataset digits_lt --no-train --n 64 --json --space"
DRAWS = ("", "--imbalance 4", "--imbalance 4 --split-seed 1", "--profile step --imbalance 5")
REPORTS = ("", "--against train --truncation 0.7 --seeds 2", "--labels frequency --no-cas --n 500")

# Ten epochs, so that the rate falls between two of them. Milestones within an epoch, and settings
# that a recipe does not read, are newer than the recorded commit.
RUN = (
    "trainer run --dataset digits_lt --model resnet8 --epochs 10 --warmup-epochs 2 --batch 128 "
    "--bn-refresh-batches 1 --eval-every 5 --out runs --json"
)
WITHOUT_BANK = ("none", "mixup")
WITH_BANK = (*WITHOUT_BANK, "bank --bank w", "hybrid --bank w")
ARMS = {
    "ce": WITH_BANK,
    "balanced-softmax": WITHOUT_BANK,
    "crt": WITHOUT_BANK,
    "kd": WITH_BANK,
    "one-hot": WITHOUT_BANK,
    "patched-one-hot --views 4": WITH_BANK,
}


# --------------------------------------------------------------------- running commands


def run(checkout: Path, folder: Path, commands: Iterable[str]) -> list[Any]:
    """Runs commands of a checkout in one held process; returns the JSON that each one prints.

    `folder` is the working directory, and `home` in it the store.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([shlex.split(command) for command in commands]),
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            **HELD,
            "PYTHONPATH": str(checkout),
            "STYLEGAN_MIX_HOME": str(home),
        },
    )
    if done.returncode:
        raise RuntimeError(f"a command failed:\n{done.stderr}")
    told: list[Any] = json.loads(done.stdout)
    return told


def environment() -> dict[str, str]:
    """Names everything that bits depend on beside the code and the instruction set."""
    import torch

    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
    }


# --------------------------------------------------------------------- generators and banks


def trained(checkout: Path, folder: Path) -> dict[str, Any]:
    """Trains generators in an empty store and writes banks of the first: their keys and hashes."""
    first, *others = (f"{TRAIN} {options}" for options in TRAININGS.values())
    banks = [f"{GENERATE} {space}" for space in SPACES]
    one, *told = run(checkout, folder, [first, *banks, *others])
    written, more = told[: len(banks)], told[len(banks) :]
    generators = dict(zip(TRAININGS, [one, *more], strict=True))
    return {
        "trainings": sorted(path.name for path in folder.glob("home/training/*/")),
        "generators": {
            name: [found["generator"], *found.get("more", ())] for name, found in generators.items()
        },
        "banks": {space: _bank(bank) for space, bank in zip(SPACES, written, strict=True)},
    }


def _bank(told: dict[str, Any]) -> dict[str, str]:
    return {name: told[name] for name in ("state", "request_key", "key", "content_sha256")}


def found(checkout: Path, folder: Path) -> dict[str, Any]:
    """Asks for what the recorded store of `folder` holds, and draws the bank of w once more."""
    (taken,) = (
        path.parent for path in folder.glob("home/banks/*/MANIFEST.json") if _space(path) == "w"
    )
    shutil.rmtree(taken)
    banks = [f"{GENERATE} {space}" for space in SPACES]
    reports = [f"stylegan_mix metrics {options} --dry-run --json" for options in REPORTS]
    others = ("stylegan_mix bank list --json", f"{RUN} --aug hybrid --bank pixel --dry-run")
    *told, listed, planned = run(checkout, folder, [*banks, *reports, *others])
    answers, judged = told[: len(banks)], told[len(banks) :]
    return {
        "banks": {space: _bank(bank) for space, bank in zip(SPACES, answers, strict=True)},
        "reports": {options: one["key"] for options, one in zip(REPORTS, judged, strict=True)},
        "listed": sorted(bank["key"] for bank in listed if bank["state"] == "published"),
        "run": {"folder": planned["folder"], "bank": planned["run"]["bank"]["key"]},
    }


def _space(manifest: Path) -> str:
    return str(json.loads(manifest.read_text())["facts"]["space"])


def splits(checkout: Path, folder: Path) -> dict[str, Any]:
    """Prepares a data set and draws from it and from the digits: keys and ids."""
    _make_pictures(folder / "pictures")
    draws = [f"{name} {draw}".strip() for name in ("digits_lt", "made") for draw in DRAWS]
    prepare = "stylegan_mix dataset prepare made --from pictures --json"
    shows = [f"stylegan_mix dataset show {draw} --json" for draw in draws]
    prepared, *told = run(checkout, folder, [prepare, *shows])
    ids = [{name: one[name] for name in ("split_id", "test_id")} for one in told]
    return {"prepared": prepared["request"], **dict(zip(draws, ids, strict=True))}


def _make_pictures(folder: Path) -> None:
    """Writes noise in a format that needs no encoder: the same bytes everywhere."""
    for part, images in (("train", 40), ("test", 4)):
        for name in ("ant", "bee", "cat"):
            (folder / part / name).mkdir(parents=True)
            for number in range(images):
                noise = hashlib.shake_256(f"{part} {name} {number}".encode()).digest(64)
                (folder / part / name / f"{number}.pgm").write_bytes(b"P5 8 8 255\n" + noise)


# --------------------------------------------------------------------- recipes


def recipes(checkout: Path, folder: Path, names: Iterable[str] = ()) -> dict[str, Any]:
    """Trains recipes, by default all, in their arms: folders, weights, losses, confusion matrices.

    The home of `folder` is the recorded store.
    """
    chosen = [recipe for recipe in ARMS if not names or recipe.split()[0] in names]
    run(
        checkout,
        folder,
        [f"{RUN} --recipe {one} --aug {arm}" for one in chosen for arm in ARMS[one]],
    )
    facts = {}
    for path in sorted(folder.glob("runs/*/*/result.json")):
        result = json.loads(path.read_text())
        facts[f"{result['recipe']} {result['arm']}"] = {
            "folder": str(path.parent.relative_to(folder)),
            "weights": {
                stage.name: _weights_sha256(stage / "data.h5")
                for stage in sorted(path.parent.glob("weights/*/"))
            },
            "losses": [_losses(event) for event in result["history"]],
            "confusion": [" ".join(map(str, row)) for row in result["confusion"]],
        }
    return facts


def _losses(event: dict[str, Any]) -> str:
    values = [event[name] for name in ("loss", "loss_real", "loss_bank")]
    spelled = ["none" if value is None else value.hex() for value in values]
    return " ".join([event["stage"], str(event["epoch"]), *spelled])


def _weights_sha256(file: Path) -> str:
    """Hashes names, types, shapes and bytes of a network's weights, read without our code."""
    whole = hashlib.sha256()
    with h5py.File(file) as opened:
        model = opened["state/model"]
        for name in sorted(model):
            array = model[name][...]
            whole.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return whole.hexdigest()


# --------------------------------------------------------------------- recording


def main() -> None:
    """Records the facts of the checkout that the command line names."""
    parser = argparse.ArgumentParser(description="Records facts that later commits must keep.")
    parser.add_argument("checkout", type=Path, help="whose facts; such as a worktree of 541ec22")
    checkout = parser.parse_args().checkout.resolve()
    git = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = {"trained": trained(checkout, folder / "trained")}
        _pack(folder / "trained/home", facts["trained"]["generators"]["plain"])
        facts["splits"] = splits(checkout, folder / "splits")
        for make in (found, recipes):
            unpack(folder / make.__name__)
            facts[make.__name__] = make(checkout, folder / make.__name__)
    head = {
        "commit": commit,
        "command": "python tests/recorded/record.py CHECKOUT",
        "environment": environment(),
        "held": {**HELD, "oneDNN and NNPACK": "off"},
    }
    FACTS.write_text(json.dumps({**head, **facts}, indent=1) + "\n")


def _pack(home: Path, generators: list[str]) -> None:
    """Keeps the banks of a store and some generators, without their pictures and cards."""
    places = [home / "generators" / name for name in generators]
    places += sorted(path.parent for path in home.glob("banks/*/MANIFEST.json"))
    with zipfile.ZipFile(STORE, "w") as packed:
        for place in places:
            for path in (place / "MANIFEST.json", *place.glob("*.h5")):
                entry = zipfile.ZipInfo(str(path.relative_to(home)))
                packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def unpack(folder: Path) -> None:
    """Lays out the recorded store as the home of `folder`."""
    with zipfile.ZipFile(STORE) as packed:
        packed.extractall(folder / "home")


if __name__ == "__main__":
    main()
