"""What a warm start is worth, and what a misleading one costs.

    python benchmarks/warm_start.py

Simulated searches whose truth is known, after an earlier search of other heads. Prints two tables in Markdown: promotion (share of searches
that promote the best of 40 heads among 10, and what the best of the first three falls short of it) and sampling (the best of the first 24
heads that TPE draws), each as the tool does it and without what keeps an earlier search from misleading. Takes about four minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from statistics import mean
from unittest.mock import patch

import numpy as np
import optuna

from hssl_search.engine.candidates import prior_runs as earlier
from hssl_search.engine.candidates import promotion, sampler
from hssl_search.engine.candidates import surrogate as forecast
from hssl_search.engine.candidates.candidate import Contender
from hssl_search.engine.candidates.prior_runs import EarlierHead, EarlierSearch
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

HEADS, PROMOTED, EARLIER, DRAWN = 40, 10, 20, 24
NOISE = 0.2
"""Standard deviation of a proxy's score about the truth, whose own is 1."""
FAMILIES = ("convnext", "resnet", "mlp", "mixer", "transformer")
NO_HEAD = Contender(HEADS, "no head", [], "none", "none")
SPACE = Space.from_plain(
    {
        "parameters": {
            "family": {"choice": list(FAMILIES)},
            "depth": {"int": [1, 12]},
            "width_ratio": {"float": [0.25, 2.0]},
        }
    },
    "simulated",
)
LESSONS = ("nothing", "the truth", "something related", "something else", "the opposite")


class Truth:
    """How good heads are: by family, depth, discrepancy, and something that nothing tells of."""

    def __init__(self, families: np.ndarray, depth: float, discrepancy: float) -> None:
        self.families, self.depth, self.discrepancy = families, depth, discrepancy

    @classmethod
    def drawn(cls, draws: np.random.Generator) -> Truth:
        return cls(
            draws.normal(size=len(FAMILIES)), 0.5 * draws.normal(), 0.7 * draws.choice([-1, 1])
        )

    def taught(self, lesson: str, draws: np.random.Generator) -> Truth:
        """The truth of an earlier search."""
        if lesson == "the opposite":
            return Truth(-self.families, -self.depth, -self.discrepancy)
        other = Truth.drawn(draws)
        if lesson == "something related":
            return Truth(
                0.7 * (self.families + other.families),
                0.7 * (self.depth + other.depth),
                self.discrepancy,
            )
        return other if lesson == "something else" else self

    def heads(self, count: int, draws: np.random.Generator) -> tuple[list[Contender], np.ndarray]:
        """Screened heads and their true scores, of standard deviation 1."""
        families, depths = draws.integers(0, len(FAMILIES), count), draws.integers(1, 5, count)
        gaps = draws.normal(size=count)
        hidden = (
            self.families[families] + self.depth * (depths - 2.5) + 0.6 * draws.normal(size=count)
        )
        scores = (
            self.discrepancy * gaps
            + math.sqrt(1 - self.discrepancy**2) * (hidden - hidden.mean()) / hidden.std()
        )
        heads = [
            _screened(
                trial, FAMILIES[families[trial]], int(depths[trial]), float(gaps[trial]), draws
            )
            for trial in range(count)
        ]
        return heads, scores


def _screened(
    trial: int, family: str, depth: int, gap: float, draws: np.random.Generator
) -> Contender:
    attributes = {
        "gate": "healthy",
        "discrepancy": gap,
        "overlap_excess": gap,
        "cka_excess": gap + draws.normal(),
        "output": draws.normal(),
        "parameters": int(draws.integers(1_000, 90_000)),
        "macs": int(draws.integers(10_000, 900_000)),
        "head_loss": 3.0 + draws.normal(),
        "chance_loss": 4.5,
    }
    return Contender(
        trial, f"head {trial}", [{"family": family, "depth": depth}], family, None, attributes
    )


def earlier_search(
    truth: Truth, draws: np.random.Generator, shift: float = 0.0, scale: float = 1.0
) -> EarlierSearch:
    """What a search of `EARLIER` heads found, in another unit and about another level."""
    heads, scores = truth.heads(EARLIER, draws)
    gains = shift + scale * (scores + NOISE * draws.normal(size=EARLIER))
    found = [
        EarlierHead(one.heads[0], float(gain), one.attributes)
        for one, gain in zip(heads, gains, strict=True)
    ]
    return EarlierSearch("earlier", "none", True, {}, found, {})


def promote(
    lesson: str, seed: int, count: int = PROMOTED, shift: float = 0.0, scale: float = 1.0
) -> tuple[bool, float]:
    """(whether the best head is promoted, what the best of the first three falls short of it) in one search."""
    draws = np.random.default_rng(seed)
    truth = Truth.drawn(draws)
    taught = [earlier_search(truth.taught(lesson, draws), draws, shift, scale)]
    heads, scores = truth.heads(HEADS, draws)
    proxied = [*(70.0 + scores + NOISE * draws.normal(size=HEADS)), 70.0]
    found: list[int] = []
    while len(found) < count:
        known = {trial: float(proxied[trial]) for trial in [NO_HEAD.trial, *found]} if found else {}
        one = promotion.choose(
            "learned", (*heads, NO_HEAD), found, known, 0, [] if lesson == "nothing" else taught
        )
        assert one is not None
        found.append(one.trial)
    return int(scores.argmax()) in found, float(scores.max() - max(scores[found[:3]]))


def draw(lesson: str, seed: int) -> float:
    """What the best of the first heads is worth that are drawn in one search."""
    draws = np.random.default_rng(seed)
    truth = _goodness(draws)
    told = {
        "the truth": truth,
        "something else": _goodness(draws),
        "the opposite": lambda head: -truth(head),
    }.get(lesson)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed + 500))
    heads = [SPACE.sample(study.ask()) for _ in range(EARLIER)]
    found = [
        EarlierHead(head.model_dump(exclude_none=True), told(head) + NOISE * draws.normal(), {})
        for head in heads
        if told
    ]
    taught = [EarlierSearch("earlier", "none", True, {}, found, {})] if found else []
    return max(
        map(
            truth,
            islice(
                sampler.CandidateSampler("tpe", seed).proposals(SPACE, [], iter(()), taught), DRAWN
            ),
        )
    )


def _goodness(draws: np.random.Generator) -> Callable[[HeadConfig], float]:
    """Families of standard deviation 1, and a best depth and width."""
    family = dict(zip(FAMILIES, draws.normal(size=len(FAMILIES)), strict=True))
    depth, width = draws.uniform(1, 12), draws.uniform(0.25, 2)
    return lambda head: float(
        family[head.family]
        - (((head.depth or 0) - depth) / 5) ** 2
        - (((head.width_ratio or 0) - width) / 0.8) ** 2
    )


def promoting() -> Iterator[tuple[str, Mapping[str, float], AbstractContextManager[object]]]:
    """(name, changes of the earlier search, what is different) of each row."""
    trusting = patch.object(promotion, "trusted", lambda screened, scores, searches: list(searches))
    yield "as it is", {}, nullcontext()
    yield "gains in another unit (5 times)", {"scale": 5.0}, nullcontext()
    yield "gains 8 lower", {"shift": -8.0}, nullcontext()
    yield (
        "gains 8 lower, their level left",
        {"shift": -8.0},
        patch.object(earlier, "APART", math.inf),
    )
    yield "wrong orders trusted on", {}, trusting
    yield (
        "one set of coefficients, trusted on",
        {},
        patch.multiple(promotion, trusted=trusting.new, forecast=_Shared()),
    )


class _Shared:
    """The forecast whose searches share all coefficients."""

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            with patch.object(forecast, "_with_own", lambda columns, sizes: columns):
                return getattr(forecast, name)(*arguments)

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--searches", type=int, default=60, help="simulated searches of each cell (default: 60)"
    )
    searches = parser.parse_args().searches
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        f"| promotion, after a search that taught | {' | '.join(LESSONS)} |\n|---|{'---|' * len(LESSONS)}"
    )
    for name, changes, different in promoting():
        with different:
            cells = [
                _cell([promote(lesson, seed, **changes) for seed in range(searches)])
                for lesson in LESSONS
            ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    lessons = [lesson for lesson in LESSONS if lesson != "something related"]
    print(
        f"\n| sampling, after a search that taught | {' | '.join(lessons)} |\n|---|{'---|' * len(lessons)}"
    )
    for name, trusting in (("as it is: every other head", 2), ("all heads", 1)):
        with patch.object(sampler, "TRUSTING", trusting):
            cells = [
                f"{mean(draw(lesson, seed) for seed in range(searches)):.2f}" for lesson in lessons
            ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _cell(found: list[tuple[bool, float]]) -> str:
    return f"{mean(hit for hit, _ in found):.2f}, {mean(short for _, short in found):.2f} short"


if __name__ == "__main__":
    main()
