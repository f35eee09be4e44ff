"""What a user is told whose budget is too small: it works when it is typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.planning.costs import Costs
from hssl_search.engine.planning.plan import BudgetTooSmall, make_plan, smallest_s
from hssl_search.engine.planning.preview import after_first_step, what_fits
from hssl_search.engine.policy import DEFAULT
from hssl_search.spaces.space import Space

MakeLab = Callable[..., Any]
COSTS = Costs(step=1.0, heads={"typical": 0.5}, evaluate=2.0, checkpoint=0.1, startup=5.0, last=1.0)
SETTING = Setting(
    base="resnet50",
    base_args={},
    image_size=96,
    data="digits",
    probe_data=None,
    data_seed=0,
    recipe={},
    device="cpu",
)
MACS = {"resnet50": 1_000, "resnet34": 900, "resnet18": 500, "test_resnet": 10}


def extension(lab: Any, told: pytest.ExceptionInfo[BudgetTooSmall]) -> str:
    """Return the budget of the command that the sentence names."""
    found = re.fullmatch(
        r"the budget \S+ is too small for this base and these data; extend it with: "
        + re.escape(lab.run.how_to_resume())
        + r" --budget (\+\w+-\w+)( \(into \S+ a search would fit with .*\))?\.",
        str(told.value),
    )
    assert found is not None, str(told.value)
    return found[1]


def extended(lab: Any, told: pytest.ExceptionInfo[BudgetTooSmall]) -> dict[str, Any]:
    """Return what the search comes to after that command."""
    lab.budget = lab.budget.plus(parse_budget(extension(lab, told)))
    verdict: dict[str, Any] = lab.search()
    lab.check()
    return verdict


@pytest.mark.parametrize("budget", ["20cpu-s", "30cpu-s", "50cpu-s"])
@pytest.mark.parametrize(
    ("start_s", "slow"),
    [(0.0, 1.0), (12.0, 1.0), (12.0, 1.2)],
    ids=["at once", "after a start", "slow work"],
)
def test_the_command_that_a_refusal_names_is_enough(
    make_lab: MakeLab, budget: str, start_s: float, slow: float
) -> None:
    lab = make_lab(budget=budget)
    lab.start_s, lab.slow = start_s, dict.fromkeys(("screen", "proxy", "confirm"), slow)
    with pytest.raises(BudgetTooSmall) as told:
        lab.search()
    assert extended(lab, told)["winner"] is not None
    assert lab.charged() < 600, "nor is it many times too much"


def test_after_the_first_step_it_is_told_that_a_budget_cannot_suffice(make_lab: MakeLab) -> None:
    lab = make_lab(budget="60cpu-s")
    lab.first_step = 50.0
    with pytest.raises(BudgetTooSmall) as told:
        lab.search()
    assert (lab.starts, lab.ends) == (["measure"], {}), "measuring was not done to its end"
    assert lab.charged() < 10
    with pytest.raises(BudgetTooSmall):
        lab.search()
    assert lab.starts == ["measure", "measure"], "no more is known than before"
    assert extended(lab, told)["winner"] is not None


def test_a_plan_is_measured_to_its_end_though_the_budget_is_too_small(make_lab: MakeLab) -> None:
    lab = make_lab(budget="1cpu-h")
    lab.first_step = 5_000.0
    page = lab.controller().preview(parse_budget("60cpu-s"))
    assert (page["enough"], lab.ends) == (False, {"measure": 1})
    assert (
        make_lab(budget="1cpu-h")
        .controller()
        .preview(parse_budget(f"{page['smallest_s']}cpu-s"))["enough"]
    )


@pytest.mark.parametrize("seconds", [60.0, 300.0, 600.0, 1_500.0])
def test_what_is_said_to_fit_does_and_is_the_largest_that_does(seconds: float) -> None:
    def needs(share: float) -> float:
        return DEFAULT.enough * smallest_s(
            Costs(share, {"typical": 0.5 * share}, 2.0 * share, 0.1, 5.0, last=share)
        )

    found = what_fits(seconds, COSTS, SETTING, MACS.get, lambda: 0.1)
    bases = [
        name
        for name in ("resnet34", "resnet18", "test_resnet")
        if needs(MACS[name] / 1_000) <= seconds
    ]
    sizes = [side for side in (64, 48, 32) if needs((side / 96) ** 2) <= seconds]
    space = (
        DEFAULT.enough * smallest_s(Costs(1.0, {"typical": 0.05}, 2.0, 0.1, 5.0, last=1.0))
        <= seconds
    )
    assert found == [
        *(f"--base {name}" for name in bases[:1]),
        *(f"--image-size {side}" for side in sizes[:1]),
        *["--space tiny"] * space,
    ]


def test_a_smaller_base_is_of_the_same_kind_and_one_that_takes_the_arguments() -> None:
    tiny = SETTING.model_copy(update={"base": "vit_tiny_patch16_224"})
    found = what_fits(
        1e5, COSTS, tiny, {"vit_tiny_patch16_224": 9, "test_vit": 1}.get, lambda: None
    )
    assert found == ["--base test_vit", "--image-size 64"]
    assert what_fits(1e5, COSTS, SETTING, {}.get, lambda: None) == ["--image-size 64"]


@pytest.mark.parametrize("still_open", [False, True])
def test_what_a_first_step_tells_holds_what_is_measured_then(still_open: bool) -> None:
    known = {
        "step_s": 1.0,
        "open": still_open,
        "base_macs": 1_000,
        "judged": 500,
        "batch_size": 128,
    }
    least, most = after_first_step(known, typical_macs=200.0)
    for head_s, evaluate_s in ((0.1, 0.2), (0.6, 0.9)):
        truth = Costs(1.0, {"typical": head_s}, evaluate_s, 0.2, 10.0, last=2.0)
        assert smallest_s(least) < smallest_s(truth) < smallest_s(most)
        make_plan(smallest_s(most), truth, None)


def test_the_shares_of_a_plan_hold_for_the_heads_that_are_promoted(
    make_lab: MakeLab, wide_space: Space
) -> None:
    """Some of the most discrepant heads take three times as long as no head does, which a plan made
    before screening cannot know.
    """
    lab = make_lab(
        wide_space, budget="40cpu-min", pruner="none", full_epochs=10**6, sampler="random"
    )
    lab.weight = dict.fromkeys(sorted(lab.overlap, key=lab.overlap.__getitem__)[-5:], 10.0)
    lab.search()
    lab.check()
    plan, spent = lab.study.study_attributes()["plan"], lab.meter.ledger.by_phase()
    assert plan["numbers"]["proxy_steps"] < plan["first"]["proxy_steps"]
    assert spent["proxy"] == pytest.approx(plan["phases"]["proxy"], rel=0.25)
    assert sum(key.startswith("confirm/") for key in lab.ends) >= 4, (
        "proxies leave what confirming needs"
    )
