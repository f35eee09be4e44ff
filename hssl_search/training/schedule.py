"""Schedules over training progress, from 0 to 1."""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """Return a value on half a cosine from `start` to `end` (SGDR, arXiv 1608.03983, without
    restarts), at `progress` from 0 to 1.
    """
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))


def warmup_cosine(peak: float, end: float, warmup: float, progress: float) -> float:
    """Return a value that rises linearly from 0 to `peak` over the first `warmup` share, then
    follows `cosine` to `end`.
    """
    if progress < warmup:
        return peak * progress / warmup
    return cosine(peak, end, (progress - warmup) / (1 - warmup))
