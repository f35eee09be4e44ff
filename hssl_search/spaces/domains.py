"""Domains: one value of a parameter, one of several, or a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Value = bool | int | float | str
Written = dict[str, Value | list[Value]]
"""A domain as YAML has it."""


class Domain(Protocol):
    """The values that one parameter may have. Frozen and hashable; equal domains propose equal
    values.
    """

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """Return the trial's value of the Optuna parameter `name`."""
        ...

    def values(self) -> Sequence[Value] | None:
        """Return every value, in order; None when they cannot be counted."""
        ...

    def holds(self, value: Value) -> bool:
        """Tell whether the domain has the value."""
        ...

    def plain(self) -> Written:
        """Return the domain as it is written in YAML."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One value, which Optuna does not see."""

    value: Value

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        return self.value

    def values(self) -> Sequence[Value]:
        return (self.value,)

    def holds(self, value: Value) -> bool:
        return value == self.value

    def plain(self) -> Written:
        return {"value": self.value}


@dataclass(frozen=True)
class Choice:
    """One of several values, whose order means nothing."""

    options: tuple[Value, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        # Optuna's type allows None, which is no Value and so no option.
        suggested: Value = trial.suggest_categorical(name, self.options)  # type: ignore[assignment]
        return suggested

    def values(self) -> Sequence[Value]:
        return self.options

    def holds(self, value: Value) -> bool:
        return value in self.options

    def plain(self) -> Written:
        return {"choice": list(self.options)}


@dataclass(frozen=True)
class Integers:
    """low, low + step, ... high, all equally likely."""

    low: int
    high: int
    step: int = 1

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        return trial.suggest_int(name, self.low, self.high, step=self.step)

    def values(self) -> Sequence[Value]:
        return range(self.low, self.high + 1, self.step)

    def holds(self, value: Value) -> bool:
        return value in self.values()

    def plain(self) -> Written:
        written: Written = {"int": [self.low, self.high]}
        return written if self.step == 1 else {**written, "step": self.step}


@dataclass(frozen=True)
class Floats:
    """A continuous range, uniform, or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def values(self) -> None:
        return None

    def holds(self, value: Value) -> bool:
        # `blocks` and `family` are text, and no range has them.
        return not isinstance(value, str) and self.low <= value <= self.high

    def plain(self) -> Written:
        return {"log" if self.log else "float": [self.low, self.high]}
