"""How numbers are written for people; `MISSING` for one that is missing or not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hssl_search.engine.budget import format_duration

if TYPE_CHECKING:
    from typing_extensions import TypeIs

MISSING = "–"


def known(value: Any) -> TypeIs[float]:
    """Return whether `value` is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def duration(seconds: Any) -> str:
    """Return `4.2 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    return format_duration(seconds) if known(seconds) else MISSING


def clock(seconds: Any) -> str:
    """Return `3:07` or `1:02:09`."""
    if not known(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the seconds in, and the name of, the unit for an axis that ends at `seconds`."""
    if seconds < 180:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def number(value: Any, digits: int = 1) -> str:
    """Return `41.2`."""
    return f"{value:.{digits}f}" if known(value) else MISSING


def signed(value: Any, digits: int = 1) -> str:
    """Return `+1.9`, `−0.3` with a true minus; what rounds to zero has no sign."""
    if not known(value):
        return MISSING
    text = f"{value:+.{digits}f}"
    # `-0.0` would say that something is lost.
    return text.replace("-", "−") if float(text) else text[1:]


def signed_interval(low: Any, high: Any, digits: int = 1) -> str:
    """Return `[−0.3, +1.9]`; nothing without an interval."""
    if not (known(low) and known(high)):
        return ""
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def count(value: Any) -> str:
    """Return `870`, `12.3 k`, `1.20 M`."""
    if not known(value):
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def interval(mean: Any, low: Any, high: Any, digits: int = 1) -> str:
    """Return `± 0.4` around a mean in the middle of its interval, else `[40.8, 41.9]`; nothing
    without an interval."""
    if not (known(mean) and known(low) and known(high)):
        return ""
    up, down = high - mean, mean - low
    # An interval that was cut where the measure ends is not symmetric: it is told by its ends.
    if abs(up - down) < 0.5 * 10**-digits:
        return f"± {(up + down) / 2:.{digits}f}"
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def share(value: Any) -> str:
    """Return a probability in per cent: `34 %`, `<1 %`, `>99 %`; nothing where it is not known."""
    if not known(value):
        return ""
    return "<1 %" if value < 0.01 else ">99 %" if value > 0.99 else f"{100 * value:.0f} %"


def capital(text: str) -> str:
    """Return the text with its first letter upper-case, the others as they are."""
    return text[:1].upper() + text[1:]


def plural(number_of: Any, word: str) -> str:
    """Return `1 seed`, `2 seeds`, `2 proxies`."""
    if number_of == 1:
        return f"{number_of} {word}"
    return f"{number_of} {word[:-1]}ies" if word.endswith("xy") else f"{number_of} {word}s"
