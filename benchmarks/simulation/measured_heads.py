"""The heads of a HeadBench table, as workers would find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.simulation.headbench import OF_BASE, OF_HEAD, Head, HeadBench
from hssl_search.engine.execution.jobs import Plain, Task
from hssl_search.engine.planning.costs import LEAST_SHARE
from hssl_search.errors import UserError, advice
from hssl_search.heads.config import HeadConfig


class MeasuredHeads:
    """Implements `benchmarks.simulation.worker.Answers` by a HeadBench table.

    A step is answered as the table does, by the nearest rung below it. Costs are fitted to the
    table: a head's seconds are the fewest it took in any stretch, since what else runs on a machine
    can only slow it down.

    Args:
        seeds: which seed of the table answers for which of the search; those of the table
            themselves when None. A seed that is not
            there is a UserError: two searches' seeds must not be one measurement.
    """

    def __init__(self, setup: HeadBench, seeds: Mapping[int, int] | None = None) -> None:
        self.setup = setup
        self.seeds = {seed: seed for seed in setup.seeds()} if seeds is None else dict(seeds)
        measured = setup.about["measured"]
        self._default_macs = {
            family: cost[1]
            for family, cost in zip(measured["families"], measured["costs"], strict=True)
        }
        self._alone = _fewest(setup)
        self._costs = {
            **measured,
            "step_s": self._alone[None],
            "evaluate_s": self._evaluate_s(),
            "joint": self._joint(),
        }
        self._family_s = self._fitted()

    def measured(self, heads: Sequence[HeadConfig]) -> Plain:
        if unknown := [head.family for head in heads if head.family not in self._default_macs]:
            raise UserError(
                f"{self.setup.where} has not timed the family {unknown[0]!r}; "
                f"{advice(unknown[0], self._default_macs)}"
            )
        return {
            **self._costs,
            "head_step_s": [self._family_s[head.family] for head in heads],
            "costs": [[0, self._default_macs[head.family]] for head in heads],
        }

    def step_s(self, heads: Sequence[HeadConfig]) -> float:
        apart = self._alone[None] + sum(self._alone[head] - self._alone[None] for head in heads)
        return apart * (float(self._costs["joint"]) if len(heads) > 1 else 1.0)

    def metrics(self, heads: Sequence[HeadConfig], seed: int, step: int, task: Task) -> Plain:
        training, wanted = "joint" if len(heads) > 1 else "alone", heads or [None]
        rows = [self._row(training, head, seed, step) for head in wanted]
        trained = [row for row in rows if "head_loss" in row]
        loss = rows[0]["loss"]
        metrics: Plain = {
            "loss": loss,
            "heads": [_of_head(row) for row in rows] if heads else [],
            "head_losses": [row["head_loss"] for row in trained],
            "base_losses": [row["head_loss"] + row["excess_loss"] for row in trained] or [loss],
            "patch_losses": [],
        }
        if task.accuracy:
            metrics |= {key: rows[0][key] for key in OF_BASE if key in rows[0] and key != "loss"}
        return metrics

    def _row(self, training: str, head: Head, seed: int, step: int) -> Plain:
        if seed not in self.seeds:
            raise UserError(
                f"{self.setup.where} has no measurement for seed {seed}; it has "
                f"{', '.join(map(str, self.seeds))}."
            )
        return self.setup.at(training, head, self.seeds[seed], step).values

    def _evaluate_s(self) -> float:
        """Return median of what stretches took beside their steps; the last of a training, which
        measures more, is left out."""
        beside = []
        for head, _, rungs in self.setup.trainings("alone"):
            for before, rung in zip([0, *(rung.step for rung in rungs)], rungs[:-1], strict=False):
                beside.append(
                    max(0.0, rung.values["core_s"] - self._alone[head] * (rung.step - before))
                )
        return median(beside)

    def _joint(self) -> float:
        """Return median over screenings of how many times longer a joint step takes than its parts
        alone."""
        groups: dict[tuple[int, int, int], list[Plain]] = {}
        for row in self.setup.of("joint"):
            groups.setdefault((row["group"], row["seed"], row["step"]), []).append(row)
        base_s = self._alone[None]
        return median(
            rows[0]["step_s"] / (base_s + sum(self._alone[row["head"]] - base_s for row in rows))
            for rows in groups.values()
        )

    def _fitted(self) -> dict[str, float]:
        """Return seconds that the default head of each family adds, by the rule that
        `Measurement.head_s` scales them with."""
        found: dict[str, list[float]] = {family: [] for family in self._default_macs}
        macs = {row["head"]: row["macs"] for row in self.setup.rows}
        for head in self.setup.candidates:
            share = max(LEAST_SHARE, macs[head] / self._default_macs[head.family])
            found[head.family].append((self._alone[head] - self._alone[None]) / share)
        timed = dict(
            zip(
                self.setup.about["measured"]["families"],
                self.setup.about["measured"]["head_step_s"],
                strict=True,
            )
        )
        return {
            family: median(seconds) if seconds else timed[family]
            for family, seconds in found.items()
        }


def _fewest(setup: HeadBench) -> dict[Head, float]:
    """Return seconds of a step of each head alone, none fewer than without a head."""
    found: dict[Head, float] = {}
    for row in setup.of("alone"):
        found[row["head"]] = min(found.get(row["head"], float("inf")), row["step_s"])
    return {head: max(seconds, found[None]) for head, seconds in found.items()}


def _of_head(row: Plain) -> Plain:
    return {key: row[key] for key in OF_HEAD if key in row}
