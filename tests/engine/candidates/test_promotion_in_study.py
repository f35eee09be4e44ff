"""Who is promoted, in whole searches without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from hssl_search.engine.budget import parse_budget
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def test_the_noise_head_is_never_promoted_though_it_is_the_most_discrepant(lab: Lab) -> None:
    lab.search()
    noise = lab.trial("noise head")
    assert noise.user_attrs["discrepancy"] > max(
        lab.trial(name).user_attrs["discrepancy"] for name in lab.overlap
    )
    assert (noise.state, noise.user_attrs["cause"]) == (PRUNED, "not learning: found not learning.")
    assert not any(f"/{noise.number:04d}/" in key for key in lab.starts)


def test_unhealthy_heads_are_left_out(lab: Lab) -> None:
    order = sorted(lab.overlap, key=lab.overlap.__getitem__)
    lab.gate = {name: "collapsed" for name in order[2:]}
    verdict = lab.search()
    lab.check()
    assert verdict["name"] in order[:2]
    assert all(
        lab.trial(name).user_attrs["cause"] == "collapsed: found collapsed." for name in order[2:]
    )
    assert [lab.trial(name).user_attrs["promoted"] for name in order] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_heads_that_cost_too_much_are_left_out_while_there_are_others(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(max_head_cost=2.0)
    costly = sorted(lab.overlap, key=lab.overlap.__getitem__)[-2:]
    lab.weight = {costly[0]: 5.1, costly[1]: 12.5}
    verdict = lab.search()
    lab.check()
    assert verdict["winner"] is not None and verdict["name"] not in costly
    for name, times in zip(costly, ("2.0", "3.5"), strict=True):
        trial = lab.trial(name)
        assert trial.state is PRUNED and not trial.intermediate_values
        assert trial.user_attrs["cause"] == (
            f"too costly: a step with it takes {times} times as long as without a head, and "
            "--max-head-cost is 2."
        )
    assert lab.search() == verdict


@pytest.mark.parametrize(
    ("most", "weight"),
    [(2.0, 6.0), (None, 6.0), (2.0, 5.0)],
    ids=["all cost too much", "no limit", "just so"],
)
def test_no_head_is_left_out_for_its_cost_where_none_costs_less(
    make_lab: Callable[..., Lab], most: float | None, weight: float
) -> None:
    lab = make_lab(max_head_cost=most, budget="30cpu-min")
    lab.weight = dict.fromkeys(lab.overlap, weight)
    assert lab.search()["winner"] is not None
    assert not any("costly" in trial.user_attrs.get("cause", "") for trial in lab.study.trials())


@pytest.mark.parametrize("after", ["resumed", "extended", "in rounds"])
def test_where_all_heads_cost_too_much_none_is_left_out_after_the_first_promotion_either(
    make_lab: Callable[..., Lab], wide_space: Space, after: str
) -> None:
    if after == "in rounds":
        many = {
            "family": {"choice": ["convnext", "resnet", "mlp", "poolformer"]},
            "depth": {"int": [1, 16]},
        }
        lab = make_lab(
            max_head_cost=2.0,
            budget="9cpu-h",
            space=Space.from_plain({"parameters": many}, "large"),
            promote="random",
        )
    else:
        lab = make_lab(
            max_head_cost=2.0,
            budget="30cpu-min",
            **({"space": wide_space} if after == "extended" else {}),
        )
    lab.weight = dict.fromkeys(lab.overlap, 6.0)

    def interrupt(key: str, step: int) -> None:
        if key.startswith("proxy/") and lab.study.study_attributes()["promoted"]:
            lab.at_rung = lambda key, step: None
            raise KeyboardInterrupt

    if after == "resumed":
        lab.at_rung = interrupt
        with pytest.raises(KeyboardInterrupt):
            lab.search()
    lab.search()
    if after == "extended":
        lab.budget = parse_budget("30cpu-min+60cpu-min")
        lab.search()
    numbers = lab.study.study_attributes()["plan"]["numbers"]
    assert numbers["rounds"] > 1 or after != "in rounds"
    assert len(lab.study.study_attributes()["promoted"]) == numbers["proxies"] > 1
    assert not any("costly" in trial.user_attrs.get("cause", "") for trial in lab.study.trials())


def test_no_healthy_head_is_no_winner_and_costs_two_controls(lab: Lab) -> None:
    lab.gate = {name: "not learning" for name in lab.overlap}
    verdict = lab.search()
    lab.check()
    assert (verdict["winner"], verdict["state"]) == (None, "unranked")
    assert "so there is no winner" in verdict["sentence"]
    assert lab.starts[:2] == ["measure", "screen/group0"]
    proxied = [
        lab.study.frozen(int(key.split("/")[1])).user_attrs["control"] for key in lab.starts[2:]
    ]
    assert proxied == ["none", "identity"]
    assert {trial.state for trial in lab.study.trials() if "control" not in trial.user_attrs} == {
        PRUNED
    }
    assert "nothing to promote" in lab.watcher.notes()


@pytest.mark.parametrize("promote", ["discrepancy", "learned", "random"])
def test_the_study_keeps_who_was_promoted_in_order_and_how_well_it_was_predicted(
    make_lab: Callable[..., Lab], wide_space: Space, promote: str
) -> None:
    lab = make_lab(
        budget="60cpu-min", promote=promote, pruner="none", space=wide_space, sampler="random"
    )
    lab.accuracy = {name: 90.0 - 20.0 * overlap for name, overlap in lab.overlap.items()}
    lab.search()
    lab.check()
    attributes = lab.study.study_attributes()
    started = [int(key.split("/")[1]) for key in lab.starts if key.startswith("proxy/")]
    assert [trial for trial in started if trial in attributes["promoted"]] == attributes["promoted"]
    assert len(attributes["promoted"]) == attributes["plan"]["numbers"]["proxies"] >= 8
    assert attributes["promotion"]["rule"] == promote
    assert attributes["promotion"]["discrepancy"]["value"] == pytest.approx(-1.0)
    assert attributes["promotion"]["forecast"]["value"] > 0.5
    assert "of discrepancy with the score is −1.00 (Spearman)." in lab.watcher.notes()
    found = {lab.study.frozen(trial).user_attrs["name"] for trial in attributes["promoted"]}
    least = sorted(lab.overlap, key=lab.overlap.__getitem__)[:3]
    assert bool(found & set(least)) == (promote != "discrepancy"), (
        "only learning and luck find what the rule holds for bad"
    )
