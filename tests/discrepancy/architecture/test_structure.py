"""Structure without initialisation: what is drawn anew, how, and what is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from hssl_search.discrepancy.architecture.structure import calibrate, forget_tables, redrawn

torch.set_num_threads(1)


class Tokens(nn.Module):
    """Every sort of parameter, all at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 40, 60))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 60))
        self.gamma, self.beta, self.q_bias = (nn.Parameter(torch.zeros(1, 1, 60)) for _ in range(3))
        self.qkv = nn.Linear(60, 180)
        self.filter = nn.Conv2d(60, 60, 5, groups=60)
        self.norm = nn.LayerNorm(60)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


def drawn(network: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return redrawn(network)


def test_weights_keep_the_variance_of_what_they_are_fed() -> None:
    found = drawn(Tokens())
    assert found.qkv.weight.var().item() == pytest.approx(1 / 60, rel=0.1)
    assert found.filter.weight.var().item() == pytest.approx(1 / 25, rel=0.1)


def test_scales_are_one_shifts_nothing_and_position_embeddings_and_tokens_standard_normal() -> None:
    found = drawn(Tokens())
    assert all((scale == 1).all() for scale in (found.gamma, found.norm.weight))
    assert all(
        (shift == 0).all()
        for shift in (found.beta, found.q_bias, found.qkv.bias, found.filter.bias, found.norm.bias)
    )
    assert found.pos_embed.std().item() == pytest.approx(1, rel=0.1)
    # a token of equal numbers has no LayerNorm
    assert found.cls_token.std().item() == pytest.approx(1, rel=0.3)


def test_what_is_drawn_depends_on_the_random_state_and_not_on_the_weights_before() -> None:
    first, second = (ConvNeXtBlock(8, ls_init_value=scale) for scale in (1e-6, 1.0))
    states = [
        drawn(block, seed).state_dict() for block, seed in ((first, 0), (second, 0), (first, 1))
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv_dw.weight"], states[2]["conv_dw.weight"])


def test_the_network_itself_stays_as_it_is() -> None:
    network = Tokens().half().train()
    before = copy.deepcopy(network.state_dict())
    found = redrawn(network)
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert all(
        torch.equal(value, before[key]) and value.dtype is torch.half
        for key, value in network.state_dict().items()
    )
    assert not found.training and not any(
        parameter.requires_grad for parameter in found.parameters()
    )
    assert {value.dtype for value in found.state_dict().values()} == {torch.float32}


def test_forgetting_tables_leaves_all_else() -> None:
    found = drawn(Tokens())
    before = copy.deepcopy(found.state_dict())
    forget_tables(found)
    changed = {
        key for key, value in found.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"pos_embed", "cls_token"} and not found.pos_embed.any()


def test_calibrated_batch_norms_normalise_the_batch_they_saw() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)
    ).eval()
    x = 5 + 3 * torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    calibrate(network, x)
    assert not network[1].training
    for norm_out in (network[:2](x), network(x)):
        assert spread_of_channels(norm_out) == pytest.approx((0.0, 1.0), abs=2e-3)


def spread_of_channels(y: Tensor) -> tuple[float, float]:
    """Return the largest mean, and the standard deviation farthest from 1, of any channel."""
    deviations = y.std(dim=(0, 2, 3))
    return y.mean(dim=(0, 2, 3)).abs().max().item(), deviations[
        (deviations - 1).abs().argmax()
    ].item()
