"""`generate` and `bank` as a user types them: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix import console
from stylegan_mix.banks import store as banks
from stylegan_mix.banks.preview import default_pairs, lines_to_draw, nearest_rows, stored_sheet
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.cli import group

Write = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("bank", "list")` is (exit code, stdout, stderr)."""

    def running(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            console.main(group, "stylegan-mix", words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return running


GENERATE = ("generate", "--generator", "abab", "--n", "200")


def key_in(out: str) -> str:
    found = re.search(r"bank ([0-9a-f]{12})", out)
    assert found, out
    return found[1]


# generate


def test_the_same_request_again_is_the_same_bank(stored: Any, run: Run, toy: Any) -> None:
    code, out, err = run(*GENERATE)
    assert (code, "written" in out) == (0, True), err
    assert "diversity at least 0.80 (bee)" in err
    toy.batches.clear()
    again = run(*GENERATE)
    assert (again[0], key_in(again[1])) == (0, key_in(out))
    assert "exists" in again[1]
    assert toy.batches == []


@pytest.mark.parametrize("space", ["w", "none", "pixel"])
def test_the_next_command_names_the_bank_and_its_split(
    stored: Any, run: Run, card: dict[str, Any], space: str
) -> None:
    card |= {"dataset": "big letters", "imbalance": 10 / 3, "profile": "step", "split_seed": 7}
    code, out, err = run(*GENERATE, "--space", space)
    command = (
        "trainer run --dataset 'big letters' --imbalance 3.3333333333333335 --profile step "
        f"--split-seed 7 --aug hybrid --bank {key_in(out)}"
    )
    assert (code, err.splitlines()[-1]) == (0, f"next    {command}")
    assert command in run("bank", "card", key_in(out))[1].splitlines()


def test_the_next_command_leaves_defaults_out(stored: Any, run: Run) -> None:
    _, out, err = run(*GENERATE)
    assert err.splitlines()[-1] == (
        f"next    trainer run --dataset letters --imbalance 10 --aug hybrid --bank {key_in(out)}"
    )


def test_a_dry_run_prints_the_cost_and_writes_nothing(stored: Any, run: Run, home: Path) -> None:
    code, out, _ = run(*GENERATE, "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["state"], plan["images"], plan["blocks"]) == (0, "absent", 200, 4)
    assert plan["bytes"] == 200 * 28
    assert 0 <= plan["seconds"][0] <= plan["seconds"][1]
    assert not (home / "banks").exists()
    run(*GENERATE)
    code, out, _ = run(*GENERATE, "--dry-run", "--json")
    assert json.loads(out)["state"] == "exists"
    assert json.loads(out)["key"] == plan["key"]


def test_a_dry_run_without_a_generator_is_json_too(run: Run, home: Path) -> None:
    code, out, err = run("generate", "--dataset", "digits_lt", "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["state"], plan["train"]["preset.name"]) == (0, "no generator", "tiny8")
    assert "this one is trained first" in err
    assert not home.exists()


def test_json_is_all_that_stdout_holds(stored: Any, run: Run) -> None:
    _, out, _ = run(*GENERATE, "--json")
    facts = json.loads(out)
    assert facts["state"] == "written"
    assert Path(facts["preview"]).is_file()
    assert open_bank(Path(facts["folder"])).content_sha256 == facts["content_sha256"]


def test_exact_does_not_take_a_bank_of_other_numerics(stored: Any, run: Run) -> None:
    first = key_in(run(*GENERATE)[1])
    assert key_in(run(*GENERATE, "--precision", "bfloat16")[1]) == first
    second = key_in(run(*GENERATE, "--precision", "bfloat16", "--exact")[1])
    assert second != first
    assert len(banks.find()) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--n", "0"), 2, "--n must be from 1"),
        (("--n", "x"), 2, "not a valid integer"),
        (("--alpha", "-1", "--n", "0", "--space", "ww"), 2, "no space 'ww'.*--n must.*--alpha"),
        (("--alpha", "nan"), 2, "--alpha must be"),
        (("--nn", "5"), 2, "--nn"),
        (("--precision", "float8"), 2, "bfloat16"),
        (("--generator", "cafe"), 3, "no generator 'cafe'"),
        (("--dataset", "numbers"), 3, "trained with dataset letters, not numbers"),
        (("--imbalance", "50"), 3, "trained with imbalance 10.0, not 50.0"),
        (("--split-seed", "7"), 3, "trained with split seed 0, not 7"),
        (("--device", "tpu"), 2, "--device must be"),
        (("--n", str(1 << 40)), 4, "MB are free"),
    ],
)
def test_what_cannot_be_is_said_with_its_code(
    stored: Any, run: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = run(*GENERATE, *words)
    assert (ended, out) == (code, "")
    assert re.search(message, err.replace("\n", " ")), err
    assert "Traceback" not in err
    assert banks.find() == []


def test_a_truncated_bank_is_not_given_again(stored: Any, run: Run) -> None:
    run(*GENERATE)
    (record,) = banks.find()
    (record.folder / "bank.h5").chmod(0o644)
    os.truncate(record.folder / "bank.h5", 100)
    code, _, err = run(*GENERATE)
    assert code == 3
    assert "move" in err
    record.folder.rename("away")
    assert run(*GENERATE)[0] == 0


# bank list and show


def test_an_empty_store_says_how_to_fill_it(home: Path, run: Run) -> None:
    code, out, err = run("bank", "list")
    assert (code, out) == (0, "")
    assert "stylegan-mix generate --dataset" in err
    assert json.loads(run("bank", "list", "--json")[1]) == []
    assert run("bank", "verify", "--all")[0] == 0


def test_list_shows_what_is_there_and_in_which_state(
    write: Write, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.banks.blocks import Partial

    first, second = write(n=10), write(n=100, space="pixel")
    with monkeypatch.context() as patched:
        patched.setattr(Partial, "land", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(n=300)
    (home / "banks" / ("f" * 64)).mkdir()
    rows = json.loads(run("bank", "list", "--json")[1])
    states = {row["key"]: row["state"] for row in rows}
    assert states[first.name] == states[second.name] == "published"
    assert states["f" * 64] == "damaged"
    assert sorted(states.values())[1] == "partial, 0 of 5 blocks"
    table = run("bank", "list")[1].splitlines()
    header = [
        "key",
        "dataset",
        "imbalance",
        "space",
        "draw",
        "n",
        "size",
        "generator",
        "age",
        "state",
    ]
    assert table[0].split() == header
    assert first.name[:12] in run("bank", "list", "--dataset", "letters")[1]
    assert run("bank", "list", "--dataset", "numbers")[1] == ""


def test_show_gives_label_mass_and_lam(write: Write, run: Run) -> None:
    key = write(n=130).name
    code, out, _ = run("bank", "show", key[:8], "--json")
    facts = json.loads(out)
    assert code == 0
    assert sum(facts["class_mass"]) == pytest.approx(130, abs=0.01)
    assert sum(facts["lam_histogram"]) == 130
    assert facts["key"] == key
    text = run("bank", "show", key[:8])[1]
    for part in ("label mass", "ant", "0.9 to 1.0", facts["content_sha256"], facts["command"]):
        assert part in text


def test_show_speaks_in_words_and_units_and_ends_with_the_hashes(write: Write, run: Run) -> None:
    key = write(n=130).name
    table, mass, lam = run("bank", "show", key)[1].rstrip("\n").split("\n\n")
    told = dict(re.split(r"  +", line, maxsplit=1) for line in table.splitlines())
    assert told["data set"] == "letters, imbalance 10 (profile exp), 3 classes"
    assert told["images"].startswith("130 of 4x4 pixels, 1 channel, ")
    assert told["least diverse class"].startswith("bee, diversity 0.80 ")
    assert told["trained"] == "preset toy, 1.5 thousand images, seed 0"
    # No name of a field of the file is left.
    assert [name for name in told if "_" in name] == []
    names = list(told)
    first = ("bank", "data set", "images", "mixing")
    assert tuple(names[:4]) == first
    assert names.index("generator") < names.index("training split id") < len(names)
    assert len(mass.splitlines()) == 4 and len(lam.splitlines()) == 11


def test_tables_stand_straight_beside_wide_letters(
    write: Write, card: dict[str, Any], run: Run
) -> None:
    from rich.cells import cell_len

    card["classes"] = ["ant", "\N{CJK UNIFIED IDEOGRAPH-732B}" * 3, "cat"]
    key = write(n=130).name
    mass = run("bank", "show", key)[1].split("\n\n")[1].splitlines()[1:]
    ends = {cell_len(re.sub(r"(\d\.\d).*", r"\1", line)) for line in mass}
    assert (len(mass), len(ends)) == (3, 1)


def test_card_prints_the_card(write: Write, run: Run) -> None:
    folder = write()
    assert run("bank", "card", folder.name)[1] == (folder / "BANK_CARD.md").read_text()


@pytest.mark.parametrize("verb", ["show", "card", "preview", "verify"])
def test_a_missing_bank_is_error_3_with_the_command_that_makes_one(
    home: Path, run: Run, verb: str
) -> None:
    code, out, err = run("bank", verb, "cafe")
    assert (code, out) == (3, "")
    assert "stylegan-mix generate --dataset" in err


def test_an_unknown_verb_names_the_nearest(home: Path, run: Run) -> None:
    code, _, err = run("bank", "verfy")
    assert code == 2
    assert "verify" in err


# bank verify


def damage(folder: Path) -> None:
    folder.chmod(0o755)
    path = folder / "bank.h5"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)


def test_verify_tells_the_whole_from_the_altered(write: Write, run: Run) -> None:
    whole, altered = write(n=10), write(n=20)
    damage(altered)
    assert run("bank", "verify", whole.name)[0] == 0
    code, out, err = run("bank", "verify", "--all", "--json")
    assert code == 3
    states = {report["key"]: report["state"] for report in json.loads(out)}
    assert states == {whole.name: "whole", altered.name: "damaged"}
    assert altered.name[:12] in err
    assert "altered" in run("bank", "verify", altered.name)[1]


def test_verify_counts_images_that_repeat_or_have_one_colour(
    write: Write, toy: Any, run: Run
) -> None:
    toy.weight.fill_(0.0)
    toy.synthesis = lambda ws, **_: ws.new_zeros(len(ws), 1, 4, 4)
    key = write(n=70).name
    (report,) = json.loads(run("bank", "verify", key, "--json")[1])
    assert (report["constant"], report["repeated"]) == (70, 69)


def test_verify_wants_one_bank_or_all(write: Write, run: Run) -> None:
    assert run("bank", "verify")[0] == 2
    assert run("bank", "verify", write().name, "--all")[0] == 2


# bank preview


def test_preview_draws_stored_rows_near_the_lam_of_their_column(write: Write) -> None:
    bank = open_bank(write(n=2000))
    for pair in default_pairs(3):
        chosen = nearest_rows(bank, pair)
        assert None not in chosen
        for row, lam in zip(chosen, np.linspace(1, 0, 11), strict=True):
            first, second = bank.pair[row]
            share = bank.lam[row] if (first, second) == pair else 1 - bank.lam[row]
            assert {int(first), int(second)} == set(pair)
            assert abs(share - lam) <= 0.05
    sheet, empty = stored_sheet(bank, [(0, 2)])
    assert empty == []
    row = nearest_rows(bank, (0, 2))[3]
    assert row is not None
    np.testing.assert_array_equal(sheet.cells[0][3], bank.images[row])


def test_an_unmixed_bank_shows_each_class_of_a_pair_alone(write: Write, run: Run) -> None:
    bank = open_bank(write(n=200, space="none"))
    assert lines_to_draw(bank, [(0, 2), (2, 1)]) == [(0, 0), (2, 2), (1, 1)]
    assert lines_to_draw(bank, []) == [(0, 0), (1, 1), (2, 2)]
    sheet, _ = stored_sheet(bank, [(0, 0), (2, 2)])
    assert (sheet.left, sheet.right) == (["ant", "cat"], None)
    for row, label in zip(sheet.cells, (0, 2), strict=True):
        stored = bank.images[bank.pair[:, 0] == label]
        np.testing.assert_array_equal(row, stored[: len(row)])
    code, out, err = run("bank", "preview", bank.key, "--pair", "ant,cat", "--out", "p.png")
    assert (code, out) == (0, "p.png\n")
    assert f"bank {bank.key[:12]} is unmixed (space none): no image is between two classes" in err
    assert "unmixed" not in run("bank", "preview", bank.key, "--out", "p.png")[2]
    mixed = write(n=200).name
    assert "unmixed" not in run("bank", "preview", mixed, "--pair", "ant,cat", "--out", "p.png")[2]


def test_a_pair_without_a_row_is_named(write: Write, run: Run) -> None:
    key = write(n=2).name
    code, _, err = run("bank", "preview", key, *("--pair", "ant,bee") * 1, "--out", "p.png")
    pairs = [tuple(sorted(pair)) for pair in open_bank(banks.resolve(key)).pair.tolist()]
    assert code == 0
    assert ("no stored row of ant and bee: their cells stay grey" in err) == ((0, 1) not in pairs)
    sheet, empty = stored_sheet(open_bank(banks.resolve(key)), [(0, 1), (0, 2), (1, 2)])
    assert len(empty) == 3 - len({pair for pair in pairs if len(set(pair)) == 2})
    assert "grey: no such row is stored" in sheet.note


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 9, 10, 11, 100])
def test_default_pairs_are_of_two_classes_and_none_comes_twice(classes: int) -> None:
    pairs = default_pairs(classes)
    assert len(pairs) == min(classes, 10)
    assert len({first for first, _ in pairs}) == len(pairs)
    if classes > 2:
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    if classes > 1:
        assert all(first != second < classes for first, second in pairs)


def test_preview_leaves_a_column_empty_where_no_row_is_near(write: Write) -> None:
    bank = open_bank(write(n=20))
    chosen = nearest_rows(bank, (0, 1))
    assert None in chosen
    assert len(chosen) == 11


def test_preview_of_an_unmixed_bank_shows_samples_of_each_class(write: Write) -> None:
    bank = open_bank(write(n=200, space="none"))
    for row in nearest_rows(bank, (2, 0)):
        assert row is not None
        assert bank.pair[row].tolist() == [2, 2]


def size_of(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("space", ["w", "none"])
def test_preview_writes_a_picture_for_the_chosen_pairs(
    write: Write, run: Run, space: str, tmp_path: Path
) -> None:
    key = write(n=500, space=space).name
    code, out, _ = run("bank", "preview", key, "--pair", "ant,cat", "--pair", "1,0")
    path = Path(out.strip())
    assert (code, path.name) == (0, f"preview-{key[:12]}.png")
    two = size_of(path)
    run("bank", "preview", key, "--pair", "bee,cat", "--out", str(tmp_path / "one.png"))
    one = size_of(tmp_path / "one.png")
    # One row of cells less: 4 pixels enlarged to 72, and the gap. Names differ by some pixels.
    assert two[1] - one[1] == 76 and abs(two[0] - one[0]) < 10


def test_a_picture_goes_through_a_link(write: Write, run: Run, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link.png"
    target.touch(0o600)
    link.symlink_to(target.name)
    key = write(n=500).name
    assert run("bank", "preview", key, "--pair", "ant,cat", "--out", str(link))[0] == 0
    assert (link.is_symlink(), target.stat().st_mode & 0o777) == (True, 0o600)
    picture = size_of(target)
    assert run("dataset", "show", "digits_lt", "--out", str(link))[0] == 0
    assert (link.is_symlink(), target.stat().st_mode & 0o777) == (True, 0o600)
    assert size_of(target) != picture


@pytest.mark.parametrize(
    ("pair", "message"), [("ant", "comma"), ("ant,dog", "no class 'dog'"), ("0,3", "no class '3'")]
)
def test_preview_of_classes_that_are_none_is_refused(
    write: Write, run: Run, pair: str, message: str
) -> None:
    code, _, err = run("bank", "preview", write().name, "--pair", pair)
    assert code == 2
    assert message in err


def test_preview_of_an_altered_bank_is_refused(write: Write, run: Run) -> None:
    folder = write()
    damage(folder)
    assert run("bank", "preview", folder.name)[0] == 3


def test_preview_into_a_place_that_cannot_be_written_is_error_4(write: Write, run: Run) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    Path("closed").mkdir(mode=0o500)
    assert run("bank", "preview", write().name, "--out", "closed/x.png")[0] == 4


@pytest.mark.parametrize(("channels", "resolution"), [(1, 8), (2, 5), (3, 32), (4, 300)])
def test_a_sheet_draws_images_of_any_shape(channels: int, resolution: int) -> None:
    from stylegan_mix.drawing.sheet import Sheet, draw

    image = np.full((resolution, resolution, channels), 200, np.uint8)
    names = ["a class\nwith a very long name that goes on and on", ""]
    sheet = Sheet(
        "title", "note " * 60, names, names, ["1.0", "0.0"], [[image, None], [None, image]]
    )
    picture = draw(sheet)
    assert picture.width < 1600
    assert picture.height < 1000
    assert len(picture.getcolors(1 << 20) or []) > 3


def test_a_bank_copied_elsewhere_is_shown_by_its_path(write: Write, run: Run) -> None:
    shutil.copytree(write(), "a copy")
    assert run("bank", "show", "a copy")[0] == 0
    assert run("bank", "verify", "a copy")[0] == 0
