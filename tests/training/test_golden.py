"""Losses of twenty steps of every method, which no refactoring may move. `python -m
tests.training.test_golden` writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from hssl_search.methods.base import methods

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS = 20
TOLERANCE = 1e-3
"""Relative. With other kernels of the same processor losses were at most 1.2e-4 apart at this
learning rate, and 2e-2 at ten times it."""
LR = 1e-4


def losses(
    pair: Callable[..., Any],
    trainer: Callable[..., Any],
    patterns: Callable[..., Tensor],
    method: str,
) -> list[float]:
    """Return the total loss of each step of a base with a head of two blocks."""
    training = trainer(
        pair(method, {"family": "convnext", "depth": 2}),
        patterns(32),
        steps=STEPS,
        batch_size=16,
        lr=LR,
    )
    found = []
    for step in range(1, STEPS + 1):
        training.advance(step)
        found.append(training.report().loss)
    return found


@pytest.mark.parametrize("method", list(methods()))
def test_losses_are_those_of_before(
    pair: Callable[..., Any],
    trainer: Callable[..., Any],
    patterns: Callable[..., Tensor],
    method: str,
) -> None:
    assert losses(pair, trainer, patterns, method) == pytest.approx(
        json.loads(GOLDEN.read_text())[method], rel=TOLERANCE, abs=1e-6
    )


if __name__ == "__main__":
    from tests.training.conftest import make_pair, make_patterns, make_trainer

    found = {
        method: [round(loss, 6) for loss in losses(make_pair, make_trainer, make_patterns, method)]
        for method in methods()
    }
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
