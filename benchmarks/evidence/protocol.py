"""What is trained for the evidence, in which order, and at which scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from hssl_search.backbones import Base
from hssl_search.engine.execution.jobs import Job, Setting, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.same_architecture import same_architecture_head

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Of the schedule, after which everything is measured."""
IDENTITY, NOISE = HeadConfig(family="identity"), HeadConfig(family="noise")
HEADS: dict[str, HeadConfig] = {
    "convnext 3": HeadConfig(family="convnext", depth=3),
    "transformer 3": HeadConfig(family="transformer", depth=3),
    "convnext 1": HeadConfig(family="convnext", depth=1),
    "convnext 1, shortcut": HeadConfig(family="convnext", depth=1, first_shortcut=True),
    "convnext 3, shortcut": HeadConfig(family="convnext", depth=3, first_shortcut=True),
    "transformer 1": HeadConfig(family="transformer", depth=1),
    "mixer 3": HeadConfig(family="mixer", depth=3),
    "resnet 3": HeadConfig(family="resnet", depth=3),
    "mlp 3": HeadConfig(family="mlp", depth=3),
    "hybrid 3": HeadConfig(family="hybrid", blocks=("convnext", "transformer", "convnext")),
}
"""Candidates. Without a word on it, the first block has no shortcut, as in the paper's head
(`convnext 3`)."""
NONE, SAME = "none", "same architecture"
LONGER = 0.5
"""No head for the same device-time: its length is the head's time in trainings of no head, rounded
up to a multiple of this."""


@dataclass(frozen=True)
class BaseModel:
    """A base and the head whose comparison decides: the one of the other architecture, three blocks
    deep, as in the paper.
    """

    name: str
    args: Mapping[str, Any]
    decisive: str


@dataclass(frozen=True)
class Scale:
    """How large the protocol is run."""

    name: str
    bases: tuple[BaseModel, ...]
    methods: tuple[tuple[str, ...], ...]
    """Those of a group are worked off together; the next begins when the one before has ended."""
    stage: Literal["proxy", "full"]
    """Of the recipes, for the heads alone. Joint screenings are proxies, as in a search."""
    batch_size: int
    epochs: float
    seeds: int
    decisive_seeds: int
    joint_rungs: tuple[int, ...]
    searched: tuple[int, int]
    """Images, at most, of bank and queries as a search has them: discrepancies are measured on
    these queries."""
    judged: tuple[int, int]
    """The same for accuracies."""

    def steps(self, images: int) -> int:
        return max(1, round(self.epochs * (images // min(images, self.batch_size))))


SCALES = {
    "toy": Scale(
        "toy",
        bases=(
            BaseModel("test_resnet", {"output_stride": 8}, "transformer 3"),
            BaseModel("test_vit", {"patch_size": 4}, "convnext 3"),
        ),
        methods=(("simclr", "moco_v3"), ("dino",)),
        stage="proxy",
        batch_size=32,
        epochs=0.128,
        seeds=2,
        decisive_seeds=2,
        joint_rungs=(20, 40),
        searched=(1000, 1000),
        judged=(1000, 1000),
    ),
    "real": Scale(
        "real",
        bases=(
            BaseModel("vit_tiny_patch16_224", {"patch_size": 4}, "convnext 3"),
            BaseModel("resnet18", {"output_stride": 8}, "transformer 3"),
        ),
        methods=(("simclr", "moco_v3"), ("dino",)),
        stage="full",
        batch_size=256,
        epochs=100,
        seeds=3,
        decisive_seeds=5,
        joint_rungs=(20, 40, 100, 200),
        searched=(5000, 2000),
        judged=(50_000, 10_000),
    ),
}
"""`toy` shows that the protocol runs, and nothing of what a head is worth."""


@dataclass(frozen=True)
class Cell:
    """A base under a method: what is compared with each other."""

    base: BaseModel
    method: str
    setting: Setting
    same: HeadConfig

    @property
    def name(self) -> str:
        return f"{self.base.name}, {self.method}"

    @property
    def same_branch(self) -> str:
        """Return the branch whose head is of the base's own architecture: one of the candidates
        where that is the same head."""
        return next((branch for branch, head in HEADS.items() if head == self.same), SAME)

    def heads(self) -> dict[str, HeadConfig | None]:
        """Return every branch of full length by name, the decisive ones first."""
        decisive: dict[str, HeadConfig | None] = {
            NONE: None,
            "identity": IDENTITY,
            self.base.decisive: HEADS[self.base.decisive],
            self.same_branch: self.same,
        }
        return {**decisive, **HEADS, "noise": NOISE}

    def role(self, branch: str) -> str:
        """Return what a branch is in the HeadBench format."""
        controls = {
            NONE: "none",
            "identity": "identity",
            "noise": "noise",
            self.same_branch: "same_architecture",
        }
        return controls.get(branch, "candidate")

    def decides(self, branch: str, lengths: Mapping[str, float]) -> bool:
        """Return whether a branch is of the comparisons that get more seeds; `lengths` as of
        `same_time`."""
        return branch in (
            NONE,
            "identity",
            self.same_branch,
            self.base.decisive,
        ) or branch == longer(lengths[self.base.decisive])


@dataclass(frozen=True)
class Training:
    """One base, alone with one head or none, under one seed."""

    cell: Cell
    branch: str
    head: HeadConfig | None
    seed: int
    steps: int

    @property
    def key(self) -> str:
        return f"{self.cell.base.name}/{self.cell.method}/{self.branch}/seed{self.seed}"


def cells(
    scale: Scale,
    setting_of: Callable[[BaseModel, str], Setting],
    bases: Sequence[str],
    methods: Sequence[str],
) -> list[list[Cell]]:
    """Return the cells in the groups of the scale's methods, as far as they are wanted."""
    chosen = [base for base in scale.bases if base.name in bases]
    sizes = {base.name: setting_of(base, scale.methods[0][0]).image_size for base in chosen}
    same = {
        base.name: same_architecture_head(Base(base.name, sizes[base.name], base.args).model)
        for base in chosen
    }
    return [
        [
            Cell(base, method, setting_of(base, method), same[base.name])
            for method in group
            if method in methods
            for base in chosen
        ]
        for group in scale.methods
    ]


def longer(length: float) -> str:
    """Return the name of the branch without a head that is trained that many times as long."""
    return NONE if length <= 1 else f"{NONE} x {length:g}"


def same_time(step_s: float, head_step_s: Mapping[str, float]) -> dict[str, float]:
    """Return for each branch how many times as long no head is trained in the device-time that the
    branch takes; rounded up.

    Args:
        step_s: seconds of a step without a head.
        head_step_s: what the head of each branch adds.
    """
    return {
        branch: max(1.0, math.ceil((1 + head_s / step_s) / LONGER) * LONGER) if head_s > 0 else 1.0
        for branch, head_s in head_step_s.items()
    }


def in_order(
    groups: Sequence[Sequence[Cell]],
    scale: Scale,
    steps: int,
    lengths: Mapping[str, Mapping[str, float]],
) -> Iterator[Training]:
    """Return all trainings: of each group of methods first the decisive branches, seed after seed,
    then the others, seed after seed.

    So a stop at any time leaves every branch of a tier with equally many seeds, or some with one
    more. Where the decisive branches get no more seeds than the others, all are of one tier.
    """
    tiers: list[tuple[tuple[bool, ...], int]] = [
        ((True,), scale.decisive_seeds),
        ((False,), scale.seeds),
    ]
    if scale.decisive_seeds == scale.seeds:
        tiers = [((True, False), scale.seeds)]
    for group, (decisive, seeds) in product(groups, tiers):
        for seed, cell in product(range(seeds), group):
            its = lengths[cell.name]
            yield from (
                one
                for one in _of_seed(cell, seed, steps, its)
                if cell.decides(one.branch, its) in decisive
            )


def _of_seed(cell: Cell, seed: int, steps: int, lengths: Mapping[str, float]) -> Iterator[Training]:
    for branch, head in cell.heads().items():
        yield Training(cell, branch, head, seed, steps)
    for length in sorted(set(lengths.values()) - {1.0}):
        yield Training(cell, longer(length), None, seed, round(length * steps))


def rungs(steps: int) -> list[int]:
    return sorted({max(1, round(fraction * steps)) for fraction in FRACTIONS})


class Maker:
    """Makes the jobs. `reserve_s`: seconds before the end of a piece in which a training writes its
    checkpoint.
    """

    def __init__(
        self, scale: Scale, folder: Path, machine: Machine, at_once: int, reserve_s: float
    ) -> None:
        self.scale, self.folder, self.reserve_s = scale, folder, reserve_s
        self.cpus, self.gpus = machine.resources(at_once)

    def measure(self, cell: Cell) -> Job:
        """Return the job that times a step without a head and what each head adds."""
        heads = [head for head in cell.heads().values() if head is not None]
        task = Task(kind="measure", name="measuring", setting=cell.setting, heads=heads)
        return self._job(f"{cell.base.name}/{cell.method}/measure", task)

    def joint(self, cell: Cell, seed: int) -> Job:
        """Return the job of a joint screening of all heads."""
        steps = self.scale.joint_rungs[-1]
        return self._job(
            f"{cell.base.name}/{cell.method}/joint/seed{seed}",
            Task(
                name="joint",
                setting=cell.setting,
                heads=[head for head in cell.heads().values() if head is not None],
                steps=steps,
                rungs=list(self.scale.joint_rungs),
                seed=seed,
                accuracy=False,
                architecture=True,
                reserve_s=self.reserve_s,
            ),
        )

    def training(self, one: Training) -> Job:
        return self._job(
            one.key,
            Task(
                name=one.branch,
                setting=one.cell.setting,
                heads=[one.head] if one.head else [],
                stage=self.scale.stage,
                steps=one.steps,
                rungs=rungs(one.steps),
                seed=one.seed,
                reserve_s=self.reserve_s,
            ),
        )

    def _job(self, key: str, task: Task) -> Job:
        return Job(
            key,
            self.scale.name,
            task,
            str(self.folder / "checkpoints" / key),
            None,
            self.cpus,
            self.gpus,
        )
