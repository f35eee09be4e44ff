"""How different two structures are, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hssl_search.backbones import Base
from hssl_search.discrepancy.architecture.compute_shares import compute_shares, mixer_shares
from hssl_search.discrepancy.architecture.equivariance import equivariance_error
from hssl_search.discrepancy.architecture.frequency import frequency_response
from hssl_search.discrepancy.architecture.map_operator import (
    BaseOperator,
    HeadOperator,
    MapOperator,
)
from hssl_search.discrepancy.architecture.operations import operations
from hssl_search.discrepancy.architecture.receptive_field import receptive_field
from hssl_search.discrepancy.architecture.structure import calibrate, forget_tables, redrawn
from hssl_search.heads.head import Head

INPUTS = 4
"""Inputs at which an operator is measured."""


@dataclass(frozen=True)
class Profile:
    """The effect of a structure on a map, whatever its weights: that of
    `hssl_search.discrepancy.architecture.structure.redrawn` on a torus.
    """

    compute: Mapping[str, float]
    """Shares of all multiply-adds by kind, sum 1:
    `hssl_search.discrepancy.architecture.compute_shares`."""
    mixers: Mapping[str, float]
    """Shares of the multiply-adds that mix positions, by kind, sum 1."""
    receptive_field: float
    """0 (its own position) to 1 (all positions alike):
    `hssl_search.discrepancy.architecture.receptive_field`."""
    equivariance_error: float
    """0 (all places treated alike) to 1: `hssl_search.discrepancy.architecture.equivariance`."""
    frequency_response: float
    """-1 (low-pass) to 1 (high-pass): `hssl_search.discrepancy.architecture.frequency`."""


def base_profile(base: Base, seed: int = 0, device: torch.device | str = "cpu") -> Profile:
    """Return the profile of a base on images of its size; it is the same for every head, so compute
    it once.

    Weights, gradients and mode of the base stay as they are, and so does torch's random state; the
    profile depends on none of them.

    Args:
        base: what is measured.
        seed: of the weights that are drawn, and of the inputs.
        device: to compute on.
    """
    return _profile(BaseOperator(base), seed, torch.device(device))


def head_profile(
    head: Head, map_size: tuple[int, int], seed: int = 0, device: torch.device | str = "cpu"
) -> Profile:
    """Return the profile of a head on h x w maps; arguments as of `base_profile`."""
    return _profile(HeadOperator(head, map_size), seed, torch.device(device))


def _profile(network: MapOperator, seed: int, device: torch.device) -> Profile:
    with _random_numbers(seed, device):
        # Drawn on the CPU and then moved: the same weights on every device.
        operator = redrawn(network).to(device)
        x = operator.noise(INPUTS).to(device)
        calibrate(operator, x)
        mixing = (
            receptive_field(operator, x),
            equivariance_error(operator, x),
            frequency_response(operator, x),
        )
        # Operations are told by inputs that are alike at all positions: no table may tell them.
        forget_tables(operator)
        counted = operations(operator, operator.uniform(2).to(device))
    return Profile(compute_shares(counted), mixer_shares(counted), *mixing)


@contextmanager
def _random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Let random numbers follow from the seed; afterwards they continue as if nothing had been
    drawn.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all GPUs too
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def distance(first: Profile, second: Profile) -> dict[str, float]:
    """Return the distances of two profiles, each symmetric, 0 for equal profiles and at most 1.

    * `compute`, `mixers`: total variation distances of the shares, half the sum of their absolute
      differences.
    * `receptive_field`, `equivariance`: absolute differences.
    * `frequency`: half the absolute difference, since responses lie between -1 and 1.
    * `architecture`: the mean of these five.
    """
    parts = {
        "compute": _total_variation(first.compute, second.compute),
        "mixers": _total_variation(first.mixers, second.mixers),
        "receptive_field": abs(first.receptive_field - second.receptive_field),
        "equivariance": abs(first.equivariance_error - second.equivariance_error),
        "frequency": abs(first.frequency_response - second.frequency_response) / 2,
    }
    return {**parts, "architecture": sum(parts.values()) / len(parts)}


def _total_variation(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    return sum(abs(first[kind] - second[kind]) for kind in first) / 2


def architecture_discrepancy(
    base: Base, head: Head, seed: int = 0, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Return the `distance` of base and head, the head on maps of the base's size: their
    discrepancy as far as it is known before any training.

    For many heads of one base take `base_profile` once, and `head_profile` and `distance` for each
    head.
    """
    return distance(
        base_profile(base, seed, device), head_profile(head, base.map_shape[1:], seed, device)
    )
