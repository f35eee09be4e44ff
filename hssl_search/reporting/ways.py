"""The ways to enlarge the discrepancy of base and head, and what went with each of them in a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from optuna import Study
from optuna.trial import FrozenTrial

from hssl_search.reporting.formats import capital, signed, signed_interval
from hssl_search.reporting.record import RunRecord, is_control
from hssl_search.reporting.within import Effect, within_family

MOST_APART = {"discrepancy": 2.0, "accuracy": 100.0}
"""By how much two heads can differ: discrepancies in excess of the identity head's lie between -1 and 1, accuracies between 0 and 100."""
MOST_LEVELS = 4
"""Rows of one way; more values are joined with their neighbours."""


@dataclass(frozen=True)
class Way:
    """A parameter of the head, and the direction in which it is thought to enlarge the discrepancy.

    A parameter times `steps` grows by one with each `step`, as the step is called in a sentence.
    """

    parameter: str
    title: str
    step: str
    steps: float = 1.0
    names: Mapping[Any, str] = field(default_factory=dict)
    """What its values are called, where not by themselves."""

    def name(self, values: Sequence[Any]) -> str:
        """What a group of neighbouring values is called."""
        first, last = (self.names.get(value, f"{value:g}") for value in (values[0], values[-1]))
        return first if len(values) == 1 else f"{first} to {last}"


_WITH = {False: "without", True: "with"}
WAYS = (
    Way("first_shortcut", "First shortcut", "no first shortcut", -1.0, _WITH),
    Way("depth", "Depth, blocks", "one block more"),
    Way("kernel_size", "Kernel size", "a kernel larger by 2", 0.5),
    Way("positions", "Position information", "no position information", -1.0, _WITH),
    Way("tap", "Tap, stages before the last", "a tap one stage earlier"),
)


@dataclass(frozen=True)
class LevelMean:
    """Discrepancy or accuracy of the heads of a level: how many have it, its mean (NaN for none), and `against`, by how much they
    differ from the other heads of their families."""

    heads: int
    mean: float
    against: Effect


@dataclass(frozen=True)
class Level:
    """The heads with one value of a parameter, or with one of a few neighbouring ones. Only healthy heads have outcomes."""

    name: str
    gated_out: int
    discrepancy: LevelMean
    accuracy: LevelMean


@dataclass(frozen=True)
class WayFound:
    """What a run tells of a way: of its levels, and of one step of it within families."""

    way: Way
    levels: list[Level]
    discrepancy: Effect
    accuracy: Effect

    def sentence(self) -> str:
        """What went with one step, or that there are too few heads to tell."""
        if missing := self.discrepancy.too_few():
            return f"{capital(missing)}: nothing can be said."
        told = f"{capital(self.way.step)}, within families: discrepancy {_differs(self.discrepancy, '', 3)}"
        if not any(level.accuracy.heads for level in self.levels):
            return f"{told}. No accuracy is known."
        if missing := self.accuracy.too_few():
            return f"{told}. Of the heads with an accuracy, {missing}: nothing can be said of it."
        return f"{told}; accuracy {_differs(self.accuracy, ' points', 1)}."


def _differs(effect: Effect, unit: str, digits: int) -> str:
    chance = "" if effect.clear else ", which may be chance"
    between = signed_interval(effect.low, effect.high, digits)
    return f"{signed(effect.slope, digits)}{unit} {between} over {effect.counted()}{chance}"


def ways(study: Study | RunRecord) -> list[WayFound]:
    """The ways in which the screened, healthy candidates differ, in the order of `WAYS`.

    Accuracies are means over the seeds at full proxy fidelity. Which heads have one is no chance: discrepant ones were promoted, and
    less accurate ones stopped.
    """
    heads = _judged(RunRecord.of(study))
    healthy = heads[heads["gate"] == "healthy"]
    return [_found(way, heads) for way in WAYS if healthy[way.parameter].nunique() > 1]


def not_varied(found: Sequence[WayFound]) -> list[str]:
    """The titles of the other ways."""
    return [way.title for way in WAYS if way not in [one.way for one in found]]


def _judged(record: RunRecord) -> pd.DataFrame:
    """A row for each candidate that the gate judged: family, gate, discrepancy, accuracy, and the parameter of each way."""
    rows = [_judged_row(record, trial) for trial in record.heads if trial.user_attrs.get("gate") and not is_control(trial)]
    columns = ["family", "gate", "discrepancy", "accuracy", *(way.parameter for way in WAYS)]
    return pd.DataFrame(rows, columns=columns).astype({"discrepancy": float, "accuracy": float})


def _judged_row(record: RunRecord, trial: FrozenTrial) -> dict[str, Any]:
    attributes, accuracies = trial.user_attrs, record.accuracies(trial)
    head = attributes.get("head") or {}
    return {
        **head,
        "depth": _depth(head),
        "family": attributes.get("family") or "",
        "gate": attributes["gate"],
        "discrepancy": attributes.get("discrepancy"),
        "accuracy": mean(accuracies.values()) if accuracies else math.nan,
    }


def _depth(head: Mapping[str, Any]) -> int | None:
    """Number of blocks; a hybrid names them all, as a list or joined by `+`."""
    blocks = head.get("blocks")
    if not blocks:
        return head.get("depth")
    return len(blocks.split("+") if isinstance(blocks, str) else blocks)


def _found(way: Way, heads: pd.DataFrame) -> WayFound:
    varied = heads[heads[way.parameter].notna()]
    healthy = varied[varied["gate"] == "healthy"]
    amount = healthy[way.parameter].astype(float) * way.steps
    discrepancy, accuracy = (within_family(amount, healthy[value], healthy["family"], most) for value, most in MOST_APART.items())
    levels = [_level(way, values, varied) for values in _groups(varied[way.parameter])]
    return WayFound(way, levels, discrepancy, accuracy)


def _groups(values: pd.Series) -> list[list[Any]]:
    """The distinct values, ascending, in at most `MOST_LEVELS` groups of neighbours."""
    distinct = sorted(set(values))
    return [[distinct[place] for place in part] for part in np.array_split(range(len(distinct)), min(MOST_LEVELS, len(distinct)))]


def _level(way: Way, values: Sequence[Any], heads: pd.DataFrame) -> Level:
    here, healthy = heads[way.parameter].isin(values), heads["gate"] == "healthy"
    discrepancy, accuracy = (_outcome(here[healthy], heads[healthy], value) for value in MOST_APART)
    return Level(way.name(values), int((here & ~healthy).sum()), discrepancy, accuracy)


def _outcome(here: pd.Series, heads: pd.DataFrame, value: str) -> LevelMean:
    values = heads.loc[here, value].dropna()
    return LevelMean(len(values), float(values.mean()), within_family(here.astype(float), heads[value], heads["family"], MOST_APART[value]))
