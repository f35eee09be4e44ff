"""Device-seconds of jobs, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.planning.cost_model import CostModel, Measurement
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import make_plan
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig

COSTS = Costs(
    step=0.1,
    heads={"mlp": 0.02, "resnet": 0.06},
    evaluate=0.4,
    checkpoint=0.1,
    startup=5.0,
    profile=0.2,
    joint=1.5,
    last=0.3,
)
MEASURED = Measurement(COSTS, {"mlp": 100, "resnet": 100}, {}, "fp32", images=1_000)
NO_HEAD = Contender(0, TrialState(name="no head", family="none", control="none"))
MLP = Contender(1, TrialState(name="mlp", family="mlp", head=HeadConfig(family="mlp"), macs=200))
RESNET = Contender(
    2, TrialState(name="resnet", family="resnet", head=HeadConfig(family="resnet"), macs=50)
)


class Paced:
    pace = 1.0


@pytest.fixture
def paced() -> Paced:
    return Paced()


@pytest.fixture
def cost_model(setting: Setting, paced: Paced) -> CostModel:
    return CostModel(
        MEASURED, setting, [("mlp", 100), ("resnet", 100)], lambda: paced.pace, Machine("cpu", 4, 0)
    )


def test_steps_are_the_bases_and_what_each_head_adds_by_its_multiply_adds(
    cost_model: CostModel,
) -> None:
    assert [
        cost_model.step(group) for group in ([NO_HEAD], [MLP], [RESNET], [MLP, RESNET])
    ] == pytest.approx([0.1, 0.14, 0.13, 0.17])
    assert cost_model.planned.mean_head == pytest.approx(0.04)


def test_jobs_are_their_steps_rungs_and_last_evaluation(
    cost_model: CostModel, setting: Setting, tmp_path: Path
) -> None:
    maker = JobMaker(setting, tmp_path, Machine("cpu", 4, 0))
    proxy = maker.training("proxy", MLP, 0, 100, [25, 50, 100], 0.0, 1)
    assert cost_model.training(proxy, MLP) == pytest.approx(100 * 0.14 + 3 * 0.5 + 0.3)
    group = maker.group(0, [{"family": "mlp"}, {"family": "resnet"}], 60, 0, 0.0, 1)
    together_s = 1.5 * (0.1 + 0.04 + 0.03 + 2 * 0.04)
    before_s = cost_model.screening(group, [MLP, RESNET])
    assert before_s == pytest.approx(
        60 * together_s + 2 * 0.5 + 0.3 + 5 * 0.2 + 2 * (3 * 0.1 + 2 * 0.04)
    )
    cost_model.promoted([RESNET])
    assert cost_model.screening(group, [MLP, RESNET]) == before_s, (
        "the reference heads cost the same, whichever heads are promoted"
    )


def test_what_runs_beside_others_costs_what_was_measured_of_that(
    setting: Setting, tmp_path: Path
) -> None:
    measured, machine = (
        replace(MEASURED, costs=replace(COSTS, side_by_side=0.6), side_by_side=0.4),
        Machine("cpu", 4, 0),
    )
    cost_model, maker = (
        CostModel(measured, setting, [("mlp", 100)], lambda: 1.0, machine),
        JobMaker(setting, tmp_path, machine),
    )
    for at_once, factor in ((1, 1.0), (2, 0.6), (4, 0.4)):
        proxy = maker.training("proxy", MLP, 0, 100, [50, 100], 0.0, at_once)
        assert cost_model.training(proxy, MLP) == pytest.approx(
            factor * (100 * 0.14 + 2 * 0.5 + 0.3)
        )
        group = maker.group(0, [{"family": "mlp"}], 60, 0, 0.0, at_once)
        assert cost_model.screening(group, [MLP]) == pytest.approx(
            60 * 1.5 * (0.14 + 2 * 0.02) + 2 * 0.5 + 0.3 + 4 * 0.2 + 2 * (2 * 0.1 + 0.04)
        )
    plan = make_plan(600, cost_model.planned, None)
    assert cost_model.confirming(plan, 2) == pytest.approx(
        2 * 0.6 * (plan.proxy_steps * 0.115 + 0.5 + 0.3)
    )
    assert cost_model.further_seeds(plan, [MLP]) == {
        1: pytest.approx(0.6 * (plan.proxy_steps * 0.14 + 0.5 + 0.3))
    }


def test_slow_work_costs_more_and_fast_work_is_not_relied_upon(
    cost_model: CostModel, paced: Paced
) -> None:
    plan = make_plan(600, COSTS, None)
    seed_s = plan.proxy_steps * 0.14 + 0.5 + 0.3
    for paced.pace, safe in ((0.5, 1.0), (3.0, 3.0)):
        assert (cost_model.pace, cost_model.reserve()) == (
            safe,
            pytest.approx(safe * (2 * 0.5 + 0.3)),
        )
        assert cost_model.at_pace().step == pytest.approx(safe * 0.1)
        assert cost_model.further_seeds(plan, [MLP]) == {1: pytest.approx(paced.pace * seed_s)}
    assert cost_model.confirming(plan, 1) == pytest.approx(plan.proxy_steps * 0.13 + 0.5 + 0.3)


def test_a_full_training_has_as_many_steps_as_its_epochs_and_none_where_it_is_off(
    cost_model: CostModel, setting: Setting
) -> None:
    batch = setting.recipe["full"]["batch_size"]
    assert [cost_model.full(epochs).steps for epochs in ("off", 1, 3)] == [
        0,
        1_000 // batch,
        3 * (1_000 // batch),
    ]
    assert cost_model.full(1).batches == pytest.approx(
        batch / setting.recipe["proxy"]["batch_size"]
    )
