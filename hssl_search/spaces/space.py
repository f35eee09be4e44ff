"""A search space: which heads may be tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hssl_search.bundled import find
from hssl_search.configfile import read_yaml, validate
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import reads
from hssl_search.spaces.domains import Choice, Domain, Fixed, Value, Written
from hssl_search.spaces.parameters import (
    Kind,
    Parameter,
    families_kinds,
    read_family,
    read_parameters,
    readers_of,
    refuse_unknown,
)

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


class _Written(BaseModel):
    """The file of a space."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A declared set of heads, finite or not. Every head that it proposes is valid: its file was
    checked when it was read.

    A parameter that the file leaves out has its family's default; a parameter that a family does
    not read is not sampled for it.
    """

    name: str
    description: str
    family: Fixed | Choice
    parameters: tuple[Parameter, ...]

    @classmethod
    def read(cls, name_or_path: str) -> Space:
        """Read the space of a name (`tiny`) or of a file (`my/space.yaml`).

        Raises:
            UserError: for a missing file, and for any mistake in it.
        """
        path = find("search_spaces", name_or_path)
        return cls._from(read_yaml(path), path.stem, str(path))

    @classmethod
    def from_plain(cls, values: dict[str, Any], name: str) -> Space:
        """Make a space of what `as_plain` gave.

        Raises:
            UserError: for any mistake in the values.
        """
        return cls._from(values, name, f"search space {name!r}")

    @classmethod
    def _from(cls, values: dict[str, Any], name: str, where: str) -> Space:
        written = validate(_Written, values, where)
        parameters = dict(written.parameters)
        refuse_unknown(parameters, where)
        if "family" not in parameters:
            raise UserError(f"{where}: parameters.family is missing; add e.g. `family: convnext`.")
        family = read_family(parameters.pop("family"), where)
        families = [str(value) for value in family.values()]
        read = read_parameters(parameters, families, where)
        return cls(name, written.description, family, read)

    @property
    def families(self) -> tuple[str, ...]:
        """Return the names of the families."""
        return tuple(str(name) for name in self.family.values())

    @property
    def taps(self) -> int:
        """Return how many of the base's maps the heads are fed from: 1 where all take the last
        stage's.
        """
        tap = next((parameter for parameter in self.parameters if parameter.name == "tap"), None)
        if tap is None:
            return 1
        values = [value for each in tap.alternatives for value in each.domain.values() or ()]
        return 1 + max((int(value) for value in values), default=0)

    def sample(self, trial: BaseTrial) -> HeadConfig:
        """Return the head that the trial suggests; parameters with one value are not shown to the
        trial.
        """
        # The family first, then the blocks: they decide which parameters there are.
        values = {"family": self.family.suggest(trial, "family")}
        for parameter in self.parameters:
            if (domain := parameter.domain(values)) is not None:
                values[parameter.name] = domain.suggest(
                    trial, parameter.trial_name(str(values["family"]))
                )
        return HeadConfig.model_validate(values)

    def enumerate(self) -> Iterator[HeadConfig]:
        """Return every head, each once.

        Raises:
            UserError: when the space has a continuous range.
        """
        if self.size() is None:
            raise UserError(
                f"search space {self.name!r} has continuous ranges (float, log) and cannot be "
                "enumerated; use choices instead."
            )
        return (head for kind in self._kinds() for head in self._enumerate(kind))

    def trial_parameters(self, head: HeadConfig) -> dict[str, Value]:
        """Return what a trial must suggest for `sample` to give this head, for
        `study.enqueue_trial`.
        """
        values = {"family": head.family, **head.parameters()}
        shown: dict[str, Value] = {}
        if not isinstance(self.family, Fixed):
            shown["family"] = head.family
        for parameter, domain in self._varied(values):
            if not isinstance(domain, Fixed):
                shown[parameter.trial_name(head.family)] = values[parameter.name]
        return shown

    def lacks(self, head: HeadConfig) -> str | None:
        """Return the first of a head's parameters whose value no head of this space has together
        with those before it, as `depth=6`; None when the head is in the space.
        """
        values = {"family": head.family, **head.parameters()}
        # What the space leaves out has its default in all of its heads.
        allowed: dict[str, Domain] = {name: Fixed(value) for name, value in reads(values).items()}
        allowed["family"] = self.family
        allowed |= {parameter.name: domain for parameter, domain in self._varied(values)}
        for name, value in values.items():
            if not allowed[name].holds(value):
                return f"{name}={value}"
        return None

    def size(self) -> int | None:
        """Return the number of heads; None when a range is continuous."""
        counts = [self._size(kind) for kind in self._kinds()]
        return None if None in counts else sum(count for count in counts if count is not None)

    def hash(self) -> str:
        """Return 16 hex digits that change with the heads, their sampling or Optuna's parameter
        names, and with nothing else.

        The order of options counts (Optuna's does). The order of keys, the description, the name,
        and whether a default is written out do not.
        """
        # Only what a user sees of a head counts: two files that propose the same heads are equal.
        meaning = {
            " ".join(str(value) for value in kind.values()): self._meaning(kind)
            for kind in self._kinds()
        }
        text = json.dumps([self.family.plain(), meaning], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_plain(self) -> dict[str, Any]:
        """Return the content of its YAML file, in one normal form."""
        return {
            "description": self.description,
            "parameters": {
                "family": _short(self.family),
                **{parameter.name: self._plain(parameter) for parameter in self.parameters},
            },
        }

    def _kinds(self) -> list[Kind]:
        kinds = families_kinds(self.families, self.parameters)
        return [kind for of_family in kinds.values() for kind in of_family]

    def _varied(self, kind: Kind) -> Iterator[tuple[Parameter, Domain]]:
        """Yield the parameters that the space varies in heads of a kind, with their domains."""
        for parameter in self.parameters:
            if (domain := parameter.domain(kind)) is not None:
                yield parameter, domain

    def _free(self, kind: Kind) -> dict[str, Domain]:
        """Return the domains that are left to choose from once the kind is known."""
        return {
            parameter.name: domain
            for parameter, domain in self._varied(kind)
            if parameter.name not in kind
        }

    def _enumerate(self, kind: Kind) -> Iterator[HeadConfig]:
        free = self._free(kind)
        # In the file's order of values, so that the same file gives the same order of heads.
        for values in product(*(domain.values() or () for domain in free.values())):
            yield HeadConfig.model_validate({**kind, **dict(zip(free, values, strict=True))})

    def _size(self, kind: Kind) -> int | None:
        values = [domain.values() for domain in self._free(kind).values()]
        return None if None in values else prod(len(each) for each in values if each is not None)

    def _meaning(self, kind: Kind) -> dict[str, Written]:
        """Return what is varied, and what is fixed at another value than the default: defaults are
        part of a head's format and do not change.
        """
        meaning: dict[str, Written] = {}
        defaults = reads(kind)
        for parameter, domain in self._varied(kind):
            if domain == Fixed(defaults[parameter.name]):
                continue
            meaning[parameter.name] = domain.plain()
            if not isinstance(domain, Fixed):
                # Optuna learns under this name, so that another name is another search.
                meaning[parameter.name]["as"] = parameter.trial_name(str(kind["family"]))
        return meaning

    def _plain(self, parameter: Parameter) -> Written | Value | list[Written]:
        """Return a parameter as its file has it: short where all its readers have one domain."""
        readers = readers_of(parameter.name, families_kinds(self.families, self.parameters))
        [first, *others] = parameter.alternatives
        if not others and list(first.families) == readers:
            return _short(first.domain)
        parts: list[Written] = [
            {**alternative.domain.plain(), "families": list(alternative.families)}
            for alternative in parameter.alternatives
        ]
        return parts if others else parts[0]


def _short(domain: Domain) -> Written | Value:
    return domain.value if isinstance(domain, Fixed) else domain.plain()
