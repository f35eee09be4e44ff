from __future__ import annotations

import math

import pytest

from hssl_search.reporting import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.4, "0:07"),
        (187, "3:07"),
        (3729, "1:02:09"),
        (None, formats.MISSING),
        (math.nan, formats.MISSING),
    ],
)
def test_clock_writes_minutes_and_hours(seconds: float | None, text: str) -> None:
    assert formats.clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (870, "870"),
        (12_345, "12.3 k"),
        (1_200_000, "1.2 M"),
        (3.5e9, "3.5 G"),
        (None, formats.MISSING),
    ],
)
def test_count_has_three_digits_and_a_unit(value: float | None, text: str) -> None:
    assert formats.count(value) == text


def test_signed_has_a_true_minus_and_no_negative_zero() -> None:
    assert [formats.signed(value) for value in (0.44, -0.44, -0.01, 0.0, math.inf)] == [
        "+0.4",
        "\N{MINUS SIGN}0.4",
        "0.0",
        "0.0",
        formats.MISSING,
    ]


def test_interval_is_plus_minus_only_around_the_middle() -> None:
    assert formats.interval(41.2, 40.8, 41.6) == "± 0.4"
    assert formats.interval(41.2, 40.8, 42.6) == "[40.8, 42.6]"
    assert formats.interval(41.2, None, None) == ""


@pytest.mark.parametrize(("seconds", "unit"), [(60, "s"), (600, "min"), (20_000, "h")])
def test_time_unit_suits_the_length_of_the_axis(seconds: float, unit: str) -> None:
    assert formats.time_unit(seconds)[1] == unit


def test_signed_interval_has_signs_except_at_zero() -> None:
    assert formats.signed_interval(-0.34, 1.86) == "[\N{MINUS SIGN}0.3, +1.9]"
    assert formats.signed_interval(0.01, 1.86) == "[0.0, +1.9]"
    assert formats.signed_interval(None, 1.0) == formats.signed_interval(math.nan, 1.0) == ""


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.342, "34 %"), (0.004, "<1 %"), (0.996, ">99 %"), (None, ""), (float("nan"), "")],
)
def test_shares_are_in_per_cent(value: float | None, told: str) -> None:
    assert formats.share(value) == told
