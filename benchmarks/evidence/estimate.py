"""What the protocol would take, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.evidence.protocol import Cell, Scale, in_order, same_time
from hssl_search.backbones import Base
from hssl_search.heads.head import head_cost
from hssl_search.methods.base import method_class

VIEWS = 2
FORWARD_AND_BACKWARD = 3
"""Passes that a training step is worth: the gradients of weights and of inputs take as much as the
forward pass each."""
ASSUMED_RATE = 20e12
"""Floating-point operations a second that one GPU does of such small models, several side by side:
an assumption, a fiftieth of what an H100 can do in bf16."""


def base_macs(base: Base) -> int:
    """Return the multiply-adds of the forward pass of one image."""
    side = base.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        base.eval()(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops()) // 2


def step_flops(cell: Cell, of_base: int, of_head: int, batch_size: int) -> float:
    """Return the floating-point operations of one training step; an EMA teacher adds a forward
    pass."""
    passes = FORWARD_AND_BACKWARD + (1 if method_class(cell.method).needs_teacher else 0)
    return 2.0 * passes * VIEWS * batch_size * (of_base + of_head)


def seconds(
    groups: Sequence[Sequence[Cell]], scale: Scale, steps: int, rate: float = ASSUMED_RATE
) -> dict[str, tuple[int, float]]:
    """Return (trainings, device-seconds at that rate) of each cell by name, evaluation left out.

    How long no head is trained for the time of a head is taken from multiply-adds.
    """
    bases = {
        cell.base.name: Base(cell.base.name, cell.setting.image_size, cell.base.args)
        for group in groups
        for cell in group
    }
    macs = {name: base_macs(base) for name, base in bases.items()}
    shapes = {name: base.map_shape for name, base in bases.items()}
    costs = {
        cell.name: {
            branch: head_cost(head, shapes[cell.base.name])[1] if head else 0
            for branch, head in cell.heads().items()
        }
        for group in groups
        for cell in group
    }
    lengths = {
        cell.name: _lengths(costs[cell.name], macs[cell.base.name])
        for group in groups
        for cell in group
    }
    found: dict[str, tuple[int, float]] = {}
    for one in in_order(groups, scale, steps, lengths):
        of_head = costs[one.cell.name].get(one.branch, 0)
        took = (
            one.steps
            * step_flops(one.cell, macs[one.cell.base.name], of_head, scale.batch_size)
            / rate
        )
        count, before = found.get(one.cell.name, (0, 0.0))
        found[one.cell.name] = count + 1, before + took
    return found


def _lengths(costs: Mapping[str, int], of_base: int) -> dict[str, float]:
    return same_time(float(of_base), {branch: float(macs) for branch, macs in costs.items()})
