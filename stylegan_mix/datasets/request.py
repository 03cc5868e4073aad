"""A preparation as it is requested: the source, the layout of its folders, and the images' form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """A preparation: `source` (a folder, tar or zip) as data set `name`, and its options.

    `index`, or `train_list` with or without `test_list`, or `labels` (tables with a column of files
    and one of labels) assign files to classes; without them the folders do. `train_dir`,
    `test_dir`, `val_dir` are folders of the source, each one or several; `levels` is "top", "leaf"
    or a number: the folder, counted from 1 below a part, that names the class. `size` and `fit`
    bring all images to squares; None keeps them. `convert` admits images that lose something: 16
    bits, CMYK, all frames but one. `flip`: a mirrored image keeps its label. `on_bad_image` is
    "error" or "skip". `stream` keeps a table of the files in the place of their pixels: they are
    decoded again whenever a classifier sees them (`streamed.FileImages`).
    """

    name: str
    source: Path
    index: Path | None = None
    train_list: Path | None = None
    test_list: Path | None = None
    labels: tuple[Path, ...] = ()
    file_column: str | None = None
    label_column: str | None = None
    train_dir: str | tuple[str, ...] | None = None
    test_dir: str | tuple[str, ...] | None = None
    val_dir: str | tuple[str, ...] | None = None
    levels: str | None = None
    names_encoding: str | None = None
    size: int | None = None
    fit: str | None = None
    channels: int | None = None
    convert: bool = False
    flip: bool = True
    on_bad_image: str = "error"
    allow_unknown_hash: bool = False
    stream: bool = False

    @property
    def folders(self) -> dict[str, tuple[str, ...]]:
        """The folders that were named as parts: "train", "test", "val" -> paths in the source."""
        named = {"train": self.train_dir, "test": self.test_dir, "val": self.val_dir}
        several = {
            part: (paths,) if isinstance(paths, str) else tuple(paths or ())
            for part, paths in named.items()
        }
        return {part: paths for part, paths in several.items() if paths}

    @property
    def by_folders(self) -> bool:
        """True if an option says that folders are the classes."""
        return not self.labels and (self.levels is not None or "train" in self.folders)
