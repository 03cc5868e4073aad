"""The runs of a sweep, one after another or side by side, shared with other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stylegan_mix import store
from stylegan_mix.errors import Busy, Diverged, Failure, InvalidInput, UsageFailure
from stylegan_mix.session import Session
from trainer import execute
from trainer.execute import How
from trainer.plan import Plan
from trainer.workers import side_by_side

__all__ = ["carry_out"]

# Failures of a single run, after which the others go on.
_OWN = (Busy, Diverged, InvalidInput, UsageFailure)


def carry_out(
    plans: Sequence[Plan], workers: int, how: How, session: Session
) -> Iterator[tuple[Plan, Failure | None]]:
    """Yields each plan of one seed once it has ended, with the failure of its own, or None.

    A run that another process works on is left for the end. Then its end is waited for: a finished
    one is taken as it is, and one that was given up is gone on with. Other failures, and a
    requested stop, end the sweep.
    """
    left = list(plans)
    while left:
        busy = []
        for plan, failure in _once(left, workers, how, session):
            if isinstance(failure, Busy):
                session.say(f"{failure}; the others first")
                busy.append(plan)
            else:
                yield plan, failure
        left = busy
        if left:
            with store.locked(left[0].lock(left[0].spec.seed), session=session):
                pass


def _once(
    plans: Sequence[Plan], workers: int, how: How, session: Session
) -> Iterator[tuple[Plan, Failure | None]]:
    """Tries each plan once; yields it with its own failure, `Busy` among them, or None."""
    if workers == 1:
        yield from _in_turn(plans, how, session)
        return
    for plan, failure in side_by_side(plans, workers=workers, how=how, session=session):
        own = failure is None or isinstance(failure, _OWN) or failure.of_one_process
        if failure is not None and not own:
            raise failure
        yield plan, failure


def _in_turn(
    plans: Sequence[Plan], how: How, session: Session
) -> Iterator[tuple[Plan, Failure | None]]:
    for number, plan in enumerate(plans, start=1):
        session.say(f"\nrun {number} of {len(plans)}: {plan.command(plan.spec.seed)}")
        if session.stop.requested:
            what = "the runs before this one are finished"
            raise session.stop.failure(saved=True, what=what)
        try:
            execute.execute(plan, session, how)
        except _OWN as error:
            yield plan, error
        else:
            yield plan, None
