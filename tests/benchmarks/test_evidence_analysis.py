"""The evidence's analysis on tables whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, ttest_rel

from benchmarks.evidence import analysis
from benchmarks.evidence.protocol import FRACTIONS, HEADS, NONE, SAME
from benchmarks.evidence.table import COLUMNS

STEPS = 1000
BRANCHES = [NONE, "identity", SAME, *HEADS, "noise"]
LENGTHS = {"net, simclr": {branch: 1.0 for branch in BRANCHES} | {"mlp 3": 1.5, "mixer 3": 2.0}}
QUALITY = {branch: float(place) for place, branch in enumerate(HEADS)}
"""True gain over no head of each candidate, in points."""


def row(
    branch: str, seed: int, step: int, steps: int = STEPS, training: str = "alone", **values: Any
) -> dict[str, Any]:
    return {
        "base": "net",
        "method": "simclr",
        "training": training,
        "branch": branch,
        "seed": seed,
        "steps": steps,
        "step": step,
        "fraction": step / steps,
        "head": "" if branch.startswith(NONE) else branch,
        "gate": "healthy",
        **values,
    }


def table(seeds: int = 4, noise: float = 0.3, drift: float = 0.0) -> pd.DataFrame:
    """Return a table: accuracy = 40 + seed's own + gain + noise; overlap orders heads as gains do,
    cka the other way round, and early accuracies have up to `drift` more noise."""
    random, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for branch in BRANCHES:
            gain = QUALITY.get(branch, -5.0 if branch == "noise" else 0.0)
            for fraction in FRACTIONS:
                scatter = noise + drift * (1 - fraction)
                rows.append(
                    row(
                        branch,
                        seed,
                        round(fraction * STEPS),
                        accuracy=40 + 3 * seed + gain + scatter * random.standard_normal(),
                        overlap=gain / 10,
                        cka=-gain,
                        output=random.random(),
                        head_loss=-gain,
                        head_accuracy=gain,
                        rankme=1.0,
                        **({"gate": "collapsed"} if branch == "noise" else {}),
                    )
                )
        for length in (1.5, 2.0):
            rows.append(
                row(
                    f"{NONE} x {length:g}",
                    seed,
                    round(STEPS * length),
                    round(STEPS * length),
                    accuracy=40 + 3 * seed + length,
                )
            )
        for branch, quality in QUALITY.items():
            rows.append(
                row(
                    branch,
                    seed,
                    40,
                    40,
                    "joint",
                    architecture=quality**2,
                    overlap=quality,
                    cka=1.0,
                    output=0.0,
                    head_loss=quality,
                )
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(
        head=lambda rows: rows["head"].fillna("")
    )


def of(found: pd.DataFrame, **where: Any) -> pd.Series:
    rows = found
    for column, value in where.items():
        rows = rows[rows[column] == value]
    [one] = rows.to_dict("records")
    return pd.Series(one)


def test_gains_are_paired_and_their_intervals_are_those_of_a_paired_t_test() -> None:
    found, rows = analysis.gains(table(), "accuracy", LENGTHS), analysis.at_the_end(table())
    gain = of(found, branch="resnet 3", against=NONE)
    one, none = (
        rows[rows.branch == branch].sort_values("seed").accuracy.to_numpy(float)
        for branch in ("resnet 3", NONE)
    )
    expected = ttest_rel(one, none).confidence_interval(0.95)
    assert (gain["low"], gain["high"]) == pytest.approx((expected.low, expected.high))
    assert gain["low"] < QUALITY["resnet 3"] < gain["high"]
    assert gain["n"] == 4


def test_gains_cover_the_truth_as_often_as_they_say() -> None:
    """Over 100 tables, of a head whose true gain is 4."""
    random, held = np.random.default_rng(1), 0
    for _ in range(100):
        rows = [
            row(branch, seed, STEPS, accuracy=gain + seed + random.standard_normal())
            for branch, gain in ((NONE, 0.0), ("mlp 3", 4.0))
            for seed in range(3)
        ]
        gain = of(
            analysis.gains(pd.DataFrame(rows), "accuracy", {"net, simclr": {"mlp 3": 1.0}}),
            against=NONE,
        )
        held += gain["low"] <= 4.0 <= gain["high"]
    assert 0.95 * 100 - 9 <= held <= 100  # four standard errors


def test_no_head_for_the_same_time_is_the_one_as_long_as_the_head_takes() -> None:
    exact = table(noise=0.0)
    found = analysis.gains(exact, "accuracy", LENGTHS)
    same_time = {
        branch: of(found, branch=branch, against=analysis.SAME_TIME)["mean"]
        for branch in ("convnext 3", "mlp 3", "mixer 3")
    }
    expected = {
        "convnext 3": QUALITY["convnext 3"],
        "mlp 3": QUALITY["mlp 3"] - 1.5,
        "mixer 3": QUALITY["mixer 3"] - 2.0,
    }
    assert same_time == pytest.approx(expected)


def test_only_seeds_that_both_have_are_compared() -> None:
    rows = table(noise=0.0)
    fewer = rows[~((rows.branch == "resnet 3") & (rows.seed > 0))]
    gain = of(analysis.gains(fewer, "accuracy", LENGTHS), branch="resnet 3", against=NONE)
    assert (gain["mean"], gain["n"]) == (pytest.approx(QUALITY["resnet 3"]), 1)
    assert gain["low"] is None or np.isnan(gain["low"])


def test_what_orders_heads_like_their_gains_predicts_them() -> None:
    found = analysis.predicted(table(noise=0.0), "accuracy")
    for where, value in (
        ({"source": "joint", "measure": "overlap"}, 1.0),
        ({"source": "joint", "measure": "head_loss"}, -1.0),
        ({"source": "untrained", "measure": "architecture"}, 1.0),
    ):
        assert of(found, **where)["value"] == pytest.approx(value)
    at_end = found[(found.source == "alone") & (found.fraction == 1.0)].set_index("measure").value
    assert at_end["overlap"] == pytest.approx(1.0)
    assert at_end["cka"] == pytest.approx(-1.0)
    assert at_end["head_loss"] == pytest.approx(1.0)  # lower is better
    assert pd.isna(at_end["rankme"])  # all alike: nothing is said


def test_noise_and_heads_that_failed_the_gate_are_no_points() -> None:
    rows = table()
    broken = rows.assign(
        gate=rows.gate.mask(rows.branch.isin(["mlp 3"]) & (rows.seed == 1), "collapsed")
    )
    assert set(analysis.healthy(analysis.at_the_end(rows))) == {"identity", SAME, *HEADS}
    assert set(analysis.healthy(analysis.at_the_end(broken))) == {"identity", SAME, *HEADS} - {
        "mlp 3"
    }
    assert of(analysis.predicted(broken, "accuracy"), source="untrained")["n"] == len(HEADS) - 1


def test_rankings_are_made_of_the_seeds_that_all_branches_have() -> None:
    """Branches that were trained under one good seed more are not ranked higher for it."""
    whole = table(seeds=3, noise=0.0)
    lacking = whole[
        ~(whole.branch.isin(list(HEADS)[5:]) & (whole.training == "alone") & (whole.seed == 2))
    ]
    assert of(analysis.predicted(lacking, "accuracy"), source="untrained")[
        "value"
    ] == pytest.approx(1.0)
    settled = analysis.settling(lacking, "accuracy")
    assert set(settled.seeds) == {2} and set(settled.branches) == {len(BRANCHES) - 1}


def test_kendalls_tau_is_that_of_scipy_between_early_and_final_rankings() -> None:
    rows = table(seeds=2, noise=1.0, drift=4.0)
    ranked = analysis.full_length(rows)[lambda its: its.branch != "noise"]

    def scores(fraction: float, seed: int) -> pd.Series:
        its = ranked[(ranked.fraction == fraction) & (ranked.seed == seed)]
        return its.set_index("branch").accuracy

    found = of(analysis.settling(rows, "accuracy"), fraction=0.1)
    same = [kendalltau(scores(0.1, seed), scores(1.0, seed)).statistic for seed in (0, 1)]
    other = [kendalltau(scores(0.1, seed), scores(1.0, 1 - seed)).statistic for seed in (0, 1)]
    assert (found["same"], found["other"]) == pytest.approx((np.mean(same), np.mean(other)))
    assert found["branches"] == len(BRANCHES) - 1


@pytest.mark.parametrize(("drift", "expected"), [(0.0, {0.01}), (20.0, {0.5, 1.0})])
def test_proxies_may_be_as_short_as_rankings_settle(drift: float, expected: set[float]) -> None:
    assert (
        analysis.proxy_length(
            analysis.settling(table(seeds=6, noise=0.01, drift=drift), "accuracy")
        )
        in expected
    )


def test_two_seeds_do_not_tell_how_sure_their_agreement_is() -> None:
    settled = analysis.settling(table(seeds=2, noise=0.3), "accuracy")
    assert settled.other.notna().all() and settled.other_low.isna().all()
    assert analysis.proxy_length(settled) is None


def test_no_length_is_proposed_where_whole_trainings_do_not_agree() -> None:
    random, rows = np.random.default_rng(0), table()
    chance = rows.assign(accuracy=random.random(len(rows)))
    assert analysis.proxy_length(analysis.settling(chance, "accuracy")) is None


def test_effects_are_mean_differences_of_pairs_of_heads() -> None:
    found = analysis.effects(table(noise=0.0), ["accuracy", "overlap"])
    for effect, pairs in (
        ("no first shortcut", analysis.SHORTCUT),
        ("three blocks instead of one", analysis.DEPTH),
    ):
        truth = np.mean([QUALITY[one] - QUALITY[other] for one, other in pairs])
        assert of(found, effect=effect, outcome="accuracy")["mean"] == pytest.approx(truth)
        assert of(found, effect=effect, outcome="overlap")["mean"] == pytest.approx(truth / 10)
        assert of(found, effect=effect, outcome="accuracy")["n"] == 4


def test_answers_have_a_table_for_each_question_and_the_length_that_a_proxy_may_have() -> None:
    whole = table(seeds=6, noise=0.01)
    whole = whole.assign(linear=whole.accuracy + 10)
    found = analysis.answers(whole, LENGTHS)
    assert list(found) == ["gains", "predicted", "settling", "effects"]
    gains = found["gains"].set_index(["score", "branch", "against"])["mean"]
    assert gains["linear"].to_dict() == pytest.approx(gains["accuracy"].to_dict())
    assert (
        set(found["settling"].proxy_length)
        == {analysis.proxy_length(analysis.settling(whole, "accuracy"))}
        == {0.01}
    )
    assert set(found["effects"].outcome) == {"accuracy", "linear", "overlap"}
