"""Numbers as a table shows them: with an error and no more digits than it allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["NOTHING", "compact_ids", "duration", "number", "short", "with_error"]

NOTHING = "–"
MINUS = "−"


def short(value: float) -> str:
    """Return a number with three digits, to be written into a figure.

    Examples
    --------
    >>> short(-3.3217)
    '−3.32'
    """
    return f"{value:.3g}".replace("-", MINUS)


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits, a dash if it is not one.

    Examples
    --------
    >>> number(123456.0), number(-0.0012345), number(float("nan"))
    ('123500', '−0.001234', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if decimals <= 0:
        text = f"{round(value, decimals):.0f}"
    else:
        text = f"{value:.{decimals}f}" if decimals <= 7 else f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def with_error(value: float, error: float) -> str:
    """Return a value and its error, with two digits of the error.

    Examples
    --------
    >>> with_error(1.40342, 0.00198), with_error(92670.0, 1234.0)
    ('1.4034 ± 0.0020', '92670 ± 1230')
    >>> with_error(3.2, float("nan")), with_error(float("nan"), 0.1)
    ('3.200', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    if not (math.isfinite(error) and error > 0):
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    if decimals <= 0:
        # An error of thousands does not make the last digits of a signal meaningless to look up.
        return f"{value:.0f} ± {float(f'{error:.3g}'):.0f}".replace("-", MINUS)
    decimals = min(decimals, 10)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Return a time as people say it.

    Examples
    --------
    >>> duration(0.25), duration(75.0), duration(7384.0)
    ('0.25 s', '1 min 15 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 60:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(minutes // 60)} h {int(minutes % 60)} min"


def compact_ids(ids: Sequence[int], limit: int = 12) -> str:
    """Return ids with runs of neighbours drawn together, and how many more there are.

    Examples
    --------
    >>> compact_ids([3, 4, 5, 9, 11, 12]), compact_ids([1, 3, 5, 7], limit=2)
    ('3–5, 9, 11–12', '1, 3 and 2 more')
    """
    runs: list[list[int]] = []
    for number_ in sorted(ids):
        if runs and number_ == runs[-1][-1] + 1:
            runs[-1].append(number_)
        else:
            runs.append([number_])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs[:limit]]
    left = sum(len(run) for run in runs[limit:])
    return ", ".join(shown) + (f" and {left} more" if left else "")
