"""Searches that were stopped, wherever that was, and taken up again by another controller."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.configfile import read_yaml, write_yaml
from hssl_search.engine.config import ADDED
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
BUDGET = "20cpu-min"


def recorded(lab: Lab) -> dict[str, Any]:
    return lab.study.job_records()


def ended(lab: Lab) -> dict[str, Any]:
    return {key: record for key, record in recorded(lab).items() if record["state"] != "cut"}


def told(verdict: dict[str, Any]) -> tuple[Any, ...]:
    """What a verdict says, without the means of those that lost."""
    return verdict["winner"], verdict["name"], verdict["state"], verdict["sentence"]


def check_whole(lab: Lab, verdict: dict[str, Any], expected: dict[str, Any]) -> None:
    assert told(verdict) == told(expected)
    trials = lab.study.trials()
    assert all(trial.state.is_finished() for trial in trials)
    assert all(trial.state is TrialState.COMPLETE or trial.user_attrs["cause"] for trial in trials)
    names = Counter(trial.user_attrs["name"] for trial in trials)
    assert set(names.values()) == {1}
    assert set(names) == {
        *lab.accuracy,
        "identity head",
        "noise head",
        "no head",
        "same-architecture head",
        "no head, same device-time",
    }
    assert all(
        "group" in trial.user_attrs
        for trial in trials
        if trial.user_attrs["name"] in (*lab.accuracy, "identity head", "noise head")
    )
    winner = lab.study.frozen(verdict["winner"])
    assert set(winner.intermediate_values) >= {
        max(lab.study.study_attributes()["plan"]["numbers"]["rungs"])
    }
    assert all(count == 1 for key, count in lab.ends.items() if key != lab.interrupted), (
        "a job came to its end twice"
    )
    assert lab.charged() <= lab.budget.seconds


@pytest.fixture
def expected(make_lab: Callable[..., Lab]) -> dict[str, Any]:
    """The verdict of a search that nothing stopped, and how long it was."""
    lab = make_lab(budget=BUDGET)
    verdict = lab.search()
    rungs = len(lab.watcher.of("report")) - 1  # measuring reports twice
    return {**verdict, "rungs": rungs, "jobs": len(lab.starts), "writes": lab.storage.writes}


def test_ctrl_c_at_any_report_is_taken_up_again_to_the_same_verdict(
    make_lab: Callable[..., Lab], expected: dict[str, Any]
) -> None:
    assert expected["state"] == "better"
    for stop_at in range(1, expected["rungs"] + 1):
        lab = make_lab(budget=BUDGET)
        seen: list[str] = []

        def interrupt(key: str, step: int, stop_at: int = stop_at, seen: list[str] = seen) -> None:
            seen.append(key)
            if len(seen) == stop_at:
                raise KeyboardInterrupt

        lab.at_rung, lab.interrupted = interrupt, None
        if stop_at < expected["rungs"]:  # measuring passes no rung
            with pytest.raises(KeyboardInterrupt):
                lab.search()
            assert recorded(lab).get(seen[-1], {"state": "cut"})["state"] == "cut"
        finished, starts, charged = ended(lab), Counter(lab.starts), lab.charged()
        assert charged == pytest.approx(lab.now - 100.0, abs=1e-3)
        check_whole(lab, lab.search(), expected)
        again = Counter(lab.starts) - starts
        assert not set(again) & set(finished), "a job that had ended was run again"
        assert {key: recorded(lab)[key] for key in finished} == finished
        assert lab.charged() == pytest.approx(lab.now - 100.0, abs=1e-3)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_search_ranked_without_labels_is_taken_up_again_to_the_same_verdict(
    make_lab: Callable[..., Lab], labelled: bool
) -> None:
    whole = make_lab(budget=BUDGET, rank_by="labelfree", labelled=labelled)
    expected = whole.search()
    # measuring reports twice and passes no rung
    for stop_at in range(1, len(whole.watcher.of("report")) - 1, 3):
        lab = make_lab(budget=BUDGET, rank_by="labelfree", labelled=labelled)
        seen: list[str] = []

        def interrupt(key: str, step: int, stop_at: int = stop_at, seen: list[str] = seen) -> None:
            seen.append(key)
            if len(seen) == stop_at:
                raise KeyboardInterrupt

        lab.at_rung, lab.interrupted = interrupt, None
        with pytest.raises(KeyboardInterrupt):
            lab.search()
        verdict = lab.search()
        check_whole(lab, verdict, expected)
        assert verdict["agreement"] == expected["agreement"]


def test_a_job_that_was_cut_goes_on_from_its_checkpoint(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget=BUDGET)
    stopped: list[tuple[str, int]] = []

    def interrupt(key: str, step: int) -> None:
        if key.startswith("proxy/0004") and not stopped:
            stopped.append((key, step))
            raise KeyboardInterrupt

    lab.at_rung = interrupt
    with pytest.raises(KeyboardInterrupt):
        lab.search()
    lab.search()
    plan = lab.study.study_attributes()["plan"]["numbers"]
    assert list(lab.study.frozen(4).intermediate_values) == plan["rungs"]
    assert lab.study.frozen(4).user_attrs["device_s"] == pytest.approx(
        plan["proxy_steps"] * 0.12 + (len(plan["rungs"]) + 1) * 0.6 + 3.0, abs=0.01
    ), "one evaluation and one start more than without the stop"


def test_a_full_training_that_was_stopped_goes_on_to_the_same_length(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget=BUDGET, full_epochs=10**6)
    stopped: list[int] = []

    def interrupt(key: str, step: int) -> None:
        if key == "full" and not stopped:
            stopped.append(step)
            raise KeyboardInterrupt

    lab.at_rung = interrupt
    with pytest.raises(KeyboardInterrupt):
        lab.search()
    planned = lab.study.study_attributes()["full"]
    lab.search()
    [full] = [record for record in recorded(lab).values() if record["phase"] == "full"]
    assert lab.study.study_attributes()["full"] == planned
    assert [report["step"] for report in full["reports"]] == planned["rungs"]
    assert (stopped, full["state"], lab.starts.count("full")) == (planned["rungs"][:1], "done", 2)


def lives(lab: Lab, killed: type[BaseException], dies_at: int | None) -> dict[str, Any] | None:
    """One controller; its verdict, or None when it was killed."""
    lab.storage.dies_at = dies_at
    try:
        return lab.search()
    except killed:
        return None
    finally:
        lab.storage.dies_at = None


def test_what_a_job_reported_between_a_stop_and_a_kill_is_known(
    make_lab: Callable[..., Lab], killed: type[BaseException]
) -> None:
    whole = make_lab(budget=BUDGET)
    whole.search()
    key = next(key for key in whole.starts if key.startswith("proxy/"))
    expected = recorded(whole)[key]["reports"]
    rungs, lab = [report["step"] for report in expected], make_lab(budget=BUDGET)

    def stop(at: str, step: int) -> None:
        if (at, step) == (key, rungs[1]):
            raise KeyboardInterrupt

    def kill(at: str, step: int) -> None:
        if (at, step) == (key, rungs[2]):
            lab.storage.dies_at = lab.storage.writes

    lab.at_rung = stop
    with pytest.raises(KeyboardInterrupt):
        lab.search()
    lab.at_rung = kill
    assert lives(lab, killed, None) is None
    lab.at_rung = lambda at, step: None
    lab.search()
    assert [report["step"] for report in recorded(lab)[key]["reports"]] == rungs
    assert recorded(lab)[key]["reports"][:2] == expected[:2], (
        "the time of a rung is what it was first"
    )


def test_a_group_that_ended_and_was_not_fully_noted_before_a_kill_tells_the_same_pace(
    make_lab: Callable[..., Lab], killed: type[BaseException]
) -> None:
    def begun() -> Lab:
        lab = make_lab(budget="60cpu-min", full_epochs="off", pruner="none")
        # By their multiply-adds the group would take less than half of that.
        lab.weight = dict.fromkeys(lab.overlap, 6.0)
        return lab

    def found(lab: Lab) -> tuple[float, Any]:
        controller = lab.controller()
        controller.search()
        lab.meter.close()
        return controller.backend.pace.of("screen"), lab.study.study_attributes()["plan"][
            "numbers"
        ]["rungs"]

    pace, rungs = found(begun())
    half_noted = 0
    for writes in range(1, 10):
        lab, seen = begun(), list[int]()

        def kill(
            key: str, step: int, lab: Lab = lab, seen: list[int] = seen, writes: int = writes
        ) -> None:
            seen += [step] if key == "screen/group0" else []
            if len(seen) == 2 and lab.storage.dies_at is None:
                lab.storage.dies_at = lab.storage.writes + writes

        lab.at_rung = kill
        assert lives(lab, killed, None) is None
        lab.at_rung = lambda key, step: None
        if ended(lab).get("screen/group0") and not all(
            "gate" in lab.trial(name).user_attrs for name in lab.overlap
        ):
            half_noted += 1
            assert found(lab) == (pytest.approx(pace, rel=1e-6), rungs)
    assert half_noted > 2


@pytest.mark.parametrize("promote", ["learned", "random"])
def test_promotion_goes_on_as_it_would_have_after_a_stop_or_a_kill(
    make_lab: Callable[..., Lab], killed: type[BaseException], promote: str
) -> None:
    parameters = {
        "family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]},
        "depth": {"int": [1, 6]},
    }

    def begun() -> Lab:
        lab = make_lab(
            budget="60cpu-min",
            promote=promote,
            space=Space.from_plain({"parameters": parameters}, "wide"),
        )
        lab.accuracy = {name: 90.0 - 20.0 * overlap for name, overlap in lab.overlap.items()}
        return lab

    whole = begun()
    expected = whole.search()
    order = whole.study.study_attributes()["promoted"]
    assert len(order) > 8
    for life in (150, 230):
        lab, verdict = begun(), None
        while verdict is None:
            verdict = lives(lab, killed, lab.storage.writes + life)
        assert lab.study.study_attributes()["promoted"] == order
        assert told(verdict) == told(expected)


@pytest.mark.parametrize("part", range(3))
def test_a_kill_at_any_write_is_taken_up_again_to_the_same_verdict(
    make_lab: Callable[..., Lab], killed: type[BaseException], expected: dict[str, Any], part: int
) -> None:
    for dies_at in range(1 + part, expected["writes"] + 1, 3):
        lab = make_lab(budget=BUDGET)
        assert lives(lab, killed, lab.storage.writes + dies_at) is None
        finished, starts, charged = ended(lab), Counter(lab.starts), lab.charged()
        lab.interrupted = lab.starts[-1] if lab.starts else None
        check_whole(lab, lab.search(), expected)
        assert not set(Counter(lab.starts) - starts) & set(finished), (
            "a job that had ended was run again"
        )
        assert {key: recorded(lab)[key] for key in finished} == finished
        assert lab.charged() >= charged


@pytest.mark.parametrize("life", [23, 41, 77])
def test_a_search_of_many_short_lives_ends(
    make_lab: Callable[..., Lab], killed: type[BaseException], expected: dict[str, Any], life: int
) -> None:
    lab = make_lab(budget="2cpu-h")
    charged, verdict, count = [0.0], None, 0
    while verdict is None:
        verdict = lives(lab, killed, lab.storage.writes + life)
        charged.append(lab.charged())
        count += 1
        assert count < 200
    assert charged == sorted(charged)
    assert verdict["name"] == expected["name"]
    names = [trial.user_attrs["name"] for trial in lab.study.trials()]
    assert len(set(names)) == len(names)
    assert json.dumps(verdict)


def test_a_run_of_an_earlier_version_goes_on_as_it_went(make_lab: Callable[..., Lab]) -> None:
    whole = make_lab(sampler="random", promote="discrepancy").search()
    lab = make_lab()
    written = read_yaml(lab.run.search_yaml)
    earlier = {key: value for key, value in written.items() if key not in ADDED}
    write_yaml(lab.run.search_yaml, earlier)
    assert lab.search() == whole
    assert lab.study.study_attributes()["promotion"]["rule"] == "discrepancy"
