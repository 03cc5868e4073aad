"""Notes on the files of a source that are in no part, by kind and folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from stylegan_mix.datasets.archives import Archive, bytewise, is_hidden
from stylegan_mix.datasets.image_files import heif_hint, is_image_name
from stylegan_mix.datasets.listing import counted, some

__all__ = ["IMAGE_ENDINGS", "left_aside"]

SHOWN_FOLDERS = 3
SHOWN_KINDS = 12

_PLURAL = {
    "image": "images",
    "hidden file": "hidden files",
    "file without ending": "files without ending",
}

IMAGE_ENDINGS = (
    *(".heic", ".heif", ".avif", ".avifs", ".jxl", ".jp2", ".j2k", ".jpx", ".jfif", ".jpe", ".mpo"),
    *(".apng", ".pnm", ".svg", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"),
    *(".psd", ".xcf", ".exr", ".hdr", ".tga", ".ico", ".eps", ".pcx", ".qoi", ".bpg", ".dcm"),
    *(".dicom", ".nii"),
)
"""Endings of images. Those that are not read are counted by class."""


def left_aside(archive: Archive, used: Iterable[str], classes: Mapping[str, str]) -> list[str]:
    """Composes notes on the files that are not used: dropped images by class, others by kind.

    `classes` maps a folder, such as "train/cat", to the class that it holds.
    """
    taken = set(used)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    dropped: Counter[str] = Counter()
    unread: set[str] = set()
    for name in archive.names:
        if name in taken:
            continue
        folder = name.rpartition("/")[0]
        kind = _kind(name)
        where = _class_around(folder, classes)
        if kind in IMAGE_ENDINGS and where is not None:
            dropped[f"{where} {{:,}} {kind}"] += 1
            unread.add(kind)
        else:
            kinds[kind][folder or "the source"] += 1
    notes = []
    if dropped:
        counts = [text.format(times) for text, times in sorted(dropped.items())]
        hint = heif_hint(f"x{kind}" for kind in unread)
        notes.append(
            f"images of an ending that is not read, by class: {some(counts, 20)}"
            + (f"; {hint}" if hint else "")
        )
    if kinds:
        texts = [
            f"{_count(sum(folders.values()), kind)} in {_places(folders)}"
            for kind, folders in sorted(kinds.items())
        ]
        notes.append(f"left aside: {some(texts, SHOWN_KINDS)}")
    return notes


def _kind(name: str) -> str:
    last = name.rpartition("/")[2]
    if is_hidden(name):
        return "hidden file"
    if is_image_name(name):
        return "image"
    dot = last.rfind(".")
    return last[dot:].lower() if dot > 0 else "file without ending"


def _count(number: int, kind: str) -> str:
    return f"{number:,} {kind}" if kind.startswith(".") else counted(number, kind, _PLURAL[kind])


def _class_around(folder: str, classes: Mapping[str, str]) -> str | None:
    while folder:
        if folder in classes:
            return classes[folder]
        folder = folder.rpartition("/")[0]
    return None


def _places(folders: Counter[str]) -> str:
    names = sorted(folders, key=lambda one: (-folders[one], bytewise(one)))
    counts = [f"{name} ({folders[name]:,})" for name in names]
    return counts[0].rpartition(" ")[0] if len(counts) == 1 else some(counts, SHOWN_FOLDERS)
