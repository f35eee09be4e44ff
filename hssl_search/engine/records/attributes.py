"""Study attributes of any size: Optuna keeps each as a text, of which MySQL holds 65,535 bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST = 60_000
"""Bytes of JSON that one attribute holds. Optuna writes JSON in ASCII, so that a character is a byte."""
PART = "part/"
"""How the keys of parts begin."""
IN_PARTS = "in parts"


def split(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes to set, in this order, for one of any size: itself, or its parts and then what refers to them.

    Parts are named by their content, so that a reader between two writes finds the value from before, whole, and so that a write
    that is repeated changes nothing. Optuna deletes no attribute: what a value was in parts stays beside what it is now.
    """
    text = json.dumps(value)
    if len(text) <= LARGEST:
        yield key, value
        return
    size = LARGEST // 2  # a part is JSON again, in which every quote and backslash takes two bytes
    pieces = [text[begin : begin + size] for begin in range(0, len(text), size)]
    stem = f"{PART}{key}/{zlib.crc32(text.encode()):08x}"
    for number, piece in enumerate(pieces):
        yield f"{stem}/{number}", piece
    yield key, {IN_PARTS: [f"{stem}/{number}" for number in range(len(pieces))]}


def joined(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's attributes with each that was split whole again."""
    return {
        key: _whole(value, attributes)
        for key, value in attributes.items()
        if not key.startswith(PART)
    }


def _whole(value: Any, attributes: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and value.keys() == {IN_PARTS}:
        return json.loads("".join(attributes[part] for part in value[IN_PARTS]))
    return value
