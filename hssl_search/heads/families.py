"""The head families by name: what each reads, and which module makes its block.

Nothing here loads torch, so that spaces and the command line know every family at once. A new
family is a function that makes its block in `hssl_search/heads/blocks/` and an entry below.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hssl_search.errors import advice

if TYPE_CHECKING:
    from torch import nn

    from hssl_search.heads.blocks.parts import Place

COMMON = {"depth": 3, "width_ratio": 1.0, "first_shortcut": False, "tap": 0}
"""What every family of blocks reads: three blocks, of which the first has no shortcut, as in the
official HSSL code."""


@dataclass(frozen=True)
class Family:
    """One kind of head."""

    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The HeadConfig parameters that the family reads, with their defaults; `reads` adds those of a
    hybrid's blocks."""
    summary: str = ""
    kind: str = ""
    """The module of `hssl_search.heads.blocks` that makes its block; empty for a family without
    blocks of its own. Families of one kind take about as long for a multiply-add."""
    control: bool = False
    """Whether it is a control rather than a candidate: it may not be in a search space."""

    def make_block(self, parameters: Mapping[str, Any], place: Place) -> nn.Module:
        """Make one block, randomly initialised, of a family that has blocks.

        Args:
            parameters: those of the head.
            place: where in the head the block stands.

        Returns:
            A module from B x width x h x w to the same shape.
        """
        module = importlib.import_module(f"hssl_search.heads.blocks.{self.kind}")
        block: nn.Module = getattr(module, self.name)(parameters, place)
        return block


_families: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a family.

    Raises:
        ValueError: when the name is taken.
    """
    if family.name in _families:
        raise ValueError(f"head family {family.name!r} is registered already")
    _families[family.name] = family


def families() -> dict[str, Family]:
    """Return all families by name, the controls last."""
    return dict(sorted(_families.items(), key=lambda item: item[1].control))


def family(name: str) -> Family:
    """Return the family of that name.

    Raises:
        ValueError: when there is none, with the nearest names.
    """
    if name not in _families:
        raise ValueError(f"unknown head family {name!r}; {advice(name, families())}")
    return _families[name]


def reads(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a head of `values["family"]` reads, with their defaults.

    A hybrid reads what the families of its `blocks` read, except the depth, which is their number.
    Where several of them read a parameter, it has the default of the first.

    Raises:
        ValueError: for an unknown family, or blocks that no head can have.
    """
    defaults = dict(family(values["family"]).defaults)
    # Only a hybrid has blocks among its parameters, and it takes the others from theirs.
    if "blocks" in defaults:
        for name in parse_blocks(values.get("blocks") or defaults["blocks"]):
            for key, value in family(name).defaults.items():
                defaults.setdefault(key, value)
        del defaults["depth"]
    return defaults


def parse_blocks(written: Any) -> tuple[str, ...]:
    """Return the families of a hybrid's blocks, written as a sequence or joined by +.

    Raises:
        ValueError: for anything but names of families that have blocks.
    """
    if not isinstance(written, str | list | tuple) or not written:
        raise ValueError(
            f"blocks is {written!r}; write names of families, joined by + or as a list"
        )
    parts = written.split("+") if isinstance(written, str) else written
    names = [str(name).strip() for name in parts]
    valid = [name for name, family in families().items() if family.kind]
    for name in names:
        if name not in valid:
            control = name in _families and _families[name].control
            what = "control" if control else "unknown block"
            raise ValueError(f"{what} {name!r} in blocks; {advice(name, valid)}")
    return tuple(names)


def _register_blocks(kind: str, name: str, defaults: Mapping[str, Any], summary: str) -> None:
    register(Family(name, {**COMMON, **defaults}, summary, kind))


_register_blocks(
    "attention",
    "transformer",
    {"attention_heads": 4, "mlp_ratio": 4.0, "positions": False},
    "global self-attention and MLP, with or without position information",
)
_register_blocks(
    "attention",
    "swin",
    {"attention_heads": 4, "window_size": 7, "mlp_ratio": 4.0},
    "self-attention within windows, shifted in every second block, and MLP",
)

_register_blocks(
    "convolution",
    "convnext",
    {"kernel_size": 7, "mlp_ratio": 4.0},
    "depthwise convolution and MLP (the paper's head on a ViT)",
)
_register_blocks(
    "convolution",
    "resnet",
    {"kernel_size": 3},
    "basic blocks: two dense convolutions with BatchNorm",
)
_register_blocks(
    "convolution",
    "bottleneck",
    {"kernel_size": 3, "mlp_ratio": 0.25},
    "ResNet-50's blocks: a dense convolution between 1x1 convolutions, with BatchNorm",
)
_register_blocks(
    "convolution",
    "mbconv",
    {"kernel_size": 5, "mlp_ratio": 6.0},
    "EfficientNet's inverted bottleneck: depthwise convolution, squeeze-and-excitation, BatchNorm",
)
_register_blocks(
    "convolution",
    "sepconv",
    {"kernel_size": 7, "mlp_ratio": 4.0},
    "ConvFormer's blocks: inverted separable convolution and MLP (MetaFormer)",
)
_register_blocks(
    "convolution",
    "convmixer",
    {"kernel_size": 9},
    "depthwise convolution beside a shortcut, then a 1x1 convolution without one, with BatchNorm "
    "(arXiv 2201.09792)",
)

_register_blocks(
    "gating",
    "mambaout",
    {"kernel_size": 7, "mlp_ratio": 8 / 3},
    "MambaOut's gated convolution: depthwise convolution times a gate (arXiv 2405.07992)",
)
_register_blocks(
    "gating",
    "focal",
    {"kernel_size": 3, "mlp_ratio": 4.0},
    "focal modulation and MLP: context of growing size, up to the whole map, gated (arXiv "
    "2203.11926)",
)

_register_blocks("mlps", "mlp", {"mlp_ratio": 4.0}, "1x1 MLP: mixes channels, never positions")
_register_blocks(
    "mlps",
    "mixer",
    {"grid_size": 7, "mlp_ratio": 4.0},
    "MLP over the positions of a grid, then over channels (arXiv 2105.01601)",
)
_register_blocks(
    "mlps",
    "resmlp",
    {"grid_size": 7, "mlp_ratio": 4.0},
    "a linear layer over the positions of a grid and MLP, scaled instead of normed (arXiv "
    "2105.03404)",
)
_register_blocks(
    "mlps",
    "gmlp",
    {"grid_size": 7, "mlp_ratio": 6.0},
    "one MLP, half of it gated by a linear layer over the positions of a grid (arXiv 2105.08050)",
)

_register_blocks(
    "pooling",
    "poolformer",
    {"kernel_size": 3, "mlp_ratio": 4.0},
    "average pooling and MLP: mixes positions without weights (MetaFormer)",
)

register(
    Family(
        "hybrid",
        {"blocks": "convnext+transformer+convnext"},
        "blocks of several families one after another; it reads what these read, but no depth",
    )
)

register(Family("identity", {}, "no block at all: own norm and projector only", control=True))
register(
    Family("noise", {}, "random numbers in place of the map: nothing to learn from", control=True)
)
