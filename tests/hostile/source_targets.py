"""Mutants of what comes from elsewhere: images, archives, lists, pickles of other projects."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import foreign_files
import numpy as np
from PIL import Image as Pillow
from targets import Target, Wrong, change_text, command, image_folder

from stylegan_mix import store
from stylegan_mix.errors import Failure


class Source(Target):
    """A source of images in one form, its bytes changed, prepared as a data set."""

    words: tuple[str, ...] = ()
    form = "tar"

    def build(self, folder: Path) -> None:
        source = image_folder(folder / "source")
        if self.form != "folder":
            shutil.make_archive(str(folder / "source"), self.form, source)
            shutil.rmtree(source)

    def source(self, folder: Path) -> Path:
        return next(path for path in sorted(folder.iterdir()) if path.name.startswith("source"))

    def use(self, folder: Path) -> str | None:
        os.environ["STYLEGAN_MIX_HOME"] = str(folder / "home")
        os.chdir(folder)
        words = ("dataset", "prepare", "tiny", "--from", self.source(folder), *self.words)
        command(*words, "--on-bad-image", "skip")
        return None


class Zip(Source):
    """The same as a zip."""

    form = "zip"


class TarGz(Source):
    """The same as a tar.gz."""

    form = "gztar"


class Index(Source):
    """A folder of images with an index, as a table."""

    form = "folder"
    words = ("--index", "index.csv")

    def build(self, folder: Path) -> None:
        super().build(folder)
        rows = ["split,official_index,class,path"]
        for part in ("train", "test"):
            files = sorted((folder / "source" / part).rglob("*.png"))
            names = [path.relative_to(folder / "source") for path in files]
            rows += [f"{part},{at},{name.parts[1]},{name}" for at, name in enumerate(names)]
        (folder / "index.csv").write_text("\n".join(rows) + "\n")

    def change(self, mutator: Any, folder: Path) -> None:
        change_text(folder / self.words[1], mutator.of_text)


class List(Index):
    """A folder of images with lists of paths and labels."""

    words = ("--train-list", "train.txt")

    def build(self, folder: Path) -> None:
        Source.build(self, folder)
        files = sorted((folder / "source").rglob("*.png"))
        lines = [f"{path.relative_to(folder / 'source')} {at % 2}" for at, path in enumerate(files)]
        (folder / "train.txt").write_text("\n".join(lines) + "\n")


class Categories(Index):
    """A folder of images with a list in the form of iNaturalist."""

    words = ("--train-list", "train.json")

    def build(self, folder: Path) -> None:
        Source.build(self, folder)
        names = [path.relative_to(folder / "source") for path in (folder / "source").rglob("*.png")]
        data = {
            "categories": [{"id": 7, "name": "ant"}, {"id": 9, "name": "bee"}],
            "images": [{"id": at, "file_name": str(name)} for at, name in enumerate(names)],
            "annotations": [
                {"image_id": at, "category_id": 7 + 2 * (at % 2)} for at in range(len(names))
            ],
        }
        store.write_json(folder / "train.json", data)

    def change(self, mutator: Any, folder: Path) -> None:
        change_text(folder / "train.json", mutator.of_json)


class Image(Target):
    """An image of every format, decoded."""

    def build(self, folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
        picture = Pillow.fromarray(pixels)
        for form in ("png", "jpeg", "webp", "bmp", "gif", "tiff", "ppm"):
            picture.save(folder / f"a.{form}")
        picture.convert("P").save(folder / "p.png", transparency=3)
        picture.convert("L").save(folder / "l.tiff", compression="tiff_lzw")

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.datasets.image_files import BadImage, Shape, decode, inspect

        for path in sorted(folder.iterdir()):
            with contextlib.suppress(BadImage):
                inspect(path.read_bytes())
            with contextlib.suppress(BadImage):
                decode(path.read_bytes(), Shape(16, "crop", 3))
        return None


class Cifar(Target):
    """A batch of CIFAR in the python format."""

    def build(self, folder: Path) -> None:
        batch = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2]}
        for protocol in range(6):
            (folder / str(protocol)).write_bytes(pickle.dumps(batch, protocol))

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.datasets import cifar

        for path in sorted(folder.iterdir()):
            with contextlib.suppress(Failure, ValueError):
                cifar._batch(b"labels")(path.read_bytes())
        return None


class Foreign(Target):
    """A generator of another project, in one of three forms."""

    form = "pickle"

    def build(self, folder: Path) -> None:
        from stylegan_mix.interop import nvlabs
        from stylegan_mix.networks import Generator as Ours

        blank = Ours(**nvlabs.generator_settings(foreign_files.SMALL))
        own = blank.state_dict()
        state = {
            name: (own[name] if name in own else blank.get_buffer(name)).numpy()
            for name in nvlabs.published_names(blank)
        }
        if self.form == "pickle":
            foreign_files.network_pickle(folder / "a.pkl", state, foreign_files.SMALL)
            return
        content = foreign_files.port_content(foreign_files.port_state(state))
        foreign_files.port_file(folder / "a.pt", content, legacy=self.form == "stream")

    def use(self, folder: Path) -> str | None:
        from stylegan_mix.interop import foreign

        (path,) = folder.iterdir()
        found = foreign.open_generator(foreign.read_bytes(path)[0], path)
        values = found.network().state_dict().values()
        if not all(value.isfinite().all() for value in values):
            raise Wrong("numbers that are not finite")
        return None


class ForeignZip(Foreign):
    """The port's file as a zip."""

    form = "zip"


class ForeignStream(Foreign):
    """The port's file before PyTorch 1.6."""

    form = "stream"
