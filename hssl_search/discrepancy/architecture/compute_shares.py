"""Shares of multiply-adds, by what they do."""

from __future__ import annotations

from collections.abc import Iterable

from hssl_search.discrepancy.architecture.operations import KINDS, Operation


def compute_shares(operations: Iterable[Operation]) -> dict[str, float]:
    """Return the share of multiply-adds of each kind, 0 to 1, sum 1; without any multiply-add all
    is pointwise.
    """
    totals = dict.fromkeys(KINDS, 0)
    for operation in operations:
        totals[operation.kind] += operation.multiply_adds
    whole = sum(totals.values())
    if not whole:
        # A head without blocks treats every position for itself, as a pointwise layer does.
        return {kind: float(kind == "pointwise") for kind in KINDS}
    return {kind: count / whole for kind, count in totals.items()}


def mixer_shares(operations: Iterable[Operation]) -> dict[str, float]:
    """Return `compute_shares` of what mixes positions and keeps their number, the token mixers of
    arXiv 2111.11418; without any all is pointwise.

    Architectures differ in them: most multiply-adds of many are in pointwise layers, which nearly
    all have. Windows with strides are left out, since nearly all lower the resolution by them.
    """
    return compute_shares(
        operation
        for operation in operations
        if operation.kind != "pointwise" and operation.keeps_size
    )
