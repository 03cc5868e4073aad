"""The border between a command line and the code: options, configuration files, results, exits.

`main` ends the process with the exit code of a failure (see `errors`). 130 is SIGINT and 143
SIGTERM without a saved state.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from stylegan_mix import columns, reading, surroundings
from stylegan_mix.errors import (
    Failure,
    Interrupted,
    MissingEnvironment,
    UsageFailure,
    is_out_of_memory,
    nearest,
)
from stylegan_mix.progress import say
from stylegan_mix.showing import printable

__all__ = [
    "DEFAULT_DATASET",
    "SEED",
    "THREADS",
    "FiniteRange",
    "Group",
    "LazyGroup",
    "age",
    "as_json",
    "as_typed",
    "data_options",
    "debug_option",
    "groups_option",
    "json_option",
    "main",
    "print_findings",
    "print_json",
    "print_table",
    "progress_option",
    "read_toml",
    "resolved",
    "result",
    "run_options",
]

DEFAULT_DATASET = "digits_lt"
"""The data set of a command that names none: built in, and trained on in minutes."""

Command = TypeVar("Command", bound=Callable[..., Any])


def result(text: str) -> None:
    """Prints a line of the result (stdout), without acting on the terminal (`printable`)."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        # click would end the process with code 1.
        raise _ReaderLeft from None
    except OSError as error:
        raise MissingEnvironment(f"the result could not be printed: {error.strerror}") from error


class _ReaderLeft(Exception):
    """The end of the reader of our output (`| head`), which is no error."""


def print_json(data: Any) -> None:
    """Prints plain data as JSON on stdout."""
    result(as_json(data))


def as_json(data: Any) -> str:
    """Renders plain data as readable JSON; letters that stdout cannot show are escaped."""
    shows_all = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=not shows_all)
    if printable(text) == text:
        return text
    return json.dumps(data, indent=1, allow_nan=False).replace("\x7f", "\\u007f")


def print_findings(findings: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints a doctor's findings, name by name."""
    if as_json:
        print_json(dict(findings))
        return
    for name, value in findings.items():
        result(f"{columns.padded(name, 12)} {value}")


def print_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Prints cells in aligned columns; those numbered in `right` are aligned to the right."""
    for line in columns.aligned(rows, right=right):
        result(line)


def age(seconds: float) -> str:
    """Formats an age in the largest unit that it holds twice."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


# Running a command


class Group(click.Group):
    """A group that answers an unknown command with the nearest name and all known ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands are imported when they run, so that help answers at once.

    `commands` maps a name to (``"package.module:attribute"``, one line of help), in the order of
    the story.
    """

    def __init__(
        self, name: str, *, commands: Mapping[str, tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(name, **kwargs)
        self._lazy = dict(commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, attribute = self._lazy[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])


def main(group: click.Command, prog: str, argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line and ends the process with its exit code."""
    if argv is None:
        surroundings.in_utf8()
    _settle_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = _run(group, prog, arguments)
    try:
        sys.stdout.flush()
    except OSError:  # reported already, or nobody reads
        _close_stdout()
    sys.exit(code)


def _settle_streams() -> None:
    """Makes both streams accept any text in any locale, even if they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _run(group: click.Command, prog: str, arguments: list[str]) -> int:
    try:
        if "--help" not in arguments:
            surroundings.require_working_folder()
        group.main(arguments, prog_name=prog, standalone_mode=False)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        if surroundings.is_told_elsewhere(error.exit_code):
            surroundings.await_end()
        told = io.StringIO()
        error.show(told)
        say(told.getvalue().rstrip("\n"))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130
    except _ReaderLeft:
        _close_stdout()
        return 0
    except Failure as error:
        _explain(error, prog, "--debug" in arguments)
        return 128 + error.number if isinstance(error, Interrupted) else error.code
    except OSError as error:
        failure = surroundings.as_failure(error)
        _explain(failure, prog, "--debug" in arguments)
        return failure.code
    except Exception as error:  # noqa: BLE001  (the one place where our bugs end)
        return _unexpected(error, prog, "--debug" in arguments)


def _unexpected(error: Exception, prog: str, debug: bool) -> int:
    if is_out_of_memory(error):
        say(f"{prog}: out of memory\n  try a smaller batch, or fewer processes side by side")
        return MissingEnvironment.code
    say(f"{prog}: a bug of ours: {type(error).__name__}: {error}")
    if debug:
        say(traceback.format_exc().rstrip())
    else:
        say("  run the same command with --debug for the traceback, and please report it")
    return 1


def _explain(error: Failure, prog: str, debug: bool) -> None:
    if debug:
        say(traceback.format_exc().rstrip())
    elif surroundings.is_told_elsewhere(error.code, of_one_process=error.of_one_process):
        surroundings.await_end()
    say(f"{prog}: {error}")
    if error.remedy:
        say(f"  {error.remedy}")


def _close_stdout() -> None:
    # Without this, Python complains at exit that it cannot flush.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Options


class FiniteRange(click.FloatRange):
    """A number within bounds, as `click.FloatRange`; neither NaN nor infinity is one."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def as_typed(value: object) -> str:
    """Formats a value as a user types it: a number exactly, without a needless ".0"."""
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)


SEED = click.IntRange(-(2**63), 2**63 - 1)
THREADS = click.IntRange(1, 4096)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
progress_option = click.option(
    "--progress",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Append the progress to FILE too, one JSON object a line.",
)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Print tracebacks.")


groups_option = click.option(
    "--groups",
    metavar="RULE",
    help="Shot groups: thresholds (100,20), sizes by rank (3/4/3) or index.  [default: the run's]",
)


def data_options(command: Command, *, default: str = "") -> Command:
    """Adds the options of a data set, with its `default` in words, and its long-tailed split."""
    usual = f"  [default: {default}]" if default else ""
    for option in reversed(
        [
            click.option("--dataset", metavar="NAME", help=f"Data set, such as cifar10_lt.{usual}"),
            click.option(
                "--imbalance", type=float, metavar="FACTOR", help="Largest over smallest class."
            ),
            click.option(
                "--profile",
                type=click.Choice(["exp", "step", "natural"]),
                help="Profile of class sizes.",
            ),
            click.option("--split-seed", type=int, help="Seed of the draw.  [default: 0]"),
        ]
    ):
        command = option(command)
    return command


def run_options(command: Command) -> Command:
    """Adds the options of every command that computes."""
    for option in reversed(
        [
            click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
            click.option("--threads", type=THREADS, help="CPU threads."),
            click.option(
                "--seed",
                type=SEED,
                default=0,
                show_default=True,
                help="Random seed.",
            ),
            click.option(
                "--config",
                type=click.Path(path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_read_config,
                help="TOML file with values for these options.",
            ),
            click.option("--dry-run", is_flag=True, help="Print plan and cost, then stop."),
            json_option,
            click.option("--debug", is_flag=True, help="Print tracebacks."),
        ]
    ):
        command = option(command)
    return command


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    values = read_toml(path, "configuration file")
    options = {
        name.lstrip("-"): parameter
        for parameter in ctx.command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--") and parameter.name not in ("config", "help")
    }
    defaults: dict[str, Any] = {}
    named: dict[str, str] = {}
    for key, value in values.items():
        name = key.replace("_", "-")
        if name not in options:
            raise UsageFailure(f"{path}: no option '{key}'{nearest(name, options)}")
        parameter = options[name]
        other = named.setdefault(str(parameter.name), key)
        if other != key:
            raise UsageFailure(f"{path}: '{other}' and '{key}' are one option: leave one out")
        defaults[str(parameter.name)] = _typed(value, parameter, ctx, f"{path}: '{key}'")
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _typed(value: Any, option: click.Option, ctx: click.Context, where: str) -> Any:
    """Converts the value of a file for an option; else `UsageFailure` with `where` and the type."""
    if type(value) not in (str, int, float, bool):
        raise UsageFailure(f"{where} must be a value, got a {_TOML.get(type(value), _TIME)}")
    if isinstance(value, str) and "\0" in value:
        raise UsageFailure(f"{where} has a zero character in it, which no command line can have")
    flag = option.is_flag or isinstance(option.type, click.types.BoolParamType)
    whole = isinstance(option.type, (click.types.IntParamType, click.IntRange))
    if isinstance(value, bool) != flag or (whole and isinstance(value, float)):
        wanted = "true or false" if flag else option.type.name.removesuffix(" range")
        raise UsageFailure(f"{where} must be {wanted}, got {value!r}")
    try:
        return option.type.convert(value, option, ctx)
    except click.BadParameter as error:
        raise UsageFailure(f"{where}: {error.message}") from error


_TOML: dict[type, str] = {dict: "table", list: "list"}
_TIME = "date or time"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Reads a TOML file of at most 1 MiB; else `UsageFailure` (exit code 2) with the reason."""
    try:
        return reading.parse_toml(reading.read_text(path, limit=reading.LARGEST_TOML))
    except OSError as error:
        raise UsageFailure(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageFailure(f"{what} {path} is not TOML: {error}") from error


_SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.PROMPT: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}


def resolved(ctx: click.Context) -> dict[str, dict[str, Any]]:
    """Lists every option of the running command: its value, and the source of it."""
    return {
        name: {
            "value": str(value) if isinstance(value, Path) else value,
            "source": _SOURCES.get(ctx.get_parameter_source(name) or ParameterSource.DEFAULT),
        }
        for name, value in ctx.params.items()
    }
