"""Shares of multiply-adds by what they do."""

from __future__ import annotations

from collections.abc import Iterable

from hssl_search.discrepancy.architecture.operations import KINDS, Operation


def compute_shares(found: Iterable[Operation]) -> dict[str, float]:
    """Multiply-adds by kind, 0 to 1 each, sum 1; without any multiply-add all is pointwise."""
    totals = dict.fromkeys(KINDS, 0)
    for operation in found:
        totals[operation.kind] += operation.multiply_adds
    whole = sum(totals.values())
    return {
        kind: count / whole if whole else float(kind == "pointwise")
        for kind, count in totals.items()
    }


def mixer_shares(found: Iterable[Operation]) -> dict[str, float]:
    """`compute_shares` of what mixes positions and keeps their number, the token mixers of arXiv
    2111.11418; without any all is pointwise.

    They are what architectures differ in: most multiply-adds of many are in pointwise layers, which
    nearly all have. Windows with strides are left out, since nearly all lower the resolution by
    them.
    """
    return compute_shares(one for one in found if one.kind != "pointwise" and one.keeps_size)
