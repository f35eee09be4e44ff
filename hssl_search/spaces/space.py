"""A search space: which heads may be tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hssl_search.bundled import find
from hssl_search.configfile import read_yaml, validate
from hssl_search.errors import UserError
from hssl_search.heads import registry
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.domains import Choice, Domain, Fixed, Value
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
    """A space's file."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A declared set of heads, finite or not. Every head that it proposes is valid: its file was
    checked when it was read.

    A parameter that the file leaves out has its family's default; one that a family does not read
    is not sampled for it.
    """

    name: str
    description: str
    family: Fixed | Choice
    parameters: tuple[Parameter, ...]

    @classmethod
    def read(cls, name_or_path: str) -> Space:
        """The space of that name (`tiny`) or file (`my/space.yaml`). UserError for a missing file
        and for any mistake in it.
        """
        path = find("search_spaces", name_or_path)
        return cls._from(read_yaml(path), path.stem, str(path))

    @classmethod
    def from_plain(cls, values: dict[str, Any], name: str) -> Space:
        """The inverse of `as_plain`. UserError as in `read`."""
        return cls._from(values, name, f"search space {name!r}")

    @classmethod
    def _from(cls, values: dict[str, Any], name: str, where: str) -> Space:
        written = validate(_Written, values, where)
        parameters = dict(written.parameters)
        refuse_unknown(parameters, where)
        if "family" not in parameters:
            raise UserError(f"{where}: parameters.family is missing; add e.g. `family: convnext`.")
        family = read_family(parameters.pop("family"), where)
        return cls(
            name,
            written.description,
            family,
            read_parameters(parameters, [str(each) for each in family.values()], where),
        )

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.family.values())

    @property
    def taps(self) -> int:
        """How many of the base's maps its heads are fed from: 1 where all take the last stage's."""
        domains = [
            each.domain
            for parameter in self.parameters
            if parameter.name == "tap"
            for each in parameter.alternatives
        ]
        return 1 + max(
            (int(value) for domain in domains for value in domain.values() or ()), default=0
        )

    def sample(self, trial: BaseTrial) -> HeadConfig:
        """The head that the trial suggests; parameters with one value are not shown to the
        trial."""
        values = {"family": self.family.suggest(trial, "family")}
        for parameter in self.parameters:
            if (domain := parameter.domain(values)) is not None:
                values[parameter.name] = domain.suggest(
                    trial, parameter.trial_name(str(values["family"]))
                )
        return HeadConfig.model_validate(values)

    def enumerate(self) -> Iterator[dict[str, Any]]:
        """The values of every head, each once: `HeadConfig(**values)`. UserError when the space has
        a continuous range.
        """
        if self.size() is None:
            raise UserError(
                f"search space {self.name!r} has continuous ranges (float, log) and cannot be "
                "enumerated; use choices instead."
            )
        return (values for kind in self._kinds() for values in self._enumerate(kind))

    def trial_parameters(self, head: HeadConfig) -> dict[str, Any]:
        """What a trial suggests when `sample` is to return this head, for `study.enqueue_trial`."""
        given = {"family": head.family, **head.parameters()}
        shown: list[tuple[str, Domain, Value]] = [("family", self.family, head.family)]
        shown += [
            (parameter.trial_name(head.family), domain, given[parameter.name])
            for parameter, domain in self._varied(given)
        ]
        return {name: value for name, domain, value in shown if not isinstance(domain, Fixed)}

    def lacks(self, head: HeadConfig) -> str | None:
        """The first of a head's parameters whose value no head of this space has with those before
        it, as `depth=6`; None when it is in the space.
        """
        given = {"family": head.family, **head.parameters()}
        allowed: dict[str, Domain] = {
            name: Fixed(value) for name, value in registry.reads(given).items()
        }
        allowed |= {
            "family": self.family,
            **{parameter.name: domain for parameter, domain in self._varied(given)},
        }
        return next(
            (f"{name}={value}" for name, value in given.items() if not allowed[name].holds(value)),
            None,
        )

    def size(self) -> int | None:
        """How many heads; None when a range is continuous."""
        counts = [self._size(kind) for kind in self._kinds()]
        return None if None in counts else sum(count for count in counts if count is not None)

    def hash(self) -> str:
        """16 hex digits that change with the heads, their sampling or Optuna's parameter names, and
        with nothing else.

        The order of options counts (Optuna's does); that of keys, the description, the name, and
        whether a default is written out do not.
        """
        meaning = {
            " ".join(str(value) for value in kind.values()): self._meaning(kind)
            for kind in self._kinds()
        }
        text = json.dumps([self.family.plain(), meaning], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_plain(self) -> dict[str, Any]:
        """What its YAML file holds, in one normal form."""
        return {
            "description": self.description,
            "parameters": {
                "family": _short(self.family),
                **{each.name: self._plain(each) for each in self.parameters},
            },
        }

    def _kinds(self) -> list[Kind]:
        return [
            kind for its in families_kinds(self.families, self.parameters).values() for kind in its
        ]

    def _varied(self, kind: Kind) -> Iterator[tuple[Parameter, Domain]]:
        for parameter in self.parameters:
            if (domain := parameter.domain(kind)) is not None:
                yield parameter, domain

    def _free(self, kind: Kind) -> dict[str, Domain]:
        """What is left to choose once the kind is known."""
        return {
            parameter.name: domain
            for parameter, domain in self._varied(kind)
            if parameter.name not in kind
        }

    def _enumerate(self, kind: Kind) -> Iterator[dict[str, Any]]:
        free = self._free(kind)
        for values in product(*(domain.values() or () for domain in free.values())):
            yield {**kind, **dict(zip(free, values, strict=True))}

    def _size(self, kind: Kind) -> int | None:
        values = [domain.values() for domain in self._free(kind).values()]
        return None if None in values else prod(len(each) for each in values if each is not None)

    def _meaning(self, kind: Kind) -> dict[str, Any]:
        """What is varied, and what is fixed at another value than the default: defaults are part of
        a head's format and do not change.
        """
        meaning: dict[str, Any] = {}
        defaults = registry.reads(kind)
        for parameter, domain in self._varied(kind):
            if domain != Fixed(defaults[parameter.name]):
                shown = (
                    {}
                    if isinstance(domain, Fixed)
                    else {"as": parameter.trial_name(str(kind["family"]))}
                )
                meaning[parameter.name] = {**domain.plain(), **shown}
        return meaning

    def _plain(self, parameter: Parameter) -> Any:
        readers = readers_of(parameter.name, families_kinds(self.families, self.parameters))
        [first, *others] = parameter.alternatives
        if not others and list(first.families) == readers:
            return _short(first.domain)
        parts: list[Mapping[str, Any]] = [
            {**each.domain.plain(), "families": list(each.families)}
            for each in parameter.alternatives
        ]
        return parts if others else parts[0]


def _short(domain: Domain) -> dict[str, Any] | Value:
    return domain.value if isinstance(domain, Fixed) else domain.plain()
