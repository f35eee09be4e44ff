"""A small run as the search leaves it: a study with all attributes, and a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)

STEPS = (40, 80, 120, 160)
FAMILIES = ("convnext", "transformer", "resnet", "mlp")
BARE = ("none", "identity", "noise")
"""Families without parameters."""
HOSTILE = "<script>alert('x')</script> & \"co\""


class Builder:
    """Writes trials and jobs with the attributes of a real run."""

    def __init__(
        self, labelled: bool = True, rankme: Callable[[float], float] | None = None
    ) -> None:
        """`rankme` makes RankMe of an accuracy; a run that has it is ranked by it."""
        self.study = optuna.create_study()
        self.labelled, self.rankme = labelled, rankme
        if rankme:
            self.attribute(config={"rank_by": "labelfree_rankme"})
        self.ledger: list[dict[str, Any]] = []
        self._clock = 0.0

    def add(
        self, name: str, family: str, state: TrialState, end: float | None = None, **attributes: Any
    ) -> int:
        """A trial; `end` is its accuracy at the last step, with a curve that leads there."""
        number = len(self.study.get_trials(deepcopy=False))
        values: dict[int, float] = {}
        if end is not None:
            steps = STEPS if state is TrialState.COMPLETE else STEPS[:2]
            values = {step: end - 6 * (1 - step / steps[-1]) for step in steps}
        told = {
            "role": "candidate",
            "name": name,
            "family": family,
            "head": {
                "family": family,
                **({} if family in BARE else {"depth": 3, "width_ratio": 1.0}),
            },
            "parameters": 12345,
            "macs": 2_000_000,
            "gate": "healthy",
            "gate_reason": "",
            "seed": 0,
            "device_s": 12.5,
            "promoted": end is not None,
            **attributes,
        }
        scores = (
            {step: self.rankme(value) for step, value in values.items()}
            if self.rankme
            else values
            if self.labelled
            else {}
        )
        value = next(reversed(scores.values()), 0.4) if state is TrialState.COMPLETE else None
        if not self.labelled and not self.rankme and state is TrialState.COMPLETE:
            value = told.get("discrepancy", 0.0)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=value,
                intermediate_values=scores,
                user_attrs=told,
                params={"depth": 3},
                distributions={"depth": optuna.distributions.IntDistribution(1, 6)},
            )
        )
        if end is not None and state is not TrialState.RUNNING:
            self.job(
                number,
                name,
                0,
                values,
                "proxy",
                "done" if state is TrialState.COMPLETE else "stopped",
                overlap=told.get("discrepancy"),
            )
        return number

    def job(
        self,
        trial: int | None,
        name: str,
        seed: int,
        values: dict[int, float],
        phase: str,
        state: str = "done",
        cause: str = "",
        overlap: float | None = None,
    ) -> None:
        key = "full" if phase == "full" else f"{phase}/{trial:04}/seed{seed}"
        reports = [
            {"step": step, "metrics": self._metrics(value, overlap)}
            for step, value in values.items()
        ]
        self.study.set_user_attr(
            f"job/{key}",
            {
                "key": key,
                "phase": phase,
                "state": state,
                "cause": cause,
                "trial": trial,
                "seed": seed,
                "name": name,
                "seconds": 9.0,
                "reports": reports,
            },
        )
        self.charge(f"{key}#1", phase, trial, 9.0)

    def _metrics(self, accuracy: float, overlap: float | None) -> Mapping[str, Any]:
        judged = {"accuracy": accuracy} if self.labelled else {}
        return {
            "loss": 1.0,
            **judged,
            "heads": [] if overlap is None else [{"overlap": overlap}],
            **({"labelfree_rankme": self.rankme(accuracy)} if self.rankme else {}),
        }

    def confirm(self, trial: int, name: str, accuracies: dict[int, float]) -> None:
        for seed, end in accuracies.items():
            self.job(
                trial,
                name,
                seed,
                {step: end - 6 * (1 - step / STEPS[-1]) for step in STEPS},
                "confirm",
            )

    def charge(self, attempt: str, phase: str, trial: int | None, seconds: float) -> None:
        """Two heartbeats; a second job always runs beside, so a device-second is two seconds on the
        clock.
        """
        for _ in range(2):
            self.ledger.append(
                {
                    "at": "2030-01-02T03:04:05.000+00:00",
                    "attempt": attempt,
                    "phase": phase,
                    "device_s": seconds / 2,
                    "from": self._clock,
                    "to": self._clock + seconds,
                    "trial": trial,
                }
            )
            self._clock += seconds
        self._clock -= seconds

    def attribute(self, **values: Any) -> None:
        for key, value in values.items():
            self.study.set_user_attr(key, value)


CONFIG = {
    "base": "test_resnet",
    "base_args": {"output_stride": 8},
    "image_size": 32,
    "images": {"training": 8000, "queries": 1000},
    "data": "photos/",
    "trainer": "simclr",
    "space": "default",
    "budget": "12cpu-min",
    "seed": 0,
    "rank_by": "accuracy",
    "name": "photos",
}
PLAN = {
    "budget_s": 720.0,
    "phases": {
        "measure": 7.2,
        "screen": {"device_s": 144.0},
        "proxy": {"device_s": 324.0},
        "confirm": 100.8,
        "full": 144.0,
    },
}


@pytest.fixture
def builder() -> Callable[..., Builder]:
    return Builder


@pytest.fixture
def run() -> Builder:
    """A finished search: 10 candidates, 4 controls, a failure, a head that was gated out."""
    run = Builder()
    run.charge("measure#1", "measure", None, 6.0)
    run.charge("screen/0#1", "screen", None, 60.0)
    run.charge("screen/1#1", "screen", None, 61.0)
    run.attribute(config=CONFIG, plan=PLAN, reference={"raw pixels": 39.8, "untrained base": 29.3})
    done, pruned = TrialState.COMPLETE, TrialState.PRUNED
    best = run.add(
        "convnext depth 3 kernel 7",
        "convnext",
        done,
        41.4,
        discrepancy=0.42,
        cka=0.5,
        cka_excess=0.4,
        head_loss=3.1,
        chance_loss=4.5,
    )
    second = run.add(HOSTILE, "transformer", done, 41.0, discrepancy=0.35)
    run.add("resnet depth 2", "resnet", done, 40.2, discrepancy=0.22)
    run.add("mlp depth 2", "mlp", done, 39.6, discrepancy=0.12)
    run.add("convnext depth 1", "convnext", pruned, 36.0, discrepancy=0.38)
    for index in range(3):
        run.add(f"resnet depth {index + 3}", "resnet", pruned, discrepancy=0.05 * index)
    run.add(
        "convnext depth 6",
        "convnext",
        pruned,
        discrepancy=0.7,
        gate="not learning",
        gate_reason="its head loss 4.48 stayed near chance, 4.50.",
    )
    run.add(
        "transformer depth 6", "transformer", TrialState.FAIL, cause="CUDA out of memory in block 5"
    )
    control: dict[str, Any] = {"role": "control", "promoted": False}
    none = run.add(
        "no head", "none", done, 40.1, control="none", head=None, parameters=0, gate=None, **control
    )
    same = run.add(
        "no head, same device-time",
        "none",
        done,
        40.7,
        control="none_same_time",
        head=None,
        gate=None,
        **control,
    )
    identity = run.add(
        "identity head", "identity", done, 40.0, control="identity", discrepancy=0.0, **control
    )
    run.add(
        "noise head",
        "noise",
        pruned,
        control="noise",
        discrepancy=0.93,
        gate="not learning",
        gate_reason="its loss stayed at chance.",
        **control,
    )
    run.confirm(best, "convnext depth 3 kernel 7", {1: 41.0, 2: 41.5})
    run.confirm(second, HOSTILE, {1: 40.6, 2: 41.3})
    run.confirm(none, "no head", {1: 40.5, 2: 40.9})
    run.confirm(same, "no head, same device-time", {1: 40.9, 2: 40.4})
    run.confirm(identity, "identity head", {1: 40.3, 2: 40.6})
    run.job(best, "convnext depth 3 kernel 7", 0, {200: 40.0, 400: 42.0, 600: 43.1}, "full")
    run.charge("controller#1", "overhead", None, 20.0)
    run.attribute(
        verdict={
            "winner": best,
            "name": "convnext depth 3 kernel 7",
            "state": "undecided",
            "sentence": "Undecided: convnext depth 3 kernel 7 leads the control without a head by "
            "0.8 ± 1.1 points over 3 seeds; "
            "about 20 cpu-min would settle it.",
            "rows": [
                {
                    "name": "convnext depth 3 kernel 7",
                    "role": "candidate",
                    "seeds": 3,
                    "mean": 41.3,
                    "interval": [40.9, 41.7],
                },
                {
                    "name": HOSTILE,
                    "role": "candidate",
                    "seeds": 3,
                    "mean": 40.97,
                    "interval": [40.5, 41.4],
                },
                {
                    "name": "no head",
                    "role": "control",
                    "seeds": 3,
                    "mean": 40.5,
                    "interval": [40.1, 40.9],
                },
            ],
            "comparison": {
                "against": "no head",
                "difference": 0.8,
                "interval": [-0.28, 1.88],
                "seeds": 3,
            },
        }
    )
    return run


@pytest.fixture
def varied(builder: Callable[..., Builder]) -> Builder:
    """8 heads of each of three families that differ in shortcut, depth and kernel; 4 of each with
    an accuracy, 1 more gated out.
    """
    run, noise = builder(), np.random.default_rng(0)
    run.attribute(config=CONFIG, plan=PLAN)
    for place, family in enumerate(FAMILIES[:3]):
        for index in range(9):
            shortcut, depth, scored = bool(index % 2), 1 + index // 2, index < 4
            kernel = None if place == 1 else 3 + 2 * (index % 3)
            head = {
                "family": family,
                "depth": depth,
                "kernel_size": kernel,
                "first_shortcut": shortcut,
            }
            discrepancy = 0.1 * place + 0.02 * depth - 0.1 * shortcut + noise.normal(0, 0.01)
            quality = (
                {"labelfree_rankme": 20.0 + depth, "labelfree_alpha_req": 1.5} if scored else {}
            )
            run.add(
                f"{family} {index}",
                family,
                TrialState.COMPLETE if scored else TrialState.PRUNED,
                40.0 + place + 0.5 * depth + noise.normal(0, 0.3) if scored else None,
                head=head,
                discrepancy=0.9 if index == 8 else discrepancy,
                cka_excess=discrepancy + noise.normal(0, 0.1),
                architecture=0.3 + 0.1 * place,
                gate="not learning" if index == 8 else "healthy",
                **quality,
            )
    return run
