"""The memory of a report grows with the square of its classes, and is asked for before the work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stylegan_mix import process
from stylegan_mix.errors import MissingEnvironment
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics.distances import Labelled, kernel_sums
from stylegan_mix.metrics.memory import check_memory, least_bytes


@pytest.mark.parametrize("classes", [1, 10, 100, 300])
def test_the_bound_is_that_of_the_sums(classes: int) -> None:
    labels = np.arange(classes).repeat(2)
    rows = Labelled(np.zeros((len(labels), 2)), labels)
    sums = kernel_sums(rows, None, classes).sums
    assert least_bytes(classes, 1) == 4 * sums.nbytes
    assert least_bytes(classes, 3) == 6 * sums.nbytes


def test_ten_thousand_classes_need_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "memory_bytes", lambda: 8 << 30)
    check_memory(1000, 3)
    with pytest.raises(MissingEnvironment, match=r"10,000 classes .* more than 19.2 GB") as error:
        check_memory(10_000, 3)
    assert "--against train" in str(error.value.remedy)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_metrics_ask_for_memory_before_any_work(
    generator: Published,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:
    monkeypatch.setattr(process, "memory_bytes", lambda: 1 << 10)
    monkeypatch.setattr("stylegan_mix.metrics.make.make", None)
    code, out, err = run("metrics", "--dataset", "digits_lt", "--n", "60", *more)
    assert (code, out) == (4, "") and "distances of 10 classes to 3 reference(s)" in err
