from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from hssl_search.reporting.sections import verdict_text
from hssl_search.reporting.terminal import (
    amount,
    cannot_buy,
    print_plan,
    print_verdict,
    size,
    too_small,
)


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
        == "No verdict yet: 0 heads, 0 screened, 0 at full proxy fidelity. No head has a result "
        "that can be ranked."
    )
    run.add("first", "mlp", TrialState.COMPLETE, 41.0)
    run.add("second", "mlp", TrialState.FAIL, cause="killed")
    run.add("no head", "none", TrialState.COMPLETE, 40.0, role="control", control="none", gate=None)
    assert verdict_text(run.study) == (
        "No verdict yet: 2 heads, 2 screened, 1 at full proxy fidelity, 1 failed. The best so far "
        "is first with 41.0 % (no head 40.0 %)."
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


PAGE: dict[str, Any] = {
    "budget": "10gpu-h",
    "device": "gpu",
    "budget_s": 36_000.0,
    "enough": True,
    "measured": {
        "step_s": 0.1,
        "head_step_s": 0.02,
        "evaluate_s": 0.5,
        "checkpoint_s": 0.04,
        "families": {},
        "precision": "bf16",
    },
    "plan": {
        "candidates": 12,
        "groups": 2,
        "group_size": 6,
        "screen_steps": 60,
        "rounds": 1,
        "proxies": 6,
        "controls": 2,
        "proxy_steps": 400,
        "rungs": [100, 200, 400],
        "confirming_runs": 5,
    },
    "phases": [
        {"phase": "measure", "jobs": 1, "steps": 0, "at_once": 1, "device_s": 60.0, "wall_s": 60.0},
        {
            "phase": "proxy",
            "jobs": 8,
            "steps": 400,
            "at_once": 4,
            "device_s": 7200.0,
            "wall_s": 1800.0,
        },
    ],
    "reserve_s": 2.0,
    "device_s": 7262.0,
    "eta_s": 1862.0,
    "memory_bytes": 5 * 10**9,
    "checkpoint_bytes": 4 * 10**8,
    "disk_bytes": 8 * 10**9,
    "smallest_s": 300.0,
    "fits": [],
    "max_head_cost": 4.0,
    "costly": {},
    "beyond": [{"heads": 20, "steps": 150, "device_s": 110_000.0}],
}


def test_everything_that_is_planned_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(Console(width=120), PAGE)
    told = capsys.readouterr().out
    for words in (
        "Candidates: 12 in 2 groups of up to 6, screened for 60 steps.",
        "Proxies: 6 and 2 controls of 400 steps, rungs at 100, 200, 400",
        "up to 5 confirming runs",
        "about 31 min 02 s",
        "Peak memory of a training: 5.0 GB",
        "Disk: 8.0 GB of checkpoints (400 MB each)",
        "This budget allows 6 proxies of 400 steps; a ranking of 20 heads by 150 steps would need "
        "about 31 gpu-h.",
    ):
        assert words in told
    cells = [line.split() for line in told.splitlines()]
    assert ["proxy", "8", "400", "4", "2", "h", "00", "min", "30", "min", "00", "s"] in cells


def test_heads_that_will_be_left_out_for_their_cost_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_plan(Console(width=120), {**PAGE, "costly": {"swin": 7.14}})
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "Left out after screening while there are others, by --max-head-cost 4: heads with which a "
        "step takes more" in told
    )
    assert "(swin 7.1)" in told


def test_a_budget_too_small_is_told_what_a_search_needs(capsys: pytest.CaptureFixture[str]) -> None:
    page = {**PAGE, "enough": False, "plan": None}
    assert cannot_buy(page) == ["A ranking of 20 heads by 150 steps would need about 31 gpu-h."]
    assert (
        too_small(page) == "the budget '10gpu-h' is too small for a search; give --budget 300gpu-s."
    )
    assert too_small({**page, "fits": ["--base test_resnet", "--image-size 32"]}) == (
        "the budget '10gpu-h' is too small for a search; give --budget 300gpu-s, or --base "
        "test_resnet or --image-size 32 within 10gpu-h."
    )
    print_plan(Console(width=120), page)
    assert "Candidates" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (300, "5 gpu-min"),
        (301, "5.1 gpu-min"),
        (7_200, "2 gpu-h"),
        (110_000, "31 gpu-h"),
        (3_601_000, "1100 gpu-h"),
        (0.6, "0.01 gpu-min"),
    ],
)
def test_what_would_be_needed_is_rounded_up_and_can_be_typed(seconds: float, text: str) -> None:
    from hssl_search.engine.budget import parse_budget

    assert amount(seconds, "gpu") == text
    assert parse_budget(text.replace(" ", "")).seconds >= seconds


def test_sizes() -> None:
    assert [size(None), size(1_500_000), size(2_340_000_000)] == ["–", "1.5 MB", "2.3 GB"]
