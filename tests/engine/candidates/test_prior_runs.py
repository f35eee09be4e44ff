"""What earlier searches have taught, brought to the scale of a new one."""

from __future__ import annotations

import json
from statistics import mean, pstdev

import pytest

from hssl_search.engine.candidates.prior_runs import (
    APART,
    ATTRIBUTE,
    DOUBT,
    EarlierHead,
    EarlierSearch,
    kept,
    on_scale,
    taught,
)


def search(
    *gains: float | None,
    name: str = "runs/a",
    left_out: dict[str, int] | None = None,
    **others: str,
) -> EarlierSearch:
    heads = [
        EarlierHead({"family": "mlp", "depth": depth}, gain, {})
        for depth, gain in enumerate(gains, start=1)
    ]
    return EarlierSearch(name, "none", not left_out, others, heads, left_out or {})


def test_before_there_are_own_gains_each_search_has_its_own_level_and_all_the_same_spread() -> None:
    narrow, wide = search(1.0, 2.0, 3.0), search(-30.0, 0.0)
    one, other = on_scale([narrow, wide], [])
    assert (mean(one), mean(other)) == pytest.approx((2.0, -15.0))
    assert (
        pstdev(one) == pytest.approx(pstdev(other)) == pytest.approx(((2 / 3 + 15**2) / 2) ** 0.5)
    )
    assert sorted(one) == one and sorted(other) == other


def test_own_gains_decide_the_spread_more_and_more_and_keep_the_level_near() -> None:
    own = [0.0, 2.0] * 50
    [found] = on_scale([search(100.0, 130.0)], own)
    assert pstdev(found) == pytest.approx(((100 * 1.0 + DOUBT * 15.0**2) / (100 + DOUBT)) ** 0.5)
    assert mean(found) == pytest.approx(1.0 + APART * pstdev(found))
    [few] = on_scale([search(100.0, 130.0)], own[:2])
    assert pstdev(found) < pstdev(few) < 15.0
    [near] = on_scale([search(1.0, 1.5)], own)
    assert mean(near) == pytest.approx(1.25), "a level that is near stays"


@pytest.mark.parametrize("gains", [(2.0,), (2.0, 2.0), (None,), ()])
def test_searches_of_few_or_equal_gains_have_a_scale(gains: tuple[float | None, ...]) -> None:
    [found] = on_scale([search(*gains)], [0.0, 1.0, 2.0])
    assert len(found) == taught([search(*gains)]) == sum(gain is not None for gain in gains)
    assert len(set(found)) <= 1


def test_what_a_study_keeps_is_read_back_as_it_was() -> None:
    earlier = [
        search(1.5, None, left_out={"depth=6": 4}, base="resnet18"),
        search(0.0, name="runs/b"),
    ]
    attributes = json.loads(json.dumps({ATTRIBUTE: [one.as_plain() for one in earlier]}))
    assert kept(attributes) == earlier
    assert kept({}) == []


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        (search(1.0, None), "runs/a: 2 of 2 heads with results fit this space (the same space)"),
        (
            search(1.0, left_out={"depth=6": 4, "family=mlp": 2}),
            "runs/a: 1 of 7 heads with results fits this space; 6 left out, which it "
            "lacks: 4 with depth=6, 2 with family=mlp",
        ),
        (
            search(1.0, base="resnet18", method="dino"),
            "runs/a: 1 of 1 head with results fits this space (the same space); it had another base "
            "(resnet18), another method (dino)",
        ),
    ],
)
def test_what_is_used_is_said(earlier: EarlierSearch, words: str) -> None:
    assert earlier.words() == words


def test_gains_that_differ_by_rounding_alone_are_not_spread_apart() -> None:
    gains = (0.3 - 0.1, 1.3 - 1.1, 41.3 - 41.1)
    assert len(set(gains)) > 1
    [found] = on_scale([search(*gains)], [0.0, 1.0, 2.0])
    assert max(found) - min(found) == pytest.approx(0, abs=1e-9)


def test_what_a_study_of_an_earlier_version_keeps_of_a_heads_cost_is_left() -> None:
    plain = search(1.0, None).as_plain()
    of_then = {**plain, "heads": [{**head, "cost": 1.2} for head in plain["heads"]]}
    assert kept({ATTRIBUTE: [of_then]}) == [search(1.0, None)]
