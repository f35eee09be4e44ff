"""A setting made ready in a worker's process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hssl_search.backbones import Base, residual_blocks
from hssl_search.data.resident import Images, on_device
from hssl_search.data.views import Views
from hssl_search.engine.execution.jobs import Setting, Task
from hssl_search.engine.images import search_data
from hssl_search.engine.worker.memory import in_memory
from hssl_search.evaluation.embed import embed_base, raw_pixels
from hssl_search.evaluation.knn import knn_accuracy
from hssl_search.evaluation.labelfree import labelfree_quality
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head
from hssl_search.methods.base import method_class
from hssl_search.training.pair import Pair
from hssl_search.training.recipe import Recipe, Stage
from hssl_search.training.stochastic_depth import continued
from hssl_search.training.trainer import Trainer

TIMED = 4
"""Steps timed at most; the fastest counts: what else runs on the machine can only slow a step down,
and so does the first step's set-up."""
LONG_S = 1.0
"""A step that takes so long is timed twice at most."""
VIEWS, VIEWED = 8, 256
"""Random views of each of how many held-out images, for the label-free measures that compare
views."""


class WorkerSetup:
    """Images on the device, bases and trainers on demand, and what is measured of them."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.device = torch.device(setting.device)
        self.recipe = Recipe.from_plain(setting.recipe)
        self.method = method_class(self.recipe.method.name)(self.recipe.method)
        self.data = search_data(setting)
        self.images = on_device(self.data.train, self.device)

    def trainer(self, task: Task) -> Trainer:
        """Return the trainer of a task, before its first step."""
        return self.trainer_of(task.heads, self.recipe.stage(task.stage), task.steps, task.seed)

    def trainer_of(
        self, heads: Sequence[HeadConfig], stage: Stage, steps: int, seed: int
    ) -> Trainer:
        """Return a trainer whose base and images' order depend on the seed alone: runs with equal
        seeds are paired, whatever their heads."""
        base_rate, head_rates = self._stochastic_depth(heads, stage.drop_path)
        base = self.base(seed, 1 + max((head.tap or 0 for head in heads), default=0), base_rate)
        torch.manual_seed(seed + 1)  # the base has drawn more or fewer numbers by its taps
        modules = [
            build_head(head, base.tap_shapes[head.tap or 0][0], rates)
            for head, rates in zip(heads, head_rates, strict=True)
        ]
        pair = Pair(base, modules, self.method).to(self.device)
        return Trainer(pair, stage, self.views(base), self.images, steps, seed)

    def base(self, seed: int, taps: int = 1, drop_path: float = 0.0) -> Base:
        """Return a new base; its weights depend on the seed alone."""
        # Named only where it is wanted: some models of timm, such as VGG, take no such argument.
        args = {**self.setting.base_args, **({"drop_path_rate": drop_path} if drop_path else {})}
        torch.manual_seed(seed)
        return Base(
            self.setting.base,
            self.setting.image_size,
            args,
            taps,
            # Local crops are smaller than the images, and go through the same base.
            any_size=self.recipe.views.local_crops > 0,
        )

    def views(self, base: Base) -> Views:
        """Return the recipe's random views as the base takes them."""
        masked = base.mask_grid if self.method.masks else None
        return Views(self.recipe.views, self.setting.image_size, *base.mean_std, mask_grid=masked)

    def _stochastic_depth(
        self, heads: Sequence[HeadConfig], last: float
    ) -> tuple[float, list[list[float]]]:
        """Return the base's rate, and the rates of each head's blocks, up to `last` at the end."""
        # `residual_blocks` would refuse a base that has none, and that can train without.
        if not last:
            return 0.0, [[]] * len(heads)
        setting = self.setting
        blocks = residual_blocks(setting.base, setting.image_size, setting.base_args)
        return continued(blocks, list(heads), last)

    def accuracy(self, base: Base, views: Views) -> dict[str, float]:
        """Return the k-NN accuracy in per cent of each embedding of the base, `accuracy` and for
        ViTs `accuracy_mean`; nothing without labels."""
        bank, queries = self.data.bank, self.data.queries
        if bank is None:
            return {}
        of_bank, of_queries = (
            embed_base(base, on_device(images, self.device), views.plain)
            for images in (bank, queries)
        )
        names = {
            name: "accuracy" if name == "embedding" else f"accuracy_{name}" for name in of_bank
        }
        return {names[name]: self.knn(of_bank[name], of_queries[name]) for name in names}

    def pixels(self) -> dict[str, float]:
        """Return the k-NN accuracy in per cent of the raw pixels, larger images shrunk to 32 x 32;
        nothing without labels."""
        if self.data.bank is None:
            return {}
        flat = [
            raw_pixels(on_device(images, self.device))
            for images in (self.data.bank, self.data.queries)
        ]
        return {"accuracy": self.knn(*flat)}

    def knn(self, bank: Tensor, queries: Tensor) -> float:
        """Return the k-NN accuracy in per cent of embeddings of bank and queries, each images x
        width."""
        assert self.data.bank is not None
        labels = [
            torch.from_numpy(images.labels).to(self.device)
            for images in (self.data.bank, self.data.queries)
        ]
        return knn_accuracy(bank, labels[0], queries, labels[1])

    def some_queries(self, most: int) -> Images:
        """Return at most that many held-out images, evenly spaced among all: they lie sorted by
        class."""
        count = len(self.data.queries)
        rows = np.linspace(0, count - 1, min(most, count)).astype(int)
        return on_device(self.data.queries.subset(rows), self.device)

    def labelfree(self, base: Base, views: Views) -> dict[str, float]:
        """Return the quality of the base's embedding without labels, each as `labelfree_NAME`: of
        held-out images and of random views of them."""
        # The same random numbers for every base, so that values differ by the base alone.
        images, generator = self.data.queries, torch.Generator(self.device).manual_seed(0)
        plain = embed_base(base, on_device(images, self.device), views.plain)["embedding"]
        some = self.some_queries(VIEWED)
        of_views = [
            embed_base(base, some, lambda batch: views(batch, generator))["embedding"]
            for _ in range(VIEWS)
        ]
        return {
            f"labelfree_{name}": value
            for name, value in labelfree_quality(torch.stack(of_views), plain).items()
        }


def step_seconds(
    setup: WorkerSetup,
    stage: Stage,
    heads: Sequence[HeadConfig],
    spare_s: float = float("inf"),
    most: int = TIMED,
    least: int = 1,
    told: Callable[[float], None] | None = None,
) -> float:
    """Return the seconds of the fastest of a few training steps, the device waited for.

    Args:
        spare_s: no further step is begun once so many seconds are over.
        least: steps that are made in any case. The first of a process may take ten times as long as
            those after it.
        told: told of the fastest of those.
    """

    def use(trainer: Trainer) -> float:
        seconds: list[float] = []
        while len(seconds) < least or (
            len(seconds) < most
            and sum(seconds) < spare_s
            and (len(seconds) < 2 or seconds[-1] < LONG_S)
        ):
            began = time.monotonic()
            trainer.advance(len(seconds) + 1)
            seconds.append(time.monotonic() - began)
            if told and len(seconds) == least:
                told(min(seconds))
        return min(seconds)

    return in_memory(lambda: setup.trainer_of(heads, stage, most, seed=0), use)
