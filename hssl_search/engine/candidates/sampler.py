"""The sampler of head candidates: Optuna's, in a study of its own that holds what is known of
candidates and nothing of controls."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Status

from hssl_search.engine.config import SamplerName
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.state import TrialState
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

LEARNING: tuple[SamplerName, ...] = ("tpe",)
ENUMERATED = 20_000
"""Finite spaces up to this size are listed."""
TRIES = 5
"""Draws of a sampler that learns before another kind of draw takes over: what it proposes is known
already."""
RANDOM_TRIES = 300
"""Random draws before a space that cannot be listed is taken for used up; 1 in 100 of it left is
then missed in 5 of 100 cases."""


class CandidateSampler:
    """Proposes heads that were not proposed before.

    A finite space is drawn from without putting back until there are results to learn from. Each
    proposal depends on the seed, the number of candidates and what is known of them, so that a
    resumed search continues with the same heads.
    """

    def __init__(self, name: SamplerName = "tpe", seed: int = 0, policy: Policy = DEFAULT) -> None:
        self.name, self.seed, self.startup = name, seed, policy.sampler_startup

    def proposals(
        self, space: Space, known: Sequence[FrozenTrial], unseen: Iterator[HeadConfig]
    ) -> Iterator[HeadConfig]:
        """Yield heads to screen next, without end as long as the space has others.

        Args:
            known: the candidates so far.
            unseen: the other heads of the space in random order; nothing where they cannot be
                listed.
        """
        heads = {state.head for trial in known if (state := TrialState.of(trial)).head}
        learned = [copied for trial in known if (copied := _learned(trial)) is not None]
        results = sum(trial.state is Status.COMPLETE for trial in learned)
        learns = results >= self.startup and self.name in LEARNING
        while True:
            # By the number of heads, so that a resumed search draws what it would have drawn.
            seed = seed_after(self.seed, len(heads))
            head = (
                _drawn(_tpe(seed, self.startup), space, heads, learned, TRIES) if learns else None
            )
            head = head or next((other for other in unseen if other not in heads), None)
            head = head or _drawn(
                optuna.samplers.RandomSampler(seed), space, heads, [], RANDOM_TRIES
            )
            if head is None:
                return
            heads.add(head)
            yield head
            if learns:
                # TPE then draws the next head away from this one (its constant liar).
                fixed = optuna.trial.FixedTrial(space.trial_parameters(head))
                space.sample(fixed)
                running = optuna.trial.create_trial(
                    params=fixed.params,
                    distributions=fixed.distributions,
                    state=Status.RUNNING,
                )
                learned.append(running)


def _learned(trial: FrozenTrial) -> FrozenTrial | None:
    """Return what is to be learned from a candidate; None where that is nothing: a healthy head
    without a proxy is neither good nor bad."""
    state = TrialState.of(trial)
    copied = partial(
        optuna.trial.create_trial, params=trial.params, distributions=trial.distributions
    )
    if trial.state is Status.COMPLETE:
        return copied(value=trial.value)
    if trial.state is Status.FAIL:
        return None
    if state.gate is None and not trial.state.is_finished():
        return copied(state=Status.RUNNING)
    if trial.intermediate_values or state.ailment():
        return copied(state=Status.PRUNED, intermediate_values=trial.intermediate_values)
    return None


def _drawn(
    sampler: optuna.samplers.BaseSampler,
    space: Space,
    seen: Collection[HeadConfig],
    learned: Sequence[FrozenTrial],
    tries: int,
) -> HeadConfig | None:
    """Return a head that was not seen; None when so many tries gave heads that were.

    It is drawn in a study of its own: samplers keep more in a study than its trials.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(learned)
    for _ in range(tries):
        trial = study.ask()
        if (head := space.sample(trial)) not in seen:
            return head
        study.tell(trial, state=Status.FAIL)  # as if it had not been drawn
    return None


def _tpe(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's multivariate TPE (Bergstra et al., NeurIPS 2011; arXiv 2304.11127)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `group`
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=startup, seed=seed
        )


def seed_after(seed: int, trials: int) -> int:
    """Return a seed for a sampler that continues after so many trials: with the first seed again it
    would draw the first heads again."""
    return seed if trials == 0 else int(np.random.SeedSequence([seed, trials]).generate_state(1)[0])
