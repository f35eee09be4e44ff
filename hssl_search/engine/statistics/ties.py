"""Ties: comparisons that do not hang on rounding, so that every machine decides the same.

Two values are a tie when they differ by less than the resolution of what they measure, or by less
than `RELATIVE` of their size, which is far more than linear algebra on different processors differs
by. "Is a tie with" is not transitive: of three values each neighbouring two may tie and the outer
two not. What is chosen is therefore always compared with the largest value, whatever the order in
which they come.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

RELATIVE = 1e-9
"""Of the larger of two values."""
WITHIN = 0.999
"""Of a resolution. Scores move in steps of their resolution, and a mean over n seeds in 1 / n of
such steps: at exactly one whole step, whether two scores tie would hang on rounding again."""


def tolerance(values: Iterable[float], resolution: float = 0.0) -> float:
    """Return how far apart two of these values may lie and still tie."""
    return max(
        WITHIN * resolution,
        RELATIVE * max((abs(value) for value in values if math.isfinite(value)), default=0.0),
    )


def tie(one: float, other: float, resolution: float = 0.0) -> bool:
    """Return whether two values are the same as far as they can be told apart."""
    return one == other or abs(one - other) <= tolerance((one, other), resolution)


def above(one: float, other: float, resolution: float = 0.0) -> bool:
    """Return whether `one` is larger than `other`, and no tie."""
    return one > other and not tie(one, other, resolution)


def at_least(one: float, other: float, resolution: float = 0.0) -> bool:
    """Return whether `one` is larger than `other`, or a tie."""
    return one >= other or tie(one, other, resolution)


def groups(values: Mapping[int, float], resolution: float = 0.0) -> list[list[int]]:
    """Return the numbers of these values in groups, the largest values first, in each group the
    lowest number first.

    A group is the largest value that is left and all that tie with it.

    Args:
        values: number -> value; the number is that of a trial, or whatever else decides a tie.
    """
    apart = tolerance(values.values(), resolution)
    found: list[list[int]] = []
    largest = math.nan
    for number in sorted(values, key=lambda number: -values[number]):
        # Equality first: two infinities are equal, and their difference is no number.
        if found and (values[number] == largest or largest - values[number] <= apart):
            found[-1].append(number)
        else:
            largest = values[number]
            found.append([number])
    return [sorted(group) for group in found]


def rank(values: Mapping[int, float], resolution: float = 0.0) -> list[int]:
    """Return the numbers of these values, the largest value first, of those that tie the lowest
    number first."""
    return [number for group in groups(values, resolution) for number in group]


def best(values: Mapping[int, float], resolution: float = 0.0) -> int | None:
    """Return the lowest of the numbers whose values tie with the largest; None where there are no
    values."""
    return next(iter(rank(values, resolution)), None)


def levels(values: Sequence[float]) -> list[int]:
    """Return for each value the number of different values below it: equal for values that tie."""
    # Groups come with the largest first, levels with the smallest.
    numbered = groups({place: -value for place, value in enumerate(values)})
    level = {place: number for number, group in enumerate(numbered) for place in group}
    return [level[place] for place in range(len(values))]


def floor(value: float) -> int:
    """Return the largest whole number that is not above the value: 3 for 0.3 / 0.1, which is
    2.9999999999999996."""
    return math.floor(value + RELATIVE * max(1.0, abs(value)))


def ceil(value: float) -> int:
    """Return the smallest whole number that is not below the value."""
    return -floor(-value)


def nearest(value: float) -> int:
    """Return the nearest whole number, of two the larger."""
    return floor(value + 0.5)
