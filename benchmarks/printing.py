"""How benchmarks print what they have measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from hssl_search.engine.statistics.two_way import t_interval


def with_interval(values: Sequence[float], form: str = ".2f") -> str:
    """Return the mean and half of its 95 % Student's t interval: `0.46 ± 0.13`; nothing of no
    values.
    """
    if not len(values):
        return ""
    found = t_interval(list(values))
    return f"{mean(values):{form}}" + (
        f" ± {(found[1] - found[0]) / 2:{form.removeprefix('+')}}" if found else ""
    )
