"""Links in a folder, and names of zips and tars in other encodings."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from image_folders import folder, picture

from stylegan_mix import datasets
from stylegan_mix.datasets.archives import open_archive
from stylegan_mix.datasets.image_files import Shape
from stylegan_mix.datasets.loose import open_loose
from stylegan_mix.datasets.prepare import Request, plan, prepare
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure

PETS = {"train/cat": 4, "train/dog": 3, "test/cat": 2, "test/dog": 2}


def names(path: Path) -> list[str]:
    with open_archive(path) as archive:
        return list(archive.names)


def notes(path: Path) -> list[str]:
    with open_archive(path) as archive:
        return list(archive.notes)


# --------------------------------------------------------------------- links


@pytest.mark.parametrize("link", ["aaa", "zzz"])
def test_a_real_folder_wins_over_a_link_to_it(tmp_path: Path, link: str) -> None:
    source = folder(tmp_path / "source", {"mmm": 2})
    (source / link).symlink_to(source / "mmm")
    assert names(source) == ["mmm/001.png", "mmm/002.png"]
    assert notes(source) == [f"two names for one folder, counted once: {link} is mmm"]


def test_two_links_to_one_folder_outside_count_once(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"cat": 1})
    other = folder(tmp_path / "other", {".": 1, "deep": 1})
    (source / "b").symlink_to(other)
    (source / "a").symlink_to(other)
    assert names(source) == ["a/001.png", "a/deep/002.png", "cat/001.png"]
    assert notes(source) == ["two names for one folder, counted once: b is a"]


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"cat": 1})
    (source / "cat" / "up").symlink_to(source)
    (source / "self").symlink_to(".")
    assert names(source) == ["cat/001.png"]
    assert "cat/up is ." in notes(source)[0]


def test_a_linked_file_counts_once_under_its_own_name(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"m": 2})
    (source / "a").mkdir()
    (source / "a" / "x.png").symlink_to(source / "m" / "001.png")
    (source / "a" / "y.png").symlink_to("../m/002.png")
    assert names(source) == ["m/001.png", "m/002.png"]
    said = "2 links to files that have another name here, counted once: a (2); such as "
    assert notes(source) == [said + "a/x.png is m/001.png"]


def test_links_to_files_outside_are_images_and_hard_links_are_files(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"a": 1})
    other = folder(tmp_path / "other", {".": 2})
    (source / "a" / "x.png").symlink_to(other / "001.png")
    (source / "a" / "y.png").symlink_to(other / "001.png")
    os.link(source / "a" / "001.png", source / "a" / "z.png")
    assert names(source) == ["a/001.png", "a/x.png", "a/z.png"]


def test_a_class_of_links_into_a_folder_of_all_images_is_an_error_that_says_it(
    home: Path,
) -> None:
    source = folder(home.parent / "source", {"all": 6})
    for number in range(1, 7):
        (source / ["cat", "dog"][number % 2]).mkdir(exist_ok=True)
        link = source / ["cat", "dog"][number % 2] / f"{number}.png"
        link.symlink_to(source / "all" / f"00{number}.png")
    with pytest.raises(InvalidInput, match="no training image in 2 class folders: cat, dog") as e:
        plan(Request("odd", source))
    assert "6 links to files that have another name here" in str(e.value)


@pytest.mark.parametrize("name", ["train/cat/x.png", "train/cow", "note.txt"])
def test_a_broken_link_obeys_the_option_for_bad_images(home: Path, name: str) -> None:
    """It may have been a folder of images, so its name does not matter."""
    source = folder(home.parent / "source", PETS)
    (source / name).symlink_to(home / "nowhere")
    with pytest.raises(InvalidInput, match=f"'{name}' is a link to nothing"):
        prepare(Request("pets", source))
    with pytest.raises(InvalidInput, match=f"'{name}' is a link to nothing"):
        plan(Request("pets", source))
    assert plan(Request("pets", source, on_bad_image="skip"))["counts"] == [4, 3]
    done = prepare(Request("pets", source, on_bad_image="skip"))
    assert done.facts["skipped"] == {name: "is a link to nothing"}
    assert datasets.load("pets").counts.tolist() == [4, 3]


def test_links_in_a_circle_of_their_own_are_broken(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"cat": 1})
    (source / "x.png").symlink_to("y.png")
    (source / "y.png").symlink_to("x.png")
    with open_archive(source) as archive:
        assert set(archive.broken) == {"x.png", "y.png"}


def test_a_link_to_a_pipe_is_not_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"cat": 1})
    os.mkfifo(tmp_path / "pipe")
    (source / "x.png").symlink_to(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="only regular files"):
        names(source)


def test_links_do_not_change_what_the_real_files_make(home: Path) -> None:
    source = folder(home.parent / "source", PETS)
    done = prepare(Request("pets", source))
    (source / "Training").symlink_to("train")
    (source / "train" / "cat" / "again.png").symlink_to("001.png")
    again = prepare(Request("pets", source))
    assert again.existed
    assert again.facts["test_id"] == done.facts["test_id"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "source", {"cat": 1, "dog": 1})
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MissingEnvironment, match="dog cannot be read: Permission denied"):
        names(source)


# --------------------------------------------------------------------- encodings of names


def zipped(path: Path, words: list[str], encoding: str) -> Path:
    """A zip of images in folders of these names, without the mark of UTF-8, as other systems do."""
    raw = [word.encode(encoding) for word in words]
    stands = [chr(ord("A") + place) * len(word) for place, word in enumerate(raw)]
    with zipfile.ZipFile(path, "w") as out:
        for place, stand in enumerate(stands):
            for number in range(3):
                member = zipfile.ZipInfo(f"{stand}/{place}{number}.png")
                out.writestr(member, picture(10 * place + number))
    content = path.read_bytes()
    for place, (stand, word) in enumerate(zip(stands, raw, strict=True)):
        start = f"/{place}".encode()
        content = content.replace(stand.encode() + start, word + start)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("words", "encoding"),
    [(["猫", "犬猫"], "cp932"), (["кот", "собака"], "cp866"), (["Ü", "Öl"], "cp437")],
)
def test_folders_of_a_zip_in_an_unknown_encoding_are_asked_about(
    home: Path, words: list[str], encoding: str
) -> None:
    source = zipped(home.parent / "a.zip", words, encoding)
    with pytest.raises(InvalidInput, match="unknown encoding") as error:
        plan(Request("odd", source))
    assert "--names-encoding cp932" in str(error.value.remedy)
    found = plan(Request("odd", source, names_encoding=encoding))
    assert found["classes"] == sorted(words)


def test_utf8_names_without_the_mark_are_read_as_such(home: Path) -> None:
    source = zipped(home.parent / "a.zip", ["猫", "Ünlü"], "utf-8")
    assert plan(Request("odd", source))["classes"] == ["Ünlü", "猫"]


def test_files_of_a_zip_in_an_unknown_encoding_are_read_with_a_note(home: Path) -> None:
    source = zipped(home.parent / "a.zip", ["cat", "dog"], "ascii")
    source.write_bytes(source.read_bytes().replace(b"cat/00.png", b"cat/\x8e\xff.png"))
    found = plan(Request("odd", source))
    assert found["classes"] == ["cat", "dog"]
    assert "1 file names of a.zip were read as cp437" in found["notes"]


def test_names_of_a_tar_have_an_encoding_too(home: Path) -> None:
    path = home.parent / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="cp866") as out:
        for number in range(3):
            member = tarfile.TarInfo(f"кот/{number}.png")
            member.size = len(picture(number))
            out.addfile(member, io.BytesIO(picture(number)))
    with pytest.raises(InvalidInput, match="not UTF-8") as error:
        plan(Request("odd", path))
    assert "--names-encoding" in str(error.value.remedy)
    assert plan(Request("odd", path, names_encoding="cp866"))["classes"] == ["кот"]


def test_an_encoding_that_is_none_or_needless_is_a_usage_error(home: Path) -> None:
    source = folder(home.parent / "source", PETS)
    with pytest.raises(UsageFailure, match="no such encoding"):
        plan(Request("odd", source, names_encoding="klingon"))
    with pytest.raises(UsageFailure, match="this is a folder"):
        plan(Request("odd", source, names_encoding="cp932"))


def test_loose_images_obey_the_option_for_broken_links_too(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {"cat": 2})
    (source / "cat" / "x.png").symlink_to(tmp_path / "nowhere")
    with open_loose(source, ["cat"]) as loose:
        bad: dict[str, str] = {}
        assert len(list(loose.decoded(Shape(None, None, 3), bad))) == 2
        assert bad == {"cat/x.png": "is a link to nothing"}
        with pytest.raises(InvalidInput, match="'cat/x.png' is a link to nothing"):
            list(loose.decoded(Shape(None, None, 3), None))


def test_parts_and_classes_that_are_links_may_be_named(home: Path) -> None:
    source = folder(home.parent / "source", {"a1/cat": 4, "a1/dog": 4, "a2/cat": 2, "a2/dog": 2})
    (source / "train").symlink_to("a1")
    (source / "test").symlink_to("a2")
    with pytest.raises(InvalidInput, match="two names for one folder, counted once: test is a2"):
        plan(Request("odd", source))
    found = plan(Request("odd", source, train_dir="train", test_dir=str(source / "test")))
    assert (found["counts"], found["test_images"]) == ([4, 4], 4)


def test_classes_of_links_alone_tell_how_to_count_them(home: Path) -> None:
    source = folder(home.parent / "source", {"all": 8})
    for number in range(8):
        (source / "train" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        name = f"{number + 1:03}.png"
        (source / "train" / "ab"[number % 2] / name).symlink_to(f"../../all/{name}")
    with pytest.raises(InvalidInput, match="8 links to files that have another name") as error:
        plan(Request("odd", source))
    copy = home.parent / "copy"
    assert f"cp -rL {source} COPY" in str(error.value.remedy)
    shutil.copytree(source, copy)
    shutil.rmtree(copy / "all")
    assert plan(Request("odd", copy))["classes"] == ["a", "b"]


def test_a_tar_with_links_tells_how_to_pack_it(home: Path) -> None:
    source = folder(home.parent / "source", {"cat": 4, "dog": 4})
    (source / "cat" / "again.png").symlink_to("001.png")
    shutil.make_archive(str(source), "tar", source)
    with pytest.raises(InvalidInput, match="is a link") as error:
        plan(Request("odd", source.with_suffix(".tar")))
    assert error.value.remedy == "pack the files themselves: tar --dereference"
