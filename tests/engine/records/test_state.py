"""Attributes of any size: in parts that every database holds, and whole again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hssl_search.engine.records.state import LARGEST, joined, split

TEXT_OF_MYSQL = 65_535
"""Bytes."""


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "x" * 59_998,
        "x" * 59_999,
        ['class 𠀀 ü "quoted" \\ back'] * 20_000,
        '\\"' * 100_000,
        {"classes": [f"class {number}" for number in range(2_500)], "nested": [1.5, None, True]},
    ],
    ids=lambda value: f"{len(json.dumps(value))} bytes",
)
def test_any_value_is_whole_again_and_no_part_is_too_large(value: Any) -> None:
    written = dict(split("job/proxy/0001", value))
    assert joined(written) == {"job/proxy/0001": value}
    assert all(
        len(json.dumps(part)) < TEXT_OF_MYSQL and len(key) < 512 for key, part in written.items()
    )
    assert (len(written) == 1) is (len(json.dumps(value)) <= LARGEST)


def test_a_value_is_the_old_or_the_new_one_after_every_write() -> None:
    old, new = ["old"] * 20_000, ["new"] * 30_000
    held = {"plan": 1, **dict(split("verdict", old))}
    seen = []
    for key, part in split("verdict", new):
        seen.append(joined(held)["verdict"])
        held[key] = part
    assert len(seen) > 5 and all(value == old for value in seen)
    assert joined(held) == {"plan": 1, "verdict": new}
    before = dict(held)
    held.update(split("verdict", new))
    assert held == before, "a write that is repeated changes nothing"
    held.update(split("verdict", "small"))
    assert joined(held) == {"plan": 1, "verdict": "small"}
