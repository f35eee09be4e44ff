"""Heads whose true quality is known: for judging a search, and for searches of any size."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache

from hssl_search.engine.execution.jobs import Plain, Task
from hssl_search.heads.config import HeadConfig

UNTRAINED, LEARNED, HALF_STEPS = 30.0, 40.0, 60.0
"""Accuracy before training, what training adds in the end, and the steps after which half of it is
there."""
GAINS = {"none": 0.0, "identity": 0.3, "noise": -35.0}
"""What the controls change of the accuracy in the end, in points."""
NOISE_OVERLAP = 0.95


class SyntheticHeads:
    """Implements `benchmarks.simulation.worker.Answers` by a formula.

    A candidate's true gain is normal with mean 0 and standard deviation `spread`; an accuracy under
    one seed is off by a normal error that it keeps along its curve; discrepancy has correlation
    `agreement` with the gain. All follow from head and seed alone.

    Args:
        spread: standard deviation of true gains, in points.
        error: standard deviation of accuracies under one seed, in points.
        agreement: correlation of discrepancy and gain, -1 to 1.
    """

    def __init__(
        self, spread: float = 2.0, error: float = 0.5, agreement: float = 0.5, seed: int = 0
    ) -> None:
        self.spread, self.error, self.agreement, self.seed = spread, error, agreement, seed
        self._traits = lru_cache(None)(self._drawn)
        self.costs: Plain = {
            "precision": "fp32",
            "step_s": 0.1,
            "joint": 1.0,
            "profile_s": 0.05,
            "evaluate_s": 1.0,
            "last_evaluate_s": 0.5,
            "checkpoint_s": 0.1,
            "images": 10_000,
            "worker_s": 60.0,
        }
        self.head_s = 0.02

    def gain(self, head: HeadConfig | None) -> float:
        """Return what the head truly changes of the accuracy in the end, in points."""
        return self._traits("none" if head is None else head.model_dump_json())[0]

    def accuracy(self, head: HeadConfig | None, seed: int, step: int) -> float:
        """Return the accuracy in per cent, as one training under that seed finds it."""
        error = self.error * random.Random(
            f"{self.seed}/{seed}/{head and head.model_dump_json()}"
        ).gauss(0.0, 1.0)
        return UNTRAINED + (LEARNED + self.gain(head) + error) * (1 - 0.5 ** (step / HALF_STEPS))

    def measured(self, heads: Sequence[HeadConfig]) -> Plain:
        reference = {
            "raw pixels": {"accuracy": 35.0},
            "untrained base": {"accuracy": UNTRAINED, "labelfree_rankme": 5.0},
        }
        return {
            **self.costs,
            "head_step_s": [self.head_s for _ in heads],
            "costs": [[0, 0] for _ in heads],
            "reference": reference,
        }

    def step_s(self, heads: Sequence[HeadConfig]) -> float:
        return float(self.costs["step_s"]) + self.head_s * len(heads)

    def metrics(self, heads: Sequence[HeadConfig], seed: int, step: int, task: Task) -> Plain:
        found: Plain = {
            "loss": 1.0,
            "heads": [self._of_head(head, len(heads) > 1) for head in heads],
        }
        if not task.accuracy:
            return found
        accuracy = self.accuracy(heads[0] if heads else None, seed, step)
        return {**found, "accuracy": accuracy, "labelfree_rankme": accuracy / 2}

    def _of_head(self, head: HeadConfig, joint: bool) -> Plain:
        noise = head.family == "noise"
        overlap = self._traits(head.model_dump_json())[1]
        sick = noise and joint
        return {
            "cka": overlap / 2,
            "overlap": overlap,
            "output": overlap,
            "head_loss": 4.5 if noise else 3.0,
            "excess_loss": 0.1,
            "gate": "not learning" if sick else "healthy",
            "gate_reason": f"it {'is noise' if sick else 'learns'}.",
        }

    def _drawn(self, head: str) -> tuple[float, float]:
        """Return (gain, overlap) of a head as JSON."""
        if head == "none":
            return GAINS["none"], 0.0
        family = HeadConfig.model_validate_json(head).family
        if family in GAINS:
            return GAINS[family], NOISE_OVERLAP if family == "noise" else 0.3
        chance = random.Random(f"{self.seed}/{head}")
        quality, other = chance.gauss(0.0, 1.0), chance.gauss(0.0, 1.0)
        mixed = self.agreement * quality + math.sqrt(1 - self.agreement**2) * other
        return self.spread * quality, 0.3 + 0.4 / (1 + math.exp(-mixed))
