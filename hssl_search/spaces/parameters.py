"""Parameters of heads within a space: each with its domain, or domains for different families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import ValidationError

from hssl_search.configfile import refusal
from hssl_search.errors import UserError, advice
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import families as head_families
from hssl_search.heads.families import reads
from hssl_search.spaces.domains import Choice, Domain, Fixed, Floats, Integers, Value
from hssl_search.spaces.notation import read_domain

PARAMETERS = tuple(name for name in HeadConfig.model_fields if name not in ("format", "family"))
"""The parameters that a space may vary besides the family, in the order in which they are sampled:
`blocks` come first, since they decide what a head reads."""

Kind = Mapping[str, Value]
"""What decides which parameters a head reads: its `family`, and its `blocks` where the space says
which."""


@dataclass(frozen=True)
class Alternative:
    """A domain and the families that it holds for."""

    domain: Domain
    families: tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """A HeadConfig parameter with one domain, or with several for different families."""

    name: str
    alternatives: tuple[Alternative, ...]

    def domain(self, kind: Kind) -> Domain | None:
        """Return the parameter's domain in a head of a kind; None where the head does not read it,
        or the space does not vary it.
        """
        if self.name not in reads(kind):
            return None
        for alternative in self.alternatives:
            if kind["family"] in alternative.families:
                return alternative.domain
        return None

    def trial_name(self, family: str) -> str:
        """Return the Optuna parameter's name: `kernel_size`, or `kernel_size.resnet` where families
        have different domains.

        Optuna forbids two sets of choices under one name in a study.
        """
        if len(self.alternatives) == 1:
            return self.name
        [families] = [each.families for each in self.alternatives if family in each.families]
        return f"{self.name}.{'+'.join(sorted(families))}"


def read_family(written: Any, where: str) -> Fixed | Choice:
    """Read the families of a space.

    Args:
        written: the YAML value of `parameters.family`.
        where: the file, for messages.

    Raises:
        UserError: for an unknown family, a control, or anything but a name or a choice of names.
    """
    key = "parameters.family"
    domain = read_domain(written, where, key)
    if not isinstance(domain, Fixed | Choice):
        raise UserError(f"{where}: {key} is a range; write a name or {{choice: [NAME, NAME]}}.")
    by_name = head_families()
    candidates = [name for name, family in by_name.items() if not family.control]
    for name in domain.values():
        if name in by_name and name not in candidates:
            raise UserError(
                f"{where}: {key} {name!r} is a control, which every search runs anyway; remove it."
            )
        if name not in candidates:
            raise UserError(
                f"{where}: unknown family {name!r} in {key}; {advice(str(name), candidates)}"
            )
    _refuse_repeats(domain.values(), f"{where}: {key}")
    return domain


def refuse_unknown(written: Mapping[str, Any], where: str) -> None:
    """Refuse a key that is no parameter.

    Raises:
        UserError: about the first one.
    """
    valid = ("family", *PARAMETERS)
    for name in written:
        if name not in valid:
            raise UserError(
                f"{where}: unknown key {name!r} in parameters; {advice(str(name), valid)}"
            )


def read_parameters(
    written: Mapping[str, Any], families: Sequence[str], where: str
) -> tuple[Parameter, ...]:
    """Read all parameters but the family.

    Args:
        written: the YAML mapping `parameters`.
        families: those of the space.
        where: the file, for messages.

    Returns:
        the parameters that are written, in HeadConfig's order.

    Raises:
        UserError: for a value that no head may have.
    """
    parameters: list[Parameter] = []
    for name in PARAMETERS:
        if name in written:
            # Those read so far tell what heads there are: `blocks` is the first.
            kinds = families_kinds(families, parameters)
            parameters.append(_read_parameter(name, written[name], kinds, where))
    return tuple(parameters)


def families_kinds(
    families: Sequence[str], parameters: Iterable[Parameter]
) -> dict[str, list[Kind]]:
    """Return the kinds of heads in each family of a space: one, or for hybrids whose blocks it
    gives, one for each sequence of blocks.
    """
    blocks = next((parameter for parameter in parameters if parameter.name == "blocks"), None)
    kinds: dict[str, list[Kind]] = {}
    for family in families:
        domain = blocks.domain({"family": family}) if blocks is not None else None
        sequences = domain.values() if domain is not None else None
        kinds[family] = [{"family": family, "blocks": value} for value in sequences or ()]
        # A family without blocks of its own, or a hybrid with its default ones, is one kind.
        kinds[family] = kinds[family] or [{"family": family}]
    return kinds


def readers_of(name: str, kinds: Mapping[str, Sequence[Kind]]) -> list[str]:
    """Return the families some of whose kinds read a parameter."""
    return [
        family
        for family, of_family in kinds.items()
        if any(name in reads(kind) for kind in of_family)
    ]


def _read_parameter(
    name: str, written: Any, kinds: Mapping[str, Sequence[Kind]], where: str
) -> Parameter:
    key, families, readers = f"parameters.{name}", list(kinds), readers_of(name, kinds)
    if not readers:
        raise UserError(
            f"{where}: no family of this space ({', '.join(families)}) reads {key}; remove it."
        )
    # A list of mappings gives several families a domain each; any other list is a mistake.
    several = isinstance(written, list) and any(isinstance(part, Mapping) for part in written)
    if name == "blocks" and isinstance(written, list) and not several:
        raise UserError(
            f"{where}: {key} is a list; in a space, join the blocks of a hybrid by +: "
            f"{'+'.join(map(str, written))}."
        )
    parts = written if several else [written]
    shares = _shares(parts, readers, f"{where}: {key}")
    domains = [read_domain(part, where, key, beside=("families",)) for part in parts]
    alternatives = []
    for domain, share in zip(domains, shares, strict=True):
        of_share = [kind for family in share for kind in kinds[family]]
        accepted = _accepted(domain, name, of_share, f"{where}: {key}")
        alternatives.append(Alternative(accepted, share))
    return Parameter(name, tuple(alternatives))


def _shares(parts: Sequence[Any], readers: Sequence[str], at: str) -> list[tuple[str, ...]]:
    """Return the families that each domain of one parameter holds for; a domain that names none
    holds for the rest.
    """
    named = [_named_families(part, readers, at) for part in parts]
    taken = [family for share in named for family in share]
    _refuse_repeats(taken, f"{at}, families")
    rest = tuple(family for family in readers if family not in taken)
    # One domain without `families` takes the rest: a second has none.
    if named.count(()) > 1 or (() in named and not rest):
        raise UserError(
            f"{at} has a domain that no family is left for ({', '.join(readers)} read it); give "
            "each its own `families`."
        )
    return [share or rest for share in named]


def _named_families(part: Any, readers: Sequence[str], at: str) -> tuple[str, ...]:
    if not isinstance(part, Mapping) or "families" not in part:
        return ()
    named = part["families"]
    if not isinstance(named, list) or not named:
        raise UserError(
            f"{at}: families is {named!r}; write a list of names, e.g. [{', '.join(readers)}]."
        )
    for name in named:
        if name not in readers:
            raise UserError(
                f"{at}: {name!r} is no family of this space that reads the parameter; "
                f"{advice(str(name), readers)}"
            )
    return tuple(sorted(named, key=readers.index))


def _accepted(domain: Domain, name: str, kinds: Sequence[Kind], at: str) -> Domain:
    """Return the domain with its values as heads have them, once every value was tried with every
    kind that reads it.
    """
    # A range's ends come first: within HeadConfig's bounds the rest is few.
    ends = (domain.low, domain.high) if isinstance(domain, Integers | Floats) else ()
    for kind in (kind for kind in kinds if name in reads(kind)):
        values = [_tried(value, name, kind, at) for value in chain(ends, domain.values() or ())]
    if isinstance(domain, Integers | Floats):
        return domain
    _refuse_repeats(values, at)
    return Fixed(values[0]) if isinstance(domain, Fixed) else Choice(tuple(values))


def _tried(value: Value, name: str, kind: Kind, at: str) -> Value:
    try:
        # Strict: YAML tells 3 from 3.0 and "3", and a space should not mean what it does not say.
        head = HeadConfig.model_validate({**kind, name: value}, strict=True)
        accepted: Value = head.parameters()[name]
        return accepted
    except ValidationError as error:
        raise UserError(f"{at} {refusal(error.errors()[0], value)}") from None


def _refuse_repeats(values: Sequence[Value], at: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{at} has {value!r} twice; remove one.")
