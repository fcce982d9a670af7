"""Numbers and durations in words."""

from __future__ import annotations

import math

UNKNOWN = "-"


def duration(seconds: float | None) -> str:
    """`75.3` -> "1 min 15 s"; rounded to a precision useful for planning."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 10:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"


def ended(text: str) -> str:
    """A sentence with a mark at its end."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; with an exponent only below a thousandth."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def megabytes(count: float, *, up: bool = False) -> str:
    """Bytes as "0.4 MB" or "1,240 MB", rounded down; or up, as what is needed must be."""
    digits = 1 if count < 10e6 else 0
    whole = count / 1e6 * 10**digits
    return f"{(math.ceil(whole) if up else math.floor(whole)) / 10**digits:,.{digits}f} MB"
