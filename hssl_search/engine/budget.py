"""Budgets: how much device-time a run may cost, as people type it.

`40gpu-h`, `90gpu-min`, `10cpu-min`, `30cpu-s`, `1.5cpu-h`; extended, `10cpu-min+5cpu-min`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from hssl_search.errors import UserError, advice

Device = Literal["gpu", "cpu"]

SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
UNITS = tuple(f"{device}-{time}" for device in ("gpu", "cpu") for time in SECONDS)
_BETWEEN = re.compile(r"(?<=[hns])\s*\+", re.IGNORECASE)
"""The plus of a sum, behind a unit; that of `1e+3cpu-s` is part of a number."""
# "nan" and "inf" are numbers here, to be refused as amounts and not as texts.
_WRITTEN = re.compile(
    r"\+?(?P<amount>[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf(?:inity)?))\s*(?P<unit>.*)", re.IGNORECASE
)


@dataclass(frozen=True)
class Budget:
    """A hard cap on device-time.

    A GPU hour is one GPU held for an hour. A CPU hour is the whole machine for an hour, whether its
    cores are busy or not, so on a CPU budget time in which the controller itself works or waits
    counts too.
    """

    seconds: float
    """Device-seconds."""
    device: Device
    text: str
    """As the user typed it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        """Make it a type of pydantic models that is read from text and written as text."""
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else parse_budget(str(value)),
            serialization=core_schema.plain_serializer_function_ser_schema(attrgetter("text")),
        )

    @property
    def newest(self) -> str:
        """Return the amount that was added last, all of it where none was."""
        return _BETWEEN.split(self.text)[-1].lstrip("+")

    def check_device(self, gpus: int, finder: str = "") -> None:
        """Raise UserError when this is a GPU budget and the machine has no GPU.

        Args:
            finder: who found the GPUs, for the sentence: ` by Ray`.
        """
        if self.device == "gpu" and gpus == 0:
            raise UserError(
                f"the budget {self.text!r} is in GPU time and no GPU was found{finder}; type "
                f"{self.text.replace('gpu-', 'cpu-')!r} instead (a CPU hour is the whole machine "
                "for an hour)."
            )

    def plus(self, more: Budget) -> Budget:
        """Return this budget extended by `more`.

        Raises:
            UserError: where they count different devices.
        """
        if more.device != self.device:
            same = more.text.replace(more.device, self.device)
            raise UserError(
                f"the run's budget is in {self.device.upper()} time ({self.text}) and "
                f"{more.text!r} is not; type {same!r} instead."
            )
        # As a sum, of which `newest` is the last amount.
        text = f"{self.text}+{more.text.lstrip('+')}"
        return Budget(self.seconds + more.seconds, self.device, text)


def parse_budget(text: str) -> Budget:
    """Read a budget, such as `40gpu-h`, or a sum of several; a leading `+` is allowed.

    Raises:
        UserError: for all else, with what to type.
    """
    first, *more = _BETWEEN.split(text)
    return reduce(Budget.plus, map(_parse, more), _parse(first))


def _parse(text: str) -> Budget:
    typed = text.strip()
    if (parts := _WRITTEN.fullmatch(typed)) is None:
        raise UserError(
            f"the budget {text!r} does not begin with a number; type an amount and a unit, for "
            "example '40gpu-h'."
        )
    unit = parts["unit"].lower()
    if unit not in UNITS:
        raise _wrong_unit(typed, parts["amount"], unit)
    device, time = unit.split("-")
    seconds = _amount(typed, parts["amount"]) * SECONDS[time]
    return Budget(seconds, "gpu" if device == "gpu" else "cpu", typed.replace(" ", "").lower())


def _wrong_unit(typed: str, amount: str, unit: str) -> UserError:
    if not unit:
        return UserError(
            f"the budget {typed!r} has no unit; type '{amount}gpu-h' for GPU hours or "
            f"'{amount}cpu-h' for CPU hours."
        )
    if unit in SECONDS:
        return UserError(
            f"the budget {typed!r} does not say of which device; type '{amount}gpu-{unit}' or "
            f"'{amount}cpu-{unit}'."
        )
    return UserError(f"the budget {typed!r} has the unknown unit {unit!r}; {advice(unit, UNITS)}")


def _amount(typed: str, amount: str) -> float:
    try:
        value = float(amount)
    except ValueError:
        raise UserError(
            f"the budget {typed!r} has {amount!r} where a number belongs; type for example "
            "'1.5cpu-h'."
        ) from None
    if not math.isfinite(value) or value <= 0:
        raise UserError(
            f"the budget {typed!r} must be a finite amount above zero; type for example '40gpu-h'."
        )
    return value


def format_duration(seconds: float) -> str:
    """Write a time for people: `4.2 s`, `42 s`, `3 min 20 s`, `2 h 05 min`, `1 d 03 h`."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 9.95:  # above, it would be rounded to 10.0
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"


def written(seconds: float, device: str) -> str:
    """Write at least so many device-seconds as a budget is typed, in round figures: `90cpu-s`,
    `12cpu-min`, `31gpu-h`."""
    # Rounded before each ceiling: 0.1 + 0.2, a little above 0.3, would be given a grain more.
    if seconds <= 300:
        return f"{max(1, math.ceil(round(seconds / 10, 9))) * 10}{device}-s"
    unit, size = ("min", 60.0) if seconds < 5400 else ("h", 3600.0)
    amount = seconds / size
    # Two figures, of minutes whole ones and of hours tenths at the finest.
    grain = 10.0 ** max(0 if unit == "min" else -1, math.floor(math.log10(amount)) - 1)
    return f"{math.ceil(round(amount / grain, 9)) * grain:.6g}{device}-{unit}"
