"""The surrogate: how high a head's proxy will score, learned from what screening measured of heads
whose proxies have ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from hssl_search.engine.records.state import Contender
from hssl_search.engine.statistics import ties

if TYPE_CHECKING:
    import numpy as np

FAMILY = "family:"
ROUNDED = 1e-7
"""Gaps between scores of up to some hundreds that are below this differ by rounding alone."""


def features(candidate: Contender) -> dict[str, float]:
    """Return what the score is predicted from: what screening measured, and what the head is.

    What a head lacks has no entry; of families it has the share of its blocks that are of each.
    """
    head, state = candidate.head, candidate.state
    assert head is not None
    blocks = head.block_families or (head.family,)
    learned = state.chance_loss is not None and state.head_loss is not None
    values: dict[str, float | None] = {
        "overlap": state.overlap_excess,
        "cka": state.cka_excess,
        "output difference": state.output,
        "architectural difference": state.architecture,
        "excess": state.excess_loss,
        "learning": state.chance_loss - state.head_loss if learned else None,  # type: ignore[operator]
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


def predict(
    candidates: Sequence[Contender], scores: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the score of each candidate's proxy.

    Bayesian ridge regression (Tipping, JMLR 2001; scikit-learn), with priors worth a few proxies:
    scores vary as much by noise as by all features together until the proxies tell otherwise.

    Args:
        scores: of each candidate, None of one whose proxy has not ended; at least two are known.

    Returns:
        (mean, standard deviation) of each, the deviation without the proxies' noise.
    """
    import numpy as np
    from sklearn.linear_model import BayesianRidge

    known = np.array([score is not None for score in scores])
    reached = np.array([score for score in scores if score is not None], dtype=float)
    spread = 1.0 if ties.tie(reached.max(), reached.min(), ROUNDED) else reached.std()
    columns = table(tuple(candidates))
    if not columns.size:
        return np.full(len(candidates), reached.mean()), np.full(len(candidates), 0.0)
    ridge = BayesianRidge(alpha_1=1.0, alpha_2=1.0, lambda_1=1.0, lambda_2=1.0 / columns.shape[1])
    ridge.fit(columns[known], (reached - reached.mean()) / spread)
    means, deviations = ridge.predict(columns, return_std=True)
    uncertain = np.sqrt(np.maximum(0.0, deviations**2 - 1.0 / ridge.alpha_))
    return reached.mean() + spread * means, spread * uncertain


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
        column = np.array([row.get(name, 0.0 if family else math.nan) for row in rows])
        column -= np.nanmean(column)
        spread = np.sqrt(np.nanmean(column**2))
        if spread > 1e-9:
            scale = math.sqrt(families) if family else 1.0
            columns.append(np.nan_to_num(column) / spread / scale)
    return np.array(columns).T.reshape(len(rows), -1)
