from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from scipy import stats

from hssl_search.engine.records import state as states
from hssl_search.engine.records.results import RunRecord, ScoreTable
from hssl_search.engine.statistics.metrics import ACCURACY
from hssl_search.engine.statistics.two_way import TwoWay
from hssl_search.reporting import tables
from hssl_search.reporting.files import write_tables, write_whole
from hssl_search.reporting.sections import cost_rows
from hssl_search.reporting.tables import LEADERBOARD, OTHER_DISCREPANCIES, cost, planned_seconds


def row(frame: pd.DataFrame, name: str) -> Any:
    return frame.set_index("name").loc[name]


def test_leaderboard_ranks_by_mean_over_seeds(run: Any) -> None:
    board = tables.leaderboard(run.study)
    ranked = board[board["rank"].notna()]
    assert list(ranked["rank"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(ranked["accuracy"]) == sorted(ranked["accuracy"], reverse=True)
    best = row(board, "convnext depth 3 kernel 7")
    assert (best["rank"], best["seeds"]) == (1, 3)
    assert best["accuracy"] == pytest.approx((41.4 + 41.0 + 41.5) / 3)


def test_leaderboard_holds_proxies_controls_and_references_only(run: Any) -> None:
    board = tables.leaderboard(run.study)
    assert list(board.columns) == [
        column for column in LEADERBOARD if column not in OTHER_DISCREPANCIES
    ]
    assert set(board[board["role"] == "control"]["name"]) == {
        "no head",
        "no head, same device-time",
        "identity head",
        "noise head",
    }
    assert dict(
        board[board["role"] == "reference"][["name", "accuracy"]].itertuples(index=False)
    ) == {
        "raw pixels": 39.8,
        "untrained base": 29.3,
    }
    assert not {"resnet depth 3", "convnext depth 6", "transformer depth 6"} & set(board["name"])


def fit(run: Any) -> TwoWay:
    record = RunRecord.of(run.study)
    return TwoWay(
        {trial.number: record.scores(trial, ACCURACY) for trial in record.trials}, 100 / 1_000
    )


def test_gains_are_paired_by_seed(run: Any) -> None:
    run.confirm(2, "resnet depth 2", {2: 41.2, 7: 99.0})
    board = tables.leaderboard(run.study)
    none = row(board, "no head")["trial"]
    for name, seeds in (
        ("convnext depth 3 kernel 7", 3),
        ("resnet depth 2", 2),
        ("mlp depth 2", 1),
        ("identity head", 3),
    ):
        gained = row(board, name)
        found = fit(run).against(none)[gained["trial"]]
        assert (gained["gain"], gained["gain_seeds"]) == (pytest.approx(found.mean), seeds)
        told = (
            found.interval if seeds > 1 else (math.nan, math.nan)
        )  # of one paired seed others alone tell the noise
        assert (gained["gain_low"], gained["gain_high"]) == pytest.approx(told, nan_ok=True)
    assert row(board, "convnext depth 3 kernel 7")["gain"] == pytest.approx(
        np.mean([41.4 - 40.1, 41.0 - 40.5, 41.5 - 40.9])
    )
    assert pd.isna(row(board, "no head")["gain"])


def test_intervals_of_means_are_of_the_noise_that_all_share(run: Any) -> None:
    board = tables.leaderboard(run.study)
    noise = fit(run)
    assert (noise.dof, noise.sd) == (8, pytest.approx(0.29, abs=0.1))
    for name, seeds in (("identity head", 3), ("mlp depth 2", 1)):
        found = row(board, name)
        expected = stats.t.interval(
            0.95, noise.dof, loc=found["accuracy"], scale=noise.sd / seeds**0.5
        )
        assert (found["low"], found["high"]) == pytest.approx(expected)


def test_chances_of_being_best_are_of_all_that_came_to_the_end(run: Any) -> None:
    board = tables.leaderboard(run.study)
    ended = board[board["seeds"] > 0]
    assert ended["best"].sum() == pytest.approx(1)
    assert ended.set_index("name")["best"].astype(float).idxmax() == "convnext depth 3 kernel 7"
    assert board[~(board["seeds"] > 0)]["best"].isna().all()


def test_with_one_seed_of_each_there_is_neither_interval_nor_chance(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    run.add("one", "mlp", TrialState.COMPLETE, 41.0)
    run.add("no head", "none", TrialState.COMPLETE, 40.0, role="control", control="none", gate=None)
    one = row(tables.leaderboard(run.study), "one")
    assert (one["gain"], one["gain_seeds"]) == (pytest.approx(1.0), 1)
    assert one[["low", "high", "gain_low", "gain_high", "best"]].isna().all()


def test_leaderboard_and_verdict_agree(run: Any) -> None:
    from hssl_search.engine.records.state import Contender
    from hssl_search.engine.verdict import judge

    record = RunRecord.of(run.study)
    shown = ("name", "family", "control")
    contenders = [
        Contender(
            trial.number,
            states.TrialState(
                **{key: trial.user_attrs[key] for key in shown if key in trial.user_attrs}
            ),
        )
        for trial in record.trials
    ]
    scores = {
        trial.number: found for trial in record.trials if (found := record.scores(trial, ACCURACY))
    }
    verdict = judge(
        contenders,
        ScoreTable(ACCURACY, scores, record.results.table().resolution),
        scores,
        record.search.reference,
    )
    board = tables.leaderboard(record)
    won = board.set_index("trial").loc[verdict.winner]
    assert won["rank"] == 1
    gap = verdict.comparison
    assert gap is not None and gap.interval is not None
    assert (won["gain"], won["gain_low"]) == pytest.approx((gap.difference, gap.interval[0]))
    rows = {each.name: each for each in verdict.rows if each.role != "reference"}
    for name, each in rows.items():
        told = row(board, name)
        assert (told["accuracy"], told["best"]) == pytest.approx((each.mean, each.best))
    assert set(rows) == set(board[board["rank"].notna()]["name"])


def test_a_training_that_was_ended_before_full_fidelity_does_not_count(run: Any) -> None:
    run.attribute(plan={"numbers": {"proxy_steps": 160}})
    run.job(3, "mlp depth 2", 1, {40: 90.0}, "confirm")
    assert row(tables.leaderboard(run.study), "mlp depth 2")["seeds"] == 1


def test_a_trial_stopped_early_is_shown_unranked_with_its_step(run: Any) -> None:
    stopped = row(tables.leaderboard(run.study), "convnext depth 1")
    assert pd.isna(stopped["rank"])
    assert (stopped["seeds"], stopped["steps"], stopped["accuracy"]) == (0, 80, 36.0)


def test_a_failed_confirmation_seed_does_not_count(run: Any) -> None:
    run.job(3, "mlp depth 2", 1, {40: 90.0}, "confirm", state="failed", cause="killed")
    assert row(tables.leaderboard(run.study), "mlp depth 2")["seeds"] == 1
    assert row(tables.failures(run.study), "mlp depth 2")["cause"] == "killed"


def test_ranking_by_discrepancy_without_labels(builder: Callable[..., Any]) -> None:
    run = builder(labelled=False)
    run.attribute(config={"rank_by": "discrepancy"})
    for name, discrepancy, gate in (
        ("low", 0.1, "healthy"),
        ("high", 0.4, "healthy"),
        ("broken", 0.9, "collapsed"),
    ):
        run.add(name, "mlp", TrialState.COMPLETE, 1.0, discrepancy=discrepancy, gate=gate)
    board = tables.leaderboard(run.study)
    assert list(
        board[board["rank"].notna()][["name", "score"]].itertuples(index=False, name=None)
    ) == [("high", 0.4), ("low", 0.1)]
    assert board["accuracy"].isna().all()
    assert tables.curves(run.study).empty


def test_curves_have_a_row_for_each_trial_seed_and_rung(run: Any) -> None:
    curves = tables.curves(run.study)
    best = curves[(curves["trial"] == 0) & (curves["phase"] == "proxy")]
    assert sorted(zip(best["seed"], best["step"], strict=True)) == [
        (seed, step) for seed in (0, 1, 2) for step in (40, 80, 120, 160)
    ]
    assert list(curves[curves["phase"] == "full"]["value"]) == [40.0, 42.0, 43.1]


def test_a_running_trial_has_a_curve_from_its_intermediate_values() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("name", "running")
    trial.report(33.0, 40)
    assert list(tables.curves(study)[["step", "value"]].itertuples(index=False, name=None)) == [
        (40, 33.0)
    ]


def test_screening_is_sorted_by_discrepancy_with_gate_and_reason(run: Any) -> None:
    screening = tables.screening(run.study)
    assert list(screening["discrepancy"].dropna()) == sorted(
        screening["discrepancy"].dropna(), reverse=True
    )
    assert screening.loc[0, "name"] == "noise head"
    assert row(screening, "convnext depth 6")["gate_reason"].startswith("its head loss 4.48")
    assert "no head" not in set(screening["name"])


def test_failures_tell_the_cause(run: Any) -> None:
    failures = tables.failures(run.study)
    assert list(failures["cause"]) == ["CUDA out of memory in block 5"]


def test_device_time_has_one_row_an_attempt() -> None:
    lines = [
        ("a#1", 0.0, 2.0, 1.0),
        ("b#1", 1.0, 3.0, 1.0),
        ("a#1", 2.0, 5.0, 1.5),
        ("a#2", 6.0, 7.0, 0.5),
    ]
    entries = [
        {
            "attempt": attempt,
            "phase": "proxy",
            "trial": 3,
            "from": start,
            "to": end,
            "device_s": seconds,
        }
        for attempt, start, end, seconds in lines
    ]
    frame = tables.device_time(entries)
    assert list(
        frame[["attempt", "start", "end", "device_s"]].itertuples(index=False, name=None)
    ) == [
        ("a#1", 0.0, 5.0, 2.5),
        ("b#1", 1.0, 3.0, 1.0),
        ("a#2", 6.0, 7.0, 0.5),
    ]


def test_device_time_reads_a_real_ledger(tmp_path: Path) -> None:
    from hssl_search.engine.records.ledger import Charge, Ledger

    times = iter([10.0, 12.0, 15.0])
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=lambda: next(times))
    ledger.append([Charge("measure#1", "measure", 1.0, begin=10.0)])
    ledger.append([Charge("measure#1", "measure", 1.5, begin=12.0)])
    ledger.close()
    frame = tables.device_time(Ledger(tmp_path / "ledger.jsonl", clock=lambda: 0.0).entries())
    assert list(frame[["start", "end", "device_s"]].itertuples(index=False, name=None)) == [
        (0.0, 5.0, 2.5)
    ]


def test_phase_costs_add_up_to_the_ledger(run: Any) -> None:
    costs = tables.phase_costs(run.ledger)
    assert costs["device_s"].sum() == pytest.approx(sum(entry["device_s"] for entry in run.ledger))
    assert list(costs["phase"])[:2] == ["measure", "screen"]
    assert costs.set_index("phase").loc["screen", "attempts"] == 2


def test_trials_have_one_row_each_and_survive_parquet(run: Any, tmp_path: Path) -> None:
    run.add("odd one", "mlp", TrialState.COMPLETE, 38.0, note=["a", 1], mixed="text")
    run.add("other one", "mlp", TrialState.COMPLETE, 38.0, mixed=3)
    write_tables(tmp_path, run.study)
    written = pd.read_parquet(tmp_path / "trials.parquet")
    assert len(written) == len(run.study.trials)
    assert list(written["trial"]) == list(range(len(written)))
    assert json.loads(row(written, "odd one")["note"]) == ["a", 1]
    assert [json.loads(value) for value in written["mixed"].dropna()] == ["text", 3]
    assert row(written, "mlp depth 2")["head_width_ratio"] == 1.0
    assert row(written, "transformer depth 6")["state"] == "FAIL"


def test_leaderboard_csv_is_the_leaderboard(run: Any, tmp_path: Path) -> None:
    write_tables(tmp_path, run.study)
    written = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(written["name"]) == list(tables.leaderboard(run.study)["name"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard.csv", "trials.parquet"]


def test_other_discrepancies_have_a_column_where_a_trial_has_them(run: Any, tmp_path: Path) -> None:
    run.add("measured", "mlp", TrialState.COMPLETE, 38.0, discrepancy=0.2, architecture=0.625)
    for frame in (tables.leaderboard(run.study), tables.screening(run.study)):
        assert row(frame, "measured")["architecture"] == 0.625
        assert pd.isna(row(frame, "mlp depth 2")["architecture"])
        assert "output" not in frame
    write_tables(tmp_path, run.study)
    assert row(pd.read_csv(tmp_path / "leaderboard.csv"), "measured")["architecture"] == 0.625
    assert row(pd.read_parquet(tmp_path / "trials.parquet"), "measured")["architecture"] == 0.625


def test_tables_of_an_empty_study_are_empty(tmp_path: Path) -> None:
    study = optuna.create_study()
    for table in (
        tables.leaderboard,
        tables.screening,
        tables.curves,
        tables.failures,
        tables.trials,
    ):
        assert table(study).empty
    assert tables.device_time([]).empty
    assert tables.phase_costs([]).empty
    write_tables(tmp_path, study)
    assert pd.read_parquet(tmp_path / "trials.parquet").empty


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_whole(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def value_rows(run: Any, parameter: str) -> dict[str, dict[str, Any]]:
    """The rows of the parameter by value."""
    rows = tables.parameter_values(run.study).to_dict("records")
    return {row["value"]: row for row in rows if row["parameter"] == parameter}


def test_only_parameters_in_which_healthy_heads_differ_have_rows(varied: Any) -> None:
    assert list(dict.fromkeys(tables.parameter_values(varied.study)["parameter"])) == [
        "family",
        "depth",
        "kernel_size",
        "first_shortcut",
    ]


def test_a_value_has_the_means_of_the_heads_with_it_and_of_those_without(varied: Any) -> None:
    healthy = [
        trial.user_attrs for trial in varied.study.trials if trial.user_attrs["gate"] == "healthy"
    ]
    scored = [trial for trial in varied.study.trials if trial.value is not None]
    rows = value_rows(varied, "first_shortcut")
    for name, has in (("false", False), ("true", True)):
        gaps = [one["discrepancy"] for one in healthy if one["head"]["first_shortcut"] is has]
        scores = [
            trial.value for trial in scored if trial.user_attrs["head"]["first_shortcut"] is has
        ]
        row = rows[name]
        assert (row["heads"], row["scored"], row["gated_out"]) == (
            len(gaps),
            len(scores),
            0 if has else 3,
        )
        assert (row["discrepancy"], row["accuracy"]) == pytest.approx((mean(gaps), mean(scores)))
    for measure in ("discrepancy", "accuracy"):
        assert rows["false"][f"{measure}_without"] == pytest.approx(rows["true"][measure])


def test_heads_that_do_not_read_a_parameter_are_not_among_those_without_a_value(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    for family, positions, discrepancy in (
        ("transformer", True, 0.1),
        ("transformer", False, 0.3),
        ("mlp", None, 0.9),
    ):
        run.add(
            "head",
            family,
            TrialState.PRUNED,
            head={"family": family, "positions": positions},
            discrepancy=discrepancy,
        )
    run.add(
        "identity head",
        "identity",
        TrialState.COMPLETE,
        40.0,
        role="control",
        head={"family": "identity"},
        discrepancy=0.0,
    )
    row = value_rows(run, "positions")["true"]
    assert (row["discrepancy"], row["discrepancy_without"], row["heads"], row["scored"]) == (
        0.1,
        0.3,
        1,
        0,
    )
    assert math.isnan(row["accuracy"]) and math.isnan(row["accuracy_without"])


def test_many_numbers_are_joined_with_their_neighbours_and_families_are_not(
    builder: Callable[..., Any],
) -> None:
    run = builder()
    families = ["convnext", "mlp", "mixer", "poolformer", "resnet"]
    for depth in range(1, 11):
        run.add(
            f"head {depth}",
            families[depth % 5],
            TrialState.PRUNED,
            head={"family": families[depth % 5], "depth": depth},
            discrepancy=0.1 * depth,
        )
    assert [(value, row["heads"]) for value, row in value_rows(run, "depth").items()] == [
        ("1 to 3", 3),
        ("4 to 6", 3),
        ("7 to 8", 2),
        ("9 to 10", 2),
    ]
    assert list(value_rows(run, "family")) == sorted(families)


def test_the_depth_of_a_hybrid_is_its_number_of_blocks(builder: Callable[..., Any]) -> None:
    run = builder()
    for blocks in ("mlp+resnet", "mlp+resnet+mlp"):
        run.add(
            "hybrid",
            "hybrid",
            TrialState.PRUNED,
            head={"family": "hybrid", "blocks": blocks},
            discrepancy=0.1,
        )
    assert list(value_rows(run, "depth")) == ["2", "3"]


def test_a_study_without_heads_has_no_values(builder: Callable[..., Any]) -> None:
    assert tables.parameter_values(builder().study).empty


def test_planned_seconds_are_read_as_numbers_or_mappings() -> None:
    assert planned_seconds({"measure": 7, "screen": {"device_s": 20.0}, "odd": {"jobs": 3}}) == {
        "measure": 7.0,
        "screen": 20.0,
    }
    assert planned_seconds({}) == {}


def test_cost_names_every_phase_that_was_planned_or_charged(run: Any) -> None:
    spent = cost(RunRecord.of(run.study), run.ledger)
    assert list(spent.phases["phase"]) == [
        "measure",
        "screen",
        "proxy",
        "confirm",
        "full",
        "overhead",
    ]
    assert spent.used_s == pytest.approx(sum(entry["device_s"] for entry in run.ledger))
    assert spent.phases.set_index("phase").loc["proxy", "planned_s"] == 324.0


def test_cost_sets_plan_before_and_after_screening_beside_what_was_done(run: Any) -> None:
    record = RunRecord.of(run.study)
    plan = record.plan.with_set(
        states.PlanState(first_phases={"proxy": 400.0}, jobs={"screen": 2, "proxy": 7})
    )
    phases = cost(
        replace(record, search=record.search.with_set(states.SearchState(plan=plan))), run.ledger
    ).phases.set_index("phase")
    assert list(phases.loc["proxy", ["first_s", "planned_s", "jobs_planned"]]) == [
        400.0,
        324.0,
        7.0,
    ]
    assert phases.loc["proxy", "jobs"] == sum(job.phase == "proxy" for job in record.jobs) > 0
    rows = {
        row["phase"]: row
        for row in cost_rows(
            cost(
                replace(record, search=record.search.with_set(states.SearchState(plan=plan))),
                run.ledger,
            )
        )
    }
    assert (
        rows["proxy"]["jobs"] == f"{phases.loc['proxy', 'jobs']} of 7"
        and rows["proxy"]["first_time"] == "6 min 40 s"
    )
    assert rows["full"]["first_time"] == "–"
