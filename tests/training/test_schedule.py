"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from hssl_search.training.schedule import cosine, warmup_cosine


@pytest.mark.parametrize(
    ("progress", "value"),
    [(-1, 3.0), (0, 3.0), (1 / 3, 2.5), (0.5, 2.0), (2 / 3, 1.5), (1, 1.0), (2, 1.0)],
)
def test_cosine_runs_from_start_to_end(progress: float, value: float) -> None:
    assert cosine(3.0, 1.0, progress) == pytest.approx(value)


@pytest.mark.parametrize(
    ("progress", "value"), [(0, 0.0), (0.1, 2.0), (0.2, 4.0), (0.6, 2.5), (1, 1.0)]
)
def test_warmup_is_linear_and_then_a_cosine_leads_to_the_end(progress: float, value: float) -> None:
    assert warmup_cosine(4.0, 1.0, 0.2, progress) == pytest.approx(value)


def test_without_warmup_the_peak_is_at_the_start() -> None:
    assert warmup_cosine(4.0, 0.0, 0.0, 0.0) == 4.0
    assert warmup_cosine(4.0, 0.0, 0.0, 0.25) == pytest.approx(2 + 2 * math.cos(math.pi / 4))
