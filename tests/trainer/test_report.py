"""Reports: means and spreads, what may share a table, every rendering."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_arms import BASE, HEADINGS, Maker, arms

from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer.reports import markdown_blocks, notes, records, tables
from trainer.reports.records import Result


def test_a_bank_of_an_imported_generator_is_called_so(record: Maker) -> None:
    plain = record("hybrid")
    plain["bank"].update(generator_kimg=None, split="declared")
    told = notes.of([Result(plain)])
    assert any(note.endswith(" imported, and only declared to be of this split.") for note in told)


def test_spread_by_hand() -> None:
    """1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, over n - 1 = 2 is 7."""
    found = tables.spread([1.0, None, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3.0, 3)
    assert found.sd == pytest.approx(7**0.5)


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert str(tables.spread([90.04])) == "90.0"
    assert tables.spread([None]) is None


def test_rows_of_another_version_are_told_apart(record: Maker) -> None:
    new = record(precision="bfloat16")
    old = record(precision="bfloat16", right=(70,) * 10)
    del old["config"]["loop_version"]
    (table,) = tables.tables([Result(new), Result(old)])
    assert sorted(row.setting for row in table.rows) == ["loop_version 1", "loop_version 2"]


def test_rows_are_experiments_in_the_order_of_the_story(record: Maker) -> None:
    found = [
        *arms(record, "hybrid", "none", "bank", "mixup"),
        *arms(record, "hybrid", space="none"),
        *arms(record, "hybrid", recipe="balanced-softmax"),
    ]
    (table,) = tables.tables(found)
    assert [row.name for row in table.rows] == [
        *("none", "mixup", "bank", "hybrid", "hybrid-unmixed"),
        "hybrid balanced-softmax",
    ]
    assert all(row.seeds == (0, 1, 2) for row in table.rows)


def test_the_mean_of_a_row_is_that_of_its_last_epochs(record: Maker) -> None:
    (table,) = tables.tables(arms(record, "none"))
    found = table.rows[0].accuracy("overall")
    assert found is not None
    assert found.mean == pytest.approx(100 * (sum(BASE) + 10) / 740)
    assert found.sd == pytest.approx(100 * 10 / 740)


@pytest.mark.parametrize(
    "other", [{"epochs": 24}, {"batch": 64}, {"lr": 0.05}, {"dataset": "letters_lt"}]
)
def test_other_data_or_budget_is_another_table(record: Maker, other: Any) -> None:
    found = tables.tables([*arms(record, "none"), *arms(record, "hybrid", **other)])
    assert len(found) == 2


def test_another_split_is_another_table(record: Maker) -> None:
    other = record("hybrid")
    other["dataset"] = {**other["dataset"], "split_id": "0" * 64}
    assert len(tables.tables([*arms(record, "none"), Result(other)])) == 2


def test_settings_that_differ_within_a_table_stand_in_a_column(record: Maker) -> None:
    found = [*arms(record, "none"), *arms(record, "hybrid", bank_share=0.25)]
    (table,) = tables.tables(found)
    assert [row.setting for row in table.rows] == ["bank_share 0.5", "bank_share 0.25"]
    assert tables.cells(table)[0][3] == "settings"


def test_two_banks_of_one_arm_stand_in_a_column(record: Maker) -> None:
    other = record("hybrid", seed=0)
    for part in (other["bank"], other["config"]["bank"]):
        part.update(key="9" * 64, content_sha256="8" * 64)
    (table,) = tables.tables([*arms(record, "hybrid"), Result(other)])
    assert len(table.rows) == 2
    assert [row.name for row in table.rows] == [
        f"hybrid, bank {arms(record, 'hybrid')[0].record['bank']['key'][:8]}",
        "hybrid, bank 99999999",
    ]


def test_two_banks_of_one_arm_are_told_by_their_policy_and_have_a_matrix_each(
    record: Maker,
) -> None:
    from trainer.reports import page

    found = [*arms(record, "none"), *arms(record, "hybrid")]
    for number, draw in enumerate(["fill balance pairs class centres that are near", "uniform"]):
        other = record("hybrid", seed=0)
        for part in (other["bank"], other["config"]["bank"]):
            part.update(key=f"{number}" * 64, content_sha256=f"{number + 5}" * 64)
        other["bank"]["policy"] = draw
        found.append(Result(other))
    (table,) = tables.tables(found)
    names = [row.name for row in table.rows if row.first.arm == "hybrid"]
    assert len(set(names)) == 3
    assert sum("bank policy fill balance" in name for name in names) == 1
    assert all(name.count("hybrid") == 1 for name in names)
    text = " ".join(re.sub(r"<[^>]*>", " ", page.html([table])).split())
    assert text.count("percent of each class") == 3
    one = " ".join(re.sub(r"<[^>]*>", " ", page.html([table], matrix_of=names[1])).split())
    assert one.count("percent of each class") == 1


def test_many_matrices_are_left_out_by_name(record: Maker) -> None:
    from trainer.reports import page

    found = [Result(record("hybrid", alpha=0.1 * number)) for number in range(1, 9)]
    (table,) = tables.tables(found)
    text = page.html([table])
    assert len(re.findall("percent of", text)) == 6
    names = "; ".join(row.name for row in table.rows[6:])
    assert f"Confusion matrices left out: {names}. --confusion NAME draws one." in text


def test_networks_of_one_arm_have_names_of_their_own(record: Maker) -> None:
    found = [Result(record("none", model=model)) for model in ("resnet8", "resnet20")]
    (table,) = tables.tables([*found, Result(record("mixup"))])
    assert [row.name for row in table.rows] == ["none resnet20", "none resnet8", "mixup"]


def test_one_of_a_kind_is_counted_in_the_singular(record: Maker) -> None:
    from trainer.reports import page

    found = tables.tables([Result(record(epochs=1))])
    told = page.html(found)
    assert "1 finished run in 1 comparable set." in told
    assert found[0].title.endswith(", 1 epoch")
    notes_told = " ".join(found[0].notes())
    assert "Budget: 1 epoch, " in notes_told and "of one run (seed 0)" in notes_told
    assert "(1 run, " in notes_told and "±" not in notes_told


def test_no_column_of_settings_without_need(record: Maker) -> None:
    found = [*arms(record, "none", "hybrid"), *arms(record, "hybrid", space="none")]
    (table,) = tables.tables(found)
    assert tables.cells(table)[0] == ["arm", "recipe", "model", "n", *HEADINGS]


def test_notes_say_rule_overlap_budget_hardware_and_bank(record: Maker) -> None:
    (table,) = tables.tables([*arms(record, "hybrid"), *arms(record, "hybrid", space="pixel")])
    found = "\n".join(table.notes())
    for told in (
        "overall is the share of all test images, balanced the mean over the classes; many, medium",
        "equally many test images, so these two are the same",
        "Shot groups by index 3/4/3: many (0, 1, 2), medium (3, 4, 5, 6), few (7, 8, 9)",
        "No training image is also in the test part",
        "12 epochs, 36 steps of 128 images, learning rate 0.1, float32",
        "seeds 0, 1, 2",
        "Some CPU, 2 threads, torch 2.13.0+cpu (6 runs, 12 s each)",
        "20,000 rows, space w",
        "*-pixel: control",
    ):
        assert told in found


def test_overlap_is_counted(record: Maker) -> None:
    one = record()
    one["dataset"] = {**one["dataset"], "overlap": 12}
    (table,) = tables.tables([Result(one)])
    assert "12 training images are also in the test part" in "\n".join(table.notes())


def test_the_test_oracle_is_shown_only_when_asked_for(record: Maker) -> None:
    found = tables.tables(arms(record, "none"))
    assert "oracle" not in tables.text_table(found)
    assert "best epoch (test oracle)" in tables.text_table(found, oracle=True)
    assert "oracle" not in tables.markdown_table(arms(record, "none"))


def test_a_single_group_is_no_column(record: Maker) -> None:
    one = record()
    one["dataset"] = {
        **one["dataset"],
        "groups": {"rule": "x", "many": list(range(10)), "medium": [], "few": []},
    }
    one["accuracy"] = {**one["accuracy"], "many": None, "medium": None, "few": None}
    (table,) = tables.tables([Result(one)])
    assert tables.cells(table)[0][-2:] == HEADINGS[:2]
    assert "Shot groups by x: all classes are many; --groups" in "\n".join(table.notes())


def test_markdown_is_a_table_with_as_many_cells_in_every_line(record: Maker) -> None:
    text = tables.markdown_table(arms(record, "none", "hybrid"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {10}
    assert "| hybrid | ce | resnet8 | 3 | 88.8 ± 1.4 | 88.8 ± 1.4 |" in text


def test_json_keeps_its_field_names(record: Maker) -> None:
    found = tables.plain(arms(record, "hybrid"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (table,) = found["tables"]
    (row,) = table["rows"]
    assert set(table) == {
        *("title", "comparable", "classes", "counts", "groups", "figures", "overlap", "notes"),
        "rows",
    }
    assert set(row) == {
        *("arm", "recipe", "model", "bank", "teacher", "setting", "key", "steps", "n", "seeds"),
        *("fair", "accuracy", "test_oracle", "per_class", "commands"),
    }
    assert list(row["accuracy"]) == ["overall", "balanced", "many", "medium", "few"]
    assert row["accuracy"]["few"].keys() == {"mean", "sd"}


def test_nothing_to_report_says_how_to_make_a_run() -> None:
    with pytest.raises(InvalidInput, match="no finished run"):
        tables.tables([])


class Page(HTMLParser):
    """Collects what would be fetched, and whether every element is closed."""

    VOID = ("meta", "path", "use", "image", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        links = [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.fetched += [link for link in links if link and not link.startswith(("#", "data:"))]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(record: Maker) -> None:
    from trainer.reports import page

    found = [*arms(record, "none", "hybrid"), *arms(record, "mixup", epochs=24)]
    text = page.html(tables.tables(found))
    parser = Page()
    parser.feed(text)
    assert parser.open == [] and parser.fetched == []
    assert parser.seen.count("svg") == 6 and "script" not in parser.seen
    assert "url(http" not in text


def test_the_page_escapes_what_names_could_smuggle_in(record: Maker) -> None:
    from trainer.reports import page

    one = record(recipe="<script>x")
    one["dataset"] = {**one["dataset"], "classes": ["<script>", *one["dataset"]["classes"][1:]]}
    one["command"] = "trainer run --name '<script>'"
    assert "<script>" not in page.html(tables.tables([Result(one)]))


def test_the_page_draws_the_confusion_of_the_row_that_is_asked_for(record: Maker) -> None:
    from trainer.reports import page

    found = tables.tables(arms(record, "none", "hybrid"))
    assert "hybrid: percent of each class, 3 runs" in page.html(found)
    assert "none: percent of each class, 3 runs" in page.html(found, matrix_of="none")
    with pytest.raises(UsageFailure, match="did you mean 'hybrid'"):
        page.html(found, matrix_of="hybird")


def test_the_same_page_twice_is_the_same_text(record: Maker) -> None:
    from trainer.reports import page

    found = tables.tables(arms(record, "none", "hybrid"))
    assert page.html(found) == page.html(found)


def test_pictures_do_without_confusion_and_with_many_classes(record: Maker) -> None:
    from trainer.reports import plots

    one = record()
    one["confusion"] = None
    (table,) = tables.tables([Result(one)])
    assert plots.confusion(table.rows[0]) is None
    assert "<svg" in plots.svg(plots.class_bars(table))


def test_plots_of_a_run_are_written(record: Maker, tmp_path: Path) -> None:
    from trainer.reports import plots

    plots.of_run(Result(record()), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("classes.png", "confusion.png", "curve.png")
    ]


# Blocks of a Markdown file

SOURCE = "# Title\n\n<!-- block results: -->\nold\n<!-- end of block results -->\n\nMore.\n"


def test_a_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(SOURCE)
    assert not markdown_blocks.is_fresh(path, "results", "new", command="make it")
    assert markdown_blocks.fill(path, "results", "new", command="make it")
    text = path.read_text()
    assert text.startswith("# Title\n\n<!-- block results: written by `make it` -->\n\nnew\n\n")
    assert text.endswith("<!-- end of block results -->\n\nMore.\n")
    assert "old" not in text


def test_a_filled_block_is_fresh_and_filled_again_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(SOURCE)
    markdown_blocks.fill(path, "results", "new", command="make it")
    assert markdown_blocks.is_fresh(path, "results", "new", command="make it")
    assert not markdown_blocks.fill(path, "results", "new", command="make it")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (SOURCE.replace("results", "result"), "did you mean 'result'"),
        (SOURCE + SOURCE, "2 blocks 'results'"),
        (SOURCE.replace("<!-- end of block results -->", ""), "has no end"),
    ],
)
def test_a_file_without_its_block_is_refused(tmp_path: Path, source: str, told: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(source)
    with pytest.raises(UsageFailure, match=re.escape(told)):
        markdown_blocks.fill(path, "results", "new", command="make it")


def test_command_prints_a_table(places: Path, trainer: Any) -> None:
    code, out, _ = trainer("report")
    assert code == 0
    assert out.splitlines()[0] == "digits_lt, imbalance 20, 12 epochs"
    assert "hybrid  ce" in out


@pytest.mark.parametrize(
    ("name", "begins"), [("a.html", "<!doctype"), ("a.md", "**digits"), ("a.json", "{")]
)
def test_command_knows_the_format_by_the_ending(
    places: Path, trainer: Any, name: str, begins: str
) -> None:
    code, out, _ = trainer("report", "--out", name)
    assert (code, out) == (0, f"{name}\n")
    assert (places / name).read_text().startswith(begins)


def private_link(folder: Path, text: str = "") -> tuple[Path, Path]:
    """A link, and its target that only its owner may read."""
    link, target = folder / "link.md", folder / "private.md"
    target.touch(0o600)
    target.write_text(text)
    link.symlink_to(target.name)
    return link, target


@pytest.mark.parametrize("option", ["--out", "--into"])
def test_command_writes_through_a_link_and_keeps_privacy(
    places: Path, trainer: Any, option: str
) -> None:
    link, target = private_link(places, SOURCE)
    assert trainer("report", "runs", option, "link.md")[0] == 0
    assert "| hybrid | ce |" in target.read_text()
    assert (link.is_symlink(), target.stat().st_mode & 0o777) == (True, 0o600)


def test_command_writes_a_table_into_a_device(places: Path, trainer: Any) -> None:
    """Through a link: an earlier version would have replaced the device itself."""
    (places / "screen").symlink_to("/dev/null")
    code, out, err = trainer("report", "--out", "screen")
    assert (code, out) == (0, "screen\n"), err
    assert (places / "screen").is_symlink()


def test_command_prints_json(places: Path, trainer: Any) -> None:
    code, out, _ = trainer("report", "runs", "--json")
    assert code == 0
    assert json.loads(out)["schema"] == "trainer-report/1"


def test_command_fills_a_block_and_checks_it(places: Path, trainer: Any) -> None:
    (places / "README.md").write_text(SOURCE)
    code, _, err = trainer("report", "runs", "--into", "README.md", "--check")
    assert code == 2 and "'results' is stale" in err
    assert trainer("report", "runs", "--into", "README.md")[0] == 0
    assert trainer("report", "runs", "--into", "README.md", "--check")[0] == 0
    assert "| hybrid | ce |" in (places / "README.md").read_text()


def test_the_command_in_a_block_names_its_file_from_the_working_directory(
    places: Path, trainer: Any
) -> None:
    page = places / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(SOURCE)
    assert trainer("report", "runs", "--into", str(page))[0] == 0
    opening = "<!-- block results: written by `trainer report runs --into docs/page.md --block"
    assert opening in page.read_text()
    assert trainer("report", "runs", "--into", "docs/page.md", "--check")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--check",), "--check needs --into"),
        (("--out", "a.pdf"), "cannot be told from its ending"),
        (("--confusion", "none"), "--format html"),
        (("--into", "README.md", "--format", "json"), "--into writes Markdown"),
        (("--summary", "none,mxup"), "no finished run of 'mxup'. Known: hybrid/ce, none/ce"),
        (("--summary", "none", "--format", "html"), "are tables: --format table or md"),
        (("--summary", "none", "--pairs", "hybrid:none"), "two tables: ask for one"),
        (("--pairs", "hybrid"), "two arms with a colon, got 'hybrid'"),
        (("--pairs", "hybrid:nobody"), "no finished run of 'nobody'"),
    ],
)
def test_command_refuses_what_it_cannot_do(
    places: Path, trainer: Any, arguments: tuple[str, ...], told: str
) -> None:
    code, _, err = trainer("report", *arguments)
    assert code == 2 and told in err


def test_runs_that_are_not_there_are_error_3(places: Path, trainer: Any) -> None:
    code, _, err = trainer("report", "nowhere")
    assert code == 3 and "there is no file or folder nowhere" in err
    (places / "empty").mkdir()
    code, _, err = trainer("report", "empty")
    assert code == 3 and "there is no finished run to report" in err


@pytest.mark.parametrize("option", ["--out", "--into"])
def test_a_full_disk_is_told_before_the_results_are_read(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(records, "surveyed", None)  # not called
    code, out, err = trainer("report", "runs", option, "elsewhere/page.md")
    assert (code, out) == (4, "")
    assert "/elsewhere needs" in err
    assert f"with {option}" in err
