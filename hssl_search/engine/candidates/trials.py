"""The candidates and controls of a search, each one trial of the study."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial

from hssl_search.engine.candidates.candidate import SAME_TIME, Contender
from hssl_search.engine.candidates.sampler import ENUMERATED, CandidateSampler
from hssl_search.engine.execution.jobs import CountedHead, Plain
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import Finished, StudyRecord
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

OWN_STEPS = "same_time_steps"
"""Attribute of such a control: its steps, where they are not those of a proxy."""
NAMES = {
    "none": "no head",
    "identity": "identity head",
    "noise": "noise head",
    "same_architecture": "same-architecture head",
    SAME_TIME: "no head, same device-time",
}
TYPICAL = 16
"""Heads that stand for those of a space."""
Shape = tuple[int, int, int]


class Trials:
    """Keeps its own view of the study's trials, which nobody else writes, so that no decision looks through all of them.

    Args:
        device_seconds: what a trial has cost so far, by its number.
        map_shapes: C x h x w of the maps that heads may be fed, by `tap`: that of the last stage first.
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
    ) -> None:
        self.sampler = sampler or CandidateSampler(seed=seed)
        self.study, self.run, self.space, self.map_shapes, self.seed = (
            study,
            run,
            space,
            map_shapes,
            seed,
        )
        self.device_seconds, self.cost = device_seconds, cost or _counted
        trials = [trial for trial in study.trials() if "role" in trial.user_attrs]
        self._known = {trial.number: _contender(trial.number, trial.user_attrs) for trial in trials}
        self._controls = {one.control: one.trial for one in self._known.values() if one.control}
        self._decided = {trial.number for trial in trials if trial.state.is_finished()}

    def candidates(self, count: int) -> list[Contender]:
        """That many candidates: those that the study holds, and new ones."""
        if (missing := count - len(self._candidates())) > 0:
            proposals = self.sampler.proposals(
                self.space, self._candidate_trials(), iter(self._shuffled() or [])
            )
            for head in islice(proposals, missing):
                self._add(head)
        return self._candidates()[:count]

    def _candidate_trials(self) -> list[FrozenTrial]:
        return [
            trial for trial in self.study.trials() if trial.user_attrs.get("role") == "candidate"
        ]

    def undecided(self, one: Contender) -> Contender:
        """The candidate, or where its trial is decided a new trial of the same head that knows what its screening found (`retry_of`)."""
        if one.trial not in self._decided:
            return one
        earlier = self.study.frozen(one.trial)
        screened = {
            key: value
            for key, value in one.attributes.items()
            if key not in ("promoted", "cause", "device_s")
        }
        attributes = {**screened, "retry_of": one.trial}
        number = self.study.add_candidate(earlier.params, earlier.distributions, attributes)
        self._keep(number, HeadConfig(**one.heads[0]), attributes)
        return self.contender(number)

    def control(
        self, kind: str, head: Plain | None = None, own_steps: int | None = None
    ) -> Contender:
        """Return the control of that kind; its trial is opened when it has none.

        Args:
            own_steps: how long it trains, where that is not as long as a proxy.
        """
        if kind in self._controls:
            return self.contender(self._controls[kind])
        config = HeadConfig(**head) if head else None
        attributes = {
            "role": "control",
            "control": kind,
            "name": NAMES[kind],
            "family": config.family if config else "none",
            **self._described(config),
            **({} if own_steps is None else {OWN_STEPS: own_steps}),
        }
        number = self._controls[kind] = self.study.add_control(kind, attributes)
        self._known[number] = _contender(number, attributes)
        if config:
            self.run.write_head(number, config.model_dump(exclude_none=True))
        return self.contender(number)

    def contenders(self) -> list[Contender]:
        return [self._known[number] for number in sorted(self._known)]

    def contender(self, number: int) -> Contender:
        return self._known[number]

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Set the attributes that the trial has not already; nothing happens when it is decided."""
        if number in self._decided:
            return
        one = self._known[number]
        new = {
            key: value
            for key, value in attributes.items()
            if key not in one.attributes or one.attributes[key] != value
        }
        self._known[number] = replace(
            one, attributes={**one.attributes, **self.study.set_attributes(number, new)}
        )

    def decide(
        self, number: int, state: Finished, value: float | None = None, cause: str | None = None
    ) -> None:
        """Decide a trial, with the device-time it has cost."""
        self.note(number, {"device_s": round(self.device_seconds(number), 3)})
        if number not in self._decided:
            self.study.finish(number, state, value, cause)
            self._decided.add(number)

    def close(self, cause: str) -> None:
        """Prune every trial that is not decided."""
        for number in sorted(set(self._known) - self._decided):
            self.decide(number, "PRUNED", cause=cause)

    def _candidates(self) -> list[Contender]:
        """The first trial of each head."""
        return [
            one
            for one in self.contenders()
            if one.control is None and "retry_of" not in one.attributes
        ]

    def _add(self, head: HeadConfig) -> None:
        """A new trial with this head, all in one write."""
        shown = FixedTrial(self.space.trial_parameters(head))
        self.space.sample(shown)
        attributes = self._attributes(head)
        number = self.study.add_candidate(shown.params, shown.distributions, attributes)
        self._keep(number, head, attributes)

    def _keep(self, number: int, head: HeadConfig, attributes: Plain) -> None:
        self.run.write_head(number, head.model_dump(exclude_none=True))
        self._known[number] = _contender(number, attributes)

    def _attributes(self, head: HeadConfig) -> Plain:
        return {
            **self._described(head),
            "name": head.label(),
            "family": head.family,
            "role": "candidate",
        }

    def _described(self, head: HeadConfig | None) -> Plain:
        parameters, macs = self._cost(head) if head else (0, 0)
        return {
            "head": head and head.model_dump(exclude_none=True),
            "parameters": parameters,
            "macs": macs,
            "seed": self.seed,
        }

    def typical(self) -> list[tuple[str, int]]:
        """(family, multiply-adds) of a few heads drawn from the space, without opening trials."""
        return [(head.family, macs) for head, macs in self._typical]

    def group(self, size: int) -> list[CountedHead]:
        """Some of them, at most so many, as `Task.together` has them."""
        return [CountedHead(head=head, macs=macs) for head, macs in self._typical[:size]]

    @cached_property
    def _typical(self) -> list[tuple[HeadConfig, int]]:
        """The heads that a search draws first, so that what is timed is what will be screened."""
        heads = self.sampler.proposals(self.space, [], iter(self._shuffled() or []))
        return [(head, self._cost(head)[1]) for head in islice(heads, TYPICAL)]

    def of_space(self, space: Space) -> list[tuple[str, int]]:
        """(family, multiply-adds) of a few heads drawn from another space."""
        return [(head.family, self._cost(head)[1]) for head in self._drawn(space)]

    def _drawn(self, space: Space) -> list[HeadConfig]:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(self.seed))
        return [space.sample(study.ask()) for _ in range(TYPICAL)]

    def _cost(self, head: HeadConfig) -> tuple[int, int]:
        return self.cost(head, self.map_shapes[head.tap or 0])

    def _shuffled(self) -> list[HeadConfig] | None:
        """Every head of the space in random order; None where there are too many."""
        size = self.space.size()
        if size is None or size > ENUMERATED:
            return None
        heads = [HeadConfig(**values) for values in self.space.enumerate()]
        random.Random(self.seed).shuffle(heads)
        return heads


def _counted(head: HeadConfig, shape: Shape) -> tuple[int, int]:
    from hssl_search.heads.head import head_cost  # torch, which deciding does not need

    return head_cost(head, shape)


def _contender(number: int, attributes: Mapping[str, Any]) -> Contender:
    head = attributes.get("head")
    return Contender(
        number,
        attributes["name"],
        [head] if head else [],
        attributes["family"],
        attributes.get("control"),
        attributes,
    )
