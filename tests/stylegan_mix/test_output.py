"""Text for a path that the user named goes through to what is there."""

from __future__ import annotations

import ast
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import output, store
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from stylegan_mix.progress import JsonLines


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def read_by(path: Path, write: Callable[[], Any]) -> bytes:
    """Reads a pipe while `write` writes into it."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    write()
    reader.join(60)
    return found[0]


# links


@pytest.mark.parametrize("steps", [1, 3])
def test_a_link_stays_and_its_target_gets_the_text(tmp_path: Path, steps: int) -> None:
    target = tmp_path / "elsewhere" / "target.md"
    target.parent.mkdir()
    target.write_text("old")
    last = Path("elsewhere/target.md")
    for step in range(steps):
        link = tmp_path / f"link{step}"
        link.symlink_to(last)
        last = Path(link.name)
    output.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert [one.name for one in target.parent.iterdir()] == ["target.md"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "later" / "target")
    output.write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "later" / "target").read_text() == "new"


def test_a_link_to_itself_is_a_usage_error(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    for write in (output.check, lambda path: output.write_text(path, "new")):
        with pytest.raises(UsageFailure, match="nothing can be written"):
            write(link)
    assert link.is_symlink()


def test_every_name_of_a_file_gets_the_text(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a long old text")
    os.link(one, other)
    output.write_text(other, "new")
    assert one.read_text() == other.read_text() == "new"
    assert one.samefile(other)


# modes


@pytest.mark.parametrize("before", [0o600, 0o640, 0o664, 0o700])
@pytest.mark.parametrize("write", [output.write_bytes, store.write_bytes])
def test_an_existing_file_keeps_its_mode(
    tmp_path: Path, before: int, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(before)
    write(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", before)


@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
@pytest.mark.parametrize("write", [output.write_bytes, store.write_bytes])
def test_a_new_file_has_the_mode_that_the_user_allows(
    tmp_path: Path, umask: int, expected: int, write: Callable[[Path, bytes], None]
) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "a.json", b"new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.json") == expected


def test_a_private_target_of_a_link_stays_private(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.touch(0o600)
    link.symlink_to(target)
    output.write_json(link, {"a": 1})
    assert mode(target) == 0o600
    assert store.read_json(target) == {"a": 1}


def test_a_file_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    path.chmod(0o444)
    # Root may write everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    for write in (output.check, lambda path: output.write_text(path, "new")):
        with pytest.raises(MissingEnvironment, match="no permission"):
            write(path)
    assert path.read_text() == "old"


# no regular file


def test_a_pipe_gets_the_text_and_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    long = "x" * 300_000
    assert read_by(pipe, lambda: output.write_text(pipe, long)) == long.encode()
    assert read_by(pipe, lambda: output.write_text(link, "again")) == b"again"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_a_reader_that_leaves_is_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def leave_early() -> None:
        with pipe.open("rb") as file:
            file.read(1)

    reader = threading.Thread(target=leave_early)
    reader.start()
    with pytest.raises(MissingEnvironment, match="went away before the end"):
        output.write_bytes(pipe, bytes(3_000_000))
    reader.join(60)


@pytest.mark.parametrize("name", ["null", "full"])
def test_a_device_stays_a_device(tmp_path: Path, name: str) -> None:
    """Through a link: an earlier version would have replaced the device itself."""
    link = tmp_path / "link"
    link.symlink_to(f"/dev/{name}")
    if name == "full":
        with pytest.raises(MissingEnvironment, match="the disk is full") as end:
            output.write_text(link, "new")
        assert "--out" in str(end.value.remedy)
    else:
        output.write_text(link, "new")
    assert link.is_symlink()
    assert stat.S_ISCHR(Path(f"/dev/{name}").stat().st_mode)


def test_a_socket_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("here")
        with pytest.raises(MissingEnvironment, match="could not be written"):
            output.write_text(Path("here"), "new")
    assert stat.S_ISSOCK(Path("here").stat().st_mode)


_THREE = """
import sys
from pathlib import Path
from stylegan_mix import output
print("before", flush=True)
output.write_text(Path(sys.argv[1]), "written\\n")
print("after", flush=True)
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("kind", ["file", "pipe", "appended"])
def test_stdout_by_its_name_keeps_its_place(
    tmp_path: Path, repo_root: Path, name: str, kind: str
) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    words = [sys.executable, "-c", _THREE, str(tmp_path / name)]
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(repo_root)}}
    if kind == "pipe":
        text = subprocess.run(words, check=True, capture_output=True, text=True, **place).stdout
    else:
        kept = tmp_path / "kept"
        kept.write_text("first\n")
        with kept.open("a" if kind == "appended" else "w") as file:
            subprocess.run(words, check=True, stdout=file, **place)
        text = kept.read_text().removeprefix("first\n" if kind == "appended" else "")
    assert text == "before\nwritten\nafter\n"


def test_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    for write in (output.check, lambda path: output.write_text(path, "new")):
        with pytest.raises(UsageFailure, match="nothing can be written"):
            write(tmp_path)


# failures lose nothing


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES])
def test_a_file_that_its_folder_does_not_let_go_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "mounted"
    path.write_text("a longer old text")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    output.write_text(path, "new")
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["mounted"]


@pytest.mark.parametrize("names", [1, 2])
def test_a_full_disk_keeps_the_old_text_and_names_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    if names == 2:
        os.link(path, tmp_path / "b")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MissingEnvironment, match="the disk is full") as end:
        output.write_text(path, "new and longer")
    assert "choose another place with --out" in str(end.value.remedy)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == names


def test_a_full_disk_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for path in (tmp_path / "new" / "file", tmp_path / "there"):
        (tmp_path / "there").touch()
        with pytest.raises(MissingEnvironment, match="1 MB are free") as end:
            output.check(path)
        assert "--out" in str(end.value.remedy)
    output.check(None)
    output.check(Path("/dev/null"))


def test_a_name_of_250_letters_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    for text in ("old", "new"):
        output.write_text(path, text)
        assert path.read_text() == text


# progress


def test_progress_goes_into_a_pipe_without_an_end_between(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        lines = JsonLines(pipe)
        lines.say("one")
        lines.say("two")
        assert lines._special is not None
        os.close(lines._special)

    assert read_by(pipe, write).count(b"\n") == 2


def test_progress_follows_a_link_and_keeps_the_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.touch(0o600)
    link.symlink_to(target)
    JsonLines(link).say("one")
    assert target.read_bytes().count(b"\n") == 1
    assert (link.is_symlink(), mode(target)) == (True, 0o600)


# every writer


def foreign_writers(root: Path) -> list[str]:
    """Calls that write a whole file past `store` and `output`, which know links and modes."""
    found = []
    for path in sorted(
        file for name in ("stylegan_mix", "trainer") for file in (root / name).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr in ("write_bytes", "write_text") and owner not in ("store", "output"):
                found.append(f"{path.name}:{node.lineno}")
    return found


def test_whole_files_are_written_by_two_modules_only(repo_root: Path, tmp_path: Path) -> None:
    assert foreign_writers(repo_root) == []
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "a.py").write_text("path.write_text(text)\nPath(out).write_bytes(b)")
    assert foreign_writers(tmp_path) == ["a.py:1", "a.py:2"]
