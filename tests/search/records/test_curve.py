"""Curves: where a value is drawn."""

from __future__ import annotations

import pytest
from PIL import ImageColor

from hssl_search.search.records.curve import BOTTOM, LEFT, LINE, RIGHT, SIZE, TOP, Curve

BLUE = ImageColor.getrgb(LINE)


@pytest.mark.parametrize("points", [[(20, 30.0), (40, 55.5), (80, 41.0)], [(75, 12.5)], [(10, -0.1), (20, -0.1)], [(1, 1e-9), (2, 1e9)]])
def test_each_value_is_drawn_at_its_step_and_height_within_the_picture(points: list[tuple[int, float]]) -> None:
    curve = Curve(points, "mlp depth 3", "accuracy %")
    image = curve.image()
    assert image.size == SIZE
    low, high = min(value for _, value in points), max(value for _, value in points)
    for step, value in points:
        x, y = curve.place(step, value)
        assert x == pytest.approx(LEFT + (RIGHT - LEFT) * step / points[-1][0])
        assert TOP < y < BOTTOM
        assert image.getpixel((round(x), round(y))) == BLUE
        if high > low:
            assert (BOTTOM - y) / (BOTTOM - TOP) == pytest.approx((0.1 + (value - low) / (high - low)) / 1.2)


def test_between_two_rungs_it_is_a_straight_line() -> None:
    curve = Curve([(20, 10.0), (60, 30.0), (80, 10.0)], "", "")
    image = curve.image()
    for step in range(20, 61, 4):
        x, y = curve.place(step, step / 2)
        assert BLUE in {image.getpixel((round(x), round(y) + off)) for off in (-1, 0, 1)}
    x, y = curve.place(40, 10.0)
    assert image.getpixel((round(x), round(y) - 5)) != BLUE
