"""What samplers propose: new heads always, and better ones where there is something to learn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.candidates.sampler import CandidateSampler
from hssl_search.engine.config import SamplerName
from hssl_search.engine.policy import DEFAULT
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

FINITE = Space.from_plain(
    {
        "parameters": {
            "family": {"choice": ["convnext", "resnet", "mlp", "mixer"]},
            "depth": {"int": [1, 12]},
        }
    },
    "finite",
)
ENDLESS = Space.from_plain(
    {
        "parameters": {
            "family": {"choice": ["convnext", "mlp"]},
            "width_ratio": {"float": [0.25, 2.0]},
        }
    },
    "endless",
)


def listed(space: Space, seed: int = 0) -> Iterator[HeadConfig]:
    heads = list(space.enumerate()) if space.size() else []
    random.Random(seed).shuffle(heads)
    return iter(heads)


def goodness(head: HeadConfig) -> float:
    """Return how good a head is: deep, or wide, convnext heads are good."""
    return (head.depth or 0) + 5 * (head.width_ratio or 0) + 6 * (head.family == "convnext")


class Known:
    """The candidates of a search, kept in a study as a search keeps them."""

    def __init__(self, space: Space) -> None:
        self.space, self.study = space, optuna.create_study(direction="maximize")

    def add(self, parameters: Any, state: str = "COMPLETE", **attributes: Any) -> HeadConfig:
        self.study.enqueue_trial(dict(parameters))
        trial = self.study.ask()
        head = self.space.sample(trial)
        for key, value in {"head": head.model_dump(exclude_none=True), **attributes}.items():
            trial.set_user_attr(key, value)
        if state != "RUNNING":
            self.study.tell(
                trial, goodness(head) if state == "COMPLETE" else None, state=TrialState[state]
            )
        return head

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.trials


def proposed(name: SamplerName, known: Known, count: int, seed: int = 0) -> list[HeadConfig]:
    return list(
        islice(
            CandidateSampler(name, seed).proposals(known.space, known.trials, listed(known.space)),
            count,
        )
    )


def taught(space: Space, seed: int = 0, count: int = 12) -> Known:
    """Return a search in which that many heads, drawn at random, had their proxies."""
    known = Known(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    while len(known.trials) < count:
        head = space.sample(study.ask())
        if head not in [HeadConfig(**trial.user_attrs["head"]) for trial in known.trials]:
            known.add(space.trial_parameters(head), gate="healthy")
    return known


@pytest.mark.parametrize("name", ["tpe", "random", "exhaustive"])
@pytest.mark.parametrize("results", [0, 12])
def test_a_finite_space_is_drawn_from_without_putting_back_down_to_its_last_head(
    name: SamplerName, results: int
) -> None:
    known = taught(FINITE, count=results)
    heads = proposed(name, known, 99)
    assert len(heads) == 48 - results
    assert {*heads, *(HeadConfig(**trial.user_attrs["head"]) for trial in known.trials)} == set(
        listed(FINITE)
    )


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_an_endless_space_has_always_another_head(name: SamplerName) -> None:
    heads = proposed(name, taught(ENDLESS), 8)
    assert len(set(heads)) == 8


def test_what_is_left_of_a_space_that_cannot_be_listed_is_found_among_what_is_known() -> None:
    every = list(listed(FINITE))
    known = Known(FINITE)
    for head in every[2:]:
        known.add(FINITE.trial_parameters(head), gate="healthy")
    unlisted = CandidateSampler("tpe", 0).proposals(FINITE, known.trials, iter(()))
    assert set(unlisted) == set(every[:2])


def gain(name: SamplerName, seed: int) -> float:
    """Return by how much the heads proposed are better, in the mean, than those known."""
    known = taught(ENDLESS, seed, 16)
    before = [goodness(HeadConfig(**trial.user_attrs["head"])) for trial in known.trials]
    return mean(goodness(head) for head in proposed(name, known, 3, seed)) - mean(before)


def test_tpe_proposes_better_heads_than_were_known() -> None:
    learned, drawn = (mean(gain(name, seed) for seed in range(8)) for name in ("tpe", "random"))
    assert learned > drawn + 1.0


CONDITIONAL = Space.from_plain(
    {
        "parameters": {
            "family": {"choice": ["convnext", "mlp"]},
            "depth": {"int": [1, 12]},
            "kernel_size": {"choice": [3, 5, 7], "families": ["convnext"]},
        }
    },
    "conditional",
)


def test_what_tpe_makes_of_parameters_of_some_families_is_not_told_of_every_head(
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    request: pytest.FixtureRequest,
) -> None:
    optuna.logging.enable_propagation()
    request.addfinalizer(optuna.logging.disable_propagation)
    known = taught(CONDITIONAL)
    caplog.clear()
    assert len(proposed("tpe", known, 6)) == 6
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
    assert [str(warning.message) for warning in recwarn] == []


def test_before_there_are_results_heads_are_drawn_at_random() -> None:
    assert proposed("tpe", taught(FINITE, count=DEFAULT.sampler_startup - 1), 9) == proposed(
        "random", taught(FINITE, count=DEFAULT.sampler_startup - 1), 9
    )


@pytest.mark.parametrize("name", ["tpe", "random"])
@pytest.mark.parametrize("space", [FINITE, ENDLESS], ids=["finite", "endless"])
def test_a_resumed_draw_goes_on_with_the_same_heads(name: SamplerName, space: Space) -> None:
    whole = proposed(name, taught(space), 6)
    known = taught(space)
    for head in whole[:3]:
        known.add(space.trial_parameters(head), "RUNNING")
    assert whole == whole[:3] + proposed(name, known, 3)


def test_heads_that_fell_ill_are_avoided_and_those_without_a_proxy_are_not() -> None:
    shares = {}
    for gate in ("collapsed", "healthy"):
        known = taught(ENDLESS, count=8)
        for number in range(24):
            known.add({"family": "convnext", "width_ratio": 1.5 + number / 60}, "PRUNED", gate=gate)
        heads = proposed("tpe", known, 20)
        shares[gate] = sum(
            head.family == "convnext" and (head.width_ratio or 0) > 1.4 for head in heads
        )
    assert shares["collapsed"] < shares["healthy"] / 2
