"""The look of figures: colours, axes, and lines to compare with."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from hssl_search.reporting import style


def test_families_keep_their_colours_and_have_marks_of_their_own() -> None:
    looks = style.family_looks(["mlp", "new", "convnext"])
    assert looks["convnext"] == style.family_looks(["convnext"])["convnext"]
    assert (
        len({colour for colour, _ in looks.values()})
        == len({mark for _, mark in looks.values()})
        == len(looks)
    )


def test_an_axis_is_not_pressed_flat_by_one_wide_interval() -> None:
    low, high = style.frame_around([40.0, 42.0], [-100.0, float("nan")], [43.0])
    assert low == pytest.approx(38.0 - 0.06 * 5)
    assert high == pytest.approx(43.0 + 0.06 * 5)


def test_spread_moves_labels_apart_inside_the_range() -> None:
    apart = style.spread([1.0, 5.0, 5.1, 30.0], [0.0, 10.0], least=0.1)
    assert apart == pytest.approx([1.0, 5.0, 6.0, 10.0])
    assert style.spread([30.0, 31.0], [0.0, 10.0], least=0.1) == pytest.approx([9.0, 10.0])


def test_a_reference_out_of_range_is_named_at_the_edge_without_a_line(run: Any) -> None:
    figure = go.Figure()
    style.reference_lines(
        figure,
        [style.Reference("far", 5.0), style.Reference("near", 45.0)],
        [40.0, 50.0],
        vertical=False,
    )
    assert len(figure.layout.shapes) == 1
    assert [note.text for note in figure.layout.annotations] == ["▾ far 5.0", "near 45.0"]
