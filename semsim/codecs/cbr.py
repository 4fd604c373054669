"""The CBR as it is written: a number, or a fraction such as "1/16"."""

from __future__ import annotations

import re
from fractions import Fraction

MOST = 4  #: beyond any use: 1/2 sends each source value as it is
_WRITTEN = re.compile(r"\s*\d{1,9}(\.\d{1,12})?(e[-+]?\d{1,2})?\s*(/\s*\d{1,9}\s*)?", re.IGNORECASE)


def cbr_fraction(cbr: float | str | Fraction) -> Fraction:
    """Return a CBR as a fraction, its denominator at most 100,000.

    Raises:
        ValueError: it is no positive number; an exponent of many digits would fill the memory.
    """
    ratio = Fraction(0)
    if not isinstance(cbr, str) or _WRITTEN.fullmatch(cbr):
        try:
            ratio = Fraction(cbr.replace(" ", "") if isinstance(cbr, str) else cbr)
        except (ValueError, ZeroDivisionError, OverflowError):
            ratio = Fraction(0)
    ratio = ratio.limit_denominator(100_000)
    if ratio <= 0:
        raise ValueError(f"cbr must be a positive number or a fraction such as '1/16', got {cbr!r}")
    if ratio > MOST:
        raise ValueError(
            f"cbr is channel uses per source value, at most {MOST}, got {cbr!r}; one use for six "
            "values is 1/6"
        )
    return ratio
