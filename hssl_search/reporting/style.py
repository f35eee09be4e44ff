"""The look of figures: colours, marks, axes, and lines to compare with.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; each family has a mark
of its own too, so that a figure can be read without colour.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hssl_search.engine.statistics.metrics import ACCURACY, Measure
from hssl_search.reporting.formats import known, number

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK = "#1c2430"
MUTED = "#6b7480"
GRID = "#e6e9ed"
CONTROL = "#2f3640"

_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#5e3c99"]
_MARKS = [
    *("circle", "square", "diamond", "triangle-up"),
    *("pentagon", "hexagon", "star-square", "triangle-down"),
]
_FIXED = ("convnext", "transformer", "resnet", "mlp")
"""Families that keep their colour from report to report, so that two can lie side by side."""

_PHASES = {
    "measure": "#8a939e",
    "screen": "#56b4e9",
    "proxy": "#0072b2",
    "confirm": "#009e73",
    "full": "#e69f00",
    "overhead": "#c3c9d0",
}

CONTROL_DASHES = {
    "none": "solid",
    "identity": "dash",
    "none_same_time": "dashdot",
    "same_architecture": "longdash",
    "noise": "dot",
}


def family_looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, mark) of each family; more families than colours share them in order."""
    names = [*_FIXED, *sorted(set(families) - set(_FIXED))]
    return {
        name: (_COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)])
        for index, name in enumerate(names)
    }


def phase_colour(phase: str) -> str:
    return _PHASES.get(phase, "#b3a1c9")


def phase_order(phases: Iterable[str]) -> list[str]:
    """Return the phases in the order of a search, unknown ones last."""
    places = {phase: place for place, phase in enumerate(_PHASES)}
    return sorted(set(phases), key=lambda phase: (places.get(phase, len(places)), phase))


def faded(colour: str, opacity: float) -> str:
    """Return `#rrggbb` as an rgba() value."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, "
    "sans-serif"
)
_LABEL: dict[str, object] = {"showarrow": False, "font": {"size": 11.5, "color": MUTED}}


@dataclass(frozen=True)
class Reference:
    """A line to compare with: what bases are judged by, and its interval where it was trained with
    several seeds."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    digits: int = 1


def axis_title(measure: Measure) -> str:
    """Return the title of the axis of a measure, with its unit."""
    if measure == ACCURACY:
        return "k-NN accuracy on held-out images (%)"
    return f"{measure.score_name} on held-out images, without labels"


def base_layout() -> dict[str, object]:
    """Return the layout that all figures share."""
    # Tables need this module's order of phases, and are printed without plotly.
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#aab2bc",
        "ticks": "outside",
        "tickcolor": "#aab2bc",
        "automargin": True,
        "title": {"standoff": 12, "font": {"size": 13}},
    }
    return {
        "template": go.layout.Template(layout={"xaxis": axis, "yaxis": axis}),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 70, "r": 150, "t": 52, "b": 60},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#aab2bc",
            "font": {"family": FONT, "size": 12, "color": INK},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
    }


def error_bars(
    middle: Iterable[float],
    low: Iterable[float],
    high: Iterable[float],
    colour: str,
    thin: bool = False,
) -> dict[str, object]:
    """Return bars from `low` to `high` around `middle`; none at a point whose ends are missing."""
    ends = [
        (top - at, at - bottom) if known(bottom) and known(top) else (None, None)
        for at, bottom, top in zip(middle, low, high, strict=True)
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [up for up, _ in ends],
        "arrayminus": [down for _, down in ends],
        "color": colour,
        "thickness": 1.3 if thin else 1.8,
        "width": 3 if thin else 5,
    }


def frame_around(*groups: Iterable[float]) -> list[float]:
    """Return a range around the first group's values with some air; the other groups may widen it
    to at most three times their span.

    So one seed gone astray, or the wide interval of two seeds, does not press all else into a line.
    """
    inner, *outer = [[float(value) for value in group if known(value)] for group in groups]
    low, high = min(inner), max(inner)
    slack = max(high - low, 1.0)  # equal values still get a range of some width
    others = [value for group in outer for value in group]
    low, high = max(min([low, *others]), low - slack), min(max([high, *others]), high + slack)
    air = 0.06 * max(high - low, 0.5)
    return [low - air, high + air]


def reference_lines(
    figure: go.Figure,
    references: Sequence[Reference],
    inside: list[float],
    vertical: bool,
    **where: int,
) -> None:
    """Draw a line for each reference, with its name at the end; one outside of the range is named
    at the edge beyond which it lies."""
    lines = sorted(references, key=lambda line: line.value)
    for line in lines:
        if line.low is not None and line.high is not None:
            _band(figure, line, vertical, where)
        if inside[0] <= line.value <= inside[1]:
            _rule(figure, line, vertical, where)
    if vertical:
        for level, line in enumerate(lines):
            _label_on_top(figure, line, inside, level)
    else:
        heights = spread([line.value for line in lines], inside, least=0.07)
        for line, height in zip(lines, heights, strict=True):
            _label_at_right(figure, line, inside, height)


def spread(values: Sequence[float], inside: Sequence[float], least: float) -> list[float]:
    """Return ascending `values`, brought into the range `inside` and moved apart to at least the
    share `least` of it."""
    low, high = inside
    gap = least * (high - low)
    # Upwards each moves off the one below it, then downwards those that left the range.
    apart: list[float] = []
    for value in values:
        apart.append(max(min(max(value, low), high), apart[-1] + gap if apart else low))
    for index in reversed(range(len(apart))):
        ceiling = apart[index + 1] - gap if index + 1 < len(apart) else high
        apart[index] = min(apart[index], ceiling)
    return apart


def _band(figure: go.Figure, line: Reference, vertical: bool, where: dict[str, int]) -> None:
    look = {"fillcolor": faded(CONTROL, 0.07), "line_width": 0, "layer": "below", **where}
    if vertical:
        figure.add_vrect(x0=line.low, x1=line.high, **look)
    else:
        figure.add_hrect(y0=line.low, y1=line.high, **look)


def _rule(figure: go.Figure, line: Reference, vertical: bool, where: dict[str, int]) -> None:
    trained = line.name == "no head"
    look = {
        "color": faded(CONTROL if trained else MUTED, 0.75),
        "width": 1.6 if trained else 1.2,
        "dash": "solid" if trained else "dot",
    }
    if vertical:
        figure.add_vline(x=line.value, line=look, layer="above", **where)
    else:
        figure.add_hline(y=line.value, line=look, layer="above", **where)


def _label_on_top(figure: go.Figure, line: Reference, inside: list[float], level: int) -> None:
    below, above = line.value < inside[0], line.value > inside[1]
    text = f"◂ {_label(line)}" if below else f"{_label(line)} ▸" if above else _label(line)
    anchor = "left" if below else "right" if above else "center"
    at = min(max(line.value, inside[0]), inside[1])
    figure.add_annotation(
        text=text,
        x=at,
        xanchor=anchor,
        y=1,
        yref="paper",
        yanchor="bottom",
        # A row higher each: names of lines that lie close would cover each other.
        yshift=3 + 15 * level,
        **_LABEL,
    )


def _label_at_right(figure: go.Figure, line: Reference, inside: list[float], height: float) -> None:
    arrow = "▾ " if line.value < inside[0] else "▴ " if line.value > inside[1] else ""
    figure.add_annotation(
        text=arrow + _label(line),
        x=1,
        xref="x domain",
        xanchor="left",
        xshift=6,
        y=height,
        yanchor="middle",
        **_LABEL,
    )


def _label(line: Reference) -> str:
    return f"{html.escape(line.name, quote=False)} {number(line.value, line.digits)}"


def short(text: object, most: int = 46) -> str:
    """Return `text`, cut to `most` characters and escaped."""
    text = str(text)
    # Cut first: half of an escaped character would be shown as it stands.
    return html.escape(text if len(text) <= most else f"{text[: most - 1]}…", quote=False)
