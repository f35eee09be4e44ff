"""The evidence's analysis, and its page, on tables whose truth is known."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, ttest_rel

from benchmarks.evidence import analysis, answers, page
from benchmarks.evidence.protocol import FRACTIONS, HEADS, NONE, SAME, BaseModel, Cell
from benchmarks.evidence.table import COLUMNS
from hssl_search.heads.config import HeadConfig
from hssl_search.search.execution.tasks import Setting

STEPS = 1000
BRANCHES = [NONE, "identity", SAME, *HEADS, "noise"]
LENGTHS = {"net, simclr": {branch: 1.0 for branch in BRANCHES} | {"mlp 3": 1.5, "mixer 3": 2.0}}
QUALITY = {branch: float(place) for place, branch in enumerate(HEADS)}
"""True gain over no head of each candidate, in points."""


def row(branch: str, seed: int, step: int, steps: int = STEPS, training: str = "alone", **values: Any) -> dict[str, Any]:
    return {"base": "net", "method": "simclr", "training": training, "branch": branch, "seed": seed, "steps": steps, "step": step,
            "fraction": step / steps, "head": "" if branch.startswith(NONE) else branch, "gate": "healthy", **values}


def table(seeds: int = 4, noise: float = 0.3, drift: float = 0.0) -> pd.DataFrame:
    """Accuracy = 40 + seed's own + gain + noise; overlap orders heads as gains do, cka the other way round, and early accuracies have up
    to `drift` more noise."""
    random, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for branch in BRANCHES:
            gain = QUALITY.get(branch, -5.0 if branch == "noise" else 0.0)
            for fraction in FRACTIONS:
                scatter = noise + drift * (1 - fraction)
                rows.append(row(branch, seed, round(fraction * STEPS), accuracy=40 + 3 * seed + gain + scatter * random.standard_normal(),
                                overlap=gain / 10, cka=-gain, output=random.random(), head_loss=-gain, head_accuracy=gain, rankme=1.0,
                                **({"gate": "collapsed"} if branch == "noise" else {})))
        for length in (1.5, 2.0):
            rows.append(row(f"{NONE} x {length:g}", seed, round(STEPS * length), round(STEPS * length), accuracy=40 + 3 * seed + length))
        for branch, quality in QUALITY.items():
            rows.append(row(branch, seed, 40, 40, "joint", architecture=quality**2, overlap=quality, cka=1.0, output=0.0,
                            head_loss=quality))
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(head=lambda rows: rows["head"].fillna(""))


def of(found: pd.DataFrame, **where: Any) -> pd.Series:
    rows = found
    for column, value in where.items():
        rows = rows[rows[column] == value]
    [one] = rows.to_dict("records")
    return pd.Series(one)


def test_gains_are_paired_and_their_intervals_are_those_of_a_paired_t_test() -> None:
    found, rows = analysis.gains(table(), "accuracy", LENGTHS), analysis.at_the_end(table())
    gain = of(found, branch="resnet 3", against=NONE)
    one, none = (rows[rows.branch == branch].sort_values("seed").accuracy.to_numpy(float) for branch in ("resnet 3", NONE))
    expected = ttest_rel(one, none).confidence_interval(0.95)
    assert (gain["low"], gain["high"]) == pytest.approx((expected.low, expected.high))
    assert gain["low"] < QUALITY["resnet 3"] < gain["high"]
    assert gain["n"] == 4


def test_gains_cover_the_truth_as_often_as_they_say() -> None:
    """Over 100 tables, of a head whose true gain is 4."""
    random, held = np.random.default_rng(1), 0
    for _ in range(100):
        rows = [row(branch, seed, STEPS, accuracy=gain + seed + random.standard_normal())
                for branch, gain in ((NONE, 0.0), ("mlp 3", 4.0)) for seed in range(3)]
        gain = of(analysis.gains(pd.DataFrame(rows), "accuracy", {"net, simclr": {"mlp 3": 1.0}}), against=NONE)
        held += gain["low"] <= 4.0 <= gain["high"]
    assert 0.95 * 100 - 9 <= held <= 100  # four standard errors


def test_no_head_for_the_same_time_is_the_one_as_long_as_the_head_takes() -> None:
    exact = table(noise=0.0)
    found = analysis.gains(exact, "accuracy", LENGTHS)
    same_time = {branch: of(found, branch=branch, against=analysis.SAME_TIME)["mean"] for branch in ("convnext 3", "mlp 3", "mixer 3")}
    expected = {"convnext 3": QUALITY["convnext 3"], "mlp 3": QUALITY["mlp 3"] - 1.5, "mixer 3": QUALITY["mixer 3"] - 2.0}
    assert same_time == pytest.approx(expected)


def test_only_seeds_that_both_have_are_compared() -> None:
    rows = table(noise=0.0)
    fewer = rows[~((rows.branch == "resnet 3") & (rows.seed > 0))]
    gain = of(analysis.gains(fewer, "accuracy", LENGTHS), branch="resnet 3", against=NONE)
    assert (gain["mean"], gain["n"]) == (pytest.approx(QUALITY["resnet 3"]), 1)
    assert gain["low"] is None or np.isnan(gain["low"])


def test_what_orders_heads_like_their_gains_foretells_them() -> None:
    found = analysis.foretold(table(noise=0.0), "accuracy")
    for where, value in (({"source": "joint", "measure": "overlap"}, 1.0), ({"source": "joint", "measure": "head_loss"}, -1.0),
                         ({"source": "untrained", "measure": "architecture"}, 1.0)):
        assert of(found, **where)["value"] == pytest.approx(value)
    at_end = found[(found.source == "alone") & (found.fraction == 1.0)].set_index("measure").value
    assert at_end["overlap"] == pytest.approx(1.0)
    assert at_end["cka"] == pytest.approx(-1.0)
    assert at_end["head_loss"] == pytest.approx(1.0)  # lower is better
    assert pd.isna(at_end["rankme"])  # all alike: nothing is said


def test_noise_and_heads_that_failed_the_gate_are_no_points() -> None:
    rows = table()
    broken = rows.assign(gate=rows.gate.mask(rows.branch.isin(["mlp 3"]) & (rows.seed == 1), "collapsed"))
    assert set(analysis.healthy(analysis.at_the_end(rows))) == {"identity", SAME, *HEADS}
    assert set(analysis.healthy(analysis.at_the_end(broken))) == {"identity", SAME, *HEADS} - {"mlp 3"}
    assert of(analysis.foretold(broken, "accuracy"), source="untrained")["n"] == len(HEADS) - 1


def test_rankings_are_made_of_the_seeds_that_all_branches_have() -> None:
    """Branches that were trained under one good seed more are not ranked higher for it."""
    whole = table(seeds=3, noise=0.0)
    lacking = whole[~(whole.branch.isin(list(HEADS)[5:]) & (whole.training == "alone") & (whole.seed == 2))]
    assert of(analysis.foretold(lacking, "accuracy"), source="untrained")["value"] == pytest.approx(1.0)
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
    assert analysis.proxy_length(analysis.settling(table(seeds=6, noise=0.01, drift=drift), "accuracy")) in expected


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
    for effect, pairs in (("no first shortcut", analysis.SHORTCUT), ("three blocks instead of one", analysis.DEPTH)):
        truth = np.mean([QUALITY[one] - QUALITY[other] for one, other in pairs])
        assert of(found, effect=effect, outcome="accuracy")["mean"] == pytest.approx(truth)
        assert of(found, effect=effect, outcome="overlap")["mean"] == pytest.approx(truth / 10)
        assert of(found, effect=effect, outcome="accuracy")["n"] == 4


SETTING = Setting(base="net", base_args={}, image_size=32, data="photos", probe_data=None, data_seed=0, recipe={}, device="cpu")
CELL = Cell(BaseModel("net", {}, "mixer 3"), "simclr", SETTING, HeadConfig(family="resnet", depth=2))


def judged(**values: Any) -> pd.DataFrame:
    found = table(noise=0.2)
    return found.assign(linear=found.accuracy + 10, accuracy_mean=found.accuracy, **values)


def about(scale: str) -> dict[str, Any]:
    return {"scale": scale, "note": "TOY: nothing of what a head is worth." if scale == "toy" else "", "command": "python -m x <here>",
            "device": ["one core"], "device_seconds": 7200, "unit": "seconds of a processor core", "failed": {"net/x": "out of <memory>"},
            "versions": {"torch": "9.9"}, "images": {"training": 50000, "bank": 5000, "queries": 2000, "side": 32}, "lengths": LENGTHS}


def words(html: str) -> str:
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


@pytest.fixture(scope="module")
def toy() -> str:
    return page.build(judged(scale="toy"), about("toy"), [CELL])


def test_a_toy_says_so_everywhere(toy: str) -> None:
    assert "<title>TOY: " in toy and '<p class="toy">TOY: ' in toy
    sections = toy.count('<section id="') - 1
    assert sections == 4 == words(toy).count("Toy figures: not an answer to this question.")


def test_a_real_page_speaks_of_no_toy() -> None:
    assert "toy" not in words(page.build(judged(scale="real"), about("real"), [CELL])).lower()


def test_page_needs_no_network_and_escapes_what_it_is_given(toy: str) -> None:
    outside = re.sub(r"<script>.*?</script>", "", toy, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', outside)
    assert "python -m x &lt;here&gt;" in toy and "out of &lt;memory&gt;" in toy


def test_page_shows_every_head_figure_and_what_made_it(toy: str) -> None:
    told = words(toy)
    assert all(told.count(head) >= 3 for head in HEADS)
    assert all(f"figure-{key}" in toy for key in ("gains-0", "foretold-0", "settling"))
    assert "2 h 00 min" in told and "torch 9.9" in told


def test_gains_are_counted_and_the_deciding_head_is_told_with_interval_and_seeds() -> None:
    counted, deciding = answers.gains(analysis.gains(judged(), "accuracy", LENGTHS), [CELL], "k-NN accuracy")
    assert "9 better and 0 worse than none, 1 undecided" in counted  # the first head's true gain is 0
    gain = analysis.gains(judged(), "accuracy", LENGTHS).set_index(["branch", "against"]).loc[("mixer 3", "none")]
    assert f"+{gain['mean']:.2f} [+{gain.low:.2f}, +{gain.high:.2f}] points over none, 4 seeds" in deciding


@pytest.mark.parametrize(("sign", "verdict"), [(1, "as the paper claims"), (-1, "contradicts the paper")])
def test_discrepancy_against_the_claim_is_said_to_be_so(sign: int, verdict: str) -> None:
    moved = judged()
    joint = moved.training == "joint"
    slightly = moved.seed % 2 * 0.0 + moved.overlap.where(moved.branch != "mlp 3", moved.overlap - 1.5)  # a perfect order has no interval
    moved = moved.assign(overlap=slightly.where(~joint, sign * slightly))
    [sentence] = answers.foretold(analysis.foretold(moved, "accuracy"), [CELL], "k-NN accuracy")
    told = sentence.split("overlap, joint screening")[1].split(";")[0]
    assert verdict in told


def test_a_proxy_length_is_told_or_refused() -> None:
    clear = list(answers.settling(analysis.settling(judged(), "accuracy"), [CELL]))
    assert "% of the schedule ranks nine tenths as well" in clear[0] and "suits all" in clear[1]
    alike = judged(accuracy=[((7 * place) % 11) * (1 - 2 * (seed % 2)) for place, seed in enumerate(judged().seed)])
    vague = list(answers.settling(analysis.settling(alike, "accuracy"), [CELL]))
    assert "no proxy length can be proposed" in vague[0] and "No length suits all" in vague[1]


def test_an_unfinished_table_makes_a_page() -> None:
    few = judged(scale="toy")
    few = few[(few.training == "joint") | (few.branch.isin(["none", "identity"]) & (few.seed == 0))]
    told = words(page.build(few, about("toy"), [CELL]))
    assert "one seed does not tell how far trainings agree" in told and "No length suits all" in told
