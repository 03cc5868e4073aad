"""Estimates of long work: the range holds the true time, and the measurement stays short."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stylegan_mix.estimates import Form, Span, measured


class Machine:
    """A clock that moves by the time that each run takes on a machine made up for a test."""

    def __init__(self, fixed: float, each: float, cold: float = 3.0) -> None:
        self.now, self.fixed, self.each, self.cold = 0.0, fixed, each, cold
        self.tried: list[float] = []

    def clock(self) -> float:
        return self.now

    def seconds(self, work: float) -> float:
        return self.fixed + self.each * work

    def form(self, work: float, runs: int = 3) -> Form:
        def prepare() -> Callable[[], None]:
            self.tried.append(work)
            passed = [0]

            def run() -> None:
                self.now += self.seconds(work) * (1 if passed[0] else self.cold)
                passed[0] += 1

            return run

        return Form(work, prepare, runs)

    def forms(self) -> list[Form]:
        return [self.form(work) for work in (1, 4, 16, 64)]


@pytest.mark.parametrize("fixed", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("each", [1e-4, 0.01, 0.03, 0.1, 0.3])
def test_the_range_holds_the_true_time_and_is_found_in_the_time_allowed(
    fixed: float, each: float
) -> None:
    machine = Machine(fixed, each)
    found = measured(machine.forms(), allowance=6.0, clock=machine.clock)
    assert found.low <= machine.seconds(64) * 1.001
    assert found.high >= machine.seconds(64) * 0.999
    assert machine.now <= 12.0


def test_work_that_is_quick_is_measured_itself() -> None:
    machine = Machine(fixed=0.01, each=1e-3)
    guess = Span(0.05, 0.5)
    found = measured(machine.forms(), guess=guess, clock=machine.clock)
    assert machine.tried == [1, 64]
    assert found.low == found.high == pytest.approx(machine.seconds(64))


def test_work_of_days_is_guessed_and_nothing_of_it_is_tried() -> None:
    machine = Machine(fixed=0.1, each=50.0)
    guess = Span(3000.0, 9000.0)
    assert measured(machine.forms(), guess=guess, clock=machine.clock) == guess
    assert machine.tried == []
    assert machine.now == 0


def test_a_guess_that_was_far_too_small_costs_the_tiny_form_alone() -> None:
    machine = Machine(fixed=0.0, each=1.0)
    found = measured(machine.forms(), guess=Span(0.1, 1.0), clock=machine.clock)
    assert found.high >= 4 * found.low > 0
    assert machine.tried == [1]
    assert machine.now == 3 + 3 * 1


def test_a_guess_bounds_what_one_form_says() -> None:
    machine = Machine(fixed=0.0, each=0.5)
    found = measured(machine.forms(), guess=Span(30.0, 100.0), clock=machine.clock)
    assert machine.tried == [1]
    assert (found.low, found.high) == (30.0, 32.0)


def test_a_busy_moment_does_not_make_a_range_meaningless() -> None:
    machine = Machine(fixed=0.3, each=0.05, cold=30.0)
    found = measured(machine.forms(), guess=Span(1.5, 10.0), clock=machine.clock)
    assert machine.tried == [1]
    assert found.says_something
    assert found.low <= machine.seconds(64) <= found.high


def test_single_runs_that_are_interrupted_move_the_upper_end_only() -> None:
    machine = Machine(fixed=0.0, each=0.01)
    quick, count = machine.form(1, runs=4).prepare(), [0]

    def run() -> None:
        count[0] += 1
        quick()
        machine.now += 0.4 if count[0] == 3 else 0.0

    found = measured([Form(1, lambda: run, runs=4)], clock=machine.clock)
    assert found.low == pytest.approx(0.01)
    assert found.high == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (3.2, 4.9, "3.2 to 4.9 seconds"),
        (95, 119, "95 to 119 seconds"),
        (100, 150, "1.7 to 2.5 minutes"),
        (3600, 7000, "60 to 117 minutes"),
        (5400, 9000, "1.5 to 2.5 hours"),
        (3600 * 40, 3600 * 72, "1.7 to 3 days"),
        (86400 * 400, 86400 * 3605, "400 to 3,605 days"),
        (30.1, 30.2, "about 30 seconds"),
    ],
)
def test_ranges_to_plan_with_are_readable(low: float, high: float, words: str) -> None:
    assert Span(low, high).in_words() == words


def test_a_range_too_wide_to_plan_with_says_nothing() -> None:
    assert Span(1.0, 19.0).says_something
    assert not Span(1.0, 21.0).says_something
    assert Span(1.0, 21.0).in_words() == "an unknown time"
    assert Span(1.0, 21.0).plain() is None


def test_no_work_takes_no_time() -> None:
    assert Span(2.0, 3.0).times(0).in_words() == "about 0 seconds"
    assert Span(2.0, 3.0).times(0).plain() == [0, 0]
