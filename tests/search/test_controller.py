"""Whole searches without training: what they decide, and what they record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from hssl_search.errors import UserError
from hssl_search.reporting.agreement import agreements
from hssl_search.reporting.leaderboard import leaderboard
from hssl_search.search.candidates import LABELFREE
from hssl_search.search.execution.jobs import State
from hssl_search.search.jobmaker import Machine
from hssl_search.search.measures import ACCURACY, RANKINGS
from hssl_search.search.records.storage import sqlite_url
from hssl_search.search.records.study import StudyRecord
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def check(lab: Lab, within: bool = True) -> None:
    """What holds at the end of every search, however it went."""
    trials = lab.study.trials()
    names = [trial.user_attrs["name"] for trial in trials]
    assert len(set(names)) == len(names)
    heads = [json.dumps(trial.user_attrs["head"], sort_keys=True) for trial in trials if trial.user_attrs["role"] == "candidate"]
    assert len(set(heads)) == len(heads)
    for trial in trials:
        check_trial(trial, lab)
    assert lab.charged() <= lab.budget.seconds + 1e-3 or not within


def check_trial(trial: FrozenTrial, lab: Lab) -> None:
    attributes = trial.user_attrs
    if trial.state is TrialState.RUNNING:
        assert "The budget did not last for all of" in lab.watcher.notes(), "only what the budget did not last for is undecided"
        return
    assert trial.state in (COMPLETE, PRUNED, FAIL)
    assert trial.state is COMPLETE or attributes["cause"].strip(), "what did not come to its end has a cause"
    assert attributes["device_s"] >= 0
    if trial.state is COMPLETE:
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
        assert "cause" not in attributes
    if attributes.get("control") == "noise":
        assert trial.state is PRUNED
        assert trial.intermediate_values == {}
    if attributes.get("promoted"):
        assert attributes["gate"] == "healthy"
    if attributes["role"] == "candidate" and trial.intermediate_values:
        assert attributes["promoted"]
    metrics = lab.run.trial_folder(trial.number) / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    measure = RANKINGS[lab.run.config()["rank_by"]]
    rungs = lab.study.study_attributes()["plan"]["numbers"]["rungs"]
    own = {line["step"]: measure.score(line) for line in lines
           if line["job"].startswith("proxy/") and line["step"] in rungs and measure.score(line) is not None}
    if own:
        assert own == trial.intermediate_values


def test_a_search_finds_the_best_of_the_promoted_and_compares_it_with_no_head(lab: Lab) -> None:
    verdict = lab.search()
    check(lab)
    winner = max(lab.accuracy, key=lab.accuracy.__getitem__)
    assert (verdict["name"], verdict["state"]) == (winner, "better")
    assert verdict["winner"] == lab.trial(winner).number
    assert verdict["comparison"] == {
        "against": "no head",
        "difference": pytest.approx(7.0),
        "interval": pytest.approx([7.0, 7.0], abs=2.0),
        "seeds": 2,
    }
    assert verdict["comparison"]["interval"][0] < 6.9, "equal gaps of two seeds do not tell that there is no noise"
    assert [one["against"] for one in verdict["others"]] == ["identity head", "same-architecture head", "no head, same device-time"]
    rows = {row["name"]: row for row in verdict["rows"]}
    assert {name: row["mean"] for name, row in rows.items() if row["role"] == "reference"} == {"raw pixels": 60.0, "untrained base": 50.0}
    assert {name for name, row in rows.items() if row["role"] == "control"} == {
        "no head",
        "identity head",
        "same-architecture head",
        "no head, same device-time",
    }
    assert rows[winner]["mean"] == pytest.approx(77.05)
    assert lab.study.study_attributes()["verdict"] == verdict
    assert lab.study.study_attributes()["reference"] == {"raw pixels": 60.0, "untrained base": 50.0}


def test_a_search_leaves_the_same_in_a_database_as_in_memory(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    in_memory = make_lab()
    verdict, in_database = in_memory.search(), make_lab()
    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo", new=True) as record:
        in_database.record = record
        assert in_database.search() == verdict
        check(in_database)
    with StudyRecord.open(sqlite_url(tmp_path / "study.db"), "demo") as record:
        in_database.record = record
        left = [
            [(trial.state, trial.params, trial.values, trial.user_attrs, trial.intermediate_values) for trial in lab.study.trials()]
            for lab in (in_memory, in_database)
        ]
        assert left[0] == left[1]
        assert record.study_attributes() == in_memory.study.study_attributes()
        assert record.job_records() == in_memory.study.job_records()


def test_states_of_all_trials_are_true(lab: Lab) -> None:
    lab.search()
    states = {trial.user_attrs["name"]: trial.state for trial in lab.study.trials()}
    plan = lab.study.study_attributes()["plan"]["numbers"]
    assert (len(states), plan["candidates"], plan["proxies"]) == (11, 6, 3)
    assert [states[name] for name in ("no head", "identity head", "same-architecture head", "no head, same device-time")] == [COMPLETE] * 4
    order = sorted(lab.accuracy, key=lab.accuracy.__getitem__)
    assert states[order[-1]] is COMPLETE
    stopped = lab.trial(next(name for name in order if name.startswith("convnext depth 2")))
    assert (stopped.state, list(stopped.intermediate_values)) == (PRUNED, plan["rungs"][:1])
    assert stopped.user_attrs["cause"] == f"stopped at step {plan['rungs'][0]}: below the median of that rung."
    assert all("expected of other heads" in lab.trial(name).user_attrs["cause"] for name in order if " depth 1 " in name)


def test_trials_hold_what_screening_measured(lab: Lab) -> None:
    lab.search()
    for name, overlap in lab.overlap.items():
        found = lab.trial(name).user_attrs
        assert (found["overlap"], found["overlap_excess"], found["discrepancy"]) == (overlap, *[pytest.approx(overlap - 0.3)] * 2)
        assert (found["gate"], found["chance_loss"], found["group"]) == ("healthy", 4.5, 0)
    assert lab.trial("identity head").user_attrs["discrepancy"] == 0
    assert lab.trial("noise head").user_attrs["gate"] == "not learning"


def test_device_time_of_a_trial_is_what_its_proxy_was_charged(lab: Lab) -> None:
    lab.search()
    plan = lab.study.study_attributes()["plan"]["numbers"]
    seconds = plan["proxy_steps"] * 0.12 + len(plan["rungs"]) * 0.6
    assert lab.trial("identity head").user_attrs["device_s"] == pytest.approx(seconds, abs=1e-2)


def test_every_job_is_recorded_and_watched(lab: Lab) -> None:
    lab.search()
    records = lab.study.job_records()
    assert list(records) == lab.starts
    assert [phase for phase, *_ in lab.watcher.of("phase_started")] == ["measure", "screen", "proxy", "confirm", "full"]
    assert len(lab.watcher.of("phase_ended")) == 5
    assert [name for (name,) in lab.watcher.of("job_started")] == [record["name"] for record in records.values()]
    assert lab.watcher.of("best")[-1] == (max(lab.accuracy, key=lab.accuracy.__getitem__), pytest.approx(77.05))
    assert lab.watcher.of("control")[-1] == (pytest.approx(70.05),)
    assert "Plan: screen 6 heads" in lab.watcher.notes()


def test_search_yaml_holds_the_plan_and_the_precision_that_was_faster(lab: Lab) -> None:
    lab.search()
    held = yaml.safe_load(lab.run.search_yaml.read_text())
    assert held["plan"] == lab.study.study_attributes()["plan"]["numbers"]
    assert [held["setting"]["recipe"][stage]["precision"] for stage in ("proxy", "full")] == ["fp32", "fp32"]


def test_the_full_training_is_the_winners_and_as_long_as_wanted(lab: Lab) -> None:
    lab.search()
    full = lab.study.study_attributes()["full"]
    assert full["steps"] == 3 * (1_000 // 256)
    assert full["heads"] == [lab.trial(max(lab.accuracy, key=lab.accuracy.__getitem__)).user_attrs["head"]]
    assert lab.study.job_records()["full"]["reports"][-1]["step"] == full["steps"]


def test_the_full_training_takes_what_the_budget_leaves(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(full_epochs=10**6)
    lab.search()
    check(lab)
    assert lab.study.job_records()["full"]["state"] == "done"
    assert 0.85 * lab.budget.seconds < lab.charged() <= lab.budget.seconds


def test_full_training_switched_off(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(full_epochs="off")
    lab.search()
    assert "full" not in lab.study.job_records()


def test_where_no_head_is_better_the_full_training_has_no_head(lab: Lab) -> None:
    lab.accuracy = {name: 60.0 + number for number, name in enumerate(lab.accuracy)}
    verdict = lab.search()
    check(lab)
    assert (verdict["state"], verdict["comparison"]["difference"]) == ("no head", pytest.approx(-5.0))
    assert lab.study.study_attributes()["full"]["heads"] == []
    assert lab.study.study_attributes()["full"]["name"] == "full training with no head"


def test_the_noise_head_is_never_promoted_though_it_is_the_most_discrepant(lab: Lab) -> None:
    lab.search()
    noise = lab.trial("noise head")
    assert noise.user_attrs["discrepancy"] > max(lab.trial(name).user_attrs["discrepancy"] for name in lab.overlap)
    assert (noise.state, noise.user_attrs["cause"]) == (PRUNED, "not learning: found not learning.")
    assert not any(f"/{noise.number:04d}/" in key for key in lab.starts)


def test_unhealthy_heads_are_left_out(lab: Lab) -> None:
    order = sorted(lab.overlap, key=lab.overlap.__getitem__)
    lab.gate = {name: "collapsed" for name in order[2:]}
    verdict = lab.search()
    check(lab)
    assert verdict["name"] in order[:2]
    assert all(lab.trial(name).user_attrs["cause"] == "collapsed: found collapsed." for name in order[2:])
    assert [lab.trial(name).user_attrs["promoted"] for name in order] == [True, True, False, False, False, False]


def test_no_healthy_head_is_no_winner_and_costs_two_controls(lab: Lab) -> None:
    lab.gate = {name: "not learning" for name in lab.overlap}
    verdict = lab.search()
    check(lab)
    assert (verdict["winner"], verdict["state"]) == (None, "unranked")
    assert "so there is no winner" in verdict["sentence"]
    assert lab.starts[:2] == ["measure", "screen/group0"]
    proxied = [lab.study.frozen(int(key.split("/")[1])).user_attrs["control"] for key in lab.starts[2:]]
    assert proxied == ["none", "identity"]
    assert {trial.state for trial in lab.study.trials() if "control" not in trial.user_attrs} == {PRUNED}
    assert "nothing to promote" in lab.watcher.notes()


def test_a_head_that_falls_ill_in_its_proxy_is_pruned_with_its_cause_and_cannot_win(lab: Lab) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.gate_alone = {best: "collapsed"}
    verdict = lab.search()
    check(lab)
    assert (lab.trial(best).state, lab.trial(best).user_attrs["cause"]) == (PRUNED, "collapsed: found collapsed.")
    assert (verdict["state"], verdict["name"]) == ("better", "resnet depth 2 width 1 kernel 3 no-first-shortcut")
    assert best not in {row["name"] for row in verdict["rows"]}


def on_the_leaderboard(lab: Lab) -> dict[str, tuple[int, float]]:
    """(seeds, mean) of each trial that counts."""
    lab.study.set_study("config", {"rank_by": "accuracy"})
    board = leaderboard(lab.study.study)
    counted = board[board["role"].ne("reference") & board["seeds"].gt(0)]
    return {row["name"]: (row["seeds"], pytest.approx(row["score"])) for _, row in counted.iterrows()}


def in_the_verdict(verdict: dict[str, Any]) -> dict[str, tuple[int, float]]:
    return {row["name"]: (row["seeds"], row["mean"]) for row in verdict["rows"] if row["role"] != "reference"}


def test_a_confirming_run_in_which_the_head_falls_ill_counts_neither_in_the_verdict_nor_on_the_leaderboard(lab: Lab) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.noise, lab.accuracy[best] = 3.0, 100.0

    def fall_ill(key: str, step: int) -> None:
        lab.gate_alone = {best: "collapsed"} if key.startswith("confirm/") and key.endswith("/seed1") else {}

    lab.at_rung = fall_ill
    verdict = lab.search()
    check(lab)
    runs = [record["seed"] for record in lab.study.job_records().values() if record["trial"] == verdict["winner"]]
    assert verdict["name"] == best and 1 in runs and in_the_verdict(verdict)[best][0] == len(runs) - 1
    assert on_the_leaderboard(lab) == in_the_verdict(verdict)


def test_the_control_of_the_same_device_time_trains_as_long_as_the_best_proxy(lab: Lab) -> None:
    lab.search()
    steps = lab.study.study_attributes()["plan"]["numbers"]["proxy_steps"]
    [record] = [record for record in lab.study.job_records().values() if record["name"] == "no head, same device-time"]
    assert [report["step"] for report in record["reports"]] == [round(steps * 0.12 / 0.10)]


def test_without_labels_the_most_discrepant_wins_and_nothing_that_cannot_be_ranked_is_confirmed(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="discrepancy")
    verdict = lab.search()
    check(lab)
    assert (verdict["name"], verdict["state"]) == (max(lab.overlap, key=lab.overlap.__getitem__), "unranked")
    assert lab.study.study_attributes()["reference"] == {}
    none = lab.trial("no head")
    assert (none.state, none.user_attrs["cause"]) == (PRUNED, "it has no discrepancy to be ranked by.")
    confirmed = {record["name"].split(" (")[0] for record in lab.study.job_records().values() if record["phase"] == "confirm"}
    assert confirmed & {"no head", "no head, same device-time"} == set()
    assert lab.watcher.of("control") == []


def test_without_labels_a_trials_value_is_its_discrepancy(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="discrepancy")
    winner = lab.trial(lab.search()["name"])
    assert (winner.state, winner.value) == (COMPLETE, winner.user_attrs["proxy_overlap"])


def finished(lab: Lab) -> list[FrozenTrial]:
    return [trial for trial in lab.study.trials() if trial.state is COMPLETE]


def at_the_end(lab: Lab, trial: FrozenTrial, key: str) -> float:
    """Mean over seeds of what the trainings of a trial reported last."""
    ends = [record["reports"][-1]["metrics"][key] for record in lab.study.job_records().values() if record["trial"] == trial.number]
    return sum(ends) / len(ends)


@pytest.mark.parametrize("rank_by", ["accuracy", "discrepancy", "labelfree"])
def test_trials_hold_the_quality_without_labels_that_their_own_seed_came_to(make_lab: Callable[..., Lab], rank_by: str) -> None:
    lab = make_lab(rank_by=rank_by)
    lab.search()
    own = {record["trial"]: record["reports"][-1]["metrics"] for record in lab.study.job_records().values() if record["seed"] == 0}
    held = {trial.number: trial.user_attrs[LABELFREE.key] for trial in finished(lab)}
    assert held == {trial: own[trial][LABELFREE.key] for trial in held}
    assert len(set(held.values())) > 3


@pytest.mark.parametrize("labelled", [True, False])
def test_ranked_without_labels_the_best_base_is_compared_with_no_head(make_lab: Callable[..., Lab], labelled: bool) -> None:
    lab = make_lab(rank_by="labelfree", labelled=labelled)
    verdict = lab.search()
    check(lab)
    promoted = [trial.user_attrs["name"] for trial in lab.study.trials() if trial.user_attrs.get("promoted")]
    assert (verdict["name"], verdict["state"]) == (max(promoted, key=lab.quality.__getitem__), "better")
    assert verdict["name"] != max(promoted, key=lab.accuracy.__getitem__)
    ahead = pytest.approx(lab.quality[verdict["name"]] - 20.0)
    low, high = verdict["comparison"].pop("interval")
    assert low < lab.quality[verdict["name"]] - 20.0 < high
    assert verdict["comparison"] == {"against": "no head", "difference": ahead, "seeds": 2}
    rows = {row["name"]: row["mean"] for row in verdict["rows"]}
    assert (rows["untrained base"], rows["no head"]) == (5.0, pytest.approx(20.05))
    assert rows.keys() >= {"identity head", "same-architecture head", "no head, same device-time"}
    assert "raw pixels" not in rows, "pixels have nothing but an accuracy"
    assert lab.study.study_attributes()["reference"] == ({"raw pixels": 60.0, "untrained base": 50.0} if labelled else {})
    assert lab.study.study_attributes()["reference_scores"] == {"untrained base": 5.0}
    assert lab.trial(verdict["name"]).value == pytest.approx(lab.quality[verdict["name"]])


def test_ranked_without_labels_and_judged_with_them_the_verdict_tells_their_agreement(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="labelfree")
    verdict = lab.search()
    scores, accuracies = ([at_the_end(lab, trial, measure.key) for trial in finished(lab)] for measure in (LABELFREE, ACCURACY))
    if LABELFREE.good == "low":
        scores = [-score for score in scores]
    expected, trials = float(stats.spearmanr(scores, accuracies).statistic), len(scores)
    interval = verdict["agreement"]["interval"]
    assert verdict["agreement"] == {"with": "accuracy", "correlation": pytest.approx(expected), "interval": interval, "trials": trials}
    assert f"Over {trials} trials the rank correlation of {LABELFREE.score_name} with accuracy is {expected:+.2f}" in verdict["sentence"]
    lab.study.set_study("config", {"rank_by": LABELFREE.key})
    [told] = [one.correlation for one in agreements(lab.study.study) if one.measure is LABELFREE]
    assert (abs(told.value or 0), told.n) == (pytest.approx(abs(expected)), trials), "the report has the same number"
    assert lab.watcher.of("best")[-1] == (verdict["name"], pytest.approx(lab.accuracy[verdict["name"]] + 0.05))
    assert lab.watcher.of("control")[-1] == (pytest.approx(70.05),)


def test_ranked_without_labels_and_not_judged_with_them_no_accuracy_is_told(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="labelfree", labelled=False)
    verdict = lab.search()
    assert verdict["agreement"] is None
    assert verdict["sentence"].endswith("Nothing was labelled, so whether it makes the base more accurate was not measured.")
    assert lab.watcher.of("best")[-1] == (verdict["name"], None)
    assert lab.watcher.of("control") == []
    lab.study.set_study("config", {"rank_by": LABELFREE.key})
    assert agreements(lab.study.study) == []


def test_ranked_by_discrepancy_and_judged_with_labels_the_verdict_does_not_say_that_there_were_none(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(rank_by="discrepancy", labelled=True)
    verdict = lab.search()
    check(lab)
    assert verdict["agreement"]["trials"] == len(finished(lab))
    assert "Nothing was labelled" not in verdict["sentence"]
    assert [row for row in verdict["rows"] if row["role"] == "reference"] == [], "accuracies are no discrepancies"


def test_a_failing_proxy_is_a_failure_with_its_cause_and_the_search_goes_on(lab: Lab) -> None:
    best = lab_winner(lab)
    lab.raises = {f"proxy/{best:04d}/seed0"}
    verdict = lab.search()
    check(lab)
    failed = lab.study.frozen(best)
    assert (failed.state, failed.user_attrs["cause"]) == (FAIL, f"RuntimeError: proxy/{best:04d}/seed0 came to nothing")
    assert (verdict["state"], verdict["winner"]) == ("better", lab.trial("resnet depth 2 width 1 kernel 3 no-first-shortcut").number)


def lab_winner(lab: Lab) -> int:
    """The number that the winner's trial will have."""
    return next(one.trial for one in lab.controller().roster.candidates(6) if one.name == max(lab.accuracy, key=lab.accuracy.__getitem__))


def test_all_proxies_failing_is_no_winner(lab: Lab) -> None:
    lab.raises = {"proxy/"}
    verdict = lab.search()
    check(lab)
    assert verdict["winner"] is None
    promoted = [trial for trial in lab.study.trials() if trial.user_attrs.get("promoted")]
    assert FAIL in {trial.state for trial in promoted} <= {FAIL, PRUNED}
    assert [lab.trial(name).state for name in ("no head", "identity head")] == [FAIL, FAIL]
    assert not any(key.startswith(("confirm", "full")) for key in lab.starts)


def test_a_failing_no_head_control_leaves_the_winner_uncompared(lab: Lab) -> None:
    lab.at_rung = lambda key, step: (
        lab.raises.add(key) if key.startswith("proxy") and lab.watcher.of("job_started")[-1] == ("no head",) else None
    )
    verdict = lab.search()
    check(lab)
    assert lab.trial("no head").state is FAIL
    assert (verdict["name"], verdict["state"]) == (max(lab.accuracy, key=lab.accuracy.__getitem__), "undecided")
    assert verdict["comparison"]["seeds"] == 1, "the second seed of both was compared"


def test_confirming_runs_that_fail_leave_what_the_proxies_found(lab: Lab) -> None:
    lab.raises = {"confirm/"}
    verdict = lab.search()
    check(lab)
    assert (verdict["state"], verdict["comparison"]["seeds"]) == ("undecided", 1)
    assert [lab.trial(name).state for name in ("same-architecture head", "no head, same device-time", "no head")] == [FAIL, FAIL, COMPLETE]


def test_a_failing_screening_fails_its_candidates_and_the_others_go_on(make_lab: Callable[..., Lab], small_space: Space) -> None:
    twelve = Space.from_plain({"parameters": {**small_space.as_plain()["parameters"], "depth": {"choice": [1, 2, 3, 4]}}}, "twelve")
    lab = make_lab(twelve, budget="30cpu-min")
    lab.raises = {"screen/group1"}
    controller, shown = lab.controller(), set[tuple[int | None, State]]()
    controller.runner.show = lambda job, outcome: shown.add((job.trial, outcome.state))
    verdict = controller.search()
    lab.meter.close()
    check(lab)
    failed = [trial for trial in lab.study.trials() if trial.state is FAIL]
    assert {trial.user_attrs["cause"] for trial in failed} == {"its screening failed: RuntimeError: screen/group1 came to nothing"}
    assert {trial for trial, state in shown if state is State.FAILED} == {None, *(trial.number for trial in failed)}
    assert len(failed) == 6
    assert verdict["state"] == "better"
    assert verdict["winner"] not in {trial.number for trial in failed}


def test_all_screenings_failing_is_no_winner(lab: Lab) -> None:
    lab.raises = {"screen/"}
    verdict = lab.search()
    check(lab)
    assert verdict["winner"] is None
    assert {trial.state for trial in lab.study.trials() if "control" not in trial.user_attrs} == {FAIL}


def test_a_failing_full_training_is_told_and_leaves_the_verdict(lab: Lab) -> None:
    lab.raises = {"full"}
    assert lab.search()["state"] == "better"
    check(lab)
    assert "failed: RuntimeError: full came to nothing" in lab.watcher.notes()


def test_measuring_that_fails_is_told_in_one_sentence_now_and_after_a_resume(lab: Lab) -> None:
    lab.raises = {"measure"}
    for _ in range(2):
        with pytest.raises(UserError, match=r"did not succeed \(RuntimeError: measure came to nothing\)"):
            lab.search()
    assert lab.starts == ["measure"]


def test_a_budget_spent_before_measuring_is_told(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="6cpu-s")
    for _ in range(2):
        with pytest.raises(UserError, match="the budget"):
            lab.search()


def test_a_score_that_is_no_number_is_a_failure_and_no_winner(lab: Lab) -> None:
    best = max(lab.accuracy, key=lab.accuracy.__getitem__)
    lab.accuracy[best] = float("nan")
    verdict = lab.search()
    assert (lab.trial(best).state, lab.trial(best).user_attrs["cause"]) == (FAIL, "its accuracy was no number.")
    assert (verdict["state"], verdict["name"]) == ("better", "resnet depth 2 width 1 kernel 3 no-first-shortcut")


@pytest.mark.parametrize("machine", [Machine("gpu", 16, 1), Machine("gpu", 16, 1, 0.5)])
def test_on_gpus_the_same_search_is_charged_to_jobs_alone(make_lab: Callable[..., Lab], machine: Machine) -> None:
    lab = make_lab(budget="10gpu-min", machine=machine)
    assert lab.search()["state"] == "better"
    check(lab)
    assert lab.charged() == pytest.approx(machine.gpus_per_trial * (lab.now - 100.0), rel=1e-3)


def test_trainings_share_a_gpu_by_measured_memory_and_the_full_training_has_it_alone(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="10gpu-min", machine=Machine("gpu", 16, 1), gpus_per_trial=None, full_epochs=1000)
    lab.memory = {"memory_bytes": 20 * 2**30, "gpu_bytes": 80 * 2**30}
    held: dict[str, set[float]] = {}
    work = lab.work
    lab.work = lambda job, send: (held.setdefault(job.phase, set()).add(job.gpus), work(job, send))[1]
    assert lab.search()["state"] == "better"
    check(lab)
    assert held == {"measure": {1.0}, "screen": {0.5}, "proxy": {0.5}, "confirm": {0.5}, "full": {1.0}}
    assert lab.study.job_records()["full"]["state"] == "done", "alone it goes no faster than it was measured"
    resolved = lab.run.config()
    assert resolved["gpus_per_trial"] == 0.5, "nothing is left to be found out"
    lab.search()
    assert lab.run.config() == resolved


@pytest.mark.parametrize("deaf", [False, True], ids=["workers heed their seconds", "workers do not"])
@pytest.mark.parametrize("phase", ["screen", "proxy", "confirm", "full"])
def test_a_budget_that_ends_in_a_phase_ends_the_search_with_true_states(make_lab: Callable[..., Lab], phase: str, deaf: bool) -> None:
    lab = make_lab(full_epochs=10**6)
    lab.slow, lab.deaf = {phase: 50.0}, deaf
    verdict = lab.search()
    check(lab, within=not deaf)
    assert (verdict["winner"] is None) == (phase in ("screen", "proxy"))
    assert not any(key.startswith(("confirm", "full")) for key in lab.starts) or phase in ("confirm", "full")
    again = lab.search()
    assert again == verdict


def test_a_search_that_ended_is_not_worked_on_again(lab: Lab) -> None:
    verdict = lab.search()
    starts, trials, charged = list(lab.starts), lab.study.trials(), lab.charged()
    assert lab.search() == verdict
    assert (lab.starts, lab.charged()) == (starts, charged)
    assert [(trial.state, trial.value, trial.user_attrs) for trial in lab.study.trials()] == [
        (trial.state, trial.value, trial.user_attrs) for trial in trials
    ]


def test_a_slow_screening_has_proxies_planned_anew_and_a_search_that_ends_with_a_winner(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="10cpu-min")
    lab.slow = dict.fromkeys(("screen", "proxy", "confirm"), 2.5)
    verdict = lab.search()
    plan = lab.study.study_attributes()["plan"]
    assert verdict["winner"] is not None and verdict["state"] != "undecided"
    assert "Planned anew after screening: " in lab.watcher.notes()
    assert plan["numbers"]["proxy_steps"] < plan["first"]["proxy_steps"] or plan["numbers"]["proxies"] < plan["first"]["proxies"]
    assert plan["phases"]["proxy"] == pytest.approx(plan["numbers"]["expected_s"]["proxy"] + 3.0), "a worker is started"
    assert plan["first_phases"]["proxy"] == pytest.approx(plan["first"]["expected_s"]["proxy"] + 3.0)
    assert lab.run.config()["plan"] == plan["numbers"]
    assert "is not started" not in lab.watcher.notes()
    assert lab.charged() <= lab.budget.seconds


def test_a_plan_made_anew_stays_after_a_resume(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="10cpu-min")
    lab.slow = {"screen": 2.5}

    def interrupt(key: str, step: int) -> None:
        if key.startswith("proxy/"):
            raise KeyboardInterrupt

    lab.at_rung = interrupt
    with pytest.raises(KeyboardInterrupt):
        lab.search()
    before = lab.study.study_attributes()["plan"]
    assert before["first"] != before["numbers"]
    lab.at_rung = lambda key, step: None
    lab.search()
    assert lab.study.study_attributes()["plan"] == {**before, "done": True}


@pytest.mark.parametrize("promote", ["discrepancy", "learned", "random"])
def test_the_study_keeps_who_was_promoted_in_order_and_how_well_it_was_foretold(make_lab: Callable[..., Lab], promote: str) -> None:
    lab = make_lab(budget="60cpu-min", promote=promote, pruner="none", space=wide(), sampler="random")
    lab.accuracy = {name: 90.0 - 20.0 * overlap for name, overlap in lab.overlap.items()}
    lab.search()
    check(lab)
    attributes = lab.study.study_attributes()
    started = [int(key.split("/")[1]) for key in lab.starts if key.startswith("proxy/")]
    assert [trial for trial in started if trial in attributes["promoted"]] == attributes["promoted"]
    assert len(attributes["promoted"]) == attributes["plan"]["numbers"]["proxies"] >= 8
    assert attributes["promotion"]["rule"] == promote
    assert attributes["promotion"]["discrepancy"]["value"] == pytest.approx(-1.0)
    assert attributes["promotion"]["forecast"]["value"] > 0.5
    assert "-1.00 for discrepancy" in lab.watcher.notes()
    found = {lab.study.frozen(trial).user_attrs["name"] for trial in attributes["promoted"]}
    least = sorted(lab.overlap, key=lab.overlap.__getitem__)[:3]
    assert bool(found & set(least)) == (promote != "discrepancy"), "only learning and luck find what the rule holds for bad"


def wide() -> Space:
    """Twenty-four heads of four families."""
    parameters = {"family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]}, "depth": {"int": [1, 6]}}
    return Space.from_plain({"parameters": parameters}, "wide")


@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband", "none"])
def test_each_pruner_stops_its_share_of_candidates_and_says_that_it_did(make_lab: Callable[..., Lab], pruner: str) -> None:
    lab = make_lab(budget="60cpu-min", pruner=pruner, promote="discrepancy", space=wide(), sampler="random")
    lab.search()
    check(lab)
    stopped = [trial for trial in lab.study.trials() if trial.user_attrs.get("cause", "").startswith("stopped at step")]
    told = {"median": "below the median", "asha": "(successive halving)", "hyperband": "(Hyperband)", "none": ""}[pruner]
    assert all(told in trial.user_attrs["cause"] and trial.state is PRUNED and not trial.user_attrs.get("control") for trial in stopped)
    assert bool(stopped) == (pruner != "none")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_that_learns_draws_in_rounds_each_after_the_proxies_of_the_one_before(make_lab: Callable[..., Lab], sampler: str) -> None:
    lab = make_lab(budget="60cpu-min", space=wide(), sampler=sampler, pruner="none")
    lab.search()
    check(lab)
    plan = lab.study.study_attributes()["plan"]["numbers"]
    assert (plan["rounds"], plan["candidates"]) == (3, 24)
    assert [phase for phase, *_ in lab.watcher.of("phase_started")][:7] == ["measure", *["screen", "proxy"] * 3]
    phases = [lab.study.job_records()[key]["phase"] for key in lab.starts]
    assert [phases[:place].count("proxy") for place, phase in enumerate(phases) if phase == "screen"] == [
        0, *(2 + -(-plan["proxies"] * done // 3) for done in (1, 2))]
    assert len(set(lab.starts)) == len(lab.starts)
    promoted = {trial.number for trial in lab.study.trials() if trial.user_attrs.get("promoted")}
    assert len(promoted) == plan["proxies"]


@pytest.mark.parametrize(("sampler", "rounds"), [("tpe", 3), ("random", 1), ("exhaustive", 1)])
def test_there_are_as_many_groups_and_rounds_as_the_plan_says(make_lab: Callable[..., Lab], sampler: str, rounds: int) -> None:
    parameters = {"family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]}, "depth": {"int": [1, 16]}}
    lab = make_lab(budget="3cpu-h", space=Space.from_plain({"parameters": parameters}, "large"), sampler=sampler, promote="random")
    lab.search()
    plan = lab.study.study_attributes()["plan"]
    assert (plan["numbers"]["rounds"], plan["numbers"]["candidates"], plan["jobs"]["screen"]) == (rounds, 64, 8)
    started = lab.watcher.of("phase_started")
    assert [phase for phase, *_ in started].count("screen") == rounds
    assert sum(jobs for phase, jobs, _ in started if phase == "screen") == 8 == sum(key.startswith("screen/") for key in lab.starts)


def test_with_cost_as_an_objective_the_study_keeps_one_and_the_front_has_the_most_accurate_and_the_cheapest(
    make_lab: Callable[..., Lab]
) -> None:
    lab = make_lab(budget="60cpu-min", space=wide(), pruner="none", objective="accuracy,cost")
    lab.weight = {name: 5.0 for name in lab.accuracy if name.startswith(("convnext", "resnet"))}
    lab.accuracy = {name: 75.0 + 5.0 * (name in lab.weight) + place % 7 / 2 for place, name in enumerate(lab.accuracy)}
    verdict = lab.search()
    check(lab)
    promoted = {trial.user_attrs["name"]: trial for trial in lab.study.trials() if trial.user_attrs.get("promoted")}
    assert {name: trial.user_attrs["step_s"] for name, trial in promoted.items()} == pytest.approx(
        {name: 0.1 + 0.02 * lab.weight.get(name, 1.0) for name in promoted})
    assert lab.accuracy[verdict["name"]] == max(lab.accuracy[name] for name in promoted), "however dear"
    assert lab.study.study.direction.name == "MAXIMIZE"
    lab.study.set_study("config", {"rank_by": "accuracy", "objective": "accuracy,cost"})
    board = leaderboard(lab.study.study)
    front = set(board[board["pareto"].eq(True)]["name"])
    cheap = max((name for name in promoted if name not in lab.weight), key=lab.accuracy.__getitem__)
    assert front >= {"no head", cheap, verdict["name"]}
    assert not [name for name in promoted if name in front and lab.accuracy[name] < lab.accuracy[cheap]]


def test_some_heads_are_screened_again_in_the_next_group_and_keep_what_was_found_first(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(budget="60cpu-min", space=wide(), sampler="random")
    lab.search()
    trials = {trial.number: trial.user_attrs for trial in lab.study.trials() if trial.user_attrs["role"] == "candidate"}
    again = {number: held for number, held in trials.items() if "again" in held}
    assert [held["again"]["group"] - held["group"] for held in again.values()] == [1] * 6
    assert all(held["again"]["overlap_excess"] == held["overlap_excess"] for held in again.values())
    assert {held["group"] for held in trials.values()} == {0, 1, 2}
    shared = [record["name"] for record in lab.study.job_records().values() if record["phase"] == "screen"]
    assert shared == ["group 1: 10 heads", "group 2: 13 heads", "group 3: 13 heads"]
