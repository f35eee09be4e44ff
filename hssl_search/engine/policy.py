"""Policy: how a search divides its budget, how far each phase goes, and who continues. A user may
change all of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Turn = Literal["no head", "challenger", "identity"]


class Steps(BaseModel):
    """How many steps a training of a phase has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fewest: Count
    wanted: Count
    most: Count

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.fewest <= self.wanted <= self.most:
            raise ValueError("must have fewest <= wanted <= most")
        return self


class Shares(BaseModel):
    """Shares of what is left after measuring; what they leave of one is for measuring itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    screen: Share = 0.20
    proxy: Share = 0.45
    confirm: Share = 0.14
    full: Share = 0.20

    @model_validator(mode="after")
    def _less_than_all(self) -> Self:
        if sum(share for _, share in self) > 1:
            raise ValueError("must add up to at most 1")
        return self

    @property
    def together(self) -> float:
        """Return the share of proxies and of what confirms them."""
        return self.proxy + self.confirm

    def __len__(self) -> int:
        return len(type(self).model_fields)


class Policy(BaseModel):
    """The tuned constants of a search.

    They are the keys below `policy:` in a configuration file, and in search.yaml. A run keeps the
    policy that it began with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # How the budget is divided
    shares: Shares = Shares()
    measure_share: Share = 0.05
    """Share of the budget that measuring may take."""
    measure_most_s: Seconds = 120.0
    """Seconds that measuring may take, of however large a budget, for what multiply-adds predict
    too."""
    rounds_share: Share = 0.02
    """Share of what is left that starting workers for further rounds may take."""
    rungs_share: Share = 0.2
    """Share of a proxy's time that its evaluations may take."""
    fits_from: Factor = 0.8
    fits_to: Factor = 1.05
    """Shares of what is left for them within which planned proxies are left as they are."""
    enough: Factor = 1.25
    """A budget is called large enough from this many times the smallest search's cost on."""

    # How many jobs, and how long they are
    group_size: Count = 8
    """Candidates in one joint screening, beside the identity and the noise head."""
    screen_steps: Steps = Steps(fewest=20, wanted=60, most=200)
    """Steps of a screening. Before about 20 its ranking is not stable; at 40 to 80 it agrees with
    long runs."""
    proxy_steps: Steps = Steps(fewest=20, wanted=150, most=2000)
    """Steps of a proxy."""
    fewest_proxies: Count = 2
    most_proxies: Count = 24
    most_candidates: Count = 64
    fewest_confirm_jobs: Count = 4
    """The other two controls, and a second seed of the best candidate and of the control it must
    beat."""
    most_confirm_jobs: Count = 38
    """The other two controls, and nine more seeds of the best two candidates and of the two
    controls they are compared with."""
    most_rungs: Count = 3
    """Evaluations of a proxy."""
    most_rounds: Count = 3
    learnable: Count = 8
    """Proxies from which drawing heads in rounds pays."""

    # Who is tried, who continues, who is stopped
    typical_heads: Count = 16
    """Heads drawn from the space whose mean cost a plan goes by before there are candidates."""
    sampler_startup: Count = 5
    """Results from which a sampler learns."""
    promotion_startup: Count = 5
    """Ended proxies from which the surrogate promotes; before, the paper's rule does."""
    paper_rule_every: Count = 3
    """One promotion in so many stays with the paper's rule. In 40 simulated searches with 12
    proxies of 40 heads each, the chosen head is then 0.07 standard deviations short of the best
    instead of 0.05 where discrepancy is correlated with accuracy by 0.7, and 0.25 instead of 1.55
    where by -0.7 (tests/engine/candidates/test_promotion.py)."""
    proxies_overrun: Factor = 1.2
    """No head is promoted any more when proxies would cost this many times what was planned, so
    that what confirms them keeps its share."""
    pruner_startup: Count = 4
    """Others that must have reached a rung before the median rule stops anyone there."""
    halving: Annotated[int, Field(ge=2)] = 2
    """Of those at a rung, successive halving lets one in so many continue: each rung is twice as
    long as the one before it."""

    # Which seeds confirm
    contention: Share = 0.05
    """Probability of being better than the leader below which a trial gets no more seeds."""
    turns: tuple[Turn, ...] = Field(("no head", "no head", "challenger", "identity"), min_length=1)
    """What the leader is compared with, in turns."""
    most_tries: Count = 4
    """Runs of leader and of no head with which paired seeds are tried for: their trainings may
    fail."""

    # How long a job may take
    patience: Factor = 3.0
    patience_s: Seconds = 60.0
    """A job may take `patience` times what was expected of it, and `patience_s` more; the only
    group of a screening half of what is left."""
    always_tried: Count = 2
    """Jobs of a phase that may spend what later phases should have: without them there is nothing
    to continue with."""
    hung_s: Seconds = 900.0
    """A training is taken for hung when it makes no checkpoint, which it does about every minute,
    for so long and twice its reserve."""
    full_share: Share = 0.9
    """Share of what is left that the full training is planned for: it must end within it though
    steps vary."""
    full_evaluations_share: Share = 0.1
    """Share of the full training's time that its evaluations may take."""


DEFAULT = Policy()
