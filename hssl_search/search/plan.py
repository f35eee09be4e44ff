"""The plan of a search: what will be run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

from hssl_search.search.phases.screen import shares

PROXY_CONTROLS = 2
"""No head and identity head."""


@dataclass(frozen=True)
class Plan:
    """What will be run. Plain numbers, stored with the study, and the same after a resume."""

    candidates: int
    group_size: int
    screen_steps: int
    proxies: int
    """Candidates promoted to proxies."""
    proxy_steps: int
    rungs: list[int]
    confirm_jobs: int
    expected_s: Mapping[str, float]
    """Device-seconds that each phase is expected to take."""
    rounds: int = 1
    """Of screening and proxies: those after the first draw heads from what proxies have found."""
    without_full: Literal["", "off", "short"] = ""
    """Why no full training is planned: it was not asked for, or would be shorter than a proxy. Its share goes to confirming."""
    batches: list[int] = field(default_factory=list)
    """Candidates planned at a time, where the budget was extended; together they are `candidates`."""

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)

    def runs_as(self, other: Plan) -> bool:
        """Whether both run the same up to the full training, whatever they expect that to take."""
        return self == replace(other, expected_s=self.expected_s, without_full=self.without_full)

    @property
    def groups(self) -> int:
        return sum(math.ceil(batch / self.group_size) for batch in self.dealt)

    @property
    def first_groups(self) -> int:
        """Groups of what was planned first; how many heads a group screens again does not change with the budget."""
        return math.ceil(self.dealt[0] / self.group_size)

    @property
    def jobs(self) -> dict[str, int]:
        """By phase; at the most, where a phase can end early."""
        return {"measure": 1, "screen": self.groups, "proxy": self.proxies + PROXY_CONTROLS, "confirm": self.confirm_jobs,
                "full": 0 if self.without_full else 1}

    @property
    def dealt(self) -> list[int]:
        """Candidates planned at a time."""
        return self.batches or [self.candidates]

    @property
    def first_rounds(self) -> int:
        """Rounds of what was planned first."""
        return len(self.ends) - len(self.dealt) + 1

    @property
    def ends(self) -> list[int]:
        """How many candidates there are at the end of each round: of whole groups those of what was planned first, then one for each
        extension. What is drawn in a round is dealt together."""
        first, *more = self.dealt
        *within, _ = shares(self.first_groups, self.rounds)
        return [*(groups * self.group_size for groups in within), *accumulate([first, *more])]

    def sentence(self) -> str:
        heads, groups = _count(self.candidates, "head"), _count(self.groups, "group")
        in_rounds = f" and {self.rounds} rounds" if self.rounds > 1 else ""
        return f"Plan: screen {heads} in {groups}{in_rounds} for {self.screen_steps} steps, then {self.proxies_sentence()}"

    def proxies_sentence(self) -> str:
        return (f"{_count(self.proxies, 'proxy', 'proxies')} and {PROXY_CONTROLS} controls of {self.proxy_steps} steps, then about "
                f"{self.confirm_jobs} confirming runs{_FULL[self.without_full]}")


_FULL = {
    "": ", then the full training.",
    "off": ".",
    "short": "; a full training would be shorter than a proxy, so its share of the budget goes to these runs.",
}
"""How the plan ends, by `Plan.without_full`."""


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
