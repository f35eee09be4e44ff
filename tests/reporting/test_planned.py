"""A plan as people read it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from hssl_search.reporting.planned import amount, cannot_buy, print_plan, size, too_small

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
        "This budget allows 6 proxies of 400 steps; a ranking of 20 heads by 150 steps would need about 31 gpu-h.",
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
        "Left out after screening while there are others, by --max-head-cost 4: heads with which a step takes more"
        in told
    )
    assert "(swin 7.1)" in told


def test_a_budget_too_small_is_told_what_a_search_needs(capsys: pytest.CaptureFixture[str]) -> None:
    page = {**PAGE, "enough": False, "plan": None}
    assert cannot_buy(page) == ["A ranking of 20 heads by 150 steps would need about 31 gpu-h."]
    assert (
        too_small(page) == "the budget '10gpu-h' is too small for a search; give --budget 300gpu-s."
    )
    assert too_small({**page, "fits": ["--base test_resnet", "--image-size 32"]}) == (
        "the budget '10gpu-h' is too small for a search; give --budget 300gpu-s, or --base test_resnet or --image-size 32 within 10gpu-h."
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
