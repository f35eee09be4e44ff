from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from hssl_search.reporting.cost import cost, planned_seconds
from hssl_search.reporting.record import RunRecord
from hssl_search.reporting.sections import cost_rows
from hssl_search.reporting.verdict import print_verdict, verdict_text


def printed(run: Any, folder: Path, **options: Any) -> list[str]:
    out = io.StringIO()
    print_verdict(Console(file=out, width=80), run.study, run.ledger, folder, **options)
    return out.getvalue().splitlines()


def line_of(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.startswith(start))


def test_verdict_is_the_studys_sentence(run: Any) -> None:
    assert verdict_text(run.study).startswith("Undecided: convnext depth 3 kernel 7 leads")


def test_without_a_verdict_the_text_says_how_far_the_run_came(builder: Callable[..., Any]) -> None:
    run = builder()
    assert (
        verdict_text(run.study)
        == "No verdict yet: 0 heads, 0 screened, 0 at full proxy fidelity. No head has a result that can be ranked."
    )
    run.add("first", "mlp", TrialState.COMPLETE, 41.0)
    run.add("second", "mlp", TrialState.FAIL, cause="killed")
    run.add("no head", "none", TrialState.COMPLETE, 40.0, role="control", control="none", gate=None)
    assert verdict_text(run.study) == (
        "No verdict yet: 2 heads, 2 screened, 1 at full proxy fidelity, 1 failed. The best so far is first with 41.0 % (no head 40.0 %)."
    )


def test_terminal_shows_references_controls_candidates_cost_and_paths(
    run: Any, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("")
    lines = printed(run, tmp_path)
    assert max(map(len, lines[:-1])) <= 80
    assert "39.8" in line_of(lines, "raw pixels")
    assert "40.5 ± 0.4" in line_of(lines, "no head ")
    assert "41.3 ± 0.4" in line_of(lines, "convnext depth 3 kernel 7 ★")
    assert "+0.8 ± 0.8" in line_of(lines, "convnext depth 3 kernel 7 ★")
    assert re.search(r"\d\d %", line_of(lines, "convnext depth 3 kernel 7 ★"))
    assert (
        line_of(lines, "Cost:")
        == "Cost: 5 min 18 s of device-time, of a budget of 12 min 00 s (44 %)"
    )
    assert lines[-1] == f"  {tmp_path / 'report.html'}"


def test_terminal_shows_only_the_top_candidates(run: Any, tmp_path: Path) -> None:
    lines = printed(run, tmp_path, top=1)
    assert any(line.startswith("identity head") for line in lines)
    assert not any(line.startswith("resnet depth 2") for line in lines)


def test_names_are_not_read_as_console_markup(builder: Callable[..., Any], tmp_path: Path) -> None:
    run = builder()
    run.add("[bold]loud[/bold]", "mlp", TrialState.COMPLETE, 41.0)
    assert "[bold]loud[/bold]" in "".join(printed(run, tmp_path))


def test_terminal_manages_an_empty_run(tmp_path: Path) -> None:
    out = io.StringIO()
    print_verdict(Console(file=out, width=80), optuna.create_study(), [], tmp_path)
    assert "No verdict yet" in out.getvalue()
    assert "Cost: 0.0 s of device-time" in out.getvalue()


def test_planned_seconds_are_read_as_numbers_or_mappings() -> None:
    assert planned_seconds(
        {"phases": {"measure": 7, "screen": {"device_s": 20.0}, "odd": {"jobs": 3}}}
    ) == {"measure": 7.0, "screen": 20.0}
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
    plan = {**record.plan, "first_phases": {"proxy": 400.0}, "jobs": {"screen": 2, "proxy": 7}}
    phases = cost(replace(record, plan=plan), run.ledger).phases.set_index("phase")
    assert list(phases.loc["proxy", ["first_s", "planned_s", "jobs_planned"]]) == [
        400.0,
        324.0,
        7.0,
    ]
    assert phases.loc["proxy", "jobs"] == sum(job.phase == "proxy" for job in record.jobs) > 0
    rows = {row["phase"]: row for row in cost_rows(cost(replace(record, plan=plan), run.ledger))}
    assert (
        rows["proxy"]["jobs"] == f"{phases.loc['proxy', 'jobs']} of 7"
        and rows["proxy"]["first_time"] == "6 min 40 s"
    )
    assert rows["full"]["first_time"] == "–"
