"""`metrics --page`: the folder, its page, what it leaves out, and what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import html
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stylegan_mix import arrays
from stylegan_mix.drawing import page
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.pictures import folder, make
from stylegan_mix.pictures.page import MARK
from stylegan_mix.pictures.page import html as page_of
from stylegan_mix.pictures.picture import Picture
from stylegan_mix.pictures.viewer import Subject
from stylegan_mix.session import Session

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("short")

QUICK = ("metrics", "--n", "60", "--no-cas", "--against", "train,test", "--page", "shown")
REPORTED = ["bars.png", "neighbours.png"]
ALWAYS = ["classes.png", "strips.png", "truncation-class.png", "truncation-global.png"]


def log_of(generator: Published, home: Path) -> None:
    """A training's log where the generator's card says that it lies."""
    path = home / "training" / generator.card["training"] / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"kimg": 0.0, "loss_g": 1.0, "diversity": [0.5] * 10}) + "\n")


def files_of(place: str = "shown") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}


def test_a_page_holds_its_pictures_captions_numbers_and_hashes(
    generator: Published, run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_of(generator, home)
    drawn: list[Picture] = []
    judged: list[Any] = []

    def kept(*given: Any) -> Any:
        found, left_out = pictures_of(*given)
        drawn.extend(found)
        return found, left_out

    pictures_of = make.pictures_of
    monkeypatch.setattr(make, "pictures_of", kept)
    original = make.tail_neighbours
    monkeypatch.setattr(
        make, "tail_neighbours", lambda *given: judged.append(given[2]) or original(*given)
    )
    code, out, err = run(*QUICK, "--seed", "3", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["page"] == str(Path("shown") / "index.html")
    names = sorted([*ALWAYS, *REPORTED, "curves.png"])
    assert sorted(files_of()) == sorted([*names, "index.html", "page.json"])
    text = Path(report["page"]).read_text()
    assert sorted(re.findall(r'<img src="([^"]+)"', text)) == names
    assert sorted(one.file for one in drawn) == names
    for one in drawn:
        assert f"<h2>{html.escape(one.title)}</h2>" in text
        assert html.escape(one.caption) in text
        with Image.open(Path("shown") / one.file) as opened:
            assert (opened.format, opened.size) == ("PNG", one.size)
            assert f'width="{one.size[0]}" height="{one.size[1]}"' in text
    for value in (generator.hash, report["key"], report["split_id"], report["probe"]["sha256"]):
        assert value in text
    row = next(row for row in report["figures"] if row["figure"] == "label_accuracy")
    assert f"{100 * row['at'][0]['value']:.1f} [{100 * row['at'][0]['floor']:.1f}]" in text
    for words in ("exp, imbalance 20", "tiny8", "stylegan-mix train", "seed 3", MARK):
        assert words in text
    assert not re.search(r"https?:|<script|url\(|@import|Not on this page", text)
    assert "prefers-color-scheme: dark" in text
    rows = arrays.open_container(Path(report["folder"]), kind="metrics")
    assert judged[0].seed == 3
    assert judged[0].labels.tolist() == rows["label"][0].tolist()
    assert judged[0].distance.tolist() == rows["distance"][0].tolist()


def test_the_same_command_again_writes_the_same_bytes(
    generator: Published, run: Run, home: Path
) -> None:
    assert run(*QUICK)[0] == 0
    first = files_of()
    text = first["index.html"].decode()
    assert "the log of the training is not in this store" in text
    assert "curves.png" not in first
    words = [word for word in QUICK if word not in ("--page", "shown")]
    plain = json.loads(run(*words, "--json")[1])
    again = json.loads(run(*QUICK, "--json")[1])
    assert (plain.pop("state"), again.pop("state")) == ("exists", "exists")
    assert again.pop("page") == str(Path("shown") / "index.html")
    assert plain == again, "the page is no part of the report"
    assert files_of() == first
    # What the earlier page had and this one has not goes.
    shutil.rmtree(home / "probes")
    assert run(*QUICK)[0] == 0
    assert "the probe of the report is not in this store" in Path("shown/index.html").read_text()
    assert set(first) - set(files_of()) == {"neighbours.png"}


def test_a_dry_run_draws_nothing(generator: Published, run: Run) -> None:
    assert run(*QUICK, "--dry-run")[0] == 0
    assert not Path("shown").exists()


# --------------------------------------------------------------------- without real images


def absent(generator: Published, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Published:
    """The same generator with another card."""
    one = dataclasses.replace(generator, card={**generator.card, **changes})
    monkeypatch.setattr(generator_store, "load", lambda _: one)
    return one


def test_a_generator_without_its_data_set_is_shown_without_real_images(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent(generator, monkeypatch, dataset="elsewhere")
    words = ("metrics", generator.hash[:8], "--page", "shown")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["generator"], facts["report"]) == (generator.hash, None)
    assert "elsewhere is not in this store" in facts["why"]
    assert sorted(files_of()) == sorted([*ALWAYS, "index.html", "page.json"])
    text = Path("shown/index.html").read_text()
    assert "Not on this page" in text
    assert "elsewhere is not in this store" in text
    assert "<h2>Metrics</h2>" not in text
    code, out, _ = run(*words, "--dry-run")
    assert (code, out) == (0, "would write page shown\n")
    code, out, err = run("metrics", generator.hash[:8])
    assert (code, out) == (2, ""), err


def test_an_unconditional_generator_is_shown_and_not_judged(
    home: Path, run: Run, sound: Path, files: Any, tmp_path: Path
) -> None:
    from stylegan_mix.interop import nvlabs
    from stylegan_mix.networks import Generator

    small = {**files.SMALL, "c_dim": 0}
    blank = Generator(**nvlabs.generator_settings(small))
    own = blank.state_dict()
    weights = {
        name: (own[name] if name in own else blank.get_buffer(name)).numpy()
        for name in nvlabs.published_names(blank)
    }
    file = files.network_pickle(tmp_path / "alone.pkl", weights, small)
    code, _, err = run("import-generator", file)
    assert code == 0, err
    (one,) = generator_store.find()
    code, out, err = run("metrics", one.hash)
    assert (code, out) == (3, "")
    assert "unconditional" in err
    assert "--page" in err
    assert run("metrics", one.hash, "--page", "shown")[0] == 0
    assert sorted(files_of()) == ["classes.png", "index.html", "page.json", "truncation-global.png"]
    text = Path("shown/index.html").read_text()
    for words in ("there are no two classes", "alone.pkl", "none: unconditional"):
        assert words in text


# --------------------------------------------------------------------- texts of others


def test_names_are_escaped(published: Published, toy: Any) -> None:
    cruel = '<script>alert("x")</script>'
    card = {**published.card, "classes": [cruel, "bee", "c&t"], "dataset": "<b>", "training": None}
    one = dataclasses.replace(published, card={**card, "command": "x --from '<i>'"})
    subject = Subject(one, toy, 0)
    one.folder.mkdir()
    Image.new("L", (4, 4)).save(one.folder / "grid.png")
    drawn, left_out = make.pictures_of(subject, None, Session())
    text = page_of(one, None, drawn, [*left_out, cruel], seed=0)
    assert "<script" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert html.escape(cruel) in text
    assert "c&amp;t" in text


def test_tables_and_pictures_escape_what_they_hold() -> None:
    cruel = '"><script>'
    parts = [
        page.table([cruel], [[cruel]]),
        page.listed([cruel]),
        page.picture(cruel, (1, 1), alt=cruel, caption=cruel),
        page.folded(cruel, ""),
        page.document(cruel, cruel, [], mark=cruel),
    ]
    assert "<script" not in "".join(parts)
    assert page.table([], [["a", "1"]]).count("<tr>") == 1
    assert 'class="number">1<' in page.table([], [["a", "1"]])


# --------------------------------------------------------------------- the folder


@pytest.mark.parametrize("name", ["notes.txt", "index.html", "classes.png", ".hidden"])
def test_a_folder_of_other_files_is_refused_before_anything_is_done(
    generator: Published, run: Run, home: Path, name: str
) -> None:
    Path("shown").mkdir()
    (Path("shown") / name).write_text("mine")
    code, out, err = run(*QUICK)
    assert (code, out) == (2, "")
    assert name in err
    assert files_of() == {name: b"mine"}
    assert not (home / "annotations").exists()


def test_a_file_and_a_bank_are_refused(generator: Published, run: Run) -> None:
    Path("shown").write_text("mine")
    assert run(*QUICK)[0] == 2
    assert Path("shown").read_text() == "mine"
    code, _, err = run("metrics", "--bank", "cafe", "--page", "elsewhere")
    assert code == 2
    assert "bank preview" in err


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(
    generator: Published, run: Run
) -> None:
    Path("file").touch()
    code, out, err = run("metrics", generator.hash, "--page", "file/shown", "--dry-run")
    assert (code, out) == (2, ""), err
    assert "nothing can be written to file/shown" in err
    assert err.endswith("  choose another --page FOLDER\n")


def test_an_earlier_page_is_written_over_and_its_other_files_go(tmp_path: Path) -> None:
    place = tmp_path / "page"
    folder.write(place, {"a.png": b"1", "index.html": b"2"}, {"seed": 0})
    (place / "mine.txt").write_text("mine")
    folder.write(place, {"b.png": b"3", "index.html": b"4"}, {"seed": 1})
    found = files_of(str(place))
    record = json.loads(found.pop("page.json"))
    assert found == {"b.png": b"3", "index.html": b"4", "mine.txt": b"mine"}
    assert (record["seed"], record["files"]) == (1, ["b.png", "index.html"])


def test_a_file_beside_the_earlier_page_is_not_written_over(tmp_path: Path) -> None:
    place = tmp_path / "page"
    folder.write(place, {"index.html": b"1"}, {})
    (place / "b.png").write_text("mine")
    with pytest.raises(folder.UsageFailure, match="b.png"):
        folder.write(place, {"index.html": b"2", "b.png": b"3"}, {})
    assert files_of(str(place))["index.html"] == b"1"


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        '{"schema": "other", "files": []}',
        '{"files": []}',
        '{"schema": "stylegan-mix-page", "files": ["../x"]}',
    ],
)
def test_a_record_that_is_none_of_ours_is_refused(tmp_path: Path, record: str) -> None:
    (tmp_path / "page.json").write_text(record)
    with pytest.raises(folder.UsageFailure, match="not the record of a page"):
        folder.check(tmp_path)


def test_an_interrupted_page_is_known_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "page"

    with monkeypatch.context() as broken:
        write_bytes = folder.output.write_bytes

        def fill_up(path: Path, data: bytes, **words: str) -> None:
            if path.suffix != ".html":
                return write_bytes(path, data, **words)
            with folder.store.disk_errors(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        broken.setattr(folder.output, "write_bytes", fill_up)
        with pytest.raises(folder.store.MissingEnvironment, match="disk is full"):
            folder.write(place, {"a.png": b"1", "index.html": b"2"}, {})
    assert sorted(files_of(str(place))) == ["a.png", "page.json"]
    folder.write(place, {"a.png": b"1", "index.html": b"2"}, {})
    assert files_of(str(place))["index.html"] == b"2"


def test_a_page_keeps_links_and_modes(tmp_path: Path) -> None:
    place, target = tmp_path / "page", tmp_path / "private.html"
    folder.write(place, {"index.html": b"1"}, {})
    target.touch(0o600)
    (place / "index.html").unlink()
    (place / "index.html").symlink_to(target)
    folder.write(place, {"index.html": b"2"}, {})
    assert (place / "index.html").is_symlink()
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"2", 0o600)


def test_no_room_and_no_permission_are_error_4(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent(generator, monkeypatch, dataset="elsewhere")
    words = ("metrics", generator.hash, "--page", "shown")
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        code, _, err = run(*words)
        assert (code, "are free" in err) == (4, True), err
    mkdir = Path.mkdir

    def closed(path: Path, *given: Any, **more: Any) -> None:
        if path.name == "shown":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mkdir(path, *given, **more)

    monkeypatch.setattr(Path, "mkdir", closed)
    code, _, err = run(*words)
    assert (code, "permission" in err) == (4, True), err
