"""The head families by name. A new family is a function that makes its block in
`hssl_search/heads/blocks/` and a line in `families.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hssl_search.errors import advice

if TYPE_CHECKING:
    from torch import nn

    BlockMaker = Callable[[Mapping[str, Any], "Place"], nn.Module]
    """(parameters of the head, place) -> a module, B x width x h x w to the same shape."""


@dataclass(frozen=True)
class Place:
    """Where in its head a block stands."""

    width: int
    """Channels in and out."""
    drop_path: float = 0.0
    """Stochastic-depth rate of what lies beside a shortcut."""
    shortcut: bool = True
    """Whether the block has its shortcut; of two, that of the part that mixes positions."""
    repeat: int = 0
    """How many blocks of the same family come before it."""

    @property
    def rate(self) -> float:
        """Stochastic-depth rate of what lies beside the shortcut that can be missing: 0 where it is
        (as in the official HSSL code).
        """
        return self.drop_path if self.shortcut else 0.0


@dataclass(frozen=True)
class Family:
    name: str
    make_block: BlockMaker | None
    """Makes one block; None for a family without blocks of its own."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The HeadConfig parameters that the family reads, with their defaults; `reads` adds those of a
    hybrid's blocks."""
    summary: str = ""
    kind: str = ""
    """Which kind of operation its blocks are made of: families of one kind take about as long for a
    multiply-add."""
    control: bool = False
    """Whether it is a control rather than a candidate: it may not be in a search space."""


_families: dict[str, Family] = {}


def register(family: Family) -> None:
    if family.name in _families:
        raise ValueError(f"head family {family.name!r} is registered already")
    _families[family.name] = family


def families() -> dict[str, Family]:
    """All families by name, the controls last."""
    importlib.import_module("hssl_search.heads.families")
    return dict(sorted(_families.items(), key=lambda item: item[1].control))


def family(name: str) -> Family:
    known = families()
    if name not in known:
        raise ValueError(f"unknown head family {name!r}; {advice(name, known)}")
    return known[name]


def reads(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a head of `values["family"]` reads, with their defaults.

    A hybrid reads what the families of its `blocks` read, but for the depth, which is their number.
    A parameter that several of them read has the default of the first.
    """
    found = dict(family(values["family"]).defaults)
    if "blocks" in found:
        for name in blocks_of(values.get("blocks") or found["blocks"]):
            for key, value in family(name).defaults.items():
                found.setdefault(key, value)
        del found["depth"]
    return found


def blocks_of(written: Any) -> tuple[str, ...]:
    """The families of a hybrid's blocks, written as a sequence or joined by +. ValueError for
    anything but families with blocks.
    """
    if not isinstance(written, str | list | tuple) or not written:
        raise ValueError(
            f"blocks is {written!r}; write names of families, joined by + or as a list"
        )
    names = [
        str(name).strip() for name in (written.split("+") if isinstance(written, str) else written)
    ]
    known = families()
    valid = [name for name, family in known.items() if family.make_block is not None]
    for name in names:
        if name not in valid:
            kind = "control" if name in known and known[name].control else "unknown block"
            raise ValueError(f"{kind} {name!r} in blocks; {advice(name, valid)}")
    return tuple(names)


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a HeadConfig with the family's defaults filled in; ValueError for a parameter
    that such a head does not read.
    """
    from hssl_search.heads.config import HeadConfig

    given = {key: value for key, value in values.items() if value is not None}
    defaults = reads(given)
    unread = [
        key
        for key in given
        if key in HeadConfig.model_fields and key not in ("format", "family", *defaults)
    ]
    if unread:
        read = ", ".join(defaults) or "no parameters"
        blocks = (
            f" of {'+'.join(blocks_of(given.get('blocks') or defaults['blocks']))}"
            if "blocks" in defaults
            else ""
        )
        raise ValueError(
            f"head family {given['family']!r}{blocks} has no parameter {unread[0]!r}; it reads "
            f"{read}"
        )
    complete = {**defaults, **given}
    return (
        {**complete, "blocks": blocks_of(complete["blocks"])} if "blocks" in complete else complete
    )
