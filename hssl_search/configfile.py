"""YAML files that people write: read, written whole, and checked with one sentence about the first
mistake.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hssl_search.errors import UserError, advice
from hssl_search.scratch import replacing

Model = TypeVar("Model", bound=BaseModel)

_FLOAT_WITHOUT_DOT = re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """A loader of YAML as people expect it: 1e-3 is a number, and a key given twice is a
    mistake.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


# The fast one, where PyYAML has it.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """A dumper that quotes what `_Loader` would take for a number, and repeats values instead of
    referring to them.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


# YAML 1.1, which PyYAML follows, wants a dot in a float.
for _end in (_Loader, _Dumper):
    _end.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT, list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in the file.

    Raises:
        UserError: when the file is missing, cannot be read, is not YAML or holds anything but a
            mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {_yaml_problem(error)}.") from error
    if not isinstance(values, dict):
        content = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path} holds {content}; it must hold `key: value` lines.")
    return values


def write_yaml(path: Path, values: dict[str, Any], durable: bool = True) -> None:
    """Write the mapping, its keys in their order; a reader sees the old file or the whole new one,
    never a part.

    Args:
        path: where.
        values: plain values.
        durable: on the disk when this returns. Otherwise a power cut may still take it away, which
            is for what stands elsewhere too.
    """
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return `values` as a `model`.

    Args:
        model: a pydantic model.
        values: as read from a file.
        where: the file, with which the error begins.

    Raises:
        UserError: about the first bad key, an unknown key before all others.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = error.errors()
        # A misspelt key is often missing as well: the typing error is what the user wants to know.
        unknown = [entry for entry in errors if entry["type"] == "extra_forbidden"]
        _refuse(model, (unknown or errors)[0], where)


def refusal(error: ErrorDetails, value: Any) -> str:
    """Return the end of a sentence on a refused value, with its full stop: `is 0, but should be
    greater than 0.`
    """
    # pydantic's own messages begin with "Input should", ours are sentences.
    joint = ", but" if error["msg"].startswith("Input ") else ":"
    return f"is {reprlib.repr(value)}{joint} {_reason(error)}"


def _refuse(model: type[BaseModel], error: ErrorDetails, where: str) -> NoReturn:
    *parents, key = error["loc"] or ("",)
    dotted = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        inside = f" in {'.'.join(map(str, parents))}" if parents else ""
        valid = _keys_at(model, parents)
        raise UserError(
            f"{where}: unknown key {key!r}{inside}; "
            f"{advice(str(key), valid) if valid else 'remove it.'}"
        )
    if error["type"] == "missing":
        raise UserError(f"{where}: {dotted} is missing; add it.")
    if error["type"] == "value_error" and isinstance(error["input"], dict | BaseModel):
        raise UserError(f"{where}: {f'in {dotted}, ' if dotted else ''}{_reason(error)}")
    raise UserError(f"{where}: {dotted} {refusal(error, error['input'])}")


def _reason(error: ErrorDetails) -> str:
    message = (
        error["msg"]
        .removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
        .removeprefix("Input ")
    )
    return message if message.endswith((".", "?", "!")) else f"{message}."


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> set[str]:
    """Return the keys that are valid at a place that pydantic names, e.g. ("blocks", 0, "Conv")."""
    models = [model]  # those that may stand at the place: several below a union
    for step in path:
        fields = [
            candidate.model_fields[step].annotation
            for candidate in models
            if step in candidate.model_fields
        ]
        if fields:
            models = [inner for annotation in fields for inner in _models_in(annotation)]
        else:  # a list's index, a dict's key or a union's member
            models = [candidate for candidate in models if candidate.__name__ == step] or models
    return {key for candidate in models for key in candidate.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem
