"""One promised number: what, target, measured, and whether it is met; None if nobody measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BESIDE", "Row", "at_most", "between", "not_measured", "within"]


BESIDE = "beside"


@dataclass(frozen=True)
class Row:
    """A line of the validation page; what only stands beside others has the target BESIDE."""

    what: str
    target: str
    measured: str
    met: bool | None


def not_measured(what: str, target: str, reason: str) -> Row:
    """Return the row of a number that could not be measured here."""
    return Row(what, target, reason, None)


def within(
    what: str, measured: float, target: float, tolerance: float, unit: str = "", form: str = ".5g"
) -> Row:
    """Return the row of a number that must lie within a tolerance of its target."""
    return Row(
        what,
        f"{target:{form}} ± {tolerance:.2g} {unit}".strip(),
        f"{measured:{form}} {unit}".strip(),
        abs(measured - target) <= tolerance,
    )


def between(
    what: str, measured: float, low: float, high: float, unit: str = "", form: str = ".4g"
) -> Row:
    """Return the row of a number that must lie between two bounds."""
    if low == float("-inf"):
        target = f"≤ {high:{form}} {unit}"
    elif high == float("inf"):
        target = f"≥ {low:{form}} {unit}"
    else:
        target = f"{low:{form}} … {high:{form}} {unit}"
    return Row(what, target.strip(), f"{measured:{form}} {unit}".strip(), low <= measured <= high)


def at_most(what: str, measured: float, limit: float, unit: str = "", form: str = ".1e") -> Row:
    """Return the row of an error that must not exceed a limit."""
    return Row(
        what,
        f"≤ {limit:.2g} {unit}".strip(),
        f"{measured:{form}} {unit}".strip(),
        abs(measured) <= limit,
    )
