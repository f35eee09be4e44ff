"""Policy: how a search divides its budget and how far each phase goes. The tuned constants of planning, a user's to change."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


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
        """Share of proxies and of what confirms them."""
        return self.proxy + self.confirm

    def __len__(self) -> int:
        return len(type(self).model_fields)


class Policy(BaseModel):
    """The constants that a plan is made with: keys below `policy:` in a configuration file, and in search.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: Shares = Shares()
    group_size: Count = 8
    """Candidates in one joint screening, beside the identity and the noise head."""
    screen_steps: Steps = Steps(fewest=20, wanted=60, most=200)
    """Of a screening. Before about 20 steps its ranking is not stable; at 40 to 80 it agrees with long runs."""
    proxy_steps: Steps = Steps(fewest=20, wanted=150, most=2000)
    fewest_proxies: Count = 2
    most_proxies: Count = 24
    most_candidates: Count = 64
    fewest_confirm_jobs: Count = 4
    """The other two controls, and a second seed of the best candidate and of the control it must beat."""
    most_confirm_jobs: Count = 38
    """The other two controls, and nine more seeds of the best two candidates and of the two controls they are compared with."""
    most_rungs: Count = 3
    """At which a proxy is evaluated."""
    most_rounds: Count = 3
    learnable: Count = 8
    """Proxies from which drawing heads in rounds pays."""
    rounds_share: Share = 0.02
    """Of what is left, which starting workers for further rounds may take."""
    rungs_share: Share = 0.2
    """Of a proxy's time that its evaluations may take."""
    fits_from: Annotated[float, Field(gt=0)] = 0.8
    fits_to: Annotated[float, Field(gt=0)] = 1.05
    """Shares of what is left for them within which planned proxies are left as they are."""
    patience: Annotated[float, Field(ge=1)] = 3.0
    """How many times the seconds that a job should take it may take; then it is cut at a checkpoint."""
    patience_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds that it may take beside them."""
    always_tried: int = Field(2, ge=0)
    """Jobs of a phase that may spend what later phases should have: without them there is nothing to
    go on with."""


DEFAULT = Policy()
