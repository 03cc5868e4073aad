"""The figures of a table: the kinds of accuracy, which of them are shown, and their headings."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_mix.datasets.groups import GROUPS, telling
from trainer.reports.records import Result

__all__ = ["FIGURES", "explained", "heading", "leading", "shown"]

FIGURES = ("overall", "balanced", *GROUPS)


def leading(results: Sequence[Result]) -> str:
    """Names the figure that stands first and decides a comparison.

    Where some classes have more test images than others, "overall" tells mostly of these. Then it
    is "balanced".
    """
    return "balanced" if any(result.uneven for result in results) else "overall"


def shown(results: Sequence[Result]) -> tuple[str, ...]:
    """Selects the figures of results, in the order of their columns.

    Shot groups are left out where they would repeat "balanced", see `groups.telling`.
    """
    first = leading(results)
    both = (first, "balanced" if first == "overall" else "overall")
    sets = [result.dataset for result in results]
    told = {name for data in sets for name in telling(data["counts"], data["groups"])}
    return (*both, *(name for name in GROUPS if name in told))


def heading(figure: str, results: Sequence[Result]) -> str:
    """Renders the heading of a column, with the number of classes that it averages.

    Examples are "overall (images)" and "few (3 classes)".
    """
    if figure == "overall":
        return "overall (images)"
    sizes = {_tested(figure, result) for result in results}
    if len(sizes) > 1:
        return f"{figure} (classes)"
    size = sizes.pop()
    return f"{figure} ({size} {'class' if size == 1 else 'classes'})"


def _tested(figure: str, result: Result) -> int:
    """Counts the classes that a figure averages: those with test images."""
    per_class = result.per_class
    members = range(len(per_class)) if figure == "balanced" else result.dataset["groups"][figure]
    return sum(per_class[index] is not None for index in members)


def explained(results: Sequence[Result]) -> str:
    """Explains the figures shown, in a few sentences."""
    groups = [name for name in shown(results) if name in GROUPS]
    told = "overall is the share of all test images, balanced the mean over the classes"
    if groups:
        told += f"; {', '.join(groups)} are means over the classes of a group"
    return f"{told}. {_evenness(results)}"


def _evenness(results: Sequence[Result]) -> str:
    """Describes how the test images are spread over the classes."""
    if len({result.dataset["test_id"] for result in results}) > 1:
        return "Balanced stands first if a class of one of the data sets has more test images."
    counts = next((found for one in results if (found := one.test_counts) is not None), None)
    if leading(results) == "overall":
        return "The classes have equally many test images, so these two are the same."
    if counts is None:
        return "The classes have different numbers of test images, so balanced stands first."
    untested = sum(count == 0 for count in counts)
    least = min(count for count in counts if count)
    left_out = f"; {untested} without any are left out of the mean" if untested else ""
    return (
        f"The classes have {least:,} to {max(counts):,} test images{left_out}, so balanced stands "
        "first."
    )
