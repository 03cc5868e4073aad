"""Settings of a process and names of devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from stylegan_mix.estimates import Span

Run = Callable[..., tuple[int, str, str]]


def test_a_process_computes_float32_in_float32() -> None:
    torch.backends.cudnn.allow_tf32 = True
    process.set_up_process()
    assert not torch.backends.cudnn.allow_tf32


def test_a_device_is_taken_as_named_and_auto_prefers_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = {name: process.resolve_device(name) for name in ("auto", "cpu", "cuda", "cuda:1")}
    assert taken == {"auto": "cuda", "cpu": "cpu", "cuda": "cuda", "cuda:1": "cuda:1"}
    with pytest.raises(MissingEnvironment, match="--device cuda:2, but torch finds 2 CUDA devices"):
        process.resolve_device("cuda:2")


def test_cuda_that_is_not_there_is_error_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert process.resolve_device("auto") == "cpu"
    for name in ("cuda", "cuda:0"):
        with pytest.raises(MissingEnvironment, match="finds no CUDA device"):
            process.resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_another_device_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageFailure, match="must be auto, cpu, cuda or cuda:<index>"):
        process.resolve_device(name)


# The flags of a processor, in the form of /proc/cpuinfo.
PROCESSORS = {
    "avx2": ("model name\t: Some CPU\nflags\t\t: fpu avx avx2 f16c\n", False, False),
    "avx512 without": ("flags\t\t: avx2 avx512f avx512bw avx512_vnni\n", False, False),
    "bfloat16": ("flags\t\t: avx2 avx512f avx512_bf16\nflags\t\t: x\n", True, False),
    "amx": ("flags\t\t: avx2 amx_bf16 amx_tile avx512_fp16\n", True, True),
    "arm": ("Features\t: fp asimd fphp asimdhp\n", False, True),
    "newer arm": ("Features\t: fp asimd asimdhp bf16 i8mm\n", True, True),
    "unknown": ("processor\t: 0\n", None, None),
}


def has_processor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets this machine have another processor."""
    read = Path.read_text

    def text(path: Path, *given: object, **more: object) -> str:
        asked = str(path) == "/proc/cpuinfo"
        return PROCESSORS[name][0] if asked else read(path, *given, **more)

    monkeypatch.setattr(Path, "read_text", text)


@pytest.mark.parametrize("name", PROCESSORS)
def test_formats_that_a_processor_only_imitates_are_known(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    has_processor(monkeypatch, name)
    for precision, native in zip(("bfloat16", "float16"), PROCESSORS[name][1:], strict=True):
        assert process.computes_natively(precision) is native
        warned = process.slow_precision(precision, "cpu")
        assert bool(warned) == (native is False)
        assert precision in warned or not warned
        assert process.slow_precision(precision, "cuda:1") == ""
    assert process.slow_precision("float32", "cpu") == ""


def test_without_a_list_of_flags_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert process.computes_natively("bfloat16") is None
    assert process.slow_precision("bfloat16", "cpu") == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [("avx2", "not native on this processor: ten times slower"), ("amx", "native on this pro")],
)
def test_the_doctor_tells_of_bfloat16(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    has_processor(monkeypatch, name)
    assert json.loads(run("doctor", "--json")[1])["bfloat16"].startswith(told)


@pytest.mark.parametrize(("name", "warns"), [("avx2", True), ("bfloat16", False)])
def test_a_training_and_a_bank_tell_of_a_slow_format_before_the_first_step(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, generator: Any, name: str, warns: bool
) -> None:
    has_processor(monkeypatch, name)
    monkeypatch.setattr("stylegan_mix.training.cost.step_seconds", lambda *_: Span(1, 2))
    monkeypatch.setattr("stylegan_mix.banks.cost.estimate", lambda plan: {})
    words = ("--dataset", "digits_lt", "--device", "cpu", "--precision", "bfloat16", "--dry-run")
    for command in ("train", "generate"):
        _, _, err = run(command, *words, "--json")
        assert ("no instructions for bfloat16" in err) == warns, err
    assert "instructions" not in run("train", *words[:4], "--dry-run", "--json")[2]


@pytest.mark.parametrize("busy", [True, False])
def test_a_busy_machine_is_measured_in_one_thread_and_gives_back_the_others(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr(process.os, "getloadavg", lambda: (1e3 if busy else 0.0, 0.0, 0.0))
    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt), process.one_thread_if_busy() as threads:
        assert (torch.get_num_threads(), threads) == ((1, 2) if busy else (2, 1))
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2
    assert Span(8.0, 16.0).in_threads(1) == Span(8.0, 16.0)
    assert Span(8.0, 16.0).in_threads(16) == Span(1.0, 16.0)


def test_every_estimate_knows_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from stylegan_mix.banks import cost as banks
    from stylegan_mix.metrics import cost as metrics
    from stylegan_mix.training import cost as training
    from trainer.engine import cost as runs

    for module in (banks, metrics, training, runs):
        assert module.one_thread_if_busy is process.one_thread_if_busy
