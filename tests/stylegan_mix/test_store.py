"""Keys have one spelling; files appear whole; locks are freed by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stylegan_mix import progress, store
from stylegan_mix.errors import Busy, InvalidInput, MissingEnvironment, Stopped, UsageFailure
from stylegan_mix.session import Session


def test_canonical_form_ignores_order_and_tuples() -> None:
    assert store.canonical({"b": 1, "a": (1, 2)}) == b'{"a":[1,2],"b":1}'
    assert store.digest({"b": 1, "a": [1, 2]}) == store.digest({"a": [1, 2], "b": 1})


def test_canonical_form_tells_integers_from_floats_and_joins_equal_spellings() -> None:
    assert store.canonical(1) != store.canonical(1.0)
    assert store.canonical(-0.0) == store.canonical(0.0)
    assert store.canonical("e\u0301") == store.canonical("\u00e9")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_form_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        store.canonical({"a": value})


@pytest.mark.parametrize("value", [np.float32(0.1), {1: 2}, {1, 2}, Path("a")])
def test_canonical_form_refuses_what_is_not_plain(value: object) -> None:
    with pytest.raises(TypeError):
        store.canonical({"a": value})


def test_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ('{"a": 1, "a": 2}', '{"a": NaN}', "{", '"\xff'):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InvalidInput, match=r"a\.json"):
            store.read_json(path)
    path.write_text(" " * 2000)
    with pytest.raises(InvalidInput, match="more than 1,000 bytes"):
        store.read_json(path, limit=1000)
    store.write_json(path, {"a": [1, 2.5, None]})
    assert store.read_json(path) == {"a": [1, 2.5, None]}
    with pytest.raises(InvalidInput, match="it is a folder"):
        store.read_json(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"a": 1})

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(MissingEnvironment, match=r"a\.json"):
        store.write_json(path, {"a": 2})
    assert store.read_json(path) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "place", ["folder", "file/below.json", "n" * 300 + ".json"], ids=["folder", "below", "long"]
)
def test_a_path_that_no_file_can_have_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageFailure, match="nothing can be written"):
        store.write_json(tmp_path / place, {"a": 1})
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_publish_gives_way_to_whoever_was_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    assert store.publish(tmp_path / "first", tmp_path / "final")
    assert not store.publish(tmp_path / "second", tmp_path / "final")
    assert (tmp_path / "final" / "who").read_text() == "first"
    assert (tmp_path / "final" / "who").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o400), (0o644, 0o444), (0o660, 0o440)])
def test_what_is_published_stays_as_private_as_it_was(
    tmp_path: Path, before: int, after: int
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").touch()
    (tmp_path / "made" / "file").chmod(before)
    assert store.publish(tmp_path / "made", tmp_path / "final")
    assert (tmp_path / "final" / "file").stat().st_mode & 0o777 == after


_HOLDER = """
import sys, time
from pathlib import Path
from stylegan_mix import store
with store.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(3600)
"""


def test_a_lock_is_freed_by_kill_and_names_its_holder(tmp_path: Path, repo_root: Path) -> None:
    path = tmp_path / "thing.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE, cwd=repo_root
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(Stopped, match=f"process {holder.pid}"),
            store.locked(path, wait=False),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with store.locked(path, wait=False):
        pass


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_that_cannot_be_made_on_a_full_disk_says_what_to_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "thing.lock"
    with monkeypatch.context() as during:
        during.setattr(os, "open", no_space)
        with (
            pytest.raises(MissingEnvironment, match=r"could not write .*thing\.lock") as end,
            store.locked(path),
        ):
            raise AssertionError("the lock is not held")
    assert "free some space" in str(end.value.remedy)
    with store.locked(path, wait=False):
        pass


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_without_room_for_the_name_of_its_holder_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "thing.lock"
    monkeypatch.setattr(os, call, no_space)
    with (
        store.locked(path),
        pytest.raises(Busy, match="thing is being worked on by"),
        store.locked(path, wait=False),
    ):
        pass


def test_what_fails_while_a_lock_is_held_is_not_told_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="another file"), store.locked(tmp_path / "thing.lock"):
        raise OSError(errno.ENOSPC, "another file")


def test_the_home_follows_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.home() == home
    assert store.roots() == [home]
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home / "second"))
    assert store.roots() == [home, home / "second"]
    monkeypatch.setenv("STYLEGAN_MIX_HOME", "")
    assert store.home().name == "stylegan-mix"


def test_too_little_space_is_said_before_writing(tmp_path: Path) -> None:
    with pytest.raises(MissingEnvironment, match="a bank needs"):
        store.free_space(tmp_path / "not" / "yet", 1 << 60, "a bank")


@pytest.mark.parametrize("inside", [True, False])
def test_a_disk_that_fills_up_names_the_option_of_the_place(
    home: Path, inside: bool, tmp_path: Path
) -> None:
    place = home / "a" if inside else tmp_path / "runs" / "a"
    with pytest.raises(MissingEnvironment) as end, store.disk_errors(place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    option = "STYLEGAN_MIX_HOME" if inside else "--out"
    assert str(end.value.remedy).endswith(option)


def test_a_link_that_leads_nowhere_is_named_with_its_target(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "nowhere")
    told = r"out is a link to .*nowhere, which is not there"
    with pytest.raises(UsageFailure, match=told), store.disk_errors(link / "runs" / "lock"):
        (link / "runs").mkdir(parents=True, exist_ok=True)


def test_a_lock_file_that_its_holder_removes_is_not_held_twice(tmp_path: Path) -> None:
    """A process that waited for the removed file locks the one that is there by then."""
    path = tmp_path / "thing.lock"
    waited = []

    class Reporter(progress.Silent):
        """Lets the holder go once the other process waits."""

        def say(self, text: str) -> None:
            waited.append(text)
            path.unlink()
            os.close(holder)

    holder = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with store.locked(path, session=Session(reporter=Reporter())):
        assert len(waited) == 1
        with pytest.raises(Busy), store.locked(path, wait=False):
            pass
