"""The forecast: how high a head's proxy will score, learned from what screening measured of heads whose proxies have ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.statistics import ties

if TYPE_CHECKING:
    import numpy as np

MEASURED = ("overlap_excess", "cka_excess", "output", "architecture", "excess_loss")
"""Of a head and its base, as screening found them."""
COUNTED = ("parameters", "macs")
"""Taken by their logarithms."""
SHAPED = ("width_ratio", "kernel_size", "mlp_ratio", "first_shortcut", "positions", "tap")
"""Of the head's configuration."""
LOSSES = ("chance_loss", "head_loss")
FAMILY = "family:"
ROUNDED = 1e-7
"""Gaps between scores of up to some hundreds that are below this differ by rounding alone."""


def features(one: Contender) -> dict[str, float]:
    """What a forecast is made from. What a head lacks has no entry; of families it has the share of its blocks that are of each."""
    head, attributes = one.heads[0], one.attributes
    found = {name: attributes.get(name) for name in MEASURED}
    found |= {name: math.log1p(attributes[name]) for name in COUNTED if name in attributes}
    found |= {name: head.get(name) for name in SHAPED}
    blocks = _blocks(head)
    found["depth"] = len(blocks)
    if "chance_loss" in attributes:
        found["learning"] = _difference(attributes["chance_loss"], attributes["head_loss"])
    found |= {FAMILY + family: count / len(blocks) for family, count in Counter(blocks).items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _blocks(head: Mapping[str, Any]) -> list[str]:
    blocks = head.get("blocks")
    return blocks.split("+") if blocks else [head["family"]] * int(head.get("depth") or 1)


def predict(
    contenders: Sequence[Contender],
    scores: Sequence[float | None],
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of the score that each contender's proxy is expected to reach, the deviation without the proxies' noise.

    Bayesian ridge regression (Tipping, JMLR 2001; scikit-learn), with priors worth a few proxies: scores vary as much by noise as by all
    features together until the proxies tell otherwise.

    Args:
        scores: of each contender, None of one whose proxy has not ended; at least two are known.
    """
    import numpy as np
    from sklearn.linear_model import BayesianRidge

    known = np.array([score is not None for score in scores])
    reached = np.array([score for score in scores if score is not None], dtype=float)
    spread = 1.0 if ties.tie(reached.max(), reached.min(), ROUNDED) else reached.std()
    columns = table(tuple(contenders))
    if not columns.size:
        return np.full(len(contenders), reached.mean()), np.full(len(contenders), 0.0)
    ridge = BayesianRidge(alpha_1=1.0, alpha_2=1.0, lambda_1=1.0, lambda_2=1.0 / columns.shape[1])
    ridge.fit(columns[known], (reached - reached.mean()) / spread)
    means, deviations = ridge.predict(columns, return_std=True)
    uncertain = np.sqrt(np.maximum(0.0, deviations**2 - 1.0 / ridge.alpha_))
    return reached.mean() + spread * means, spread * uncertain


@lru_cache(maxsize=8)
def table(contenders: tuple[Contender, ...]) -> np.ndarray:
    """Contenders x features, each feature of mean 0 and variance 1 over the contenders that have it and 0 for the others; those of
    families share the variance of one, and features in which none differ are left out."""
    import numpy as np

    rows = [features(one) for one in contenders]
    columns = []
    names = sorted({name for row in rows for name in row})
    families = sum(name.startswith(FAMILY) for name in names)
    for name in names:
        family = name.startswith(FAMILY)
        column = np.array([row.get(name, 0.0 if family else math.nan) for row in rows])
        column -= np.nanmean(column)
        spread = np.sqrt(np.nanmean(column**2))
        if spread > 1e-9:
            columns.append(
                np.nan_to_num(column) / spread / (math.sqrt(families) if family else 1.0)
            )
    return np.array(columns).T.reshape(len(rows), -1)
