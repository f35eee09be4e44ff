"""Device-seconds of work, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hssl_search.engine.planning.costs import Costs, proxy_cost

COSTS = Costs(
    step=0.1, heads={"mlp": 0.02, "convnext": 0.04}, evaluate=0.4, checkpoint=0.1, startup=5.0
)


def test_scaled_costs_are_those_of_slower_work_and_of_an_equal_start() -> None:
    slower = Costs(0.2, {"mlp": 0.04, "convnext": 0.08}, 0.8, 0.2, 5.0, last=0.6)
    assert replace(COSTS, last=0.3).scaled(2.0) == slower
    assert COSTS.scaled(2.0).training(10, 0.2, 3) == pytest.approx(2.0 + 3 * 1.0)


def test_a_proxy_beside_others_is_work_of_another_speed() -> None:
    shared = replace(COSTS, last=0.3, side_by_side=0.5)
    assert shared.beside_others == replace(COSTS, last=0.3).scaled(0.5)
    assert proxy_cost(shared, 100, 3) == pytest.approx(0.5 * (100 * 0.13 + 3 * 0.5 + 0.3))
    assert shared.scaled(2.0).beside_others == replace(COSTS, last=0.3)
    assert shared.training(100, 0.13, 3) == pytest.approx(100 * 0.13 + 3 * 0.5 + 0.3), "alone"


def test_costs_of_families() -> None:
    assert COSTS.mean_head == pytest.approx(0.03)
    assert Costs(0.1, {}, 0.4, 0.1, 5.0).mean_head == 0
    assert COSTS.training(10, 0.2, 3) == pytest.approx(2.0 + 3 * 0.5)
    assert replace(COSTS, last=0.3).training(10, 0.2, 3) == pytest.approx(2.0 + 3 * 0.5 + 0.3)
