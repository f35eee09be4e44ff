"""The surrogate: how high a head's proxy will score, learned from what screening measured of heads
whose proxies have ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hssl_search.engine.records.state import Contender
from hssl_search.engine.statistics import ties
from hssl_search.engine.statistics.correlation import spearman

if TYPE_CHECKING:
    import numpy as np

FAMILY = "family:"
TOLD = 5
"""Ended proxies from which on they tell whether an earlier search misleads."""
ROUNDED = 1e-7
"""Gaps between scores of up to some hundreds that are below this differ by rounding alone."""


def features(candidate: Contender) -> dict[str, float]:
    """Return what the score is predicted from: what screening measured, and what the head is.

    What a head lacks has no entry; of families it has the share of its blocks that are of each.
    """
    head, state = candidate.head, candidate.state
    assert head is not None
    blocks = head.block_families or (head.family,)
    chance, loss = state.chance_loss, state.head_loss
    values: dict[str, float | None] = {
        "overlap": state.overlap_excess,
        "cka": state.cka_excess,
        "output difference": state.output,
        "architectural difference": state.architecture,
        "excess": state.excess_loss,
        "learning": None if chance is None or loss is None else chance - loss,
        "parameter count": None if state.parameters is None else math.log1p(state.parameters),
        "log macs": None if state.macs is None else math.log1p(state.macs),
        "width_ratio": head.width_ratio,
        "kernel_size": head.kernel_size,
        "mlp_ratio": head.mlp_ratio,
        "first_shortcut": head.first_shortcut,
        "positions": head.positions,
        "tap": head.tap,
        "depth": len(blocks),
        **{FAMILY + family: count / len(blocks) for family, count in Counter(blocks).items()},
    }
    return {name: float(value) for name, value in values.items() if value is not None}


class Lesson(NamedTuple):
    """What an earlier search teaches."""

    candidates: tuple[Contender, ...]
    scores: tuple[float, ...]
    """Of each candidate; not comparable with those of other searches."""
    name: str = ""
    """The run folder of that search."""


def predict(
    candidates: Sequence[Contender],
    scores: Sequence[float | None],
    lessons: Sequence[Lesson] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the score of each candidate's proxy.

    Bayesian ridge regression (Tipping, JMLR 2001; scikit-learn), with priors worth a few proxies:
    scores vary as much by noise as by all features together until the proxies tell otherwise.

    What earlier searches found is more rows, each search standardised by itself, and each search
    has, beside the coefficients that all share, a set of its own (Daumé, ACL 2007): where this
    search differs, it is followed after a few proxies. Once `TOLD` of them have ended, a lesson
    that alone would put them into the wrong order is left.

    Args:
        scores: of each candidate, None of one whose proxy has not ended; at least two are known,
            those of lessons counted.

    Returns:
        (mean, standard deviation) of each, the deviation without the proxies' noise.
    """
    import numpy as np
    from sklearn.linear_model import BayesianRidge

    reached = [score for score in scores if score is not None]
    ended = [
        candidate for candidate, score in zip(candidates, scores, strict=True) if score is not None
    ]
    wrong = misleading(lessons, ended, reached)
    lessons = [lesson for number, lesson in enumerate(lessons) if number not in wrong]
    sizes = [len(candidates), *(len(lesson.scores) for lesson in lessons)]
    columns = table((*candidates, *(taught for lesson in lessons for taught in lesson.candidates)))
    known = np.array([score is not None for score in scores] + [True] * sum(sizes[1:]))
    if lessons:
        # The shared columns; an intercept for each search; the columns again for each search alone.
        of = np.repeat(np.arange(len(sizes)), sizes)[:, None] == np.arange(len(sizes))
        columns = np.hstack([columns, of, *(columns * mine[:, None] for mine in of.T)])
    level, spread = _scale(reached)
    # No feature tells these heads apart: nothing but the mean is left to predict.
    if not columns.size:
        return np.full(len(candidates), level), np.full(len(candidates), 0.0)
    scaled = [(np.array(reached) - level) / spread]
    for lesson in lessons:
        its_level, its_spread = _scale(lesson.scores)
        scaled.append((np.array(lesson.scores) - its_level) / its_spread)
    # By the number of features: together they weigh as much as the noise, however many.
    ridge = BayesianRidge(alpha_1=1.0, alpha_2=1.0, lambda_1=1.0, lambda_2=1.0 / columns.shape[1])
    ridge.fit(columns[known], np.concatenate(scaled))
    means, deviations = ridge.predict(columns[: len(candidates)], return_std=True)
    # Of the mean alone: the noise of a single proxy is in all predictions alike.
    uncertain = np.sqrt(np.maximum(0.0, deviations**2 - 1.0 / ridge.alpha_))
    return level + spread * means, spread * uncertain


def misleading(
    lessons: Sequence[Lesson], ended: Sequence[Contender], reached: Sequence[float]
) -> dict[int, str]:
    """Return number and name of each lesson that alone puts the candidates whose proxies have ended
    into the wrong order; none before `TOLD` have.

    Args:
        reached: the score of each candidate.
    """
    wrong: dict[int, str] = {}
    if len(reached) < TOLD:
        return wrong
    for number, lesson in enumerate(lessons):
        means, _ = predict(ended, [None] * len(ended), [lesson])
        correlation = spearman(means, reached)
        if correlation is not None and ties.above(0.0, correlation, ties.RELATIVE):
            wrong[number] = lesson.name
    return wrong


def _scale(scores: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of scores; 0 and 1 where there is none."""
    import numpy as np

    if not scores:
        return 0.0, 1.0
    varied = not ties.tie(max(scores), min(scores), ROUNDED)
    return float(np.mean(scores)), float(np.std(scores)) if varied else 1.0


@lru_cache(maxsize=8)
def table(candidates: tuple[Contender, ...]) -> np.ndarray:
    """Return candidates x features, each feature of mean 0 and variance 1 over the candidates that
    have it and 0 for the others.

    Those of families share the variance of one, and features in which none differ are left out.
    """
    import numpy as np

    rows = [features(candidate) for candidate in candidates]
    names = sorted({name for row in rows for name in row})
    families = sum(name.startswith(FAMILY) for name in names)
    columns = []
    for name in names:
        family = name.startswith(FAMILY)
        # Without a block of a family its share is 0; any other feature is unknown then.
        column = np.array([row.get(name, 0.0 if family else math.nan) for row in rows])
        column -= np.nanmean(column)
        spread = np.sqrt(np.nanmean(column**2))
        if spread > 1e-9:
            scale = math.sqrt(families) if family else 1.0
            columns.append(np.nan_to_num(column) / spread / scale)
    return np.array(columns).T.reshape(len(rows), -1)
