"""What a network computes with, counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import EcaModule, Mlp
from timm.models.mlp_mixer import MixerBlock, ResBlock, SpatialGatingBlock
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from hssl_search.discrepancy.architecture.compute_shares import compute_shares, mixer_shares
from hssl_search.discrepancy.architecture.operations import operations
from hssl_search.heads.head import build_head, head_cost

torch.set_num_threads(1)

C, H, W = 6, 4, 3
N = H * W


def uniform(channels: int = C, height: int = H, width: int = W) -> Tensor:
    return (
        torch.randn(2, channels, 1, 1, generator=torch.Generator().manual_seed(0))
        .expand(2, channels, height, width)
        .contiguous()
    )


def counted(network: nn.Module, x: Tensor | None = None) -> dict[str, float]:
    """Return the multiply-adds an input by kind, those that are none left out."""
    torch.manual_seed(0)
    found = operations(network.eval().requires_grad_(False), uniform() if x is None else x)
    kinds = dict.fromkeys((one.kind for one in found), 0.0)
    for one in found:
        kinds[one.kind] += one.multiply_adds / 2
    return kinds


class OnTokens(nn.Module):
    """A network of B x N x C tokens on B x C x H x W maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor], **weights: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parameters())


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(tokens, tokens, tokens)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(C, 5, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).transpose(1, 2))[0]


def test_convolutions_mix_positions_where_their_windows_overlap() -> None:
    assert counted(nn.Conv2d(C, 8, 3)) == {"convolution": 2 * 1 * 9 * C * 8}
    assert counted(nn.Conv2d(C, C, (1, 3), groups=C, padding=(0, 1))) == {"convolution": N * 3 * C}
    assert counted(nn.Conv2d(C, 8, 2, stride=2), uniform(width=4)) == {
        "pointwise": 2 * 2 * 4 * C * 8
    }
    assert counted(nn.Conv2d(C, 8, 1)) == {"pointwise": N * C * 8}
    assert counted(nn.Conv2d(C, 8, 3, stride=2, padding=1), uniform(width=4)) == {
        "convolution": 2 * 2 * 9 * C * 8
    }


def test_a_transformer_block_attends_with_its_projections() -> None:
    assert counted(OnTokens(Block(C, num_heads=2, mlp_ratio=4))) == {
        "attention": N * 4 * C * C + 2 * N * N * C,
        "pointwise": N * 8 * C * C,
    }


def test_attention_is_the_same_however_it_is_written() -> None:
    fused, plain = Attention(C, num_heads=2), Attention(C, num_heads=2)
    plain.fused_attn = False
    summed = Function(
        lambda x: torch.einsum(
            "bqk,bkc->bqc", torch.einsum("bqc,bkc->bqk", x, x).softmax(dim=-1), x
        )
    )
    wanted = {"attention": N * 4 * C * C + 2 * N * N * C}
    assert (
        counted(OnTokens(fused))
        == counted(OnTokens(plain))
        == counted(OnTokens(TorchAttention()))
        == wanted
    )
    assert counted(OnTokens(summed)) == {"attention": 2 * N * N * C}


@pytest.mark.parametrize("channels", [C, N])
def test_token_mlps_mix_positions_even_where_there_are_as_many_channels(channels: int) -> None:
    block = MixerBlock(channels, seq_len=N, mlp_ratio=(0.5, 4.0), mlp_layer=Mlp)
    tokens, hidden = channels // 2, 4 * channels
    assert counted(OnTokens(block), uniform(channels)) == {
        "other": channels * 2 * N * tokens,
        "pointwise": N * 2 * channels * hidden,
    }


def test_gates_and_linear_layers_over_positions_mix_them() -> None:
    gated, residual = (
        SpatialGatingBlock(C, seq_len=N, mlp_ratio=4),
        ResBlock(C, seq_len=N, mlp_ratio=4),
    )
    assert counted(OnTokens(gated)) == {
        "pointwise": N * (4 * C * C + 2 * C * C),
        "other": N * N * 2 * C,
    }
    assert counted(OnTokens(residual)) == {"other": N * N * C, "pointwise": N * 8 * C * C}


def test_positions_that_stand_where_channels_do_are_positions() -> None:
    as_channels = nn.Sequential(nn.Conv1d(N, N, 1), nn.GELU(), nn.Conv1d(N, N, 1))
    assert counted(OnTokens(as_channels)) == {"other": 2 * N * N * C}
    from_the_left = Function(lambda tokens, mix: mix @ tokens, mix=torch.randn(N, N))
    assert counted(OnTokens(from_the_left)) == {"other": N * N * C}


def test_windows_along_a_sequence_are_convolutions_of_positions_alone() -> None:
    along = Function(
        lambda x, weight: F.conv1d(x.flatten(2), weight, padding=1, groups=C),
        weight=torch.randn(C, 1, 3),
    )
    assert counted(along) == {"convolution": N * 3 * C}
    assert counted(EcaModule(C, kernel_size=3)) == {"pointwise": 3 * C}


def test_recurrent_layers_mix_positions() -> None:
    assert counted(Recurrent()) == {"other": N * 2 * 4 * 5 * (C + 5)}


def test_pooling_counts_the_elements_of_its_windows() -> None:
    assert counted(nn.AvgPool2d(3, 1, 1)) == {"other": N * C * 9}
    assert counted(nn.MaxPool2d((3, 1), stride=(1, 1), padding=(1, 0))) == {"other": N * C * 3}


def test_what_does_not_depend_on_the_input_is_not_counted() -> None:
    biased = Function(
        lambda x, table, weight: x + (table @ weight).sum(),
        table=torch.randn(9, 2),
        weight=torch.randn(2, 4),
    )
    assert counted(biased) == {}


def test_the_network_keeps_no_traces() -> None:
    network = OnTokens(Block(C, num_heads=2))
    counted(network)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("family", ["convnext", "resnet", "transformer", "mlp", "identity"])
def test_a_head_costs_what_its_operations_add_up_to(family: str) -> None:
    head = build_head({"family": family}, 8)
    assert sum(counted(head, uniform(8)).values()) == head_cost(head.config, (8, H, W))[1]


def test_shares_are_of_all_and_of_what_mixes_positions_and_keeps_their_number() -> None:
    network = nn.Sequential(
        nn.Conv2d(C, C, 3, stride=2, padding=1),
        nn.Conv2d(C, C, 3, padding=1, groups=C),
        nn.Conv2d(C, 2 * C, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.MaxPool2d(2),
    )
    found = operations(network.eval().requires_grad_(False), uniform(height=8, width=8))
    down, depthwise, point, average, largest = (
        16 * 9 * C * C,
        16 * 9 * C,
        16 * 2 * C * C,
        16 * 9 * 2 * C,
        4 * 4 * 2 * C,
    )
    total = down + depthwise + point + average + largest
    assert compute_shares(found) == pytest.approx(
        {
            "convolution": (down + depthwise) / total,
            "attention": 0,
            "pointwise": point / total,
            "other": (average + largest) / total,
        }
    )
    assert mixer_shares(found) == pytest.approx(
        {"convolution": 1 / 3, "attention": 0, "pointwise": 0, "other": 2 / 3}
    )


def test_a_network_without_mixers_or_multiply_adds_is_pointwise() -> None:
    pointwise = {"convolution": 0.0, "attention": 0.0, "pointwise": 1.0, "other": 0.0}
    assert compute_shares([]) == mixer_shares([]) == pointwise
    assert (
        mixer_shares(operations(nn.Conv2d(C, C, 1).requires_grad_(False), uniform())) == pointwise
    )
