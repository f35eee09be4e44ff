"""Stochastic depth over base and head together."""

from __future__ import annotations

from collections.abc import Sequence

from hssl_search.heads.config import HeadConfig


def continued(
    base_blocks: int, heads: Sequence[HeadConfig], last: float
) -> tuple[float, list[list[float]]]:
    """Return the stochastic-depth rates of base and heads, on one line from 0 at the base's first
    block to `last`.

    The line is as long as the base and its deepest head, as in the official HSSL code, which has
    one head; a base without heads ends at `last` itself. A first block without shortcut is never
    dropped: nothing of the image would be left.

    Args:
        base_blocks: number of residual blocks of the base.
        heads: that follow it.
        last: rate at the end of the line.

    Returns:
        (rate of the base's last block, rate of each block of each head).
    """
    # Heads lie side by side behind the base, so that the deepest one sets the length.
    deepest = max((head.block_count for head in heads), default=0)
    slope = last / max(1, base_blocks + deepest - 1)
    rates = []
    for head in heads:
        of_head = [slope * (base_blocks + index) for index in range(head.block_count)]
        rates.append([0.0, *of_head[1:]] if of_head and not head.first_shortcut else of_head)
    return slope * (base_blocks - 1), rates
