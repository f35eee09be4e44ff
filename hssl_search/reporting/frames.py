"""What the tables have in common."""

from __future__ import annotations

from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial

from hssl_search.reporting.formats import known
from hssl_search.reporting.record import name_of

OTHER_DISCREPANCIES = ("output", "architecture")
"""Discrepancies beside the one that promotes; a run may not have measured them."""
_INTEGERS = (
    "rank",
    "seeds",
    "gain_seeds",
    "parameters",
    "macs",
    "trial",
    "steps",
    "group",
    "seed",
    "step",
    "attempts",
)


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """The trial's attributes as one row, with its name, number (`trial`) and state."""
    always = {"name": name_of(trial), "trial": trial.number, "state": trial.state.name}
    return {"role": "candidate", "family": "", "gate": None, **trial.user_attrs, **always}


def where_measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the columns of the other discrepancies that no row has."""
    return frame.drop(
        columns=[
            column
            for column in OTHER_DISCREPANCIES
            if column in frame and not frame[column].map(known).any()
        ]
    )


def whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay whole where some are missing."""
    return frame.astype({column: "Int64" for column in _INTEGERS if column in frame.columns})
