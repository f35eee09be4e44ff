"""What a parameter may be: one value, one of several, or a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Value = bool | int | float | str


class Domain(Protocol):
    """The values of one parameter. Frozen and hashable; equal domains propose equal values."""

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """The trial's value of the Optuna parameter `name`."""
        ...

    def values(self) -> Sequence[Value] | None:
        """Every value, in order; None when they cannot be counted."""
        ...

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        ...

    def plain(self) -> dict[str, Any]:
        """As it is written in YAML."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One value; Optuna does not see it."""

    value: Value

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        return self.value

    def values(self) -> Sequence[Value]:
        return (self.value,)

    def holds(self, value: Value) -> bool:
        return value == self.value

    def plain(self) -> dict[str, Any]:
        return {"value": self.value}


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order that means anything."""

    options: tuple[Value, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        suggested: Value = trial.suggest_categorical(name, self.options)  # type: ignore[assignment]  # never None: options are Values
        return suggested

    def values(self) -> Sequence[Value]:
        return self.options

    def holds(self, value: Value) -> bool:
        return value in self.options

    def plain(self) -> dict[str, Any]:
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

    def plain(self) -> dict[str, Any]:
        step = {} if self.step == 1 else {"step": self.step}
        return {"int": [self.low, self.high], **step}


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
        return not isinstance(value, str) and self.low <= value <= self.high

    def plain(self) -> dict[str, Any]:
        return {"log" if self.log else "float": [self.low, self.high]}
