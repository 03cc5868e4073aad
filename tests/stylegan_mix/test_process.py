"""Settings of a process and names of devices."""

from __future__ import annotations

import pytest
import torch

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment, UsageFailure


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
