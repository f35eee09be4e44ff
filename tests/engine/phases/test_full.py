"""Which full training is made, after each way in which the one before may have gone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hssl_search.engine.execution.jobs import State
from hssl_search.engine.phases.full import to_run
from hssl_search.engine.planning.costs import Costs, FullTraining, Wanted
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.state import Contender, FullState, TrialState
from hssl_search.heads.config import HeadConfig

MLP = Contender(3, TrialState(name="mlp depth 1", family="mlp", head=HeadConfig(family="mlp")))
RESNET = Contender(
    4, TrialState(name="resnet depth 2", family="resnet", head=HeadConfig(family="resnet"))
)
NO_HEAD = Contender(0, TrialState(name="no head", family="none", control="none"))
COSTS = Costs(step=0.1, heads={}, evaluate=0.4, checkpoint=0.1, startup=5.0)
FIRST = to_run(None, State.CUT, MLP, MLP, FullTraining(100, (50, 100)))


def told(full: FullState) -> tuple[Any, ...]:
    return full.number, full.winner, full.steps, list(full.rungs), full.name


def test_the_full_training_ends_within_what_is_left() -> None:
    dice = random.Random(9)
    for _ in range(150):
        step = 10 ** dice.uniform(-3, 1)
        costs = Costs(
            step,
            {},
            step * 10 ** dice.uniform(-1, 2),
            step * 10 ** dice.uniform(-2, 1),
            dice.choice([0.0, 5.0]),
            last=step,
        )
        for budget in (10 ** dice.uniform(0, 6) for _ in range(8)):
            step_s, wanted = costs.step * dice.uniform(0.5, 4), dice.choice([1, 7, 100, 10**6])
            steps, rungs, device_s = Wanted(wanted).affordable(budget, costs, step_s, 1)
            assert 0 <= steps <= wanted
            if steps == 0:
                assert rungs == ()
                continue
            assert rungs == tuple(sorted(set(rungs)))
            assert (rungs[0] >= 1, rungs[-1], len(rungs) <= 10) == (True, steps, True)
            assert device_s == costs.training(steps, step_s, len(rungs))
            assert device_s + costs.between_phases() <= DEFAULT.full_share * budget * (1 + 1e-9)


def test_the_full_training_takes_all_wanted_steps_where_they_fit_and_none_where_nothing_does() -> (
    None
):
    wanted = Wanted(5_000)
    assert wanted.affordable(1e6, COSTS, 0.2, 1).steps == 5_000
    assert wanted.affordable(9.0, COSTS, 0.2, 1) == FullTraining()
    assert wanted.affordable(0.0, COSTS, 0.2, 1) == FullTraining()


def test_the_first_is_as_long_as_is_affordable_and_of_no_head_where_that_is_better() -> None:
    assert (
        told(FIRST) == (1, 3, 100, [50, 100], "full training with mlp depth 1")
        and list(FIRST.heads) == MLP.heads
    )
    assert told(to_run(None, State.CUT, MLP, NO_HEAD, FullTraining(70, (70,)))) == (
        1,
        3,
        70,
        [70],
        "full training with no head",
    )
    assert to_run(None, State.CUT, MLP, MLP, FullTraining(0, ())).steps == 0


@pytest.mark.parametrize(
    ("ended", "steps"),
    [(State.CUT, 0), (State.CUT, 500), (State.DONE, 0), (State.DONE, 100), (State.FAILED, 99)],
)
def test_one_that_was_cut_goes_on_and_one_that_ended_stays_where_no_more_is_affordable(
    ended: State, steps: int
) -> None:
    assert to_run(FIRST, ended, MLP, MLP, FullTraining(steps, (steps,))) == FIRST


@pytest.mark.parametrize("ended", [State.DONE, State.FAILED])
def test_more_steps_of_the_same_are_another_training(ended: State) -> None:
    assert told(to_run(FIRST, ended, MLP, MLP, FullTraining(101, (101,)))) == (
        2,
        3,
        101,
        [101],
        FIRST.name,
    )


@pytest.mark.parametrize("ended", list(State))
def test_another_winner_is_trained_as_far_as_that_is_affordable(ended: State) -> None:
    assert told(to_run(FIRST, ended, RESNET, RESNET, FullTraining(20, (20,)))) == (
        2,
        4,
        20,
        [20],
        "full training with resnet depth 2",
    )
    assert to_run(FIRST, ended, RESNET, RESNET, FullTraining(0, ())).steps == 0


def test_one_that_an_earlier_version_kept_without_number_was_the_first() -> None:
    kept = {key: value for key, value in FIRST.attributes().items() if key != "number"}
    earlier = FullState.model_validate(kept)
    assert to_run(earlier, State.DONE, MLP, MLP, FullTraining(200, (200,))).number == 2
