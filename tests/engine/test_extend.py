"""Searches whose budget was extended: cut in the middle, and finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.records.state import PlanState, SearchState
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
WHOLE = "10cpu-min"


@pytest.fixture
def many(small_space: Space) -> Space:
    return Space.from_plain(
        {
            "parameters": {
                **small_space.as_plain()["parameters"],
                "depth": {"choice": list(range(1, 9))},
            }
        },
        "many",
    )


def extend(lab: Lab, budget: str) -> dict[str, Any]:
    lab.budget = parse_budget(budget)
    return lab.search()


def left(lab: Lab) -> list[Any]:
    """All that a study holds of its trials, but for time."""
    return [
        (
            trial.number,
            trial.state,
            trial.params,
            trial.values,
            trial.intermediate_values,
            timeless(trial.user_attrs),
        )
        for trial in lab.study.trials()
    ]


def timeless(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key != "device_s"}


def jobs(lab: Lab) -> dict[str, Any]:
    """state and (step, loss, accuracy) of each report, by job."""
    return {
        key: (
            record["state"],
            [(report["step"], report["metrics"].get("accuracy")) for report in record["reports"]],
        )
        for key, record in lab.study.job_records().items()
    }


def longest_full(lab: Lab) -> dict[str, Any]:
    """The jobs, of the full trainings the last: what a budget lasts for beside jobs that it does
    not is trained again, for longer.
    """
    found = jobs(lab)
    *before, last = [found.pop(key) for key in sorted(found) if key.startswith("full")]
    assert all(state == "done" and reports[-1][0] < last[1][-1][0] for state, reports in before)
    return {**found, "full": last}


def cuts(whole: Lab) -> Iterator[float]:
    """Budgets, in seconds, at which a search of this length is cut in each phase."""
    spent = whole.charged()
    yield from (12.0 + place * (spent - 12.0) / 11 for place in range(11))


def undone(lab: Lab) -> PlanState:
    """The plan of a search, as if it were still to be carried out."""
    assert lab.study.state.plan is not None
    return lab.study.state.plan.with_set(PlanState(done=False))


def test_a_search_in_two_halves_leaves_the_same_study_as_in_one(
    make_lab: Callable[..., Lab],
) -> None:
    whole = make_lab(budget=WHOLE)
    verdict = whole.search()
    plan = undone(whole)
    cut_in: set[str] = set()
    for seconds in cuts(whole):
        lab = make_lab(budget=f"{seconds}cpu-s")
        lab.study.write(SearchState(plan=plan))
        lab.search()
        cut_in |= {record["phase"] for record in lab.study.job_records().values()} - {"measure"}
        assert lab.charged() <= seconds + 1e-3
        found = extend(lab, WHOLE)
        assert left(lab) == left(whole), f"cut after {seconds} s"
        assert longest_full(lab) == longest_full(whole), f"cut after {seconds} s"
        assert all(
            found[key] == verdict[key] for key in ("winner", "state", "sentence", "comparison")
        )
        assert lab.charged() <= lab.budget.seconds
        assert not {
            key for key, count in lab.ends.items() if count > 1 and jobs(lab)[key][0] != "done"
        }
    assert cut_in == {"screen", "proxy", "confirm"}, (
        "a full training that would be cut below a proxy's length is not begun"
    )


def test_a_search_cut_in_screening_and_extended_beyond_its_plan_trains_nothing_twice(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    planned = make_lab(many, budget=WHOLE)
    planned.search()
    lab = make_lab(many, budget="12cpu-s")
    lab.study.write(SearchState(plan=undone(planned)))
    lab.search()
    extend(lab, "40cpu-min")
    assert len(lab.study.job_records()) > len(planned.study.job_records()), (
        "what was planned is done, and more"
    )
    assert {key for key, count in lab.ends.items() if count > 1} == set()


def test_what_the_budget_did_not_last_for_stays_undecided_and_is_told(
    make_lab: Callable[..., Lab],
) -> None:
    whole = make_lab(budget=WHOLE)
    whole.search()
    lab = make_lab(budget="60cpu-s")
    lab.study.write(SearchState(plan=undone(whole)))
    verdict = lab.search()
    assert verdict["winner"] is None
    assert {
        trial.state for trial in lab.study.trials() if trial.user_attrs["role"] == "candidate"
    } == {TrialState.RUNNING}
    assert "promoted" not in lab.study.study_attributes(), (
        "nothing is promoted before all are screened"
    )
    assert (
        "The budget did not last for all of: screen. Continue with: hssl-search "
        "resume" in lab.watcher.notes()
    )


def test_a_finished_search_with_more_budget_screens_promotes_and_confirms_more_at_the_same_fidelity(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    lab = make_lab(many, budget="4cpu-min")
    first = lab.search()
    before, trials, keys = (
        lab.study.study_attributes()["plan"]["numbers"],
        left(lab),
        set(lab.study.job_records()),
    )
    verdict = extend(lab, "4cpu-min+40cpu-min")
    plan = lab.study.study_attributes()["plan"]
    after = plan["numbers"]
    for same in ("group_size", "screen_steps", "proxy_steps", "rungs"):
        assert after[same] == before[same]
    assert before["candidates"] < after["candidates"] == 24
    assert after["proxies"] > before["proxies"] and after["confirm_jobs"] > before["confirm_jobs"]
    assert left(lab)[: len(trials)] == trials, "what was decided stays"
    assert keys < set(lab.study.job_records())
    assert verdict != first and verdict["name"] == max(lab.accuracy, key=lab.accuracy.__getitem__)
    assert verdict["comparison"]["seeds"] > first["comparison"]["seeds"]
    assert lab.study.study_attributes()["verdict"] == verdict
    assert (plan["budget_s"], plan["done"]) == (44 * 60, True)
    assert lab.charged() <= lab.budget.seconds


def test_groups_that_were_screened_stay_as_they_were(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    lab = make_lab(many, budget="4cpu-min")
    lab.search()
    grouped = {
        trial.number: trial.user_attrs["group"]
        for trial in lab.study.trials()
        if "group" in trial.user_attrs
    }
    extend(lab, "1cpu-h")
    again = {
        trial.number: trial.user_attrs["group"]
        for trial in lab.study.trials()
        if "group" in trial.user_attrs
    }
    assert {number: again[number] for number in grouped} == grouped
    assert max(again.values()) > max(grouped.values())
    assert Counter(key for key in lab.starts if key.startswith("screen")).most_common(1)[0][1] == 1


def test_where_the_space_is_used_up_heads_that_were_not_promoted_have_their_turn(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget=WHOLE)
    lab.search()
    passed_over = {
        trial.number: trial
        for trial in lab.study.trials()
        if trial.user_attrs["role"] == "candidate" and not trial.user_attrs["promoted"]
    }
    extend(lab, "1cpu-h")
    again = [trial for trial in lab.study.trials() if "retry_of" in trial.user_attrs]
    assert {trial.user_attrs["retry_of"] for trial in again} == set(passed_over)
    for trial in again:
        earlier = passed_over[trial.user_attrs["retry_of"]]
        assert (trial.params, trial.user_attrs["head"]) == (
            earlier.params,
            earlier.user_attrs["head"],
        )
        assert trial.user_attrs["discrepancy"] == earlier.user_attrs["discrepancy"]
        assert earlier.state is TrialState.PRUNED and trained(trial)
    assert sum(key.startswith("screen") for key in lab.starts) == 1


def trained(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and bool(trial.intermediate_values)


def test_extending_twice_goes_on_and_a_resume_without_more_budget_changes_nothing(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    lab = make_lab(many, budget="4cpu-min", full_epochs="off")
    lab.search()
    proxies = []
    for budget in ("8cpu-min", "20cpu-min"):
        verdict = extend(lab, budget)
        proxies.append(sum(key.startswith("proxy/") for key in jobs(lab)))
        held, starts = left(lab), list(lab.starts)
        assert lab.search() == verdict
        assert (left(lab), lab.starts) == (held, starts)
    assert proxies[0] < proxies[1]


def test_the_full_training_of_an_extended_search_is_longer_or_another_winners(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget=WHOLE, full_epochs=10**6)
    lab.search()
    before = lab.study.study_attributes()["full"]
    extend(lab, "1cpu-h")
    after, records = lab.study.study_attributes()["full"], lab.study.job_records()
    assert (before["number"], after["number"], after["heads"]) == (1, 2, before["heads"])
    assert after["steps"] > before["steps"]
    assert [records[key]["reports"][-1]["step"] for key in ("full", "full/2")] == [
        before["steps"],
        after["steps"],
    ]


def test_a_full_training_that_has_all_wanted_steps_is_not_made_again(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget=WHOLE)
    lab.search()
    extend(lab, "1cpu-h")
    assert lab.starts.count("full") == 1 and "full/2" not in lab.starts


def test_a_budget_that_ended_while_measuring_can_be_extended(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="6cpu-s")
    with pytest.raises(UserError, match="the budget"):
        lab.search()
    assert extend(lab, WHOLE)["state"] == "better"


@pytest.mark.parametrize("killed_at", [3, 11, 23, 35])
def test_an_extension_that_was_killed_goes_on(
    make_lab: Callable[..., Lab], killed: type[BaseException], killed_at: int
) -> None:
    whole = make_lab(budget=WHOLE)
    whole.search()
    verdict = extend(whole, "30cpu-min")
    lab = make_lab(budget=WHOLE)
    lab.search()
    lab.storage.dies_at = lab.storage.writes + killed_at
    with pytest.raises(killed):
        extend(lab, "30cpu-min")
    lab.storage.dies_at = None
    found = lab.search()
    assert (found["name"], found["state"]) == (verdict["name"], verdict["state"])
    heads = [
        (trial.user_attrs["name"], trial.user_attrs.get("retry_of")) for trial in lab.study.trials()
    ]
    assert len(set(heads)) == len(heads)
    assert all(trial.state.is_finished() for trial in lab.study.trials())


def confirmed(lab: Lab) -> list[tuple[str, int, int]]:
    """(head, seed, steps) of the confirming runs, as they were chosen."""
    records = [
        record for record in lab.study.job_records().values() if record["phase"] == "confirm"
    ]
    return [
        (
            lab.study.frozen(record["trial"]).user_attrs["name"],
            record["seed"],
            record["task"]["steps"],
        )
        for record in records
    ]


def begun(make_lab: Callable[..., Lab], many: Space, noise: float = 0.0, **changes: Any) -> Lab:
    """A finished search; among the heads that its extension will find are better ones, which take
    twice as long as no head does.
    """
    lab = make_lab(many, budget="4cpu-min", **changes)
    lab.noise = noise
    lab.search()
    unknown = set(lab.accuracy) - {trial.user_attrs["name"] for trial in lab.study.trials()}
    lab.weight = dict.fromkeys(unknown, 5.0)
    lab.accuracy = {
        name: accuracy + 30.0 * (name in unknown) for name, accuracy in lab.accuracy.items()
    }
    return lab


def test_the_control_of_the_same_device_time_is_that_of_the_first_leader_after_an_extension_too(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    lab = begun(make_lab, many)
    steps = lab.study.study_attributes()["plan"]["numbers"]["proxy_steps"]
    control = "no head, same device-time"
    once = [(control, 0, round(1.2 * steps))]
    assert [run for run in confirmed(lab) if run[0].startswith(control)] == once
    verdict = extend(lab, "44cpu-min")
    assert verdict["name"] in lab.weight
    assert [run for run in confirmed(lab) if run[0].startswith(control)] == once
    assert {one["against"] for one in verdict["others"]} == {
        "identity head",
        "same-architecture head",
        control,
    }


@pytest.mark.parametrize("life", range(8, 515, 46))
def test_an_extension_that_was_killed_confirms_as_one_that_was_not(
    make_lab: Callable[..., Lab], many: Space, killed: type[BaseException], life: int
) -> None:
    whole = begun(make_lab, many, noise=20.0)
    before, first = whole.storage.writes, confirmed(whole)
    verdict = extend(whole, "44cpu-min")
    assert len(confirmed(whole)) > len(first) + 20 and confirmed(whole)[: len(first)] == first
    assert whole.storage.writes - before > 515
    lab = begun(make_lab, many, noise=20.0)
    lab.storage.dies_at = lab.storage.writes + life
    with pytest.raises(killed):
        extend(lab, "44cpu-min")
    lab.storage.dies_at = None
    found = lab.search()
    assert (confirmed(lab), jobs(lab)) == (confirmed(whole), jobs(whole))
    assert [found[key] for key in ("winner", "sentence", "rows", "others")] == [
        verdict[key] for key in ("winner", "sentence", "rows", "others")
    ]


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9])
def test_an_extension_that_was_cut_in_confirming_and_extended_leaves_the_same_as_in_one_go(
    make_lab: Callable[..., Lab], many: Space, share: float
) -> None:
    whole = begun(make_lab, many, noise=20.0, full_epochs="off")
    first = whole.charged()
    verdict = extend(whole, "44cpu-min")
    lab = begun(make_lab, many, noise=20.0, full_epochs="off")
    lab.study.write(SearchState(plan=undone(whole)))
    extend(lab, f"{first + share * (whole.charged() - first)}cpu-s")
    assert len(lab.study.job_records()) < len(whole.study.job_records())
    found = extend(lab, "44cpu-min")
    assert (left(lab), jobs(lab), confirmed(lab)) == (left(whole), jobs(whole), confirmed(whole))
    assert all(found[key] == verdict[key] for key in ("winner", "state", "sentence", "others"))
