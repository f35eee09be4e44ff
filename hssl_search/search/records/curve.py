"""A learning curve as a picture, drawn with Pillow: small, and of no library that a search does not have anyway."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 400)
LEFT, TOP, RIGHT, BOTTOM = 96, 72, 608, 328
"""The edges of the area that the curve is in, in pixels."""
INK, MUTED, GRID, LINE = "#1c2430", "#6b7480", "#e6e9ed", "#0072b2"
LINES = 5
"""Horizontal lines with a number each."""


class Curve:
    """Values over steps; x from 0 to the last step, y from the lowest to the highest value.

    Args:
        points: (step, finite value), by step; at least one.
        unit: what the values are.
    """

    def __init__(self, points: Sequence[tuple[int, float]], title: str, unit: str) -> None:
        self.points, self.title, self.unit = points, title, unit
        values = [value for _, value in points]
        room = 0.1 * (max(values) - min(values)) or 0.5
        self.low, self.high, self.last = min(values) - room, max(values) + room, points[-1][0]

    def place(self, step: float, value: float) -> tuple[float, float]:
        """The pixel of a value: x to the right, y down."""
        return (LEFT + (RIGHT - LEFT) * step / self.last,
                BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low))

    def image(self) -> Image.Image:
        image = Image.new("RGB", SIZE, "white")
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(20)
        for value in (self.low + (self.high - self.low) * number / (LINES - 1) for number in range(LINES)):
            _, y = self.place(0, value)
            pen.line([(LEFT, y), (RIGHT, y)], GRID)
            pen.text((LEFT - 8, y), f"{value:.4g}", MUTED, font, anchor="rm")
        for step, _ in self.points:
            pen.text((self.place(step, self.low)[0], BOTTOM + 8), str(step), MUTED, font, anchor="mt")
        pen.text(((LEFT + RIGHT) / 2, SIZE[1] - 10), "step", MUTED, font, anchor="mb")
        pen.text((16, 12), self.title, INK, ImageFont.load_default(16), anchor="lt")
        pen.text((16, 36), self.unit, MUTED, font, anchor="lt")
        corners = [self.place(step, value) for step, value in self.points]
        pen.line(corners, LINE, width=2)
        for x, y in corners:
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], LINE)
        return image
