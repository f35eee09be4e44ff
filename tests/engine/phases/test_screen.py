"""Groups of candidates on one base, and what is read from them."""

from __future__ import annotations

from typing import Any

import pytest

from hssl_search.engine.phases import screen
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig


def candidates(count: int) -> list[Contender]:
    families = ("convnext", "resnet", "transformer", "mlp")
    return [
        Contender(
            trial,
            TrialState(
                name=f"head {trial}",
                family=families[trial % 4],
                head=HeadConfig(family=families[trial % 4], depth=trial + 1),
            ),
        )
        for trial in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 30, 64])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_candidate_is_dealt_to_one_group_and_groups_are_equally_large(
    count: int, size: int
) -> None:
    groups = screen.deal(candidates(count), size)
    assert len(groups) == -(-count // size)
    assert sorted(one.trial for group in groups for one in group) == list(range(count))
    lengths = [len(group) for group in groups]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_no_candidates_make_no_group() -> None:
    assert screen.deal([], 8) == []


def test_candidates_drawn_one_after_another_are_spread() -> None:
    groups = screen.deal(candidates(9), 3)
    assert [[one.trial for one in group] for group in groups] == [
        [0, 3, 6],
        [1, 4, 7],
        [2, 5, 8],
    ]


def test_the_reference_heads_train_last_in_every_group() -> None:
    group = candidates(2)
    assert screen.heads_of(group) == [
        HeadConfig(family="convnext", depth=1),
        HeadConfig(family="resnet", depth=2),
        HeadConfig(family="identity"),
        HeadConfig(family="noise"),
    ]


def head(cka: float, overlap: float, loss: float = 3.0, gate: str = "healthy") -> dict[str, Any]:
    return {
        "cka": cka,
        "overlap": overlap,
        "head_loss": loss,
        "gate": gate,
        "gate_reason": "because.",
    }


def test_discrepancies_are_read_as_excess_over_the_identity_head() -> None:
    group = candidates(3)
    metrics = {
        "heads": [
            head(0.5, 0.6),
            head(0.2, 0.45),
            head(0.9, 0.3),
            head(0.1, 0.35),
            head(0.95, 0.99, 4.4, "not learning"),
        ]
    }
    found, references = screen.read(group, metrics, 5)
    assert {trial: one.discrepancy for trial, one in found.items()} == pytest.approx(
        {0: 0.25, 1: 0.10, 2: -0.05}
    )
    assert [one.cka_excess for one in found.values()] == pytest.approx([0.4, 0.1, 0.8])
    assert found[0].attributes() == head(0.5, 0.6) | {
        "group": 5,
        "cka_excess": pytest.approx(0.4),
        "overlap_excess": pytest.approx(0.25),
        "discrepancy": pytest.approx(0.25),
        "chance_loss": 4.4,
    }
    assert (
        references["identity"].overlap_excess
        == references["identity"].cka_excess
        == references["identity"].discrepancy
        == 0.0
    )
    assert (references["noise"].gate, references["noise"].discrepancy) == (
        "not learning",
        pytest.approx(0.64),
    )


def test_excess_puts_heads_of_a_group_in_the_order_of_their_overlap() -> None:
    group = candidates(6)
    overlaps = [0.3, 0.9, 0.1, 0.5, 0.7, 0.2]
    found, _ = screen.read(
        group,
        {"heads": [head(0.0, overlap) for overlap in overlaps] + [head(0.0, 0.4), head(0.0, 1.0)]},
        0,
    )
    assert sorted(found, key=lambda trial: found[trial].discrepancy or 0.0) == sorted(
        range(6), key=lambda trial: overlaps[trial]
    )


def test_heads_that_an_earlier_version_screened_a_second_time_are_left_out() -> None:
    again = [head(0.9, 0.9)]
    references = [head(0.1, 0.35), head(0.95, 0.99, 4.4, "not learning")]
    found, noted = screen.read(candidates(1), {"heads": [head(0.5, 0.6), *again, *references]}, 0)
    assert list(found) == [0] and found[0].discrepancy == pytest.approx(0.25)
    assert noted["identity"].discrepancy == 0.0 and noted["noise"].gate == "not learning"
