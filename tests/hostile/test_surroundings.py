"""Commands in odd surroundings: locales, no home, long paths, compilers, torchrun, full disks."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from targets import command, image_folder

from stylegan_mix import surroundings

LONG = "n" * 300
PYTHON = [sys.executable, "-m"]


def started(*words: object, repo_root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process with only these variables."""
    known = {name: os.environ[name] for name in ("PATH", "STYLEGAN_MIX_HOME") if name in os.environ}
    return subprocess.run(
        [*PYTHON, *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={"PYTHONPATH": str(repo_root), **known, **variables},
        check=False,
    )


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C.UTF-8"},
    ],
)
def test_names_in_any_script_are_read_in_any_locale(
    locale: dict[str, str], home: Path, repo_root: Path
) -> None:
    source = image_folder(home.parent / "Bilder-\u00fc")
    for part in ("train", "test"):
        (source / part / "ant").rename(source / part / "\u4e2d\u6587-k\u00e4fer")
    words = ("stylegan_mix", "dataset", "prepare", "tiny", "--from", source)
    done = started(*words, repo_root=repo_root, **locale)
    assert done.returncode == 0, done.stderr
    shown = started(
        "stylegan_mix", "dataset", "show", "tiny", "--json", repo_root=repo_root, **locale
    )
    assert shown.returncode == 0, shown.stderr
    assert "\u4e2d\u6587-k\u00e4fer" in json.loads(shown.stdout)["classes"]
    sheet = home.parent / "\u00fc.png"
    words = ("stylegan_mix", "dataset", "show", "tiny", "--out", sheet)
    assert started(*words, repo_root=repo_root, **locale).returncode == 0
    assert sheet.exists()


def test_without_a_home_folder_the_store_must_be_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nobody(_: object) -> Any:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "STYLEGAN_MIX_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    commands = [
        ("stylegan_mix", "bank", "list"),
        ("stylegan_mix", "generators", "list"),
        ("stylegan_mix", "dataset", "list"),
        ("stylegan_mix", "dataset", "prepare", "x", "--from", tmp_path),
        ("stylegan_mix", "generate", "--dataset", "digits_lt"),
        ("trainer", "queries"),
        ("trainer", "run", "--aug", "hybrid", "--dry-run"),
    ]
    for package, *words in commands:
        told = command(*words, package=package)
        assert told.startswith("4 "), told
        assert "STYLEGAN_MIX_HOME" in told
    monkeypatch.setenv("STYLEGAN_MIX_HOME", "~/store")
    assert command("bank", "list").startswith("4 ")
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path))
    assert command("bank", "list").startswith("0 ")
    assert command("bank", "show", "~no-such-user/x").startswith("4 ")


@pytest.mark.parametrize("place", [LONG, f"{LONG}/x", "/" + "d/" * 3000 + "x"])
def test_a_path_that_is_too_long_is_refused(place: str, home: Path) -> None:
    Path("sweep.toml").write_text('[base]\ndataset = "digits_lt"\n[[runs]]\naug = "none"\n')
    commands = [
        ("stylegan_mix", "dataset", "prepare", "x", "--from", place),
        ("stylegan_mix", "dataset", "show", place, "--no-sheet"),
        ("stylegan_mix", "dataset", "show", "digits_lt", "--out", place),
        ("stylegan_mix", "train", "--dataset", place, "--dry-run"),
        ("stylegan_mix", "train", "--config", place),
        ("stylegan_mix", "train", "--dataset", "digits_lt", "--dry-run", "--progress", place),
        ("stylegan_mix", "bank", "show", place),
        ("stylegan_mix", "generators", "show", place),
        ("stylegan_mix", "generate", "--generator", place),
        ("stylegan_mix", "import-generator", place),
        ("stylegan_mix", "metrics", place),
        ("trainer", "run", "--teacher", place, "--dry-run"),
        ("trainer", "run", "--aug", "hybrid", "--bank", place, "--dry-run"),
        ("trainer", "run", "--out", place, "--name", place, "--dry-run"),
        ("trainer", "sweep", place),
        ("trainer", "sweep", "sweep.toml", "--results", place, "--dry-run"),
        ("trainer", "report", place),
        ("trainer", "report", "--into", place),
        ("trainer", "compare", place, place),
        ("trainer", "eval", place),
        ("trainer", "predict", place),
    ]
    codes = {}
    for package, *words in commands:
        told = command(*words, package=package)
        codes[words[0], words[-1][:8]] = told[0]
        assert "a bug of ours" not in told
    assert set(codes.values()) <= {"0", "2", "3", "4"}


@pytest.mark.parametrize("name", ["HOME", "STYLEGAN_MIX_HOME"])
def test_a_store_at_a_path_that_is_too_long_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STYLEGAN_MIX_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(name, f"/{LONG}")
    for words in (("bank", "list"), ("generators", "list"), ("dataset", "list"), ("doctor",)):
        assert command(*words)[0] in "024"


@pytest.mark.parametrize(
    "printed", [b"\xff\xfe\xfd 1.0\n", b"\x00\x1b[31mg++\n", b"\n\n", "g++ \u2028 1\n".encode()]
)
def test_a_compiler_that_prints_other_bytes_falls_back(
    printed: bytes, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels import toolchain
    from kernels.errors import NativeUnavailable

    (tmp_path / "said").write_bytes(printed)
    script = tmp_path / "c++"
    script.write_text(
        f'#!/bin/sh\ncat {tmp_path}/said\ncase "$1" in --version) ;; *) exit 1 ;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    target = toolchain.target_for("cpu")
    assert toolchain.find(target).version.isprintable()
    from kernels import build

    with pytest.raises(NativeUnavailable, match="could not compile"):
        build.build(target, tmp_path / "kernels", tell=lambda _: None)


@pytest.mark.parametrize(
    "words",
    [
        "trainer run --dataset digits_lt --epochs 1",
        "stylegan_mix train --dataset digits_lt --kimg 1",
        "stylegan_mix dataset show digits_lt",
    ],
)
def test_in_a_folder_that_was_removed_the_message_says_so(
    words: str, tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else MKL ends a process that computes, with a message about its own library."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = started(*words.split(), repo_root=repo_root, STYLEGAN_MIX_HOME="store")
    assert done.returncode == 4, done.stderr
    assert "the folder in which this command was started is not there any more" in done.stderr


# --------------------------------------------------------------------- several processes


@pytest.mark.parametrize(
    "words",
    ["train --dataset nothing", "train --no-such-option", "bank show nothing", "nonsense"],
)
def test_a_refusal_is_printed_by_one_process_of_torchrun(
    words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended() -> None:
        raise SystemExit(4)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(surroundings, "await_end", ended)
    told = {}
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("RANK", rank)
        told[rank] = command(*words.split())
    assert told["1"] == told["2"] == "4 ", "nothing is printed before torchrun ends them"
    assert told["0"][0] in "23"
    assert len(told["0"]) > 10


_LATE = """
import os, sys, time

if os.environ["RANK"] == "0":
    time.sleep(4)
from stylegan_mix import cli
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("train --dataset nothing", 2, "no data set 'nothing'"),
        ("train --batch few", 2, "Invalid value for '--batch'"),
        ("train --seed 1 --config absent.toml", 2, "absent.toml"),
        ("train --device cuda", 4, "CUDA"),
    ],
)
def test_torchrun_prints_a_refusal_once_even_if_its_first_process_is_the_last(
    words: str, code: int, said: str, home: Path, tmp_path: Path, repo_root: Path
) -> None:
    script = tmp_path / "late.py"
    script.write_text(_LATE)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", script)
    done = started(
        *launcher, *words.split(), repo_root=repo_root, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"
    )
    assert done.returncode == 1, done.stderr  # torchrun's own
    assert done.stderr.count(said) == 1, done.stderr
    _, _, cause = done.stderr.partition("Root Cause")
    assert re.search(rf"rank +: 0 .*\n +exitcode +: {code} ", cause), done.stderr


def test_a_refusal_that_the_first_process_does_not_meet_is_printed_in_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(surroundings, "_PATIENCE", 0)
    assert "no data set 'nothing'" in command("train", "--dataset", "nothing")


def test_a_failure_of_one_process_is_printed_by_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.world import joined

    names = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}
    for name, value in {**names, "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("stylegan_mix.world.end_with_parent", lambda: None)
    monkeypatch.setattr("stylegan_mix.world._meeting", refuse)
    monkeypatch.setattr("stylegan_mix.banks.store.find", lambda **_: joined("cpu").__enter__())
    told = command("bank", "list")
    assert told.startswith("4 stylegan-mix: process 1 of 2 could not join the others")


def refuse(*_: object) -> Any:
    raise RuntimeError("nobody answers")


@pytest.mark.parametrize("verb", ["generate", "metrics"])
def test_options_of_torchrun_and_ours_do_not_clash(verb: str, capsys: Any) -> None:
    """torchrun takes `--n` as a beginning of its own options, also behind our command."""
    from torch.distributed.run import get_args_parser

    start = ["--nproc-per-node", "2", "-m", "stylegan_mix", verb]
    taken = get_args_parser().parse_args([*start, "--num-images", "5"]).training_script_args
    assert taken == [verb, "--num-images", "5"]
    with pytest.raises(SystemExit):
        get_args_parser().parse_args([*start, "--n", "5"])
    assert "ambiguous" in capsys.readouterr().err
    assert "--num-images" in command(verb, "--help")


def test_every_option_has_a_name_that_torchrun_leaves_alone() -> None:
    from test_numbers import found
    from torch.distributed.run import get_args_parser

    parser: Any = get_args_parser()
    for words in (
        "stylegan_mix train",
        "stylegan_mix generate",
        "stylegan_mix metrics",
        "trainer run",
    ):
        for option in found(words).params:
            names = [name for name in getattr(option, "opts", ()) if name.startswith("--")]
            alike = [len(parser._get_option_tuples(name)) for name in names]
            assert not names or min(alike) < 2, names


# --------------------------------------------------------------------- full disks


def test_no_cut_picture_stays_on_a_full_disk(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from stylegan_mix import datasets
    from stylegan_mix.errors import MissingEnvironment
    from stylegan_mix.generators.class_grid import save_grid

    data = datasets.load("digits_lt")
    samples = {label: torch.zeros(3, 8, 8, 1, dtype=torch.uint8) for label in range(10)}
    path = tmp_path / "samples" / "a.png"
    save_grid(samples, data, path)
    whole = path.read_bytes()

    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingEnvironment, match="disk is full"):
        save_grid(samples, data, path)
    with pytest.raises(MissingEnvironment, match="disk is full"):
        save_grid(samples, data, path.with_name("b.png"))
    assert [one.name for one in path.parent.iterdir()] == ["a.png"]
    assert path.read_bytes() == whole
