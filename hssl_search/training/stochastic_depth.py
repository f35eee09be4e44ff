"""Stochastic depth over base and head together."""

from __future__ import annotations

from collections.abc import Sequence

from hssl_search.heads.config import HeadConfig


def continued(
    base_blocks: int, heads: Sequence[HeadConfig], last: float
) -> tuple[float, list[list[float]]]:
    """(rate of the base's last block, rate of each block of each head) on one line from 0 at the
    base's first block to `last`.

    The line is as long as the base and its deepest head, as in the official HSSL code, which has
    one head; a base without heads ends at `last` itself. A first block without shortcut is never
    dropped: nothing of the image would be left.
    """
    deepest = max((head.block_count for head in heads), default=0)
    slope = last / max(1, base_blocks + deepest - 1)
    return slope * (base_blocks - 1), [_rates(head, base_blocks, slope) for head in heads]


def _rates(head: HeadConfig, base_blocks: int, slope: float) -> list[float]:
    rates = [slope * (base_blocks + index) for index in range(head.block_count)]
    return [0.0, *rates[1:]] if rates and not head.first_shortcut else rates
