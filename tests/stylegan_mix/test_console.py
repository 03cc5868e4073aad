"""The frame of every command: exit codes, options from files, signals, help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from stylegan_mix import console, errors, progress, stopping


def _group(body: object) -> click.Command:
    @click.command()
    @console.data_options
    @console.run_options
    @click.pass_context
    def command(ctx: click.Context, **options: object) -> None:
        if isinstance(body, BaseException):
            raise body
        console.print_json(console.resolved(ctx))

    return command


def _code(body: object, *arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        console.main(_group(body), "prog", list(arguments))
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, 0),
        (RuntimeError("ours"), 1),
        (errors.UsageFailure("u"), 2),
        (errors.InvalidInput("i"), 3),
        (errors.MissingEnvironment("e"), 4),
        (MemoryError(), 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9"), 4),
        (errors.Diverged("d"), 5),
        (errors.Stopped("s"), 75),
        (KeyboardInterrupt(), 130),
        (errors.Interrupted("t", int(signal.SIGTERM)), 143),
    ],
    ids=str,
)
def test_exit_codes(body: object, code: int) -> None:
    assert _code(body) == code


def test_an_error_says_what_and_what_next_and_a_traceback_only_on_demand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failure = errors.InvalidInput("bank.h5 was altered", remedy="write it again")
    _code(failure)
    said = capsys.readouterr().err
    assert said == "prog: bank.h5 was altered\n  write it again\n"
    _code(failure, "--debug")
    assert "Traceback" in capsys.readouterr().err


def test_a_misspelled_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert _code(None, "--datset", "x") == 2
    assert "--dataset" in capsys.readouterr().err


def test_values_come_from_flag_then_file_then_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfdataset = "cifar10_lt"\r\nsplit_seed = 3\r\n')
    assert _code(None, "--config", str(path), "--dataset", "digits_lt") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == {"value": "digits_lt", "source": "flag"}
    assert found["split_seed"] == {"value": 3, "source": "file"}
    assert found["seed"] == {"value": 0, "source": "default"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"datset = 'x'", "did you mean 'dataset'"),
        (b"seed = 1\nseed = 2", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"[seed]\na = 1", "must be a value"),
        (b"seed = 'many'", "run.toml: 'seed': 'many' is not a valid integer"),
        (b"seed = [1, 2]", "must be a value, got a list"),
        (b"seed = true", "run.toml: 'seed' must be integer, got True"),
        (b"seed = 2.5", "run.toml: 'seed' must be integer, got 2.5"),
        (b"dry_run = 1", "run.toml: 'dry_run' must be true or false, got 1"),
        (b"threads = 0", "run.toml: 'threads': 0 is not in the range 1<=x<=4096"),
        (b"profile = 'stap'", "run.toml: 'profile': 'stap' is not one of"),
    ],
    ids=[
        *("misspelled", "twice", "binary", "table", "type", "list", "truth"),
        *("fraction", "number", "range", "choice"),
    ],
)
def test_bad_configuration_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, expected: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text)
    assert _code(None, "--config", str(path)) == 2
    assert expected in capsys.readouterr().err


def test_numbers_of_every_kind_come_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    path = tmp_path / "run.toml"
    path.write_text('imbalance = 10\nseed = 3\nthreads = 2\ndebug = true\nprofile = "step"\n')
    assert _code(None, "--config", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    values = {name: found[name]["value"] for name in ("imbalance", "seed", "threads", "debug")}
    assert values == {"imbalance": 10.0, "seed": 3, "threads": 2, "debug": True}


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "much"])
def test_a_range_holds_finite_numbers_only(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @click.option("--kimg", type=console.FiniteRange(0, min_open=True))
    def command(kimg: float) -> None:
        console.result(repr(kimg))

    with pytest.raises(SystemExit) as end:
        console.main(command, "prog", ["--kimg", value])
    assert end.value.code == 2
    assert "'--kimg'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        console.main(command, "prog", ["--kimg", "2"])
    assert capsys.readouterr().out == "2.0\n"


_ODD_TEXT = """
import click
from stylegan_mix import console
@click.command()
@click.option("--json", "as_json", is_flag=True)
def command(as_json):
    console.say("d\\xf6g")
    console.print_json(["d\\xf6g"]) if as_json else console.result("93.5 \\xb1 1.3")
console.main(command, "prog")
"""


def _odd_text(shell: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, _ODD_TEXT],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=600,
    )


def test_where_only_ascii_can_be_printed_text_is_degraded_and_json_is_not() -> None:
    ended = _odd_text('"$1" -c "$2"')
    assert (ended.returncode, ended.stdout) == (0, b"93.5 ? 1.3\n")
    ended = _odd_text('"$1" -c "$2" --json')
    assert (ended.returncode, ended.stdout) == (0, b'[\n "d\\u00f6g"\n]\n')


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error_and_stderr_does_not_leak_into_stdout(closing: str) -> None:
    ended = _odd_text(f'"$1" -c "$2" --json {closing}')
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    assert b"g\n" not in ended.stdout


def test_a_full_disk_behind_stdout_is_error_4() -> None:
    ended = _odd_text('"$1" -c "$2" > /dev/full')
    assert ended.returncode == 4
    assert b"could not be printed: No space left" in ended.stderr
    assert b"Traceback" not in ended.stderr and b"Exception" not in ended.stderr


def test_a_missing_or_odd_configuration_file_is_a_usage_error(tmp_path: Path) -> None:
    assert _code(None, "--config", str(tmp_path / "none.toml")) == 2
    assert _code(None, "--config", str(tmp_path)) == 2


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    group = console.LazyGroup("prog", commands={"train": ("nowhere:at_all", "Train.")})
    with pytest.raises(SystemExit) as end:
        console.main(group, "prog", ["trian"])
    assert end.value.code == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT"])
def test_signals_only_ask_and_the_failure_fits(name: str) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with stopping.StopSignals() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested == name
        assert stop.failure(saved=True, what="at step 3").code == 75
        unsaved = stop.failure(saved=False, what="at step 3")
        assert isinstance(unsaved, errors.Interrupted)
        assert unsaved.number == number
    assert signal.getsignal(number) == before


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_interrupt_acts_at_once() -> None:
    with stopping.StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(stop.failure(saved=True, what=""), errors.Interrupted)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_time_limit_asks_for_a_stop() -> None:
    with stopping.StopSignals(minutes=0.0005) as stop:
        time.sleep(0.05)
        assert stop.requested == "minutes"
        assert stop.failure(saved=True, what="").code == 75


def test_a_reader_that_leaves_is_no_error(repo_root: Path) -> None:
    script = (
        "from stylegan_mix import console\n"
        "import click\n"
        "@click.command()\n"
        "def many():\n"
        "    for n in range(100000): console.result('line')\n"
        "console.main(many, 'prog', [])\n"
    )
    command = f'{sys.executable} -c "$SCRIPT" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "SCRIPT": script},
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "line\n", "")


def test_lines_that_nobody_can_read_do_not_stop_the_work(repo_root: Path) -> None:
    script = (
        "from stylegan_mix.progress import TERMINAL, say\n"
        "say('one'); say('two')\n"
        "track = TERMINAL.track(2, 'rows', 'work'); track._terminal = True\n"
        "track.update(1); track.close()\n"
        "print('done')\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=repo_root, stdout=subprocess.PIPE, stderr=full
        )
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize("words", ["[]", "['--debug']"])
def test_a_failure_that_nobody_can_read_has_its_exit_code(repo_root: Path, words: str) -> None:
    script = (
        "from stylegan_mix import console, errors\n"
        "import click\n"
        "@click.command()\n"
        "@console.debug_option\n"
        "def stops(): raise errors.Stopped('stopped')\n"
        f"console.main(stops, 'prog', {words})\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", script], cwd=repo_root, stderr=full)
    assert done.returncode == 75


def test_progress_is_quiet_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress.Progress(10, "rows", "writing")
    for done in range(11):
        bar.update(done)
    bar.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0303, "0.0303"), (1.66, "1.66"), (108.4, "108"), (12345.6, "12,346")]
)
def test_progress_shows_three_digits_or_all_before_the_point(
    capsys: pytest.CaptureFixture[str], number: float, shown: str
) -> None:
    bar = progress.Progress(number, "kimg", "training")
    bar._next = 0.0
    bar.update(number)
    assert f"training: {shown} of {shown} kimg, " in capsys.readouterr().err


def test_an_option_that_takes_a_boolean_is_one_in_a_file_too() -> None:
    option = click.Option(["--merged-r1"], type=bool)
    context = click.Context(click.Command("train"))
    assert console._typed(True, option, context, "file") is True
    with pytest.raises(errors.UsageFailure, match="must be true or false, got 'yes'"):
        console._typed("yes", option, context, "file")
