"""The contenders of a search: what the phases know of each trial of the study."""

from __future__ import annotations

from dataclasses import dataclass, field

from hssl_search.engine.records.state import TrialState
from hssl_search.heads.config import HeadConfig

SAME_TIME = "none_same_time"
"""The control without head for the device-time of the proxy that led when confirming began."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A head candidate or a control.

    It is equal to itself alone, so that what is computed from it can be cached.
    """

    trial: int
    """The number of its trial."""
    state: TrialState = field(default_factory=TrialState)
    """What the study holds of it."""

    @property
    def name(self) -> str:
        """Return what people call it."""
        return self.state.name

    @property
    def head(self) -> HeadConfig | None:
        """Return its head; None for a control without a head."""
        return self.state.head

    @property
    def heads(self) -> list[HeadConfig]:
        """Return its head as the heads of a training."""
        return [] if self.head is None else [self.head]

    @property
    def family(self) -> str:
        """Return its head's family; `none` without a head."""
        return self.state.family

    @property
    def control(self) -> str | None:
        """Return which control it is; None for a candidate."""
        return self.state.control
