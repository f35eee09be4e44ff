"""screen: candidates in groups on one shared base; discrepancy and health of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hssl_search.search.candidates import Contender
from hssl_search.search.correlation import LEAST
from hssl_search.search.execution.jobs import Plain

LEAST_AGAIN = 2
REFERENCE_HEADS: list[Plain] = [{"family": "identity"}, {"family": "noise"}]
"""In every group: what no discrepancy is, and what no learning is."""


@dataclass(frozen=True)
class Group:
    """What is screened together, beside the reference heads."""

    number: int
    own: list[Contender]
    again: list[Contender]
    """Heads of the group before, screened a second time in other company."""

    @property
    def members(self) -> list[Contender]:
        return [*self.own, *self.again]


def groups(candidates: Sequence[Contender], size: int) -> Iterator[tuple[int, list[Contender]]]:
    """(number, members): dealt like cards, so that families sampled one after another are spread."""
    count = -(-len(candidates) // size)
    yield from ((number, list(candidates[number::count])) for number in range(count))


def shares(count: int, rounds: int) -> list[int]:
    """How many of that many are there at the end of each round."""
    return [-(-count * number // rounds) for number in range(1, rounds + 1)]


def repeats(groups: int) -> int:
    """How many heads each group after the first screens a second time: as many as make a correlation with an interval over all groups.

    Those drawn first are taken, which are a random few.
    """
    return max(LEAST_AGAIN, -(-LEAST // (groups - 1))) if groups > 1 else 0


def heads_of(group: Sequence[Contender]) -> list[Plain]:
    """What trains together: the candidates of the group, then the reference heads."""
    return [*(one.heads[0] for one in group), *REFERENCE_HEADS]


def read(group: Sequence[Contender], metrics: Plain) -> tuple[dict[int, Plain], dict[str, Plain]]:
    """(trial -> attributes, reference family -> attributes) from the metrics of a group's last report.

    `cka_excess` and `overlap_excess` are discrepancies above the identity head's in the same group; `discrepancy` is `overlap_excess`.
    """
    measured = metrics["heads"]
    identity, noise = measured[len(group)], measured[len(group) + 1]
    attributes = [_attributes(one, identity, noise) for one in measured]
    references = {"identity": attributes[len(group)], "noise": attributes[len(group) + 1]}
    return {one.trial: found for one, found in zip(group, attributes, strict=False)}, references


def briefly(attributes: Plain, number: int) -> Plain:
    """What is kept of a head's second screening, in the group of that number."""
    return {"group": number, **{name: attributes[name] for name in ("overlap_excess", "cka_excess", "gate")}}


def _attributes(one: Plain, identity: Plain, noise: Plain) -> Plain:
    excess = {f"{name}_excess": one[name] - identity[name] for name in ("cka", "overlap")}
    return {**one, **excess, "discrepancy": excess["overlap_excess"], "chance_loss": noise["head_loss"]}
