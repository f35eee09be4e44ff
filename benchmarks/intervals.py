"""How often intervals that say 95 % hold, and how often they call the best of several heads better
though all are equal.

    python benchmarks/intervals.py

Simulated searches with normal noise; prints a table in Markdown. Takes about a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import starmap

import numpy as np
from scipy import stats

from hssl_search.engine.statistics.two_way import TwoWay

HEADS = 5
SEEDS = (2, 3, 4, 5)
RESAMPLES = 500
CONTROL = 0
"""The trial that stands for no head; the others are heads."""
Interval = Callable[[np.ndarray], tuple[float, float]]


def student(gaps: np.ndarray) -> tuple[float, float]:
    """Return Student's t interval of one head alone, as if it had not been picked."""
    half = float(stats.t.ppf(0.975, len(gaps) - 1)) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return gaps.mean() - half, gaps.mean() + half


def percentile_bootstrap(gaps: np.ndarray) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(gaps, (RESAMPLES, len(gaps)))
    low, high = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def tables(searches: int, seeds: int) -> np.ndarray:
    """Return simulated scores, searches x trials x seeds; all trials are equal."""
    return np.random.default_rng(seeds).standard_normal((searches, 1 + HEADS, seeds))


def holds(interval: Interval, searches: int, seeds: int) -> float:
    """Return the share of searches in which the interval of one head's difference to no head, which
    is 0, holds it."""
    found = (interval(table[1] - table[CONTROL]) for table in tables(searches, seeds))
    return float(np.mean([low <= 0 <= high for low, high in found]))


def wrongly_better(interval: Interval, searches: int, seeds: int) -> float:
    """Return the share of searches in which the head with the best mean is called better than no
    head."""
    picked = (
        table[1 + table[1:].mean(axis=1).argmax()] - table[CONTROL]
        for table in tables(searches, seeds)
    )
    return float(np.mean([interval(gaps)[0] > 0 for gaps in picked]))


def ours(table: np.ndarray) -> tuple[bool, bool]:
    """Return (whether the intervals of all heads hold, whether the best is called better)."""
    found = TwoWay({trial: dict(enumerate(scores)) for trial, scores in enumerate(table)}).against(
        CONTROL
    )
    best = max(found, key=lambda trial: found[trial].mean)
    return not any(gap.decided for gap in found.values()), found[best].decided and found[
        best
    ].mean > 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=4000)
    searches = parser.parse_args().searches
    print(
        f"| over {searches} searches with {HEADS} equal heads | "
        f"{' | '.join(f'{seeds} seeds' for seeds in SEEDS)} |"
    )
    print("|---" * (1 + len(SEEDS)) + "|")
    dunnett = {
        seeds: np.mean([ours(table) for table in tables(searches, seeds)], axis=0)
        for seeds in SEEDS
    }
    rows = {
        "percentile bootstrap of one head holds": [
            holds(percentile_bootstrap, searches, seeds) for seeds in SEEDS
        ],
        "Student's t of one head holds": [holds(student, searches, seeds) for seeds in SEEDS],
        "Dunnett's of all heads together hold": [dunnett[seeds][0] for seeds in SEEDS],
        "the best is called better: Student's t": [
            wrongly_better(student, searches, seeds) for seeds in SEEDS
        ],
        "the best is called better: Dunnett's": [dunnett[seeds][1] for seeds in SEEDS],
    }
    print(
        "\n".join(
            starmap(
                lambda name, shares: (
                    f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |"
                ),
                rows.items(),
            )
        )
    )


if __name__ == "__main__":
    main()
