"""Searches on real images that are stopped in the middle: with Ctrl-C, and with `kill -9`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from hssl_search import load_head
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.records.run import Run

slow = pytest.mark.slow(
    reason="four starts of the program; pytest --run-slow tests/whole/test_faults.py runs them"
)


def check_told_how_to_go_on(ended: Any, run: Run) -> None:
    assert ended.code == 130, ended.err
    assert ended.err.strip().splitlines() == [
        f"hssl-search: stopped; continue with: hssl-search resume runs/{run.name}"
    ]


def test_ctrl_c_ends_it_and_says_how_to_go_on(new_place: Callable[[], Any]) -> None:
    place = new_place()
    run, program = place.search("1cpu-h")
    assert program.wait_for_phase(run, "measure"), program.wait()
    program.interrupt()
    check_told_how_to_go_on(program.wait(), run)
    assert place.processes() == []
    assert "No verdict yet" in run.report_html.read_text()
    with run.lock():
        assert place.snapshot(run).spent() > 0


@slow
@pytest.mark.parametrize(
    ("to", "number"), [("group", signal.SIGTERM), ("group", signal.SIGHUP), ("all", signal.SIGTERM)]
)
def test_other_ways_to_ask_it_to_stop_are_as_ctrl_c(
    new_place: Callable[[], Any], to: str, number: signal.Signals
) -> None:
    place = new_place()
    run, program = place.search("1cpu-h")
    assert program.wait_for_phase(run, "measure"), program.wait()
    program.signal_group(number) if to == "group" else place.signal_all(number)
    check_told_how_to_go_on(program.wait(), run)
    assert place.processes() == []
    assert "No verdict yet" in run.report_html.read_text()
    with run.lock():
        assert place.snapshot(run).spent() > 0


@dataclass(frozen=True)
class Troubled:
    """A search that was interrupted while it screened, resumed, killed in its proxies, and resumed;
    what its records held each time.
    """

    run: Run
    interrupted: Any
    killed: Any
    final: Any
    out: str


@pytest.fixture(scope="session")
def troubled(new_place: Callable[[], Any], budgets: tuple[str, ...]) -> Troubled:
    place = new_place()
    for budget in budgets[1:]:
        if (found := in_trouble(place, budget)) is not None:
            return found
    pytest.fail(f"not even {budgets[-1]} was enough on this machine")


def in_trouble(place: Any, budget: str) -> Troubled | None:
    """Return a search with that budget that was interrupted while it screened, resumed, killed in
    its proxies, and resumed; None where the budget does not last for all of it.
    """
    run, program = place.search(budget)
    if not program.wait_for_phase(run, "screen"):
        assert (ended := program.wait()).too_small, ended.err
        return None
    program.interrupt()
    check_told_how_to_go_on(program.wait(), run)
    interrupted = place.snapshot(run)
    program = place.start("resume", run.name)
    if not program.wait_for_phase(run, "proxy"):
        assert (ended := program.wait()).code == 0 or ended.too_small, ended.err
        return None
    program.kill()
    killed = place.snapshot(run)
    ended = place.start("resume", run.name).wait()
    if not ended.did_all(final := place.snapshot(run)):
        return None
    assert ended.err == ""
    return Troubled(run, interrupted, killed, final, ended.out)


@slow
@pytest.mark.parametrize("stage", ["interrupted", "killed"])
def test_no_decided_trial_is_lost_or_changed(troubled: Troubled, stage: str) -> None:
    before = getattr(troubled, stage).decided()
    after = troubled.final.decided()
    assert {number: after[number] for number in before} == before


@slow
@pytest.mark.parametrize("stage", ["interrupted", "killed"])
def test_no_trial_and_no_ended_job_is_repeated(troubled: Troubled, stage: str) -> None:
    before = getattr(troubled, stage)
    assert {key: troubled.final.jobs[key] for key in before.jobs} == before.jobs
    names = [trial.user_attrs["name"] for trial in troubled.final.trials.values()]
    assert len(names) == len(set(names))
    assert all(
        troubled.final.trials[number].params == trial.params
        for number, trial in before.trials.items()
    )
    later = {
        charge["attempt"].partition("#")[0]
        for charge in troubled.final.charges[len(before.charges) :]
    }
    assert not later & set(before.jobs)


@slow
def test_the_time_before_a_stop_stays_charged_and_the_budget_holds(troubled: Troubled) -> None:
    for before, after in pairwise((troubled.interrupted, troubled.killed, troubled.final)):
        assert after.charges[: len(before.charges)] == before.charges
        assert 0 < before.spent() < after.spent()
    assert troubled.final.spent() <= parse_budget(troubled.run.config()["budget"]).seconds


@slow
def test_the_resumed_search_ends_as_any_other(troubled: Troubled) -> None:
    assert all(trial.state.is_finished() for trial in troubled.final.trials.values())
    assert troubled.final.attributes["verdict"]["sentence"] in " ".join(troubled.out.split())
    plans = [
        stage.attributes["plan"]
        for stage in (troubled.interrupted, troubled.killed, troubled.final)
    ]
    assert all(plan.get("first", plan["numbers"]) == plans[0]["numbers"] for plan in plans)
    assert plans[2] == {**plans[1], "done": True}
    assert load_head(troubled.run.winner / "head.yaml")
    assert (troubled.run.winner / "base.safetensors").exists()
