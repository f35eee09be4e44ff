"""The policy: what a user may change of how a search is planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hssl_search.engine.candidates.promotion import choose as choose_head
from hssl_search.engine.candidates.pruners import PRUNERS, AtRung
from hssl_search.engine.config import gather
from hssl_search.engine.phases.confirm import Field
from hssl_search.engine.phases.confirm import choose as choose_seed
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import make_plan
from hssl_search.engine.policy import DEFAULT, Policy, Steps
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

COSTS = Costs(step=0.1, heads={"mlp": 0.02}, evaluate=0.5, checkpoint=0.1, startup=3.0)


def test_a_plan_stays_within_the_steps_and_runs_of_the_policy() -> None:
    policy = Policy(
        screen_steps=Steps(fewest=20, wanted=30, most=40),
        proxy_steps=Steps(fewest=20, wanted=30, most=50),
        most_proxies=3,
        most_confirm_jobs=5,
    )
    plan = make_plan(100_000.0, COSTS, 64, policy=policy)
    assert (plan.screen_steps, plan.proxy_steps, plan.proxies, plan.confirm_jobs) == (40, 50, 3, 5)
    assert make_plan(100_000.0, COSTS, 64).proxy_steps == DEFAULT.proxy_steps.most


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shares": {"screen": 0.5, "proxy": 0.45}}, "at most 1"),
        ({"proxy_steps": {"fewest": 50, "wanted": 20, "most": 90}}, "fewest <= wanted <= most"),
        ({"group_size": 0}, "greater than or equal to 1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Policy.model_validate(changes)


def test_a_configuration_file_sets_it_and_a_mistake_in_it_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "base: test_resnet\nbudget: 1cpu-h\npolicy: {most_proxies: 5}\n"
    )
    assert gather({}, str(tmp_path / "own.yaml")).policy == Policy(most_proxies=5)
    (tmp_path / "own.yaml").write_text(
        "base: test_resnet\nbudget: 1cpu-h\npolicy: {most_proxy: 5}\n"
    )
    with pytest.raises(
        UserError,
        match=r"own\.yaml: unknown key 'most_proxy' in policy; did you mean 'most_proxies'",
    ):
        gather({}, str(tmp_path / "own.yaml"))


def test_promotion_pruning_and_confirming_go_by_it() -> None:
    heads = tuple(
        Contender(
            number,
            TrialState(
                role="candidate",
                name=f"head {number}",
                family="mlp",
                head=HeadConfig(family="mlp", depth=1),
                gate="healthy",
                discrepancy=1 - number / 10,
                overlap_excess=1 - number / 10,
                cka_excess=1 - number / 10,
            ),
        )
        for number in range(8)
    )
    promoted = [0, 1, 2, 3, 4]
    scores = {number: 10.0 * number for number in promoted}
    chosen = {
        every: choose_head("learned", heads, promoted, scores, 0, Policy(paper_rule_every=every))
        for every in (1, 3)
    }
    assert chosen == {1: heads[5], 3: heads[7]}

    median = PRUNERS["median"]
    others = {number: AtRung(number, 50.0) for number in range(1, 4)}
    assert not median.stops(AtRung(0, 10.0), others)
    assert replace(median, policy=Policy(pruner_startup=3)).stops(AtRung(0, 10.0), others)

    field = Field(candidates=(1, 2), no_head=0, identity=3)
    table = {0: {0: 60.0, 1: 60.2}, 1: {0: 70.0, 1: 70.2}, 2: {0: 69.9, 1: 70.1}, 3: {0: 50.0}}
    tried = {0: 2, 1: 2, 2: 2, 3: 1}
    assert choose_seed(field, table, tried, 0) in (0, 1)
    challenged = Policy(turns=("challenger",))
    assert choose_seed(field, table, tried, 0, policy=challenged) in (1, 2)
    assert choose_seed(field, table, {**tried, 2: 1}, 0, policy=challenged) == 2


def test_a_search_follows_it_and_an_edited_one_is_refused(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(budget="2cpu-h")
    policy = {"proxy_steps": {"fewest": 20, "wanted": 40, "most": 60}, "most_confirm_jobs": 4}
    lab.run.update_config(policy=policy)
    lab.search()
    assert lab.study.study_attributes()["plan"]["numbers"]["proxy_steps"] == 60
    assert sum(key.startswith("confirm/") for key in lab.study.job_records()) <= 4
