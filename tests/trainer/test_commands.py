"""The command line of `trainer` from end to end, on real digits and in miniature."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix import console, store
from trainer import cli
from trainer.reports import records

TINY = ("--epochs", "2", "--bn-refresh-batches", "1", "--dataset", "digits_lt")
Trainer = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one run has finished; tests work on copies."""
    folder = tmp_path_factory.mktemp("made")
    before, kept = Path.cwd(), os.environ.get("STYLEGAN_MIX_HOME")
    os.environ["STYLEGAN_MIX_HOME"] = str(folder / "home")
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as end:
            console.main(cli.group, "trainer", ["run", *TINY])
        assert end.value.code == 0
    finally:
        os.chdir(before)
        if kept is None:
            del os.environ["STYLEGAN_MIX_HOME"]
        else:
            os.environ["STYLEGAN_MIX_HOME"] = kept
    return folder


@pytest.fixture
def finished(made: Path, home: Path) -> Path:
    """The folder of a finished run in a working directory of its own."""
    shutil.copytree(made / "runs", "runs")
    return only_run()


def only_run() -> Path:
    (found,) = Path("runs").glob("*/seed-*")
    return found


def test_every_command_has_help(trainer: Trainer) -> None:
    for name in cli.group.list_commands(None):  # type: ignore[arg-type]
        code, out, _ = trainer(name, "--help")
        assert code == 0 and out.startswith("Usage: trainer")


def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "trainer", "recipes", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("Usage: trainer recipes")


def test_an_unknown_command_names_the_nearest(trainer: Trainer) -> None:
    code, _, err = trainer("rnu")
    assert code == 2 and "did you mean 'run'" in err


def test_several_seeds_give_a_line_each_and_their_mean(home: Path, trainer: Trainer) -> None:
    code, out, err = trainer("run", *TINY, "--seeds", "2")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[3:5] for line in lines] == [
        ["seed", "n"],
        ["0", "1"],
        ["1", "1"],
        ["all", "2"],
    ]
    assert "±" in lines[3]
    assert err.splitlines()[0] == "data set digits_lt: as asked"


def test_a_finished_run_is_printed_again_without_torch(finished: Path, trainer: Trainer) -> None:
    out = trainer("run", *TINY)[1]
    code = (
        "import sys\nfrom stylegan_mix import console\nfrom trainer.cli import group\n"
        f"try:\n    console.main(group, 'trainer', ['run', *{TINY!r}])\n"
        "finally:\n    assert 'torch' not in sys.modules\n"
    )
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=with_package()
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout == out
    assert "finished before" in again.stderr


def with_package() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}


def test_the_first_line_says_which_data_set_and_why(home: Path, trainer: Trainer) -> None:
    code, _, err = trainer("run", "--epochs", "1", "--bn-refresh-batches", "1")
    assert code == 0
    first = err.splitlines()[0]
    assert first == "data set digits_lt: there is no bank yet, and it is built in"


def test_an_arm_with_a_bank_runs_as_typed(bank: Any, trainer: Trainer) -> None:
    key = bank()
    code, out, err = trainer(
        "run", "--aug", "hybrid", "--epochs", "2", "--bn-refresh-batches", "1", "--json"
    )
    assert code == 0
    (row,) = json.loads(out)["tables"][0]["rows"]
    assert (row["arm"], row["bank"]["key"]) == ("hybrid", key)
    assert f"that of the newest bank, {key[:12]}" in err.splitlines()[0]


def test_the_newest_bank_decides_the_split_of_the_command_line_too(
    bank: Any, trainer: Trainer
) -> None:
    bank(name="older")
    key = bank(name="newest", split_seed=3)
    _, out, err = trainer("run", "--aug", "hybrid", "--dry-run")
    assert f"bank {key[:12]}: the newest" in err
    (command,) = (line for line in out.splitlines() if line.startswith("command"))
    assert f"--split-seed 3 --aug hybrid --model resnet8 --bank {key[:12]}" in command
    assert "None" not in command
    assert "command" in out and "--split-seed" not in trainer("run", *TINY, "--dry-run")[1]
    _, out, _ = trainer("run", "--split-seed", "0", "--dry-run", "--json")
    assert json.loads(out)["run"]["data"]["split_seed"] == 0


def test_one_config_file_serves_runs_that_read_it_and_others(
    home: Path, trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text('dataset = "digits_lt"\nalpha = 0.5\nviews = 4\n')
    code, out, err = trainer("run", "--config", "run.toml", "--aug", "mixup", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["run"]["alpha"] == 0.5
    assert "left out: views = 4 of the file, which this run does not read" in err
    assert "alpha" not in err
    code, out, err = trainer("run", "--config", "run.toml", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["run"]["alpha"] == 1.0
    assert "left out: alpha = 0.5 of the file" in err
    assert trainer("run", "--config", "run.toml", "--alpha", "0.5", "--dry-run")[0] == 2


def test_config_file_and_flags_are_resolved_and_saved(home: Path, trainer: Trainer) -> None:
    Path("run.toml").write_text('dataset = "digits_lt"\nepochs = 9\nlr = 1e-2\n')
    code, _, _ = trainer(
        "run", "--config", "run.toml", "--epochs", "1", "--bn-refresh-batches", "1"
    )
    assert code == 0
    saved = store.read_json(only_run() / "config.resolved.json")
    assert (saved["values"]["epochs"], saved["values"]["lr"]) == (1, 0.01)
    assert (saved["sources"]["epochs"], saved["sources"]["lr"]) == ("flag", "file")
    assert saved["sources"]["momentum"] == "default"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--eopchs", "2"), 2, "--epochs"),
        (("--epochs", "many"), 2, "many"),
        (("--epochs", "0"), 2, "epochs must be a number in [1, 100,000], got 0"),
        (("--aug", "hybird"), 2, "did you mean 'hybrid'"),
        (("--recipe", "cee"), 2, "did you mean 'ce'"),
        (("--model", "resnet9"), 2, "did you mean 'resnet8'"),
        (("--dataset", "digits"), 2, "digits_lt"),
        (("--batch", "1"), 2, "batch"),
        (("--aug", "bank"), 3, "stylegan-mix generate --dataset digits_lt"),
        (("--aug", "bank", "--bank", "abc123"), 3, "no bank 'abc123'"),
        (("--bank", "w"), 2, "reads no bank"),
        (("--recipe", "kd", "--teacher", "nowhere"), 3, "nowhere"),
        (("--teacher", "nowhere"), 2, "recipe ce reads no teacher"),
        (("--alpha", "0.5"), 2, "--aug none reads no alpha"),
        (("--device", "cuda:99"), 4, "CUDA"),
        (("--device", "tpu"), 2, "--device must be auto, cpu, cuda or cuda:<index>, got 'tpu'"),
        (("--name", "../elsewhere"), 2, "--name must name a folder"),
        (("--config", "nowhere.toml"), 2, "cannot read configuration file"),
        (("--seeds", "0"), 2, "--seeds must be at least 1"),
    ],
)
def test_what_cannot_be_run_ends_with_its_code(
    home: Path, trainer: Trainer, arguments: tuple[str, ...], code: int, told: str
) -> None:
    if arguments[0] == "--device":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA devices")
    given = ("--dataset", "digits_lt") if "--dataset" not in arguments else ()
    found, out, err = trainer("run", *given, *arguments)
    assert (found, out) == (code, "")
    assert told in err and "Traceback" not in err


def test_a_dry_run_prints_the_cost_and_leaves_nothing(home: Path, trainer: Trainer) -> None:
    code, out, _ = trainer("run", *TINY, "--recipe", "crt", "--dry-run")
    assert code == 0
    for told in ("steps ", "images ", "time ", "disk ", "bank        none needed", "1 of 1 seeds"):
        assert told in out
    assert "train 6, head 3" in out
    assert not Path("runs").exists()


def test_a_dry_run_as_json_counts_what_is_open(finished: Path, trainer: Trainer) -> None:
    code, out, _ = trainer("run", *TINY, "--seeds", "3", "--dry-run", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["seeds"], found["open_seeds"]) == ([0, 1, 2], [1, 2])
    assert found["cost"]["steps"] == 6 and found["run"]["epochs"] == 2
    low, high = found["cost"]["seconds"]
    assert 0 <= low <= high and len(found["total_seconds"]) == 2


def test_another_run_in_a_named_folder_is_refused(home: Path, trainer: Trainer) -> None:
    assert trainer("run", *TINY, "--name", "mine")[0] == 0
    code, _, err = trainer("run", *TINY, "--name", "mine", "--lr", "0.05")
    assert code == 2
    assert "lr: 0.1 there, 0.05 here" in err and "--name" in err


def test_a_run_that_another_process_works_on_is_75(finished: Path, trainer: Trainer) -> None:
    (only_run() / "result.json").unlink()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom stylegan_mix import store\n"
        "with store.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n"
        "    time.sleep(3600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(only_run() / "lock")],
        stdout=subprocess.PIPE,
        env=with_package(),
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        found, _, err = trainer("run", *TINY)
        holder.kill()
    assert found == 75 and f"{only_run()} is being worked on by process {holder.pid}" in err


def test_a_run_left_by_a_dead_process_is_taken_over_with_a_notice(
    finished: Path, trainer: Trainer
) -> None:
    folder, (_, out, _) = finished, trainer("run", *TINY)
    (folder / "result.json").unlink()
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    note = store.read_json(folder / "run.json")
    store.write_json(folder / "run.json", {**note, "status": "running", "process": gone.pid})
    code, again, err = trainer("run", *TINY)
    assert (code, again) == (0, out)
    assert f"process {gone.pid} is gone; going on" in err


# Once an epoch is over it waits for the signal, however fast the machine.
HELD = """
import time
from pathlib import Path
import torch
step = torch.optim.SGD.step
def held(*words, **more):
    while any(file.stat().st_size for file in Path().glob("runs/*/seed-0/metrics.jsonl")):
        if Path("signalled").exists():
            break
        time.sleep(0.01)
    return step(*words, **more)
torch.optim.SGD.step = held
"""


def started(*argv: str, before: str = "") -> subprocess.Popen[str]:
    code = f"{before}\nfrom trainer.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=with_package(),
    )


def wait_for(path: str) -> None:
    end = time.monotonic() + 600
    while not any(file.stat().st_size for file in Path().glob(path)):
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


def test_a_full_disk_is_told_before_the_first_step_with_the_option_that_helps(
    home: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.parent)
    with monkeypatch.context() as during:
        during.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        during.setattr(torch.optim.SGD, "step", None)  # not called
        code, _, err = trainer("run", *TINY, "--out", "elsewhere")
    assert code == 4
    assert "the run in elsewhere/" in err and "1 MB are free" in err
    assert "free some space, or choose another place with --out" in err
    (folder,) = Path("elsewhere").glob("*/seed-*")
    assert store.read_json(folder / "run.json")["status"] == "failed"
    assert trainer("run", *TINY, "--out", "elsewhere")[0] == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGQUIT, 75)]
)
def test_a_signal_saves_and_the_same_command_goes_on(
    home: Path, trainer: Trainer, number: signal.Signals, code: int
) -> None:
    tiny = ("--epochs", "4", "--bn-refresh-batches", "1", "--dataset", "digits_lt")
    long = (*tiny, "--threads", "1")  # sums over rows depend on the number of threads
    with started("run", *long, before=HELD) as child:
        wait_for("runs/*/seed-0/metrics.jsonl")
        child.send_signal(number)
        Path("signalled").touch()
        _, err = child.communicate(timeout=600)
    assert child.returncode == code, err
    assert "run the same command to go on" in err
    assert store.read_json(only_run() / "run.json")["status"] == "stopped"
    for more in ((), ("--out", "undisturbed")):
        ended, _, err = trainer("run", *long, *more)
        assert ended == 0, err
    (whole,) = records.collect([Path("runs")])
    (other,) = records.collect([Path("undisturbed")])
    assert whole.record["accuracy"] == other.record["accuracy"]
    assert whole.record["diagnostics"] == other.record["diagnostics"]


def on_a_terminal(*argv: str) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a command on a terminal of its own; returns it, and the other end of the terminal."""
    ours, theirs = os.openpty()
    take = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{take}\n{HELD}\nfrom trainer.cli import main\nmain()", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=with_package(),
        start_new_session=True,
    )
    os.close(theirs)
    return child, ours


def test_a_closed_terminal_saves(home: Path) -> None:
    """It sends SIGHUP, and takes no more lines."""
    child, terminal = on_a_terminal("run", *TINY)
    try:
        wait_for("runs/*/seed-0/metrics.jsonl")
        os.close(terminal)
        Path("signalled").touch()
        assert child.wait(timeout=600) == 75
    finally:
        child.kill()
        child.wait()
    assert store.read_json(only_run() / "run.json")["status"] == "stopped"


def test_a_run_under_nohup_ignores_a_hangup(home: Path, trainer: Trainer) -> None:
    ignored = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{HELD}"
    with started("run", *TINY, before=ignored) as child:
        wait_for("runs/*/seed-0/metrics.jsonl")
        child.send_signal(signal.SIGHUP)
        Path("signalled").touch()
        _, err = child.communicate(timeout=600)
    assert child.returncode == 0, err


def test_a_reader_that_leaves_is_no_error(finished: Path, trainer: Trainer) -> None:
    with started("report", "--json") as child:
        assert child.stdout is not None
        child.stdout.close()
        err = child.stderr.read() if child.stderr else ""
        child.wait(timeout=600)
    assert child.returncode == 0 and err == ""


def test_eval_finds_what_the_run_found(finished: Path, trainer: Trainer) -> None:
    code, out, _ = trainer("eval", str(only_run()), "--json")
    found = json.loads(out)
    assert code == 0 and found["same"] is True
    code, out, err = trainer("eval", str(only_run().parent))
    assert code == 0 and out.startswith("overall (images)") and "the same" in err
    assert out.splitlines()[1].startswith("balanced (10 classes)")
    code, out, _ = trainer("eval", str(only_run()), "--groups", "50,6", "--json")
    regrouped = json.loads(out)
    assert code == 0 and regrouped["same"] is True
    assert regrouped["groups"]["few"] == [9]
    assert regrouped["accuracy"]["few"] == found["accuracy"]["per_class"][9]
    assert found["accuracy"]["balanced"] == pytest.approx(found["accuracy"]["overall"])


def test_a_run_keeps_the_mean_over_classes(finished: Path, trainer: Trainer) -> None:
    result = records.read(only_run() / "result.json")
    assert result.record["accuracy"]["balanced"] == pytest.approx(result.accuracy("balanced"))
    rows = list(csv.DictReader(io.StringIO((only_run() / "summary.csv").read_text())))
    assert float(rows[-1]["balanced"]) == result.record["accuracy"]["balanced"]
    assert result.record["history"][-1]["balanced"] == result.record["accuracy"]["balanced"]


def test_predictions_are_the_answers_behind_the_accuracy(finished: Path, trainer: Trainer) -> None:
    code, _, _ = trainer("predict", str(only_run()), "--out", "answers.csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(Path("answers.csv").read_text())))
    right = 100 * np.mean([row["label"] == row["prediction"] for row in rows])
    result = records.read(only_run() / "result.json")
    assert right == pytest.approx(result.accuracy("overall"))
    assert [row["index"] for row in rows] == [str(index) for index in range(740)]
    for row in rows[:20]:
        shares = [float(row[f"p:{name}"]) for name in result.dataset["classes"]]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert int(np.argmax(shares)) == int(row["prediction"])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--part", "tset"), 2, "no part 'tset'"),
        (("--part", "val"), 2, "no validation part"),
        (("--imbalance", "10"), 2, "needs --dataset"),
    ],
)
def test_predict_refuses_what_is_not_there(
    finished: Path, trainer: Trainer, arguments: tuple[str, ...], code: int, told: str
) -> None:
    found, _, err = trainer("predict", str(finished), *arguments)
    assert found == code and told in err


def test_predictions_go_through_a_link_with_their_file_kept_private(
    finished: Path, trainer: Trainer
) -> None:
    target = Path("private.csv")
    target.touch(0o600)
    Path("link.csv").symlink_to(target)
    assert trainer("predict", str(finished), "--out", "link.csv")[0] == 0
    assert target.read_text().startswith("index,")
    assert (Path("link.csv").is_symlink(), target.stat().st_mode & 0o777) == (True, 0o600)


def test_predict_asks_for_the_place_of_its_answers_first(
    finished: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import predict

    monkeypatch.setattr(predict, "answers", None)  # not called
    Path("folder").mkdir()
    code, _, err = trainer("predict", str(finished), "--out", "folder")
    assert (code, "nothing can be written to folder" in err) == (2, True), err


def test_predict_and_eval_need_a_finished_run(home: Path, trainer: Trainer) -> None:
    for command in ("predict", "eval"):
        code, _, err = trainer(command, "nowhere")
        assert code == 3 and "no finished run in nowhere" in err


def test_votes_are_listed_once_they_are_collected(home: Path, trainer: Trainer) -> None:
    code, out, err = trainer("queries")
    assert (code, out) == (0, "") and "no votes" in err
    assert trainer("run", *TINY, "--recipe", "patched-one-hot", "--views", "4")[0] == 0
    code, out, _ = trainer("queries", "--json")
    (found,) = json.loads(out)
    assert (found["images"], found["facts"]["views"]["views"]) == (335, 4)
    assert "335 images x 4 views" in trainer("queries")[1]


def test_recipes_are_listed_from_what_runs_use(trainer: Trainer) -> None:
    from trainer.recipes.catalogue import RECIPES

    code, out, _ = trainer("recipes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(RECIPES)
    code, out, _ = trainer("recipes", "--json")
    assert [one["name"] for one in json.loads(out)] == list(RECIPES)


def test_doctor_tells_of_machine_and_banks(bank: Any, trainer: Trainer) -> None:
    key = bank()
    code, out, _ = trainer("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert key[:12] in found["banks"] and "can be written" in found["runs"]
