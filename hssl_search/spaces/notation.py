"""The notation of domains in YAML: a plain value, or one of

{value: 3}    {choice: [2, 4, 8]}    {int: [1, 4]}    {int: [3, 9], step: 2}
{float: [0.5, 2]}    {log: [0.5, 2]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from hssl_search.errors import UserError, advice
from hssl_search.spaces.domains import Choice, Domain, Fixed, Floats, Integers, Value

_EXAMPLES = {
    "value": "3",
    "choice": "[2, 4, 8]",
    "int": "[1, 4]",
    "float": "[0.5, 2]",
    "log": "[0.5, 2]",
}


def read_domain(written: Any, where: str, key: str, beside: tuple[str, ...] = ()) -> Domain:
    """Read a domain. Whether a head may have the values is not asked here.

    Args:
        written: the YAML value.
        where: the file, for messages.
        key: the key that the domain was written under, for messages.
        beside: keys of its mapping that belong to others.

    Raises:
        UserError: for everything that is not in the notation.
    """
    if not isinstance(written, Mapping):
        return Fixed(_scalar(written, f"{where}: {key}"))
    valid = (*_EXAMPLES, "step", *beside)
    for name in written:
        if name not in valid:
            raise UserError(f"{where}: unknown key {name!r} in {key}; {advice(str(name), valid)}")
    return _read_mapping(written, f"{where}: {key}")


def _read_mapping(written: Mapping[str, Any], at: str) -> Domain:
    # One domain is one kind; `step` and `families` may stand beside it.
    kinds = [kind for kind in _EXAMPLES if kind in written]
    if len(kinds) != 1:
        raise UserError(
            f"{at} has {' and '.join(kinds) or 'no domain'}; give exactly one of "
            f"{', '.join(_EXAMPLES)}."
        )
    [kind] = kinds
    if "step" in written and kind != "int":
        raise UserError(f"{at} has a step, which only int takes; remove it.")
    if kind == "value":
        return Fixed(_scalar(written[kind], at))
    if kind == "choice":
        options = written[kind]
        if not isinstance(options, list) or not options:
            raise UserError(
                f"{at}: choice is {options!r}; write a list, e.g. "
                f"{{choice: {_EXAMPLES['choice']}}}."
            )
        return Choice(tuple(_scalar(option, at) for option in options))
    return _range(kind, written[kind], written.get("step", 1), at)


def _range(kind: str, written: Any, step: Any, at: str) -> Domain:
    # Compared by type, not by isinstance: to Python, true and false are integers too.
    types = (int,) if kind == "int" else (int, float)
    numbers = (
        isinstance(written, list)
        and len(written) == 2
        and all(type(end) in types for end in written)
    )
    if not numbers or not written[0] < written[1]:
        raise UserError(
            f"{at}: {kind} is {written!r}; write two numbers, the lower one first, e.g. {{{kind}: "
            f"{_EXAMPLES[kind]}}}."
        )
    low, high = written
    if kind == "int":
        if type(step) is not int or step < 1 or (high - low) % step:
            raise UserError(
                f"{at}: step is {step!r}; write a whole number that leads from the lower end "
                "exactly to the higher one."
            )
        return Integers(low, high, step)
    if kind == "log" and low <= 0:
        raise UserError(f"{at}: log begins at {low!r}, where there is no logarithm; begin above 0.")
    return Floats(float(low), float(high), log=kind == "log")


def _scalar(written: Any, at: str) -> Value:
    if isinstance(written, get_args(Value)):
        return written
    if isinstance(written, list):
        raise UserError(f"{at} is a list; for one of several values write {{choice: {written}}}.")
    kinds = ", ".join(f"{{{kind}: {example}}}" for kind, example in _EXAMPLES.items())
    raise UserError(
        f"{at} is {'empty' if written is None else repr(written)}; write a value or one of {kinds}."
    )
