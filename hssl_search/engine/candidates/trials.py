"""The candidates and controls of a search, each one trial of the study."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial

from hssl_search.engine.candidates.sampler import ENUMERATED, CandidateSampler
from hssl_search.engine.execution.jobs import CountedHead
from hssl_search.engine.policy import DEFAULT, Policy
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import SAME_TIME, Contender, TrialState
from hssl_search.engine.records.study import Finished, StudyRecord
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

NAMES = {
    "none": "no head",
    "identity": "identity head",
    "noise": "noise head",
    "same_architecture": "same-architecture head",
    SAME_TIME: "no head, same device-time",
}
Shape = tuple[int, int, int]


class Trials:
    """The contenders of a search, each one trial of the study.

    It keeps its own view of the trials, which nobody else writes, so that no decision reads all of
    them.

    Args:
        device_seconds: what a trial has cost so far, by its number.
        map_shapes: C x h x w of the maps that heads may be fed, by `tap`: the last stage's first.
        cost: (parameters, multiply-adds) of a head on such a map; None: counted.
    """

    def __init__(
        self,
        study: StudyRecord,
        run: Run,
        space: Space,
        map_shapes: Sequence[Shape],
        seed: int,
        device_seconds: Callable[[int], float],
        cost: Callable[[HeadConfig, Shape], tuple[int, int]] | None = None,
        sampler: CandidateSampler | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        self.policy = policy
        self.sampler = sampler or CandidateSampler(seed=seed)
        self.study, self.run, self.space, self.map_shapes, self.seed = (
            study,
            run,
            space,
            map_shapes,
            seed,
        )
        self.device_seconds, self.cost = device_seconds, cost or _counted
        trials = study.trials()
        states = {trial.number: TrialState.of(trial) for trial in trials}
        self._known = {
            number: Contender(number, state) for number, state in states.items() if state.role
        }
        # The first of a kind is the control: earlier versions opened several for one device-time.
        self._controls = {
            state.control: number for number, state in reversed(states.items()) if state.control
        }
        self._decided = {trial.number for trial in trials if trial.state.is_finished()}

    def candidates(self, count: int) -> list[Contender]:
        """Return that many candidates: those that the study holds, then new ones."""
        if (missing := count - len(self._candidates())) > 0:
            proposals = self.sampler.proposals(
                self.space, self._candidate_trials(), iter(self._shuffled() or [])
            )
            for head in islice(proposals, missing):
                shown = FixedTrial(self.space.trial_parameters(head))
                # Sampling it again fills in the distributions, which Optuna wants with parameters.
                self.space.sample(shown)
                state = self._described(head, TrialState(role="candidate", name=head.label()))
                self._add(state, shown.params, shown.distributions)
        return self._candidates()[:count]

    def _candidates(self) -> list[Contender]:
        """Return the first trial of each head."""
        return [
            contender
            for contender in self.contenders()
            if contender.control is None and contender.state.retry_of is None
        ]

    def _candidate_trials(self) -> list[FrozenTrial]:
        # From the study: what its trials scored is not in the view.
        numbers = {each.trial for each in self._known.values() if each.control is None}
        return [trial for trial in self.study.trials() if trial.number in numbers]

    def undecided(self, candidate: Contender) -> Contender:
        """Return the candidate, or a new trial of its head where its own is decided (`retry_of`).

        The new trial knows what screening found of the head.
        """
        if candidate.trial not in self._decided:
            return candidate
        # Its own trial is finished, and Optuna opens none again.
        earlier = self.study.frozen(candidate.trial)
        state = candidate.state.as_screened().with_set(TrialState(retry_of=candidate.trial))
        return self._add(state, earlier.params, earlier.distributions)

    def control(
        self, kind: str, head: HeadConfig | None = None, own_steps: int | None = None
    ) -> Contender:
        """Return the control of that kind; its trial is opened when it has none.

        Args:
            own_steps: how long it trains, where that is not as long as a proxy.
        """
        if kind in self._controls:
            return self.contender(self._controls[kind])
        state = self._described(head, TrialState(role="control", control=kind, name=NAMES[kind]))
        if own_steps is not None:
            state = state.with_set(TrialState(same_time_steps=own_steps))
        contender = self._add(state)
        self._controls[kind] = contender.trial
        return contender

    def _described(self, head: HeadConfig | None, state: TrialState) -> TrialState:
        """Return the state with what is known of a head before it is trained."""
        parameters, macs = self._cost(head) if head else (0, 0)
        return state.with_set(
            TrialState(
                family=head.family if head else "none",
                head=head,
                parameters=parameters,
                macs=macs,
                seed=self.seed,
            )
        )

    def _add(
        self,
        state: TrialState,
        parameters: Mapping[str, Any] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
    ) -> Contender:
        """Open a trial, all in one write."""
        number = self.study.add_trial(state, parameters, distributions)
        if state.head:
            self.run.write_head(number, state.head.model_dump(exclude_none=True))
        self._known[number] = Contender(number, state)
        return self._known[number]

    def contenders(self) -> list[Contender]:
        """Return all contenders in the order of their trials."""
        return [self._known[number] for number in sorted(self._known)]

    def contender(self, number: int) -> Contender:
        """Return the contender of that trial."""
        return self._known[number]

    def note(self, number: int, state: TrialState) -> None:
        """Write the fields that `state` sets and the trial has not, unless it is decided."""
        if number in self._decided:
            return
        known = self._known[number].state
        # A resumed search notes again what it knew; each key is a write to the database.
        new = {
            key
            for key in state.model_fields_set
            if key not in known.model_fields_set or getattr(known, key) != getattr(state, key)
        }
        written = self.study.write_trial(number, state.only(new))
        self._known[number] = Contender(number, known.with_set(written))

    def decide(
        self, number: int, state: Finished, value: float | None = None, cause: str | None = None
    ) -> None:
        """Decide a trial, with the device-time that it has cost, unless it is decided."""
        # First: Optuna takes no attributes of a trial that is finished.
        self.note(number, TrialState(device_s=round(self.device_seconds(number), 3)))
        if number not in self._decided:
            self.study.finish(number, state, value, cause)
            self._decided.add(number)

    def close(self, cause: str) -> None:
        """Prune every trial that is not decided."""
        for number in sorted(set(self._known) - self._decided):
            self.decide(number, "PRUNED", cause=cause)

    def typical(self) -> list[tuple[str, int]]:
        """Return (family, multiply-adds) of a few heads of the space, without opening trials."""
        return [(head.family, macs) for head, macs in self._typical]

    def group(self, size: int) -> list[CountedHead]:
        """Return at most so many of them, for `Task.together`."""
        return [CountedHead(head=head, macs=macs) for head, macs in self._typical[:size]]

    @cached_property
    def _typical(self) -> list[tuple[HeadConfig, int]]:
        """The heads that a search draws first, so that what is timed is what will be screened."""
        heads = self.sampler.proposals(self.space, [], iter(self._shuffled() or []))
        count = self.policy.typical_heads
        return [(head, self._cost(head)[1]) for head in islice(heads, count)]

    def of_space(self, space: Space) -> list[tuple[str, int]]:
        """Return (family, multiply-adds) of a few heads drawn from another space."""
        return [(head.family, self._cost(head)[1]) for head in self._drawn(space)]

    def _drawn(self, space: Space) -> list[HeadConfig]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(self.seed))
        return [space.sample(study.ask()) for _ in range(self.policy.typical_heads)]

    def _cost(self, head: HeadConfig) -> tuple[int, int]:
        return self.cost(head, self.map_shapes[head.tap or 0])

    def _shuffled(self) -> list[HeadConfig] | None:
        """Return every head of the space in random order; None where there are too many."""
        size = self.space.size()
        if size is None or size > ENUMERATED:
            return None
        heads = list(self.space.enumerate())
        random.Random(self.seed).shuffle(heads)
        return heads


def _counted(head: HeadConfig, shape: Shape) -> tuple[int, int]:
    from hssl_search.heads.head import head_cost  # torch, which deciding does not need

    return head_cost(head, shape)
