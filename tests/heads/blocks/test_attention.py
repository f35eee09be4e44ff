"""Windows of any map against full attention with a mask; positions against their formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hssl_search.heads.blocks.attention import Positions, WindowMixing
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head

C, HEADS, WINDOW = 8, 2, 4


def full_attention(mixing: WindowMixing, x: Tensor, shifts: tuple[int, int]) -> Tensor:
    """Compute attention one pair at a time, B x H x W x C: every position attends to every one that
    lies in the same window.
    """
    attention, (height, width) = mixing.attention, x.shape[1:3]
    places = [(row, column) for row in range(height) for column in range(width)]
    bias = torch.full((HEADS, len(places), len(places)), float("-inf"))
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            windows = [
                tuple(
                    (at + WINDOW - shift) // WINDOW for at, shift in zip(place, shifts, strict=True)
                )
                for place in (one, other)
            ]
            if windows[0] == windows[1]:
                rows, columns = (a - b + WINDOW - 1 for a, b in zip(one, other, strict=True))
                bias[:, i, j] = attention.relative_position_bias_table[
                    rows * (2 * WINDOW - 1) + columns
                ]
    q, k, v = (
        attention.qkv(x.flatten(1, 2)).unflatten(2, (3, HEADS, C // HEADS)).permute(2, 0, 3, 1, 4)
    )
    weights = (q @ k.mT / (C // HEADS) ** 0.5 + bias).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(1, 2).flatten(2)).reshape(x.shape)


@pytest.mark.parametrize(
    ("shifted", "size", "shifts"),
    [
        (False, (8, 8), (0, 0)),
        (True, (8, 8), (2, 2)),
        (False, (5, 9), (0, 0)),
        (True, (5, 9), (2, 2)),
        (True, (4, 6), (0, 2)),
        (True, (3, 2), (0, 0)),
        (True, (1, 1), (0, 0)),
    ],
)
def test_windows_are_attended_to_alone(
    shifted: bool, size: tuple[int, int], shifts: tuple[int, int]
) -> None:
    torch.manual_seed(2)
    mixing, x = WindowMixing(C, HEADS, WINDOW, shifted), torch.randn(2, *size, C)
    torch.nn.init.normal_(mixing.attention.relative_position_bias_table)
    torch.testing.assert_close(mixing(x), full_attention(mixing, x, shifts))


@pytest.mark.parametrize("channels", [8, 6, 1])
def test_positions_are_sines_and_cosines_of_row_and_column(channels: int) -> None:
    quarter = -(-channels // 4)
    frequencies = 10_000.0 ** (-np.arange(quarter) / quarter)
    rows, columns = (axis[..., None] * frequencies for axis in np.mgrid[0:3, 0:5])
    codes = np.concatenate([np.sin(rows), np.sin(columns), np.cos(rows), np.cos(columns)], axis=-1)[
        ..., :channels
    ]
    x = torch.randn(2, channels, 3, 5)
    np.testing.assert_allclose(
        (Positions()(x) - x).numpy(), np.broadcast_to(codes.transpose(2, 0, 1), x.shape), atol=1e-6
    )


@pytest.mark.parametrize("positions", [False, True])
def test_a_transformer_knows_where_tokens_lie_only_if_it_is_told(positions: bool) -> None:
    torch.manual_seed(3)
    head = build_head(HeadConfig(family="transformer", positions=positions), C)
    x = torch.randn(2, C, 3, 5)
    assert torch.allclose(head(x.flip(3)).embedding, head(x).embedding, atol=1e-5) is not positions
    assert not [name for name, _ in head.named_parameters() if "position" in name]


def test_positions_are_added_once_before_the_first_block_that_attends() -> None:
    head = build_head(
        HeadConfig(family="hybrid", blocks="convnext+transformer+transformer", positions=True), C
    )
    assert [
        any(isinstance(module, Positions) for module in block.modules()) for block in head.blocks
    ] == [False, True, False]


def test_every_second_block_of_windows_is_shifted() -> None:
    def shifted(config: HeadConfig) -> list[bool]:
        return [
            module.shifted
            for module in build_head(config, C).modules()
            if isinstance(module, WindowMixing)
        ]

    assert shifted(HeadConfig(family="swin", depth=4)) == [False, True, False, True]
    assert shifted(HeadConfig(family="hybrid", blocks="convnext+swin+convnext+swin")) == [
        False,
        True,
    ]
