"""Colours and marks, the same in every figure. Colours are those of Okabe and Ito, which colour-blind people can tell apart;
each family has a mark of its own too, so that a figure can be read without colour."""

from __future__ import annotations

from collections.abc import Iterable

INK = "#1c2430"
MUTED = "#6b7480"
GRID = "#e6e9ed"
CONTROL = "#2f3640"

_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#5e3c99"]
_MARKS = [
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "pentagon",
    "hexagon",
    "star-square",
    "triangle-down",
]
_FIXED = ("convnext", "transformer", "resnet", "mlp")
"""Families that keep their colour from report to report."""

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
    """(colour, mark) of each family; more families than colours share them in order."""
    names = [*_FIXED, *sorted(set(families) - set(_FIXED))]
    return {
        name: (_COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)])
        for index, name in enumerate(names)
    }


def phase_colour(phase: str) -> str:
    return _PHASES.get(phase, "#b3a1c9")


def phase_order(phases: Iterable[str]) -> list[str]:
    """The phases in the order of a search, unknown ones last."""
    known = list(_PHASES)
    return sorted(
        set(phases), key=lambda phase: (known.index(phase) if phase in known else len(known), phase)
    )


def faded(colour: str, opacity: float) -> str:
    """`#rrggbb` as an rgba() value."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"
