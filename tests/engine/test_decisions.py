"""Decisions do not hang on rounding: numbers off by their last digits, and in another order, lead
to the same jobs and the same verdict.

Libraries of linear algebra differ in the last digits from one processor, and one number of threads,
to another, and return other eigenvectors of equal eigenvalues. Here every result of theirs, every
score and every time is off by up to 1e-12 of itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import BayesianRidge

from hssl_search.engine.candidates.promotion import by_discrepancy
from hssl_search.engine.candidates.promotion import choose as promote
from hssl_search.engine.phases.confirm import Field, choose
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.engine.statistics import two_way as inference
from hssl_search.engine.statistics.posterior import Posterior
from hssl_search.engine.statistics.two_way import Scores, TwoWay
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

OFF = 1e-12
MACHINES = range(1, 9)
STEP = 100 / 360


class Machine:
    """Computes as some other machine does: every number is off by its last digits."""

    def __init__(self, seed: int) -> None:
        self.seed, self.draws = seed, np.random.default_rng(seed)

    def off(self, value: Any) -> Any:
        """The same numbers as this machine has them, in an order of its own."""
        if isinstance(value, dict):
            keys = list(value)
            random.Random(self.seed).shuffle(keys)
            return {key: self.off(value[key]) for key in keys}
        if isinstance(value, list | tuple):
            return type(value)(map(self.off, value))
        if isinstance(value, np.ndarray):
            return value * (1 + OFF * self.draws.uniform(-1, 1, value.shape))
        return (
            float(value * (1 + OFF * self.draws.uniform(-1, 1)))
            if isinstance(value, float)
            else value
        )

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Compute so from now on."""
        inference._critical.cache_clear()
        eigh, pinv, predict = np.linalg.eigh, np.linalg.pinv, BayesianRidge.predict

        def another_eigh(matrix: np.ndarray, *args: Any) -> Any:
            noise = self.draws.uniform(-1, 1, matrix.shape)
            # of equal values, other vectors
            values, vectors = eigh(matrix + OFF * np.abs(matrix).max() * (noise + noise.T), *args)
            return self.off(values), self.off(vectors)

        patch.setattr(np.linalg, "eigh", another_eigh)
        patch.setattr(np.linalg, "pinv", lambda *args, **options: self.off(pinv(*args, **options)))
        patch.setattr(
            BayesianRidge, "predict", lambda *args, **options: self.off(predict(*args, **options))
        )


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The machines, each in use as it comes."""

    def each() -> Any:
        for seed in MACHINES:
            with monkeypatch.context() as patch:
                machine = Machine(seed)
                machine.use(patch)
                yield machine
        inference._critical.cache_clear()

    return each


NONE, IDENTITY, SAME, LONGER = range(4)


def table(seed: int, candidates: int = 6) -> Scores:
    """Accuracies of 360 images with many ties, a few trials under further seeds."""
    draws = random.Random(seed)
    trials = [NONE, IDENTITY, *range(4, 4 + candidates)]
    return {
        trial: {
            its: draws.randrange(150, 154) * STEP + its for its in range(draws.choice([1, 1, 2, 3]))
        }
        for trial in trials
    }


def test_the_same_trial_leads(machines: Callable[[], Any]) -> None:
    told = [Posterior(table(seed), STEP).leader(range(4, 10)) for seed in range(60)]
    assert len(set(told)) > 3
    for machine in machines():
        assert [
            Posterior(machine.off(table(seed)), STEP).leader(range(4, 10)) for seed in range(60)
        ] == told
    assert all(
        Posterior(machine.off({7: {0: 45.0}, 4: {0: 45.0}, 9: {0: 44.0}, 1: {0: 99.0}})).leader(
            [9, 7, 4]
        )
        == 4
        for machine in machines()
    ), "of scores without a resolution too"


def test_the_same_run_is_confirmed_next(machines: Callable[[], Any]) -> None:
    field = Field(tuple(range(4, 10)), NONE, IDENTITY, (SAME,), lambda leader: LONGER)

    def chosen(scores: Scores, turn: int) -> int | None:
        tried = {SAME: 1, LONGER: 1, **{trial: len(by_seed) for trial, by_seed in scores.items()}}
        return choose(field, scores, tried, turn, STEP)

    cases = [(seed, turn) for seed in range(25) for turn in range(4)]
    told = [chosen(table(seed), turn) for seed, turn in cases]
    assert len(set(told)) > 4
    for machine in machines():
        assert [chosen(machine.off(table(seed)), turn) for seed, turn in cases] == told


def test_intervals_and_chances_are_the_same(machines: Callable[[], Any]) -> None:
    """Of trials that are alike, whose eigenvectors are anyone's choice, too."""
    alike = {trial: {0: 41.0 + trial % 2, 1: 40.7} for trial in range(7)}
    fit = TwoWay(alike, STEP).against(0)
    best = Posterior(alike, STEP).best()
    for machine in machines():
        found = TwoWay(machine.off(alike), STEP).against(0)
        assert {trial: gap.half for trial, gap in found.items()} == pytest.approx(
            {trial: gap.half for trial, gap in fit.items()}, rel=1e-6
        )
        assert Posterior(machine.off(alike), STEP).best() == pytest.approx(best, abs=2e-4)


def screened(discrepancies: list[float]) -> list[Contender]:
    """Heads of two families, of which every second pair differs in nothing that a forecast
    reads."""
    return [
        Contender(
            trial,
            TrialState(
                name=f"head {trial}",
                family=family,
                head=HeadConfig(family=family, depth=1 + trial // 4),
                gate="healthy",
                discrepancy=value,
                overlap_excess=value,
                parameters=1000,
                macs=1000,
            ),
        )
        for trial, value in enumerate(discrepancies)
        for family in [("mlp", "resnet")[trial // 2 % 2]]
    ]


def test_the_same_head_is_promoted_next(machines: Callable[[], Any]) -> None:
    draws = random.Random(0)
    for _ in range(6):
        discrepancies = [draws.choice([0.1, 0.2, 0.3]) for _ in range(16)]
        scores = {trial: draws.randrange(150, 156) * STEP for trial in range(7)}
        heads = screened(discrepancies)
        told = [one.trial for one in by_discrepancy(tuple(heads))]
        chosen = promote("learned", tuple(heads), list(scores), scores, 0)
        assert chosen is not None and sorted(discrepancies) != sorted(set(discrepancies))
        for machine in machines():
            others = screened(machine.off(discrepancies))
            random.Random(machine.seed).shuffle(others)
            assert [one.trial for one in by_discrepancy(tuple(others))] == told
            again = promote("learned", tuple(others), list(scores), machine.off(scores), 0)
            assert again is not None and again.trial == chosen.trial


WON = ("winner", "name", "state", "sentence")


@pytest.mark.parametrize(
    ("changes", "noise"),
    [
        ({"budget": "10cpu-min"}, 0.0),
        ({"budget": "30cpu-min"}, 0.4),
        ({"budget": "30cpu-min", "pruner": "asha"}, 0.4),
    ],
)
def test_whole_searches_run_the_same_jobs_and_come_to_the_same_verdict(
    machines: Callable[[], Any],
    make_lab: Callable[..., Any],
    wide_space: Space,
    changes: dict[str, Any],
    noise: float,
) -> None:
    def searched(machine: Machine | None) -> Any:
        lab = make_lab(wide_space, **changes)
        # of many heads the best is one by its number
        grid = [72 + STEP * (number % 5) for number in range(len(lab.accuracy))]
        lab.accuracy = dict(zip(lab.accuracy, grid, strict=True))
        lab.noise, measured, metrics = 0.0, lab._measured, lab._metrics

        def accurate(task: Any, step: int) -> Any:
            found = metrics(task, step)
            if "accuracy" in found:
                images = (
                    random.Random(f"{task.heads}/{task.seed}").gauss(0.0, noise)
                    + found["accuracy"] / STEP
                )
                found["accuracy"] = round(images) * STEP
            return found if machine is None else machine.off(found)

        lab._metrics = accurate
        lab._measured = lambda task: (
            measured(task) if machine is None else machine.off(measured(task))
        )
        verdict = lab.search()
        states = [(trial.number, trial.state, trial.params) for trial in lab.study.trials()]
        return (
            lab.starts,
            states,
            {key: verdict[key] for key in WON},
            lab.study.study_attributes()["promoted"],
        )

    told = searched(None)
    for machine in machines():
        assert searched(machine) == told
