"""What ranks, and how it is told."""

from __future__ import annotations

from typing import get_args

import pytest
from scipy import stats

from hssl_search.engine.config import SearchConfig
from hssl_search.engine.statistics.metrics import (
    ACCURACY,
    ALIGNMENT,
    ALPHA_REQ,
    DISCREPANCY,
    LABELFREE,
    LIDAR,
    OF_BASES,
    RANK_BY,
    RANKINGS,
    RANKME,
    Chance,
    Measure,
)
from hssl_search.evaluation.labelfree import OF_PLAIN, OF_VIEWS


def test_every_answer_to_rank_by_has_a_measure_that_tells_which_is_better() -> None:
    choices = {
        choice
        for part in get_args(SearchConfig.model_fields["rank_by"].annotation)
        for choice in get_args(part)
    }
    assert choices == set(RANK_BY)
    assert all(RANKINGS[measure.key] is measure for measure in RANK_BY.values())
    assert ALPHA_REQ not in RANKINGS.values(), (
        "good near 1, so that neither more nor less is better"
    )


def test_labelfree_is_one_of_the_measures_that_workers_report_of_bases() -> None:
    assert LABELFREE in OF_BASES
    assert {measure.key for measure in OF_BASES} == {
        f"labelfree_{name}" for name in (*OF_PLAIN, *OF_VIEWS)
    }


METRICS = {
    "accuracy": 40.0,
    "labelfree_rankme": 12.0,
    "labelfree_alignment": 0.5,
    "heads": [{"overlap": 0.4, "cka": 0.2}],
}


@pytest.mark.parametrize(
    ("measure", "value", "score"),
    [
        (ACCURACY, 40.0, 40.0),
        (DISCREPANCY, 0.4, 0.4),
        (RANKME, 12.0, 12.0),
        (ALIGNMENT, 0.5, -0.5),
        (LIDAR, None, None),
    ],
)
def test_a_score_is_larger_for_the_better_one(
    measure: Measure, value: float | None, score: float | None
) -> None:
    assert (measure.value(METRICS), measure.score(METRICS)) == (value, score)


@pytest.mark.parametrize("metrics", [{"accuracy": 40.0}, {"accuracy": 40.0, "heads": []}])
def test_without_a_head_there_is_no_discrepancy(metrics: dict[str, object]) -> None:
    assert DISCREPANCY.score(metrics) is None


def test_a_number_that_a_record_spells_out_because_json_has_none_is_not_known() -> None:
    assert ALIGNMENT.score({"labelfree_alignment": {"number": "nan"}}) is None


@pytest.mark.parametrize(
    ("measure", "amount", "points"),
    [
        (ACCURACY, "41.2 %", "points"),
        (RANKME, "RankMe 41.2", "in RankMe"),
        (ALIGNMENT, "negative alignment 41.234", "in negative alignment"),
    ],
)
def test_scores_and_their_differences_are_told_with_what_they_are_of(
    measure: Measure, amount: str, points: str
) -> None:
    assert (measure.amount(41.234), measure.points) == (amount, points)


@pytest.mark.parametrize(
    ("measure", "images", "step"),
    [
        (ACCURACY, 360, 100 / 360),
        (ACCURACY, 5_000, 0.1),
        (ACCURACY, None, 0.1),
        (RANKME, 360, 0.1),
        (ALIGNMENT, 360, 0.001),
    ],
)
def test_scores_move_in_steps_of_an_image_or_of_the_last_digit_told(
    measure: Measure, images: int | None, step: float
) -> None:
    assert measure.resolution(images) == pytest.approx(step)


def test_chance_is_the_share_of_the_most_frequent_class_of_the_queries() -> None:
    assert Chance.of({"query_counts": [16, 24, 8]}) == Chance(50.0, 48)
    assert Chance.of({"query_counts": []}) is None
    assert Chance.of({}) is None


@pytest.mark.parametrize(
    ("level", "queries"), [(50.0, 48), (100 / 3, 48), (10.0, 360), (0.1, 2_000)]
)
def test_what_exceeds_it_is_rarely_reached_by_guessing(level: float, queries: int) -> None:
    chance = Chance(level, queries)
    least = next(right for right in range(queries + 1) if chance.exceeded_by(100 * right / queries))
    assert 0.01 < stats.binom.sf(least - 1, queries, level / 100) < 0.1
    assert not chance.exceeded_by(level)
