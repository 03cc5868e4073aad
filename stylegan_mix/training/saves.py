"""The saved states of a training: two places, the newest sound one, and its fit to the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.errors import InvalidInput
from stylegan_mix.training.saved_structure import Many, differences
from stylegan_mix.training.tick import Tick, broken

if TYPE_CHECKING:
    from stylegan_mix.training.state import TrainState

__all__ = ["CHECKPOINT_KIND", "Saved", "Saves", "require_fit"]

CHECKPOINT_KIND = "generator-training"

# Most differences of a saved state that are named.
_NAMED = 5

# A saved state: its step, the state and the facts beside it.
Saved = tuple[int, dict[Any, Any], dict[str, Any]]


class Saves:
    """The saved states below a training's folder.

    Training resumes from `checkpoints`, and goes back to `kept` after a collapse.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints", CHECKPOINT_KIND)
        self.kept = Checkpoints(folder / "kept", CHECKPOINT_KIND, keep=1)

    @property
    def newest_step(self) -> int:
        """The step of the newest state, which is not read; 0 if there is none."""
        steps = (place.newest for place in (self.checkpoints, self.kept))
        return next((step for step in steps if step is not None), 0)

    def newest(self, say: Callable[[str], None]) -> tuple[Checkpoints, Saved] | None:
        """Reads the newest sound state: of the checkpoints, or else of the kept states.

        Returns it with its folder, or None if nothing was ever saved. `InvalidInput` (exit code 3)
        if no saved state is sound. `say` reports damaged ones.
        """
        return self._newest((self.checkpoints, self.kept), say)

    def newest_kept(self, say: Callable[[str], None]) -> tuple[Checkpoints, Saved] | None:
        """Reads the newest kept state; see `newest`."""
        return self._newest((self.kept,), say)

    def _newest(
        self, places: tuple[Checkpoints, ...], say: Callable[[str], None]
    ) -> tuple[Checkpoints, Saved] | None:
        damaged: InvalidInput | None = None
        for place in places:
            try:
                found = place.latest(say)
            except InvalidInput as error:
                damaged = error
                continue
            if found is not None:
                if damaged is not None:
                    say(f"{damaged}: taking what {place.folder} has")
                return place, found
        if damaged is not None:
            raise InvalidInput(
                f"no saved state in {self.folder} is sound",
                remedy=f"move {self.folder} away to start again",
            ) from damaged
        return None


def require_fit(
    found: Saved, place: Checkpoints, state: TrainState, numerics: dict[str, str | int]
) -> None:
    """Raises `InvalidInput` (exit code 3) unless a saved state has the structure of `state`."""
    if wrong := _misfits(found, state, numerics):
        more = len(wrong) - _NAMED
        raise InvalidInput(
            f"the checkpoint of step {found[0]} in {place.folder} is not one of this training: "
            + "; ".join(wrong[:_NAMED])
            + (f" (and {more} more)" if more > 0 else ""),
            remedy=f"move {place.folder.parent} away to start again",
        )


def _misfits(found: Saved, state: TrainState, numerics: dict[str, str | int]) -> list[str]:
    """Lists the differences between a saved state and this training's, each with its place."""
    step, saved, facts = found
    structure = {**state.structure(step), "tick": Tick.STRUCTURE}
    wrong = [
        *differences(saved, structure, "state", state.moment_names("state")),
        *differences(facts, {"kimg": 0.0, "numerics": Many([numerics])}, "facts"),
    ]
    if wrong:
        return wrong
    if saved["step"] != step:
        wrong.append(f"state/step is {saved['step']}")
    sums, counts = saved["tick"]["sums"], saved["tick"]["counts"]
    if sums.keys() != counts.keys() or 0 in counts.values():
        wrong.append("state/tick/counts are not those of state/tick/sums")
    # A diverging training may be saved before the check sees it: the next check takes it back.
    if not any(map(broken, (sums, *(saved[name] for name in state.NETWORKS)))):
        wrong += [f"state/running/{one} is not finite" for one in broken(saved["running"])]
    return wrong
