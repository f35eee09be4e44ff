"""What the phases after measuring work with."""

from __future__ import annotations

from dataclasses import dataclass

from hssl_search.engine.candidates.trials import Trials
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.phases.runner import Backend
from hssl_search.engine.phases.scores import Scoreboard
from hssl_search.engine.planning.cost_model import CostModel


@dataclass(frozen=True, kw_only=True)
class Context(Backend):
    """A backend, and what is known of the search once it was measured what training costs."""

    trials: Trials
    jobs: JobMaker
    cost_model: CostModel
    board: Scoreboard
    seed: int
    """Of the search; confirming takes those after it too."""
