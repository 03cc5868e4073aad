"""Archives from elsewhere: what is read is what is there, and nothing dangerous is."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stylegan_mix.datasets import archives, members
from stylegan_mix.datasets.archives import open_archive, open_tar_bytes
from stylegan_mix.errors import InvalidInput

FILES = {"b/x.png": b"1" * 700, "a/y.png": b"22", "a/é.png": b"", "note.txt": b"3"}


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda path: folder(path, FILES),
    "tar": lambda path: tar(path, FILES),
    "tar.gz": lambda path: tar(path, FILES, "w:gz"),
    "zip": lambda path: zipped(path, FILES),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_archive_gives_the_same_files(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / "source")
    with open_archive(path) as archive:
        assert list(archive.names) == ["a/y.png", "a/é.png", "b/x.png", "note.txt"]
        assert {"a", "b"} <= archive.folders
        assert dict(archive.read(archive.names)) == FILES
        assert dict(archive.read(["b/x.png"])) == {"b/x.png": FILES["b/x.png"]}


def test_the_hash_of_a_folder_sees_names_and_content(tmp_path: Path) -> None:
    hashes = []
    for number, change in enumerate(({}, {"b/x.png": b"0"}, {"c/z.png": b""})):
        with open_archive(folder(tmp_path / str(number), {**FILES, **change})) as archive:
            hashes.append(archive.sha256())
    assert len(set(hashes)) == 3


def refused(path: Path, what: str) -> None:
    before = set(path.parent.rglob("*"))
    with pytest.raises(InvalidInput, match=what), open_archive(path) as archive:
        dict(archive.read(archive.names))
    assert set(path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:x.png", "a\\x.png"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    refused(tar(tmp_path / "a.tar", {name: b"1"}), "leads out")
    refused(zipped(tmp_path / "a.zip", {name: b"1"}), "leads out")


def test_control_characters_in_names_are_refused(tmp_path: Path) -> None:
    refused(tar(tmp_path / "a.tar", {"a\x1b[2J.png": b"1"}), "control characters")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        member = tarfile.TarInfo("a/link.png")
        member.type = kind
        member.linkname = "/etc/passwd"
        out.addfile(member)
    refused(path, "only regular files")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    member = zipfile.ZipInfo("a/link.png")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(member, "/etc/passwd")
    refused(path, "only regular files")


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        for name in ("a/x.png", "./a//x.png"):
            out.addfile(tarfile.TarInfo(name), io.BytesIO())
    refused(path, "twice")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(tmp_path / "a.zip", "w") as z,
    ):
        z.writestr("x.png", "1")
        z.writestr("x.png", "2")
    refused(tmp_path / "a.zip", "twice")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HARMLESS", 1 << 16)
    zeros = {"a/x.png": bytes(1 << 22)}
    refused(zipped(tmp_path / "a.zip", zeros), "times its size")
    refused(tar(tmp_path / "a.tar.gz", zeros, "w:gz"), "times its size")


def test_too_many_or_too_large_members_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar(tmp_path / "a.tar", FILES)
    monkeypatch.setattr(members, "LARGEST_MEMBER", 600)
    refused(path, "at most 600 are read")
    monkeypatch.setattr(members, "LARGEST_MEMBER", 701)
    monkeypatch.setattr(members, "MOST_MEMBERS", 4)
    refused(path, "4 members or more")
    monkeypatch.setattr(members, "MOST_MEMBERS", 5)
    monkeypatch.setattr(members, "LARGEST_WHOLE", 702)
    refused(path, "more than 702 bytes")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_cut_archive_is_damaged_wherever_it_was_cut(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / "source")
    whole = path.read_bytes()
    # A tar ends with a block of zeros, and another that nothing needs.
    end = whole.rstrip(b"\0") if kind == "tar" else whole
    for place in range(0, len(end), 61):
        path.write_bytes(whole[:place])
        refused(path, "damaged, or no folder")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_flipped_byte_loses_no_file_without_a_word(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / "source")
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            with open_archive(path) as archive:
                found = dict(archive.read(archive.names))
        except InvalidInput as error:
            assert str(path) in str(error)
        else:
            assert len(found) == len(FILES)


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    for content in (b"", b"hello", os.urandom(4096), b"PK\x03\x04" + bytes(100)):
        (tmp_path / "a.bin").write_bytes(content)
        refused(tmp_path / "a.bin", "damaged, or no folder")
    with pytest.raises(InvalidInput, match="missing"), open_archive(tmp_path / "nothing"):
        pass


def test_names_that_lie_too_deep_are_refused(tmp_path: Path) -> None:
    refused(tar(tmp_path / "a.tar", {"a/" * 2000 + "x.png": b"1"}), "folders deep")


def test_a_pipe_in_a_folder_is_not_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"a/x.png": b"1"})
    os.mkfifo(source / "a" / "y.png")
    refused(source, "only regular files")


def test_a_tar_is_read_from_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", FILES)
    content = path.read_bytes()
    path.unlink()
    with open_tar_bytes(path, content) as archive:
        assert dict(archive.read(archive.names)) == FILES
