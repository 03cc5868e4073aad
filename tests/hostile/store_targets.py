"""Mutants of what lies in stores: banks, generators, data sets, votes, saved states, networks."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from targets import Target, Wrong, change, command, digest, image_folder

from stylegan_mix import arrays, checkpoint
from stylegan_mix.banks.blocks import Partial
from stylegan_mix.banks.request import Request
from stylegan_mix.errors import Failure, InvalidInput

RECORDED = Path(__file__).resolve().parent.parent / "recorded" / "store.zip"


class Bank(Target):
    """A bank of the recorded store, its bytes changed."""

    exact = True
    kind, name = "banks", "bank"

    def build(self, folder: Path) -> None:
        whole = folder.with_name(f"{folder.name}.all")
        with zipfile.ZipFile(RECORDED) as stored:
            stored.extractall(whole)
        for kind in ("banks", "generators"):
            for path in sorted((whole / kind).iterdir())[:2]:
                shutil.copytree(path, folder / kind / path.name)

    def change(self, mutator: Any, folder: Path) -> None:
        path = mutator.draws.choice(sorted(self.first(folder).iterdir()))
        change(path, mutator.of_bytes)

    def first(self, folder: Path) -> Path:
        return sorted((folder / self.kind).iterdir())[0]

    def use(self, folder: Path) -> str | None:
        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        listed = command("bank", "list")
        if (
            not listed.startswith("0 ")
            or sorted(os.listdir(folder / "banks"))[1][:12] not in listed
        ):
            raise Wrong(f"the other bank is not listed: {listed}")
        from stylegan_mix.banks.reader import open_bank

        bank = open_bank(self.first(folder))
        return digest(bank.images, bank.pair, bank.lam)


class SealedBank(Bank):
    """A bank whose facts were changed and sealed again."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(self.first(folder))

    def use(self, folder: Path) -> str | None:
        name = self.first(folder).name
        with contextlib.suppress(Failure):
            super().use(folder)
        command("bank", "show", name)
        command("bank", "show", name, "--json")
        command("bank", "verify", "--all")
        command("generate", "--dataset", "digits_lt", "--n", 64, "--no-train", "--dry-run")
        command("run", "--aug", "hybrid", "--dataset", "digits_lt", "--dry-run", package="trainer")
        command("doctor", package="trainer")
        return None


class Blocks(Target):
    """The files of an unfinished bank's blocks, their bytes changed."""

    exact = True

    def unfinished(self, folder: Path) -> Partial:
        request = Request("1" * 64, "2" * 64, 3, 4, 1, n=150)
        return Partial(folder / "banks", "3" * 64, request, {"dataset": "x"})

    def build(self, folder: Path) -> None:
        made, draws = self.unfinished(folder), np.random.default_rng(0)
        made.begin({"request": {}, "numerics": {}})
        for index in range(3):
            images = draws.integers(0, 256, (64, 4, 4, 1), np.uint8)
            pair, lam = draws.integers(0, 3, (64, 2)), draws.random(64)
            made.land(index, images, pair.astype(np.int32), lam.astype(np.float32))

    def change(self, mutator: Any, folder: Path) -> None:
        path = mutator.draws.choice(sorted(folder.glob("banks/.partial/*/blocks/*")))
        change(path, mutator.of_bytes)

    def use(self, folder: Path) -> str | None:
        made = self.unfinished(folder)
        made.begin({"request": {}, "numerics": {}})
        filled = made.fill()
        if filled is None:
            raise InvalidInput("a block is made again")
        return digest(*(np.array(filled.view(name)) for name in ("images", "pair", "lam")))


class Generator(Bank):
    """A generator of the recorded store, its bytes changed."""

    kind = "generators"

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.generators import store as generators

        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        listed = command("generators", "list")
        if not listed.startswith("0 "):
            raise Wrong(listed)
        state = generators.network(generators.load(self.first(folder).name)).state_dict()
        return digest(*(tensor.numpy() for tensor in state.values()))


class SealedGenerator(Generator):
    """A generator whose card or whose tree of tensors was changed and sealed again."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(self.first(folder))

    def use(self, folder: Path) -> str | None:
        with contextlib.suppress(Failure):
            super().use(folder)
        name = self.first(folder).name
        command("generators", "show", name)
        command("generators", "show", name, "--json")
        command("generate", "--dataset", "digits_lt", "--n", 64, "--no-train", "--dry-run")
        return None


class Exported(Target):
    """A generator in one file, its bytes changed."""

    exact = True

    def build(self, folder: Path) -> None:
        Generator().build(folder / "store")
        os.environ["STYLEGAN_MIX_HOME"] = str(folder / "store")
        name = sorted(os.listdir(folder / "store" / "generators"))[0]
        command("export-generator", name, folder / "g.safetensors", "--dtype", "bfloat16")
        shutil.rmtree(folder / "store")

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.interop import exported

        file = folder / "g.safetensors"
        found = exported.open_file(file.read_bytes(), file)
        return digest(*(tensor.numpy() for tensor in found.state.values()))


class SealedExported(Exported):
    """The same, its header or its card changed, with fitting hashes."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        from stylegan_mix.interop import exported, safetensors

        file = folder / "g.safetensors"
        arrays, texts = safetensors.read(file.read_bytes())
        if mutator.draws.random() < 0.5:
            texts["card"] = mutator.of_json(texts["card"])
            texts["sha256"] = exported._sealed(texts["generator"], texts["card"])
        content = safetensors.write(arrays, texts)
        if texts["card"] == safetensors.read(file.read_bytes())[1]["card"]:
            length = int.from_bytes(content[:8], "little")
            header = mutator.of_json(content[8 : 8 + length].decode()).encode("utf-8", "replace")
            content = len(header).to_bytes(8, "little") + header + content[8 + length :]
        file.write_bytes(content)

    def use(self, folder: Path) -> str | None:
        os.environ["STYLEGAN_MIX_HOME"] = str(folder / "home")
        command("import-generator", folder / "g.safetensors")
        command("generators", "list")
        for path in (folder / "home" / "generators").glob("[!.]*"):
            command("generators", "show", path.name)
            text = (path / "GENERATOR_CARD.md").read_text()
            if any(letter in text for letter in "\x1b\x07\x00\u202e"):
                raise Wrong(f"raw text of the file: {text[:300]!r}")
        return None


class Prepared(Target):
    """A prepared data set, its bytes changed."""

    exact = True

    def build(self, folder: Path) -> None:
        source = image_folder(folder.parent / f"{folder.name}.source")
        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        command("dataset", "prepare", "tiny", "--from", source)
        command("dataset", "prepare", "other", "--from", source)

    def change(self, mutator: Any, folder: Path) -> None:
        path = mutator.draws.choice(sorted((folder / "datasets" / "tiny").iterdir()))
        change(path, mutator.of_bytes)

    def use(self, folder: Path) -> str | None:
        from stylegan_mix import datasets

        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        listed = command("dataset", "list")
        if not listed.startswith("0 ") or "other" not in listed:
            raise Wrong(f"the other set is not listed: {listed}")
        data = datasets.load("tiny")
        return digest(data.train.images, data.train.labels, data.test.images)


class SealedPrepared(Prepared):
    """A prepared data set whose facts or arrays were changed and sealed again."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(folder / "datasets" / "tiny")

    def use(self, folder: Path) -> str | None:
        with contextlib.suppress(Failure):
            super().use(folder)
        command("dataset", "show", "tiny", "--no-sheet")
        command("dataset", "verify", "tiny")
        command("dataset", "prepare", "tiny")
        command("train", "--dataset", "tiny", "--dry-run")
        return None


class Votes(Target):
    """Stored votes of a teacher, sealed again."""

    def build(self, folder: Path) -> None:
        facts = {
            "views": {"views": 4},
            "teacher_sha256": "1" * 64,
            "split_id": "2" * 64,
            "seed": 0,
        }
        counts = np.ones((3, 4), np.uint8)
        place = folder / "annotations" / ("3" * 64) / "votes"
        arrays.write(place, {"counts": counts}, kind="votes", facts=facts)

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(next(folder.glob("annotations/*/votes")))

    def use(self, folder: Path) -> str | None:
        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        if not command("queries", package="trainer").startswith("0 "):
            raise Wrong("the votes end the listing")
        command("queries", "--json", package="trainer")
        return None


# --------------------------------------------------------------------- saved states and networks


class Checkpoint(Target):
    """A saved state of nested tensors and values, its bytes changed."""

    exact = True

    def build(self, folder: Path) -> None:
        import torch

        state = {"model": {"a": torch.arange(6.0).reshape(2, 3)}, "step": 3, "list": [1, {"b": 2}]}
        state["flags"] = torch.tensor([True, False])
        checkpoint.save(folder / "step-000000003", state, kind="k", facts={"x": [1.5, "y"]})

    def use(self, folder: Path) -> str | None:
        state, facts = checkpoint.load(folder / "step-000000003", kind="k")
        return repr((state, facts))


class SealedCheckpoint(Checkpoint):
    """A saved state whose tree was changed and sealed again."""

    exact = False

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(folder / "step-000000003")


class Network(Target):
    """The network of a finished run, its facts or tensors changed and sealed again."""

    def build(self, folder: Path) -> None:
        import torch

        from trainer import models
        from trainer.engine.folder import save_network

        model = models.build("resnet8", classes=3, channels=1)
        facts = {
            "model": "resnet8",
            "classes": ["a", "b", "c"],
            "channels": 1,
            "resolution": 8,
            "mean": [0.5],
            "std": [0.2],
            "split_id": "1" * 64,
            "test_id": "2" * 64,
            "history": [{"epoch": 1}],
            "head": {"form": "linear"},
            "others": {},
        }
        save_network(folder / "w", model, {"confusion": torch.zeros(3, 3, dtype=int)}, facts)

    def change(self, mutator: Any, folder: Path) -> None:
        mutator.of_sealed(folder / "w")

    def use(self, folder: Path) -> str | None:
        from trainer.engine.folder import Finished

        Finished.load(folder / "w").network()
        return None
