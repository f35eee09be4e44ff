"""What a head costs, against the arithmetic of its layers and a second counter."""

from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis, parameter_count
from torch import nn

from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import families
from hssl_search.heads.head import build_head, head_cost

C, H, W, DEPTH = 24, 7, 5, 3
N = H * W


def linear(into: int, out: int) -> int:
    return into * out + out


MLP = linear(C, 4 * C) + linear(4 * C, C)
PARAMETERS = {
    "mlp": DEPTH * (2 * C + MLP),
    "convnext": DEPTH * (C * 49 + C + 2 * C + MLP),
    "resnet": DEPTH * 2 * (9 * C * C + 2 * C),
    "transformer": DEPTH * (2 * 2 * C + linear(C, 3 * C) + linear(C, C) + MLP),
    "identity": 0,
    "noise": 0,
}
MULTIPLY_ADDS = {
    "mlp": DEPTH * N * 8 * C * C,
    "convnext": DEPTH * N * (C * 49 + 8 * C * C),
    "resnet": DEPTH * N * 2 * 9 * C * C,
    "transformer": DEPTH * (N * 12 * C * C + 2 * N * N * C),
    "identity": 0,
    "noise": 0,
}


@pytest.mark.parametrize("family", PARAMETERS)
def test_cost_is_that_of_the_layers(family: str) -> None:
    assert head_cost(HeadConfig(family=family), (C, H, W)) == (
        PARAMETERS[family] + 2 * C,
        MULTIPLY_ADDS[family],
    )


def by_fvcore(config: HeadConfig) -> tuple[int, int]:
    """Return (parameters, multiply-adds). fvcore counts a multiply-add once, and counts norms,
    pooling and resizing too, which are left out here.
    """
    head = build_head(config, C).eval()
    analysis = FlopCountAnalysis(nn.Sequential(head.entry, head.blocks), torch.zeros(1, C, H, W))
    counted = (
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    )
    products = sum(
        count
        for operator, count in counted.items()
        if operator in ("conv", "linear", "matmul", "bmm", "addmm", "einsum")
    )
    # fused: fvcore does not know what it is made of
    attention = config.block_families.count("transformer") * 2 * N * N * head.width
    return parameter_count(head)[""], int(products) + attention


@pytest.mark.parametrize(
    "values",
    [
        *({"family": name} for name in families()),
        {"family": "hybrid", "blocks": "swin+mixer+mbconv"},
        {"family": "gmlp", "width_ratio": 0.5, "grid_size": 5},
        {"family": "focal", "depth": 2, "kernel_size": 5},
        {"family": "bottleneck", "width_ratio": 2.0, "mlp_ratio": 0.5},
        {"family": "swin", "window_size": 3},
        {"family": "transformer", "positions": True, "tap": 1},
    ],
    ids=lambda values: HeadConfig(**values).label(),
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_cost_is_that_of_a_second_counter(values: dict[str, object]) -> None:
    config = HeadConfig.model_validate(values)
    assert head_cost(config, (C, H, W)) == by_fvcore(config)


def test_another_width_costs_the_way_into_it() -> None:
    wide = head_cost(HeadConfig(family="mlp", depth=1, width_ratio=2.0), (C, H, W))
    assert wide == (
        linear(C, 2 * C) + 4 * C + linear(2 * C, 8 * C) + linear(8 * C, 2 * C) + 4 * C,
        N * (2 * C * C + 8 * 4 * C * C),
    )


def test_costing_a_head_does_not_depend_on_the_state_of_the_random_numbers() -> None:
    torch.manual_seed(1)
    first = head_cost(HeadConfig(family="resnet"), (C, 1, 1))
    torch.manual_seed(2)
    assert head_cost(HeadConfig(family="resnet"), (C, 1, 1)) == first
