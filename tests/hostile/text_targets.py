"""Mutants of small texts: results, configurations, journals and records of commands."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from targets import Target, Wrong, change_text, command

from stylegan_mix import store
from stylegan_mix.banks import shards
from stylegan_mix.errors import Failure

# The maker of results in tests/trainer/conftest.py, set by the tests.
MAKERS: dict[str, ModuleType] = {}


class Record(Target):
    """Results of runs: one of them changed; the report goes on with the others."""

    def build(self, folder: Path) -> None:
        made: Any = MAKERS["results"]
        for seed in (0, 1):
            place = folder / "runs" / "a" / f"seed-{seed}"
            place.mkdir(parents=True)
            record = made.make_record(seed=seed)
            store.write_json(place / "result.json", record)
            store.write_json(place / "run.json", {"spec": record["config"], "status": "done"})
            store.write_json(place / "inputs.json", {"bank": None})
            (place / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n' * 3)

    def change(self, mutator: Any, folder: Path) -> None:
        path = mutator.draws.choice(sorted((folder / "runs/a/seed-0").iterdir()))
        change_text(path, mutator.of_json if path.suffix == ".json" else mutator.of_text)

    def use(self, folder: Path) -> str | None:
        from trainer.engine.folder import RunFolder
        from trainer.reports import records

        os.chdir(folder)
        size = (folder / "runs/a/seed-0/result.json").stat().st_size
        form = ("table", "md", "html", "json")[size % 4]
        told = command("report", "runs", "--format", form, package="trainer")
        told += command("report", "runs", package="trainer")
        if "1" not in told:
            raise Wrong(told)
        if "<script" in told:
            raise Wrong(f"HTML of the file: {told}")
        command("compare", "none", "none", package="trainer")
        run = folder / "runs/a/seed-0"
        sound = records.read(folder / "runs/a/seed-1/result.json")
        for one in (
            lambda: records.read(run / "result.json"),
            lambda: RunFolder(run).begin(sound.spec, {}, "trainer run"),
            lambda: RunFolder(run).require_inputs({"bank": None}),
            lambda: records.read_events(run / "metrics.jsonl"),
        ):
            with contextlib.suppress(Failure):
                one()
        return None


class Toml(Target):
    """A configuration file and a sweep."""

    def build(self, folder: Path) -> None:
        (folder / "c.toml").write_text(
            'dataset = "digits_lt"\npreset = "tiny8"\nkimg = 0.5\nseed = 3\nthreads = 1\n'
            'device = "cpu"\nimbalance = 20.0\n'
        )
        (folder / "s.toml").write_text(
            'about = "the arms"\n\n[base]\ndataset = "digits_lt"\nmodel = "resnet8"\nseeds = 2\n'
            'epochs = 1\nlr = 0.1\n\n[[runs]]\naug = ["none", "mixup"]\n\n[[runs]]\naug = "mixup"\n'
            "alpha = 0.5\n"
        )

    def change(self, mutator: Any, folder: Path) -> None:
        path = mutator.draws.choice(sorted(folder.glob("*.toml")))
        change_text(path, mutator.of_text)

    def use(self, folder: Path) -> str | None:
        os.environ["STYLEGAN_MIX_HOME"] = str(folder / "home")
        os.chdir(folder)
        command("train", "--config", "c.toml", "--dry-run")
        command("sweep", "s.toml", "--print-commands", package="trainer")
        return None


class Logs(Target):
    """Journals and other small files that a command finds beside its own."""

    def build(self, folder: Path) -> None:
        (folder / "metrics.jsonl").write_text('{"kimg": 0.5, "step": 4, "loss": [1, 2]}\n' * 4)
        partial = folder / "banks" / ".partial" / ("4" * 64)
        partial.mkdir(parents=True)
        request = {"n": 100, "block": 64, "space": "w", "generator": "5" * 64, "split_id": "6"}
        begun = {"key": "x", "request": request, "numerics": {"device": "cpu"}}
        store.write_json(partial / "request.json", begun)
        shards.mark(partial, shards.Shard(1, 2))
        build = folder / "kernels" / "abc"
        build.mkdir(parents=True)
        store.write_json(build / "build.json", {"library": "a.so", "device": "cpu", "isa": "avx2"})
        store.write_json(folder / "page.json", {"schema": "stylegan-mix-page", "files": ["a.png"]})

    def change(self, mutator: Any, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*.json*") if path.is_file())
        path = mutator.draws.choice(files)
        change_text(path, mutator.of_json if path.suffix == ".json" else mutator.of_text)

    def use(self, folder: Path) -> str | None:
        from kernels import libraries
        from stylegan_mix.pictures import folder as page
        from stylegan_mix.pictures import history
        from stylegan_mix.training.journal import Journal

        os.environ["STYLEGAN_MIX_HOME"] = str(folder)
        if not command("bank", "list").startswith("0 "):
            raise Wrong("an unfinished bank ends the listing")
        lines = history.read(folder / "metrics.jsonl", kimg=9.0)
        history.panels(lines, ["a", "b"])
        Journal(folder, lambda _: None).cut(3)
        asked = {"request": {"split_id": "6", "n": 100}, "numerics": {}}
        with contextlib.suppress(Failure):
            shards.check(folder / "banks" / ".partial" / ("7" * 64), shards.Shard(2, 2), asked)
        wanted = {"device": "cpu", "isa": "avx2", "sanitize": "", "compiler": ""}
        libraries.search(folder / "kernels", wanted)
        with contextlib.suppress(Failure):
            page.check(folder)
        return None
