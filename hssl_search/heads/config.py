"""HeadConfig: the written form of an auxiliary head."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from hssl_search.heads.families import parse_blocks, reads

FORMAT: Final = "hssl-head/1"

_WORDS = {
    "depth": "depth",
    "width_ratio": "width",
    "kernel_size": "kernel",
    "attention_heads": "heads",
    "mlp_ratio": "mlp",
    "window_size": "window",
    "grid_size": "grid",
}
"""What the numbers are called in a label."""


class HeadConfig(BaseModel):
    """One auxiliary head, complete: every parameter that its family reads has a value, every other
    parameter is None.

    Parameters left out take the family's default; a parameter that the family does not read is an
    error. Frozen, hashable, and equal after a round trip through YAML or JSON. `family` is a name
    in `hssl_search.heads.families`.

    A file of this format keeps its meaning: a parameter added later has the default that heads had
    before it, and no default changes.

    Example:
        HeadConfig(family="convnext", depth=2).label()
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["hssl-head/1"] = FORMAT
    family: str
    """Which blocks the head is made of; `hybrid` for those of `blocks`."""
    blocks: tuple[str, ...] | None = Field(None, max_length=64)
    """The family of each block of a hybrid, first to last: a list, or a string as in
    `convnext+transformer+convnext`. A hybrid has no depth and reads what its blocks read; where
    several of them read a parameter, the first one gives its default."""
    depth: int | None = Field(None, ge=1, le=64)
    """Number of blocks."""
    width_ratio: float | None = Field(None, gt=0, le=8)
    """Channels inside the head, as a share of the channels of the map that it is fed."""
    kernel_size: int | None = Field(None, ge=1, le=63)
    """Side of the square window of a convolution or a pooling; odd."""
    attention_heads: int | None = Field(None, ge=1, le=64)
    """Number of attention heads; the head's width is rounded up to a multiple of it."""
    window_size: int | None = Field(None, ge=2, le=64)
    """Side of the square windows that attention is confined to."""
    grid_size: int | None = Field(None, ge=1, le=32)
    """Side of the square grid whose positions have weights of their own; maps of another size are
    resampled to it and back."""
    mlp_ratio: float | None = Field(None, gt=0, le=16)
    """Hidden width of a block's MLP, or of the block itself where it widens or narrows as a whole,
    as a share of the head's width."""
    positions: bool | None = None
    """Whether the first transformer block is told where each position lies (fixed 2-D sines and
    cosines, no parameters)."""
    first_shortcut: bool | None = None
    """Whether the first block has a shortcut. The paper's head has none: it enlarges the
    discrepancy."""
    tap: int | None = Field(None, ge=0, le=3)
    """Which stage of the base feeds the head, counted back from the last one, which is 0."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_family(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("family"), str):
            return values  # pydantic says what is wrong with it
        # A None is a parameter left out, as in what `model_dump` gives.
        given = {key: value for key, value in values.items() if value is not None}
        defaults = reads(given)
        filled = {**defaults, **given}
        if "blocks" in defaults:
            filled["blocks"] = parse_blocks(filled["blocks"])
        for key in given:
            if key in cls.model_fields and key not in ("format", "family", *defaults):
                blocks = f" of {'+'.join(filled['blocks'])}" if "blocks" in defaults else ""
                raise ValueError(
                    f"head family {given['family']!r}{blocks} has no parameter {key!r}; it reads "
                    f"{', '.join(defaults) or 'no parameters'}"
                )
        return filled

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> HeadConfig:
        if self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size {self.kernel_size} is even; use {self.kernel_size - 1} or "
                f"{self.kernel_size + 1}"
            )
        return self

    @field_serializer("blocks")
    def _joined(self, blocks: tuple[str, ...] | None) -> str | None:
        return None if blocks is None else "+".join(blocks)

    @property
    def block_families(self) -> tuple[str, ...]:
        """Return the family of each block, first to last; none for a control."""
        return self.blocks or (self.family,) * (self.depth or 0)

    @property
    def block_count(self) -> int:
        """Return the number of blocks."""
        return len(self.block_families)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that this family reads, without the family itself; `blocks` as a
        string.
        """
        return self.model_dump(exclude={"format", "family"}, exclude_none=True)

    def label(self) -> str:
        """Return a short name for people, e.g. `convnext depth 3 width 1 kernel 7 mlp 4
        no-first-shortcut`.
        """
        values = self.parameters()
        parts = [
            values.get("blocks", self.family),
            *(f"{word} {values[key]:.3g}" for key, word in _WORDS.items() if key in values),
        ]
        parts += ["positions"] * bool(self.positions) + [f"tap {self.tap}"] * bool(self.tap)
        if self.first_shortcut is False:
            parts.append("no-first-shortcut")
        return " ".join(parts)
