from __future__ import annotations

import pytest

from hssl_search.engine.budget import format_duration, parse_budget, written
from hssl_search.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds", "device"),
    [
        ("40gpu-h", 144_000, "gpu"),
        ("90gpu-min", 5_400, "gpu"),
        ("10cpu-min", 600, "cpu"),
        ("30cpu-s", 30, "cpu"),
        ("1.5cpu-h", 5_400, "cpu"),
        ("+10gpu-h", 36_000, "gpu"),
        (" 2 GPU-H ", 7_200, "gpu"),
        ("1e2cpu-s", 100, "cpu"),
    ],
)
def test_written_budgets_are_read(text: str, seconds: float, device: str) -> None:
    budget = parse_budget(text)
    assert (budget.seconds, budget.device) == (seconds, device)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("40", "'40gpu-h'"),
        ("40h", "'40gpu-h' or '40cpu-h'"),
        ("40gpu-hours", "'gpu-h'"),
        ("40parsecs", "unknown unit 'parsecs'"),
        ("0gpu-h", "above zero"),
        ("-3gpu-h", "above zero"),
        ("nangpu-h", "above zero"),
        ("infcpu-h", "above zero"),
        ("1.2.3gpu-h", "'1.2.3'"),
        ("gpu-h", "does not begin with a number"),
        ("", "does not begin with a number"),
    ],
)
def test_a_wrong_budget_says_what_to_type(text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        parse_budget(text)
    assert told in str(error.value)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("text", "newest"),
    [
        ("10cpu-min", "10cpu-min"),
        ("10cpu-min+1.5cpu-h", "1.5cpu-h"),
        ("+40gpu-h", "40gpu-h"),
        ("1e+3cpu-s", "1e+3cpu-s"),
        ("10cpu-s+1e+3cpu-s", "1e+3cpu-s"),
    ],
)
def test_the_newest_amount_of_a_budget_is_one_that_can_be_typed_again(
    text: str, newest: str
) -> None:
    assert parse_budget(text).newest == newest


def test_gpu_hours_without_a_gpu_offer_the_same_amount_of_cpu_hours() -> None:
    with pytest.raises(UserError, match="type '40cpu-h' instead"):
        parse_budget("40gpu-h").check_device(gpus=0)
    parse_budget("40gpu-h").check_device(gpus=1)
    parse_budget("40cpu-h").check_device(gpus=0)


def test_a_budget_is_extended_in_its_own_device_only() -> None:
    longer = parse_budget("40gpu-h").plus(parse_budget("+10gpu-h"))
    assert (longer.seconds, longer.text) == (180_000, "40gpu-h+10gpu-h")
    with pytest.raises(UserError, match=r"type '\+10gpu-h' instead"):
        parse_budget("40gpu-h").plus(parse_budget("+10cpu-h"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.21, "4.2 s"),
        (9.97, "10 s"),
        (42, "42 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (97_300, "1 d 03 h"),
        (-200, "-3 min 20 s"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10cpu-min+5cpu-min", 900),
        ("1cpu-h+30cpu-s", 3630),
        ("1e+3cpu-s+5cpu-min", 1300),
        ("40gpu-h+10gpu-h+1gpu-h", 51 * 3600),
        ("10cpu-min + 5cpu-min", 900),
        ("+1cpu-h+1cpu-h", 7200),
    ],
)
def test_an_extended_budget_reads_back(text: str, seconds: float) -> None:
    assert parse_budget(text).seconds == seconds
    assert parse_budget(parse_budget(text).text) == parse_budget(text)


def test_a_budget_is_extended_in_any_unit_of_its_device_alone() -> None:
    extended = parse_budget("10cpu-min").plus(parse_budget("+1.5cpu-h"))
    assert (extended.seconds, extended.text) == (6000, "10cpu-min+1.5cpu-h")
    with pytest.raises(
        UserError,
        match=(
            r"^the run's budget is in CPU time \(10cpu-min\) and '\+2gpu-h' is not; type "
            r"'\+2cpu-h' "
        ),
    ):
        parse_budget("10cpu-min").plus(parse_budget("+2gpu-h"))
    with pytest.raises(UserError, match="is in CPU time"):
        parse_budget("10cpu-min+1gpu-h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.0, "10cpu-s"),
        (85.0, "90cpu-s"),
        (90.0, "90cpu-s"),
        (300.0, "300cpu-s"),
        (301.0, "6cpu-min"),
        (700.0, "12cpu-min"),
        (5_400.0, "1.5cpu-h"),
        (100_000.0, "28cpu-h"),
        (1e6, "280cpu-h"),
    ],
)
def test_a_budget_that_is_named_is_at_least_as_large_and_can_be_typed(
    seconds: float, text: str
) -> None:
    assert written(seconds, "cpu") == text
    assert parse_budget(f"+{text}").seconds >= seconds
