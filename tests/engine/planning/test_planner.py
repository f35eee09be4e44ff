"""Plans as a search makes, keeps and changes them, without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

Lab = Any
"""See conftest.py."""


def test_search_yaml_holds_the_plan_and_the_precision_that_was_faster(lab: Lab) -> None:
    lab.search()
    held = yaml.safe_load(lab.run.search_yaml.read_text())
    assert held["plan"] == lab.study.study_attributes()["plan"]["numbers"]
    assert [held["setting"]["recipe"][stage]["precision"] for stage in ("proxy", "full")] == [
        "fp32",
        "fp32",
    ]


def test_a_slow_screening_has_proxies_planned_anew_and_a_search_that_ends_with_a_winner(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(budget="10cpu-min")
    lab.slow = dict.fromkeys(("screen", "proxy", "confirm"), 2.5)
    verdict = lab.search()
    plan = lab.study.study_attributes()["plan"]
    assert verdict["winner"] is not None and verdict["state"] != "undecided"
    assert "Planned anew after screening: " in lab.watcher.notes()
    assert (
        plan["numbers"]["proxy_steps"] < plan["first"]["proxy_steps"]
        or plan["numbers"]["proxies"] < plan["first"]["proxies"]
    )
    assert plan["phases"]["proxy"] == pytest.approx(plan["numbers"]["expected_s"]["proxy"] + 3.0), (
        "a worker is started"
    )
    assert plan["first_phases"]["proxy"] == pytest.approx(
        plan["first"]["expected_s"]["proxy"] + 3.0
    )
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
