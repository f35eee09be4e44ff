"""Why there is no winner: the right cause, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.records.state import TrialState
from hssl_search.engine.winnerless import alike, why

EXTEND = "hssl-search resume runs/x --budget +2cpu-min"
BLACK = {"looked_at": {"images": 80, "one_colour": 80, "same": 80}}
Lab = Any


def head(trial: int, **attributes: Any) -> Contender:
    return Contender(trial, TrialState(name=f"head {trial}", family="mlp", **attributes))


def told(
    *heads: Contender,
    short: tuple[str, ...] = (),
    images: Mapping[str, Any] | None = None,
    causes: dict[int, str] | None = None,
) -> str:
    control = replace(head(9, gate="not learning"), control="noise")
    return why([*heads, control], causes or {}, short, images or {}, EXTEND)


SICK = [head(0, gate="not learning"), head(1, gate="not learning"), head(2, gate="collapsed")]
WELL = head(3, gate="healthy", promoted=True)


def test_where_no_head_was_healthy_the_likely_causes_are_named() -> None:
    assert told(*SICK) == (
        "None of the 3 heads screened was healthy (2 not learning, 1 collapsed), so there is no winner. Likely causes: the images (look at "
        "a few of them), the recipe (try another --trainer), or too short a screening (a larger --budget under another --name makes it "
        "longer)."
    )


def test_images_of_one_colour_are_named_first() -> None:
    assert alike(BLACK) == "80 of 80 images are of one colour"
    assert (
        "Most likely it is the images: 80 of 80 images are of one colour; look at them first. Else"
        in told(*SICK, images=BLACK)
    )


def test_where_the_budget_ended_that_is_the_cause_and_health_is_not_blamed() -> None:
    for sentence in (told(WELL, *SICK, short=("proxy", "full")), told(head(0), short=("screen",))):
        assert sentence.startswith("The budget ended before a ")
        assert sentence.endswith(f"so there is no winner; go on with: {EXTEND}")
        assert "None of" not in sentence
    assert told(*SICK, head(4), short=("screen",)).endswith(
        f"Not all heads were screened when the budget ended; go on with: {EXTEND}"
    )


def test_where_all_proxies_came_to_nothing_the_first_cause_is_told() -> None:
    assert told(WELL, causes={3: "collapsed: its embeddings are one point."}) == (
        "The only promoted head did not come to the end of its proxy in good health, so there is no winner; the first: collapsed: its "
        "embeddings are one point."
    )
    assert told(head(0), causes={0: "its screening failed: no memory."}).endswith(
        "the first: its screening failed: no memory."
    )


def test_of_the_healthy_heads_those_that_were_promoted_are_counted() -> None:
    waiting = [head(trial, gate="healthy", promoted=False) for trial in range(10, 26)]
    tried = [head(trial, gate="healthy", promoted=True) for trial in range(30, 38)]
    causes = {one.trial: f"collapsed: {one.name}." for one in tried} | {
        one.trial: "others were expected to be better." for one in waiting
    }
    assert told(*waiting, *tried, causes=causes) == (
        "None of the 8 promoted heads came to the end of its proxy in good health, so there is no winner; the first: collapsed: head 30."
    )


def test_where_screening_ended_with_the_budget_nothing_is_said_of_proxies_that_did_not_run() -> (
    None
):
    screened = [head(trial, gate="healthy") for trial in range(10, 26)]
    assert told(*screened, head(4), short=("screen",)) == (
        f"The budget ended before a healthy head came to the end of its proxy, so there is no winner; go on with: {EXTEND}"
    )
    assert (
        "proxy (1 promoted head came to nothing: stopped at step 5: below the median), so"
        in told(
            WELL, *screened, short=("screen",), causes={3: "stopped at step 5: below the median."}
        )
    )


def test_a_search_without_a_healthy_head_says_so_and_one_whose_budget_ended_says_that(
    make_lab: Callable[..., Lab],
) -> None:
    sick = make_lab()
    sick.gate = dict.fromkeys(sick.accuracy, "not learning")
    assert "None of the 6 heads screened was healthy (6 not learning)" in sick.search()["sentence"]
    cut = make_lab(budget="90cpu-s")
    cut.slow["proxy"] = 50.0
    verdict = cut.search()
    assert verdict["winner"] is None
    assert verdict["sentence"].startswith(
        "The budget ended before a healthy head came to the end of its proxy"
    )
    extend = cut.run.how_to_resume("90cpu-s")
    assert verdict["sentence"].endswith(f"; go on with: {extend}")
    assert f"It goes on where it was with: {extend}" in cut.watcher.notes()
