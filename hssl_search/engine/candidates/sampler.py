"""The sampler of head candidates: Optuna's, in a study of its own that holds what is known of candidates and nothing of controls."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from hssl_search.engine.candidates.prior_runs import EarlierSearch, on_scale
from hssl_search.engine.execution.jobs import Plain
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

LEARNING: tuple[SamplerName, ...] = ("tpe",)
ENUMERATED = 20_000
"""Finite spaces up to this size are listed."""
STARTUP = 5
"""Results that a sampler takes at least before it learns from them."""
TRUSTING = 2
"""One head in so many is drawn with what earlier searches have taught, the others without. In 60 simulated searches, the
best of the first 24 heads that TPE draws is worth 0.68 standard deviations of families without an earlier search, 1.03 after one of 20
heads that tells the truth, and 0.46 after one that says the opposite; were all heads drawn with it, 1.02 and -0.20
(`benchmarks/warm_start.py`)."""
TRIES = 5
"""Draws of a sampler that learns before another kind of draw takes over: what it proposes is known already."""
RANDOM_TRIES = 300
"""Random draws before a space that cannot be listed is taken for used up; 1 in 100 of it left is then missed in 5 of 100 cases."""


class CandidateSampler:
    """Proposes heads that were not proposed before.

    A finite space is drawn from without putting back until there are results to learn from. Each proposal depends on the seed, the
    number of candidates and what is known of them, so that a resumed search goes on with the same heads.
    """

    def __init__(self, name: SamplerName = "tpe", seed: int = 0) -> None:
        self.name, self.seed = name, seed

    def proposals(
        self,
        space: Space,
        known: Sequence[FrozenTrial],
        unseen: Iterator[HeadConfig],
        earlier: Sequence[EarlierSearch] = (),
        control: FrozenTrial | None = None,
    ) -> Iterator[HeadConfig]:
        """Heads to screen next, without end as long as the space has others.

        Args:
            known: the candidates so far.
            unseen: the other heads of the space in random order; nothing where they cannot be listed.
            earlier: searches to learn from too, whose heads are in the space and may be proposed again.
            control: that of this search which their gains are above, where it has a trial.
        """
        heads = {HeadConfig(**trial.user_attrs["head"]) for trial in known}
        own = [copied for trial in known if (copied := self._copied(trial)) is not None]
        lent = list(self._lent(space, earlier, own, control))
        while True:
            seed = seed_after(self.seed, len(heads))
            learned = own if len(heads) % TRUSTING else [*lent, *own]
            results = sum(trial.state is TrialState.COMPLETE for trial in learned)
            learns = results >= STARTUP and self.name in LEARNING
            head = self._new(_tpe(seed), space, heads, learned, TRIES) if learns else None
            head = head or next((other for other in unseen if other not in heads), None)
            head = head or self._new(
                optuna.samplers.RandomSampler(seed), space, heads, [], RANDOM_TRIES
            )
            if head is None:
                return
            heads.add(head)
            yield head
            if learns or lent:
                own.append(_shown(space, head.model_dump(), state=TrialState.RUNNING))

    def _new(
        self,
        sampler: optuna.samplers.BaseSampler,
        space: Space,
        seen: Collection[HeadConfig],
        learned: Sequence[FrozenTrial],
        tries: int,
    ) -> HeadConfig | None:
        """A head that was not seen, drawn in a study of its own: samplers keep more in a study than its trials.

        None when so many tries gave heads that were."""
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(learned)
        for _ in range(tries):
            trial = study.ask()
            if (head := space.sample(trial)) not in seen:
                return head
            study.tell(trial, state=TrialState.FAIL)  # as if it had not been drawn
        return None

    def _copied(self, trial: FrozenTrial) -> FrozenTrial | None:
        """What is to be learned from a candidate; None where that is nothing: a healthy head without a proxy is neither good nor bad."""
        attributes = trial.user_attrs
        copied = partial(
            optuna.trial.create_trial, params=trial.params, distributions=trial.distributions
        )
        if trial.state is TrialState.COMPLETE:
            return copied(value=trial.value)
        if trial.state is TrialState.FAIL:
            return None
        if "gate" not in attributes and not trial.state.is_finished():
            return copied(state=TrialState.RUNNING)
        if trial.intermediate_values or attributes.get("gate", "healthy") != "healthy":
            return copied(state=TrialState.PRUNED, intermediate_values=trial.intermediate_values)
        return None

    def _lent(
        self,
        space: Space,
        earlier: Sequence[EarlierSearch],
        own: Sequence[FrozenTrial],
        control: FrozenTrial | None,
    ) -> Iterator[FrozenTrial]:
        """What is to be learned from the heads of earlier searches, on the scale of this one's results; they come first, so that TPE,
        which trusts old trials less, trusts them less. Nothing where there are results and no control to compare them by."""
        reached = [trial.values[0] for trial in own if trial.state is TrialState.COMPLETE]
        compared = control is not None and control.state is TrialState.COMPLETE
        if reached and not compared:
            return
        level = control.value or 0.0 if control and compared else 0.0
        for search, gains in zip(
            earlier, on_scale(earlier, [value - level for value in reached]), strict=True
        ):
            for head, gain in zip(search.trained, gains, strict=True):
                yield _shown(space, head.head, value=level + gain)
            yield from (
                _shown(space, head.head, state=TrialState.PRUNED)
                for head in search.heads
                if head.gain is None
            )


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP, seed=seed
        )


def _shown(space: Space, head: Plain, **known: Any) -> FrozenTrial:
    """A trial with this head and what is known of it."""
    shown = optuna.trial.FixedTrial(space.trial_parameters(HeadConfig(**head)))
    space.sample(shown)
    return optuna.trial.create_trial(
        params=shown.params, distributions=shown.distributions, **known
    )


def seed_after(seed: int, trials: int) -> int:
    """A seed for a sampler that goes on after `trials` trials: with the first seed again it would draw the first heads again."""
    return seed if trials == 0 else int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
