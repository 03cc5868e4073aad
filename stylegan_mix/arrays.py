"""The container of prepared sets, banks, checkpoints and annotations.

A container is a directory. It holds one ordinary HDF5 file, with contiguous arrays that any tool
opens, and `MANIFEST.json`: kind, facts, and for each array its dtype, shape, byte offset and
SHA-256, with the hashes of the whole file and of the manifest itself. Writing uses h5py. Reading
checks manifest and hash and then maps the arrays, so libhdf5 never parses a file that might be
foreign. Only the manifest makes a file complete: an HDF5 file whose writer was killed, or whose
disk was full, opens without any error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import reading, store
from stylegan_mix.errors import InvalidInput
from stylegan_mix.showing import shown

__all__ = ["Container", "Writer", "open_container", "read_manifest", "write"]

MANIFEST = "MANIFEST.json"
SCHEMA = "stylegan-mix-arrays"
SCHEMA_VERSION = 1

_DTYPES = {name: np.dtype(f"<{name}") for name in ("u1", "i2", "i4", "i8", "f2", "f4", "f8")}
# Largest manifest that is read, in bytes.
_MANIFEST_LIMIT = 4 << 20
_LAYOUT = "layout.json"
_FIELDS = {
    "schema",
    "schema_version",
    "kind",
    "file",
    "file_bytes",
    "file_sha256",
    "arrays",
    "facts",
    "content_sha256",
    "manifest_sha256",
}

Declared = Mapping[str, tuple[str, tuple[int, ...]]]


class Writer:
    """A container in the making: its arrays are written in place, in any order, then sealed.

    `arrays` declares name -> (dtype such as ``"u1"``, shape). All disk space is taken at the start,
    so a full disk is an error then and not a crash in the middle. With `resume`, a folder with the
    same declaration is continued with its bytes. Raises `MissingEnvironment` (exit code 4) if space
    or permission is missing.
    """

    def __init__(
        self,
        folder: Path,
        arrays: Declared,
        *,
        file: str = "data.h5",
        attributes: Mapping[str, str | int | float] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder = folder
        self._file = folder / file
        self._attributes = dict(attributes or {})
        self._declared = {
            name: (np.dtype(dtype).str.lstrip("<|=>"), tuple(int(size) for size in shape))
            for name, (dtype, shape) in arrays.items()
        }
        for name, (dtype, _) in self._declared.items():
            if dtype not in _DTYPES:
                raise TypeError(f"array '{name}' has dtype {dtype}; known: {', '.join(_DTYPES)}")
        self.resumed = resume and self._layout_on_disk() is not None
        if not self.resumed:
            self._create()
        self._layout: dict[str, Any] = store.read_json(folder / _LAYOUT)
        self._views: dict[str, np.ndarray] = {}

    def _declaration(self) -> dict[str, Any]:
        return {
            "file": self._file.name,
            "attributes": self._attributes,
            "declared": {
                name: [dtype, list(shape)] for name, (dtype, shape) in self._declared.items()
            },
        }

    def _layout_on_disk(self) -> dict[str, Any] | None:
        try:
            layout: dict[str, Any] = store.read_json(self.folder / _LAYOUT)
            same = {key: layout[key] for key in ("file", "attributes", "declared")}
            complete = self._file.stat().st_size == layout["file_bytes"]
        except (InvalidInput, KeyError, TypeError, OSError):
            return None
        return layout if complete and same == self._declaration() else None

    def _create(self) -> None:
        import h5py

        with store.disk_errors(self._file):
            self.folder.mkdir(parents=True, exist_ok=True)
            need = sum(_bytes(dtype, shape) for dtype, shape in self._declared.values())
            store.free_space(self.folder, need, f"writing {self._file.name}")
            self._file.unlink(missing_ok=True)
            offsets = {}
            options = {"alignment_threshold": 4096, "alignment_interval": 4096}
            try:
                with h5py.File(self._file, "w", **options) as root:
                    for name in sorted(self._attributes):
                        root.attrs[name] = self._attributes[name]
                    for name, (dtype, shape) in self._declared.items():
                        offsets[name] = _create_contiguous(root, name, _DTYPES[dtype], shape)
            except RuntimeError as error:
                # If HDF5 cannot write on closing the file, its error has no errno.
                raise OSError(errno.ENOSPC, str(error)) from error
            size = self._file.stat().st_size
            with open(self._file, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, max(size, 1))
            layout = {**self._declaration(), "file_bytes": size, "offsets": offsets}
            store.write_json(self.folder / _LAYOUT, layout)

    def view(self, name: str) -> np.ndarray:
        """Maps the array `name` on the disk, for reading and writing."""
        if name not in self._views:
            dtype, shape = self._declared[name]
            offset = self._layout["offsets"][name]
            self._views[name] = _map(self._file, _DTYPES[dtype], shape, offset, "r+")
        return self._views[name]

    def flush(self) -> None:
        """Brings everything written so far to the disk."""
        for view in self._views.values():
            if isinstance(view, np.memmap):
                view.flush()

    def seal(self, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Hashes everything, writes the manifest, and returns it. Nothing may be written after.

        ValueError if `facts` are too long for a reader.
        """
        with store.disk_errors(self._file):
            self.flush()
            with open(self._file, "rb") as opened:
                os.fsync(opened.fileno())
            entries = {
                name: {
                    "dtype": dtype,
                    "shape": list(shape),
                    "offset": self._layout["offsets"][name],
                    "sha256": _sha256(self.view(name)),
                }
                for name, (dtype, shape) in self._declared.items()
            }
            self._views.clear()
            manifest: dict[str, Any] = {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "kind": kind,
                "file": self._file.name,
                "file_bytes": self._layout["file_bytes"],
                "file_sha256": store.sha256_file(self._file),
                "arrays": entries,
                "facts": dict(facts),
                "content_sha256": _content_digest(entries),
            }
            manifest["manifest_sha256"] = store.digest(manifest)
            store.write_json(self.folder / MANIFEST, manifest)
            size = (self.folder / MANIFEST).stat().st_size
            if size > _MANIFEST_LIMIT:
                raise ValueError(f"facts of {size:,} bytes are too long to be read: use an array")
            (self.folder / _LAYOUT).unlink()
        return manifest


def write(
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    kind: str,
    facts: Mapping[str, Any],
    file: str = "data.h5",
    attributes: Mapping[str, str | int | float] | None = None,
) -> dict[str, Any]:
    """Writes a whole container so that `folder` appears complete or not at all.

    Returns the manifest. An existing `folder` is not changed: check first.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        declared = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        writer = Writer(temporary, declared, file=file, attributes=attributes)
        for name, array in arrays.items():
            writer.view(name)[...] = array
        manifest = writer.seal(kind, facts)
        store.publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


class Container:
    """A container opened for reading: `container["images"]` is a read-only array on the disk."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def facts(self) -> dict[str, Any]:
        """The writer's facts about the content."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts

    @property
    def content_sha256(self) -> str:
        """The hash of the arrays (names, dtypes, shapes, bytes), independent of their file."""
        return str(self.manifest["content_sha256"])

    @property
    def names(self) -> list[str]:
        """The names of the arrays."""
        return list(self.manifest["arrays"])

    def __contains__(self, name: str) -> bool:
        return name in self.manifest["arrays"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.manifest["arrays"][name]
        path = self.folder / self.manifest["file"]
        return _map(path, _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["offset"], "r")

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled memory map would hold the whole array; another process opens it by path.
        return (_reopen, (self.folder, self.manifest["kind"]))


def open_container(folder: Path, *, kind: str, verify: bool = True) -> Container:
    """Opens a container after checking its manifest and, with `verify`, its file's hash.

    Raises `InvalidInput` (exit code 3), which names the file and the expected content, for a
    container that was altered, of another kind, or of a newer schema.
    """
    manifest = read_manifest(folder, kind=kind)
    path = folder / manifest["file"]
    try:
        with reading.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} is missing") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    if size != manifest["file_bytes"]:
        raise InvalidInput(
            f"{path} has {size:,} bytes; its manifest says {manifest['file_bytes']:,}"
        )
    if verify:
        found = store.sha256_file(path)
        if found != manifest["file_sha256"]:
            raise InvalidInput(
                f"{path} was altered: its SHA-256 is {found[:16]}..., its manifest says "
                f"{manifest['file_sha256'][:16]}..."
            )
    return Container(folder, manifest)


def read_manifest(folder: Path, *, kind: str | None = None) -> dict[str, Any]:
    """Reads and checks a container's manifest alone, without its arrays."""
    path = folder / MANIFEST
    manifest = store.read_json(path, limit=_MANIFEST_LIMIT)
    try:
        _check_manifest(manifest, kind)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{path}: {shown(str(error), 300)}") from error
    return dict(manifest)


def _check_manifest(manifest: Any, kind: str | None) -> None:
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ValueError(f"not a manifest of schema {SCHEMA}")
    version = manifest["schema_version"]
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(
            f"written by a newer version (schema {version}; this one reads up to {SCHEMA_VERSION})"
        )
    if set(manifest) != _FIELDS:
        raise ValueError(f"fields {sorted(set(manifest) ^ _FIELDS)} are missing or unknown")
    body = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    if store.digest(body) != manifest["manifest_sha256"]:
        raise ValueError("the manifest was altered: its own hash does not fit")
    if type(manifest["facts"]) is not dict:
        raise ValueError(f"its facts must be an object, got {shown(manifest['facts'])}")
    if kind is not None and manifest["kind"] != kind:
        raise ValueError(f"a '{kind}' was expected, this is a '{manifest['kind']}'")
    name = manifest["file"]
    if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
        raise ValueError(f"'{name}' is not the name of a file beside the manifest")
    _check_entries(manifest["arrays"], manifest["file_bytes"])
    if _content_digest(manifest["arrays"]) != manifest["content_sha256"]:
        raise ValueError("the hash of the content does not fit the arrays")


def _check_entries(entries: dict[str, Any], file_bytes: int) -> None:
    ranges = []
    for name, entry in entries.items():
        dtype, shape, offset = entry["dtype"], entry["shape"], entry["offset"]
        if dtype not in _DTYPES:
            raise ValueError(f"array '{name}' has dtype {dtype!r}; known: {', '.join(_DTYPES)}")
        numbers = [offset, *shape]
        if any(type(number) is not int or number < 0 for number in numbers) or len(shape) > 8:
            raise ValueError(f"array '{name}' has shape {shape} at offset {offset}")
        ranges.append((offset, offset + _bytes(dtype, shape), name))
    end = 0
    for start, stop, name in sorted(item for item in ranges if item[1] > item[0]):
        if start < end or stop > file_bytes:
            raise ValueError(f"array '{name}' lies outside the file or over another array")
        end = stop


def _sha256(array: np.ndarray) -> str:
    """Hashes an array's bytes in C order; dtype and shape are not in it."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _content_digest(entries: Mapping[str, Any]) -> str:
    return store.digest(
        {name: [entry["dtype"], entry["shape"], entry["sha256"]] for name, entry in entries.items()}
    )


def _create_contiguous(root: Any, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(dtype)
    dataset = h5py.h5d.create(root.id, name.encode(), kind, space, dcpl=plist, lcpl=links)
    return int(dataset.get_offset() or 0)


def _map(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int, mode: Any) -> np.ndarray:
    if _bytes(dtype.str[1:], shape) == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode=mode, offset=offset, shape=shape)


def _bytes(dtype: str, shape: tuple[int, ...] | list[int]) -> int:
    count = _DTYPES[dtype].itemsize
    for size in shape:
        count *= size
    return count


def _reopen(folder: Path, kind: str) -> Container:
    return open_container(folder, kind=kind, verify=False)


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Computes the `content_sha256` of a container of these arrays."""
    entries = {
        name: {
            "dtype": array.dtype.str.lstrip("<|=>"),
            "shape": list(array.shape),
            "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
        }
        for name, array in arrays.items()
    }
    return _content_digest(entries)
