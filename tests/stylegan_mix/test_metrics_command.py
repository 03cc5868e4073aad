"""`metrics` as a user types it: what it prints, keeps and refuses, and how it ends."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import arrays, datasets, store
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics import make, probe

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("short")

QUICK = ("metrics", "--n", "60", "--no-cas")


def test_a_report_has_every_figure_with_its_floor(generator: Published, run: Run) -> None:
    code, out, err = run("metrics", "--dataset", "digits_lt", "--n", "60", "--seeds", "2", "--json")
    assert code == 0, err
    report = json.loads(out)
    found = {(row["figure"], row["against"]) for row in report["figures"]}
    alone = {"label_accuracy", "cas", "diversity", "memorisation", "copies"}
    pixels = {"memorisation_pixels", "copies_pixels"}
    compared = {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    assert found == {(name, None) for name in alone | pixels} | {
        (name, part) for name in compared for part in ("train", "balanced", "test")
    }
    assert report["scopes"] == ["all", "many", "medium", "few", *(str(c) for c in range(10))]
    for row in report["figures"]:
        assert len(row["at"]) == 14
        if row["figure"] != "frechet":  # 60 samples are too few for 64 features
            assert row["at"][0]["value"] is not None, row["figure"]
            assert row["at"][0]["floor"] is not None, row["figure"]
            assert row["at"][0]["std"] is not None, row["figure"]
    assert any("n/a for 10 classes" in note for note in report["notes"])
    assert report["choose_by"]["value"] > 0


def test_a_report_names_numbers_seeds_and_hashes(generator: Published, run: Run) -> None:
    report = json.loads(run(*QUICK, "--seeds", "2", "--seed", "5", "--json")[1])
    digits = datasets.load("digits_lt")
    assert report["subject"] == {
        "kind": "generator",
        "hash": generator.hash,
        "kimg": 0.0,
        "seed": 0,
    }
    assert (report["split_id"], report["test_id"]) == (digits.split_id, digits.test_id)
    assert report["samples"] == {
        "n": 60,
        "labels": "uniform",
        "seeds": [5, 6],
        "truncation": 1.0,
    }
    made = probe.find_probe(digits, 0)
    assert made is not None
    assert report["features"] == {"name": "probe", "sha256": made.hash, "width": 64}
    assert report["probe"]["sha256"] == made.hash
    assert report["command"] == "stylegan-mix metrics --n 60 --seeds 2 --no-cas --seed 5"
    assert report["groups"]["rule"] == "index 3/4/3"


def test_an_altered_generator_is_refused_before_real_images_are_looked_at(
    generator: Published, run: Run
) -> None:
    data = generator.folder / "data.h5"
    data.chmod(0o644)
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    code, out, err = run(*QUICK)
    assert (code, out) == (3, "")
    assert "data.h5 was altered" in err
    assert f"move {generator.folder} away; the same `train`" in err
    assert "features of" not in err
    assert "step" not in err


def test_the_same_request_is_answered_at_once(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(*QUICK, "--json")
    monkeypatch.setattr(make, "make", lambda *_, **__: 1 / 0)
    code, out, err = run(*QUICK, "--json")
    assert code == 0, err
    before, after = json.loads(first[1]), json.loads(out)
    assert (before.pop("state"), after.pop("state")) == ("made", "exists")
    assert before == after
    named = run(*QUICK, generator.hash[:8], "--json")
    assert json.loads(named[1])["key"] == before["key"]


def test_the_same_request_again_from_nothing_is_the_same_report(
    generator: Published, run: Run, home: Path
) -> None:
    first = json.loads(run(*QUICK, "--json")[1])
    folder = Path(first["folder"])
    before = arrays.open_container(folder, kind="metrics").content_sha256
    folder.rename(home / "away")
    assert json.loads(run(*QUICK, "--json")[1]) == first
    assert arrays.open_container(folder, kind="metrics").content_sha256 == before


def test_what_is_kept_says_everything_sample_by_sample(generator: Published, run: Run) -> None:
    report = json.loads(run(*QUICK, "--seeds", "2", "--json")[1])
    kept = arrays.open_container(Path(report["folder"]), kind="metrics")
    assert kept["label"].shape == kept["distance"].shape == (2, 60)
    assert kept["label"][0].tolist() == sorted(list(range(10)) * 6)
    assert kept["nearest"].max() < 335
    right = (kept["label"] == kept["said"]).mean()
    row = next(row for row in report["figures"] if row["figure"] == "label_accuracy")
    assert row["at"][0]["value"] == pytest.approx(right)
    assert Path(report["folder"]).parent.name == generator.hash


def test_a_damaged_report_is_made_again(generator: Published, run: Run) -> None:
    first = json.loads(run(*QUICK, "--json")[1])
    path = Path(first["folder"]) / "MANIFEST.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"uniform"', '"Uniform"'))
    code, out, err = run(*QUICK, "--json")
    assert (code, json.loads(out)["state"]) == (0, "made"), err
    assert "left out" in err
    assert json.loads(run(*QUICK, "--json")[1])["state"] == "exists"


def test_an_altered_figure_is_seen_and_a_report_of_an_older_version_is_made_again(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = json.loads(run(*QUICK, "--json")[1])
    path = Path(first["folder"]) / "data.h5"
    kept = arrays.open_container(path.parent, kind="metrics")
    figures = kept["figure_value"].tobytes()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(figures, figures[::-1]))
    _, out, err = run(*QUICK, "--json")
    assert "was altered" in err
    assert json.loads(out) == {**first, "state": "made"}
    monkeypatch.setattr("stylegan_mix.metrics.report.SCHEMA_VERSION", 99)
    _, out, err = run(*QUICK, "--json")
    assert json.loads(out)["state"] == "made"
    assert "left out" not in err


@pytest.mark.parametrize(
    "words",
    [
        ("--n", "61"),
        ("--seed", "1"),
        ("--seeds", "2"),
        ("--labels", "frequency"),
        ("--truncation", "0.5"),
        ("--against", "train,test"),
        ("--probe-seed", "1"),
        ("--cas",),
    ],
    ids=" ".join,
)
def test_every_option_that_changes_the_figures_is_another_report(
    generator: Published, run: Run, words: tuple[str, ...]
) -> None:
    keys = [json.loads(run(*QUICK, *more, "--dry-run", "--json")[1])["key"] for more in ((), words)]
    assert keys[0] != keys[1]


def test_options_change_the_samples(generator: Published, run: Run) -> None:
    seen = []
    for words in ((), ("--labels", "frequency"), ("--truncation", "0"), ("--seed", "1")):
        report = json.loads(run(*QUICK, "--against", "train", *words, "--json")[1])
        kept = arrays.open_container(Path(report["folder"]), kind="metrics")
        seen.append((kept["label"].tolist(), kept["distance_pixels"].tolist()))
    assert seen[0][0] == seen[2][0] == seen[3][0] != seen[1][0]
    assert len({str(distances) for _, distances in seen}) == 4


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    generator: Published, run: Run, home: Path
) -> None:
    before = sorted(home.rglob("*"))
    code, out, err = run("metrics", "--n", "200", "--seeds", "3", "--dry-run", "--json")
    facts = json.loads(out)
    assert code == 0, err
    assert (facts["state"], facts["samples"], facts["classifiers_to_train"]) == ("absent", 600, 4)
    assert facts["training_steps"] == 80
    low, high = facts["seconds"]
    assert 0 < low <= high
    assert "to be trained" in err
    assert sorted(home.rglob("*")) == before
    assert "onds, and the time of" in run("metrics", "--n", "60", "--dry-run")[1]


def test_against_train_alone_sees_no_test_image_and_chooses(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("metrics", "--n", "60", "--against", "train")
    assert code == 0, err
    assert "no floor without the test part" in out
    assert "to choose checkpoints by: " in out
    assert "CAS" not in out
    assert "against test" not in out
    assert run("metrics", "--n", "60", "--against", "train", "--no-cas", "--dry-run")[1].endswith(
        "exists\n"
    ), "there is no score to leave out"
    assert "choose" not in run(*QUICK, "--against", "test")[1]


def test_the_table_and_the_files_say_the_same(generator: Published, run: Run) -> None:
    Path("private").touch(0o600)
    Path("report.md").symlink_to("private")
    code, out, err = run(*QUICK, "--out", "report.md")
    assert code == 0, err
    assert (Path("report.md").is_symlink(), Path("private").stat().st_mode & 0o777) == (True, 0o600)
    text = Path("report.md").read_text()
    for part in ("KD-probe", "coverage", "label accuracy %", "few", "not FID", "[", "n/a"):
        assert part in out
        assert part in text
    for value in (generator.hash, datasets.load("digits_lt").test_id, "stylegan-mix metrics"):
        assert value in text
    run(*QUICK, "--out", "report.json")
    data = store.read_json(Path("report.json"))
    assert data["key"] in text
    label = next(row for row in data["figures"] if row["figure"] == "label_accuracy")
    assert f"| label accuracy % | {100 * label['at'][0]['value']:.1f} [" in text


def test_rows_of_a_bank_are_judged_as_they_are(generator: Published, run: Run) -> None:
    made = json.loads(run("generate", "--generator", generator.hash[:8], "--n", "128", "--json")[1])
    code, out, err = run("metrics", "--bank", made["key"][:8], "--no-cas", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["samples"]["n"], report["samples"]["labels"]) == (128, "rows")
    assert report["subject"]["hash"] == made["content_sha256"]
    assert report["subject"]["key"] == made["key"]
    table = run("metrics", "--bank", made["key"][:8], "--no-cas")[1]
    assert table.startswith(f"bank {made['key'][:12]} of digits_lt")
    assert any("larger share" in note for note in report["notes"])
    kept = arrays.open_container(Path(report["folder"]), kind="metrics")
    assert sorted(kept["row"][0].tolist()) == list(range(128))
    bank = arrays.open_container(Path(made["folder"]), kind="hybrid-bank")
    for row, label in zip(kept["row"][0], kept["label"][0], strict=True):
        assert label == bank["pair"][row][0 if bank["lam"][row] >= 0.5 else 1]
    few = json.loads(run("metrics", "--bank", made["key"], "--n", "50", "--no-cas", "--json")[1])
    assert few["samples"]["n"] == 50
    for words in (("--n", "129"), ("--labels", "uniform"), ("--truncation", "1"), ("abc",)):
        assert run("metrics", "--bank", made["key"], *words)[0] == 2


def test_the_features_of_a_file_are_used_and_named(generator: Published, run: Run) -> None:
    class Tiles(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Tiles()), "tiles.pt")
    sha256 = store.sha256_file(Path("tiles.pt"))
    code, out, err = run(*QUICK, "--features", "tiles.pt")
    assert (code, out) == (2, "")
    assert f"--features-sha256 {sha256}" in err
    code, out, err = run(*QUICK, "--features", "tiles.pt", "--features-sha256", "0" * 64)
    assert code == 3
    assert "not run" in err
    named = (*QUICK, "--features", "tiles.pt", "--features-sha256", sha256)
    report = json.loads(run(*named, "--json")[1])
    assert report["features"] == {"name": "tiles", "sha256": sha256, "width": 12}
    out = run(*named)[1]
    assert "FD-tiles" in out
    assert "KD-probe" not in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--n", "19"), 2, "two a class"),
        (("--n", "x"), 2, "not a valid integer"),
        (("--seeds", "0"), 2, "1<=x<=100"),
        (("--against", "tets"), 2, "did you mean 'test'"),
        (("--against", ","), 2, "at least one"),
        (("--labels", "even"), 2, "frequency"),
        (("--truncation", "nan"), 2, "finite|range"),
        (("--features", "none.pt"), 2, "cannot read"),
        (("--features-sha256", "00"), 2, "belongs to"),
        (("--out", "report.txt"), 2, "ends in .json or .md"),
        (("--device", "tpu"), 2, "--device must be"),
        (("--nn", "5"), 2, "--nn"),
        (("cafe",), 3, "no generator 'cafe'"),
        (("--bank", "cafe"), 3, "no bank 'cafe'"),
        (("--imbalance", "10"), 3, "no finished generator.*stylegan-mix train"),
        (("--dataset", "digitslt"), 2, "digits_lt"),
        (("--dataset", "cifar10_lt"), 4, "not prepared"),
    ],
)
def test_what_cannot_be_is_said_with_its_code(
    generator: Published, run: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = run("metrics", *words)
    assert (ended, out) == (code, ""), err
    assert re.search(message, err.replace("\n", " ")), err
    assert "Traceback" not in err


def test_a_generator_of_another_split_is_refused(generator: Published, run: Run) -> None:
    for words in (("--imbalance", "10"), ("--split-seed", "1")):
        code, _, err = run("metrics", generator.hash, *words)
        assert code == 3
        assert "comes from training split" in err


def test_a_training_part_that_is_the_balanced_one_has_no_other(
    generator: Published, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.errors import InvalidInput

    load = datasets.load

    def without(name: str, **draw: Any) -> Any:
        if draw.get("imbalance") == 1.0:
            raise InvalidInput("the source holds a part of it")
        return load(name, **draw)

    monkeypatch.setattr(datasets, "load", without)
    report = json.loads(run(*QUICK, "--json")[1])
    assert report["references"]["balanced"] == {"absent": "the source holds a part of it"}
    assert "no balanced: the source holds a part of it" in report["notes"]
    code, _, err = run(*QUICK, "--against", "balanced")
    assert code == 3
    assert "nothing to compare with" in err
