"""Candidates and controls as trials of the study."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from hssl_search.engine.candidates.trials import NAMES, Trials
from hssl_search.engine.records import state as states
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import Contender
from hssl_search.engine.records.study import StudyRecord
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head
from hssl_search.spaces.space import Space

MAP_SHAPE = (16, 4, 4)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "demo", {})


@pytest.fixture
def make(study: StudyRecord, run: Run, small_space: Space) -> Callable[..., Trials]:
    """Return trials on one study, as one controller after another has them."""
    return lambda space=small_space, seed=0: Trials(
        study, run, space, [MAP_SHAPE], seed, lambda trial: 1.5 + trial
    )


def endless_space() -> Space:
    parameters = {
        "family": {"choice": ["convnext", "mlp"]},
        "mlp_ratio": {"log": [1.0, 6.0]},
        "depth": {"int": [1, 3]},
    }
    return Space.from_plain({"parameters": parameters}, "endless")


def heads(trials: Trials, count: int) -> list[HeadConfig]:
    return [one.head for one in trials.candidates(count) if one.head]


def held(contenders: Iterable[Contender]) -> list[dict[str, Any]]:
    """Return all that is known of each."""
    return [asdict(one) for one in contenders]


def test_candidates_of_a_finite_space_are_distinct_and_in_the_end_all_of_it(
    make: Callable[..., Trials], small_space: Space
) -> None:
    drawn = heads(make(), 6)
    assert set(drawn) == set(small_space.enumerate())
    assert len(drawn) == 6


def test_the_seed_decides_which_heads_are_drawn(
    mortal: Callable[[], Any], opened: Callable[[Any], StudyRecord], run: Run, small_space: Space
) -> None:
    orders = [
        heads(Trials(opened(mortal()), run, small_space, [MAP_SHAPE], seed, lambda trial: 0.0), 3)
        for seed in (0, 0, 1, 2)
    ]
    assert orders[0] == orders[1]
    assert any(order != orders[0] for order in orders[2:])


@pytest.mark.parametrize("space", [None, endless_space()], ids=["finite", "endless"])
def test_typical_heads_are_of_the_space_and_open_no_trials(
    make: Callable[..., Trials], study: StudyRecord, space: Space | None
) -> None:
    trials = make(space) if space else make()
    group = trials.group(4)
    assert [(one.head.family, one.macs) for one in group] == trials.typical()[:4]
    assert [one.head.family in trials.space.families for one in group] == [True] * 4
    assert group == (make(space) if space else make()).group(4)
    assert study.trials() == []
    drawn = [one.heads[0] for one in trials.candidates(4)]
    assert [one.head for one in group] == drawn, "what is timed is what will be screened"


def test_a_trial_tells_what_the_head_is_and_costs(
    make: Callable[..., Trials], study: StudyRecord, run: Run
) -> None:
    for one in make(seed=4).candidates(3):
        config = one.head
        assert config is not None
        trial = study.frozen(one.trial)
        assert trial.state is TrialState.RUNNING
        assert trial.params == {"family": config.family, "depth": config.depth}
        expected = {
            "role": "candidate",
            "head": config.model_dump(exclude_none=True),
            "name": config.label(),
            "family": config.family,
            "seed": 4,
        }
        assert {key: trial.user_attrs[key] for key in expected} == expected
        assert trial.user_attrs["parameters"] == sum(
            weight.numel() for weight in build_head(config, MAP_SHAPE[0]).parameters()
        )
        assert trial.user_attrs["macs"] > 0
        assert (
            HeadConfig(**yaml.safe_load((run.trial_folder(one.trial) / "head.yaml").read_text()))
            == config
        )
        assert (one.name, one.family, one.control, one.state.attributes()) == (
            config.label(),
            config.family,
            None,
            trial.user_attrs,
        )


def test_names_are_unique(make: Callable[..., Trials]) -> None:
    names = [one.name for one in make().candidates(6)]
    assert len(set(names)) == 6


@pytest.mark.parametrize("before", [0, 1, 3, 6])
def test_a_resume_draws_what_is_missing_and_nothing_again(
    make: Callable[..., Trials], study: StudyRecord, before: int
) -> None:
    first = make().candidates(before)
    all_of_it = make().candidates(6)
    assert [one.trial for one in all_of_it[:before]] == [one.trial for one in first]
    assert len(set(heads(make(), 6))) == 6
    assert held(make().candidates(6)) == held(all_of_it)
    assert len(study.trials()) == 6


def test_fewer_candidates_than_the_study_holds_are_its_first(make: Callable[..., Trials]) -> None:
    assert held(make().candidates(6)[:2]) == held(make().candidates(2))


@pytest.mark.parametrize("space", [None, endless_space()], ids=["finite", "endless"])
def test_wherever_a_controller_is_killed_the_next_completes_what_it_left(
    mortal: Callable[[], Any],
    opened: Callable[[Any], StudyRecord],
    killed: type[BaseException],
    run: Run,
    small_space: Space,
    space: Space | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hssl_search.heads.head.head_cost", lambda head, shape: (7, 8))
    monkeypatch.setattr("os.fsync", lambda file: None)

    def drawn(storage: Any, count: int) -> list[Contender]:
        return Trials(
            opened(storage), run, space or small_space, [MAP_SHAPE], 0, lambda trial: 0.0
        ).candidates(count)

    for dies_at in range(1, 100):
        storage = mortal()
        opened(storage)
        storage.dies_at = storage.writes + dies_at
        try:
            drawn(storage, 2)
        except killed:
            storage.dies_at = None
        else:
            break
        found, trials = drawn(storage, 4), opened(storage).trials()
        assert [trial.state for trial in trials] == [TrialState.RUNNING] * 4
        assert all(
            set(trial.user_attrs)
            == {"role", "head", "name", "family", "parameters", "macs", "seed"}
            for trial in trials
        )
        assert [one.head.label() for one in found if one.head] == [
            trial.user_attrs["name"] for trial in trials
        ]
        assert len({one.name for one in found}) == 4
    assert dies_at == 3, "each candidate is one write"


def test_a_control_is_opened_once(
    make: Callable[..., Trials], study: StudyRecord, run: Run
) -> None:
    identity = make().control("identity", HeadConfig(family="identity"))
    again = [make().control("identity", HeadConfig(family="identity")), make().control("identity")]
    assert held(again) == held([identity, identity])
    assert (identity.name, identity.family, identity.control, identity.heads) == (
        "identity head",
        "identity",
        "identity",
        [HeadConfig(family="identity")],
    )
    assert len(study.trials()) == 1
    assert (run.trial_folder(identity.trial) / "head.yaml").exists()


def test_the_control_without_head_costs_nothing_and_has_no_head_file(
    make: Callable[..., Trials], study: StudyRecord, run: Run
) -> None:
    none = make(seed=3).control("none")
    assert (
        none.heads,
        none.state.head,
        none.state.parameters,
        none.state.macs,
    ) == ([], None, 0, 0)
    assert (none.state.role, none.state.seed) == ("control", 3)
    assert not run.trial_folder(none.trial).exists()


def test_the_control_for_the_same_device_time_keeps_the_steps_that_it_was_opened_with(
    make: Callable[..., Trials],
) -> None:
    first = make().control("none_same_time", own_steps=200)
    assert first.state.same_time_steps == 200
    assert held([make().control("none_same_time", own_steps=300)]) == held([first])


def test_controls_have_names_of_their_own_and_are_no_candidates(
    make: Callable[..., Trials],
) -> None:
    trials = make()
    trials.candidates(2)
    controls = [
        trials.control(kind, HeadConfig(family="mlp") if kind == "same_architecture" else None)
        for kind in NAMES
    ]
    assert [one.name for one in controls] == list(NAMES.values())
    assert len(trials.contenders()) == 2 + len(NAMES)
    assert [one.trial for one in trials.candidates(3)] == [0, 1, 2 + len(NAMES)]


def test_a_decision_is_taken_once_with_what_the_trial_has_cost(
    make: Callable[..., Trials], study: StudyRecord
) -> None:
    trials = make()
    number = trials.candidates(2)[1].trial
    trials.decide(number, "COMPLETE", 41.5)
    trials.decide(number, "FAIL", cause="never")
    trials.note(number, states.TrialState(gate="collapsed"))
    trial = study.frozen(number)
    assert (trial.state, trial.value, trial.user_attrs["device_s"]) == (
        TrialState.COMPLETE,
        41.5,
        2.5,
    )
    assert not {"cause", "gate"} & set(trial.user_attrs)


def test_noting_writes_what_is_new_only(
    make: Callable[..., Trials], opened: Callable[[Any], StudyRecord], study: StudyRecord
) -> None:
    number = make().candidates(1)[0].trial
    make().note(number, states.TrialState(group=0, cka=0.25))
    before = study.storage.writes  # type: ignore[attr-defined]
    make().note(number, states.TrialState(group=0, cka=0.5))
    assert study.storage.writes == before + 1  # type: ignore[attr-defined]
    assert study.frozen(number).user_attrs["cka"] == 0.5


def test_closing_prunes_what_is_not_decided_and_nothing_else(
    make: Callable[..., Trials], study: StudyRecord
) -> None:
    trials = make()
    trials.candidates(3)
    trials.decide(0, "COMPLETE", 40.0)
    trials.decide(1, "FAIL", cause="it broke")
    trials.close("the end")
    assert [(trial.state, trial.user_attrs.get("cause")) for trial in study.trials()] == [
        (TrialState.COMPLETE, None),
        (TrialState.FAIL, "it broke"),
        (TrialState.PRUNED, "the end"),
    ]


def test_a_continuous_space_is_drawn_through_the_sampler(
    make: Callable[..., Trials], study: StudyRecord
) -> None:
    drawn = heads(make(space=endless_space()), 12)
    assert {head.family for head in drawn} == {"convnext", "mlp"}
    assert len({head.mlp_ratio for head in drawn}) == 12
    assert all(1.0 <= head.mlp_ratio <= 6.0 for head in drawn if head.mlp_ratio)
    assert [trial.params["mlp_ratio"] for trial in study.trials()] == [
        head.mlp_ratio for head in drawn
    ]
