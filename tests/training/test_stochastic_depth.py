"""One line of stochastic depth through base and head."""

from __future__ import annotations

import pytest
from timm.layers import DropPath

from hssl_search.backbones import Base, residual_blocks
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.training.stochastic_depth import continued


def head(depth: int, first_shortcut: bool = True) -> HeadConfig:
    return HeadConfig(family="convnext", depth=depth, first_shortcut=first_shortcut)


def test_head_continues_the_line_of_the_base() -> None:
    base, [rates] = continued(12, [head(3)], 0.14)
    line = [0.14 * block / 14 for block in range(15)]
    assert base == pytest.approx(line[11])
    assert rates == pytest.approx(line[12:])


def test_base_alone_ends_at_the_last_rate() -> None:
    assert continued(12, [], 0.1) == (pytest.approx(0.1), [])
    assert continued(12, [HeadConfig(family="identity")], 0.1) == (pytest.approx(0.1), [[]])


def test_heads_of_a_joint_screening_lie_on_the_line_of_the_deepest() -> None:
    base, [short, long] = continued(6, [head(1), head(4)], 0.18)
    assert base == pytest.approx(0.1)
    assert short == pytest.approx(long[:1])
    assert long == pytest.approx([0.12, 0.14, 0.16, 0.18])


def test_first_block_without_shortcut_is_never_dropped() -> None:
    _, [rates] = continued(2, [head(3, first_shortcut=False)], 0.4)
    assert rates == pytest.approx([0.0, 0.3, 0.4])


@pytest.mark.parametrize(
    ("name", "args", "blocks"),
    [("test_vit", {"patch_size": 4}, 6), ("test_resnet", {}, 4), ("test_convnext", {}, 9)],
)
def test_blocks_of_a_base_are_those_that_timm_gives_rates_to(
    name: str, args: dict[str, int], blocks: int
) -> None:
    found = residual_blocks(name, 32, args)
    model = Base(name, 32, {**args, "drop_path_rate": 0.3}).model
    rates = {module.drop_prob for module in model.modules() if isinstance(module, DropPath)}
    assert found == len(rates | {0.0}) == blocks
    assert max(rates) == pytest.approx(0.3)


def test_base_without_stochastic_depth_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"'vgg11' has no stochastic depth in timm|timm refuses to build base 'vgg11'",
    ):
        residual_blocks("vgg11", 32, {})


def test_arguments_may_be_lists() -> None:
    assert residual_blocks("test_convnext", 32, {"depths": [1, 2, 1, 1]}) == 5
