"""Does an SSL method learn here, and what do heads change? Methods x heads x seeds, each a short
training of its own, k-NN at its end.

    python -m benchmarks.learn --data cifar10/train --probe-data cifar10 --steps 100 --seeds 3 \\
        --minutes 40 --out learn.jsonl

Runs seed after seed, so that a run cut short by --minutes has every cell with fewer seeds; started
again with the same --out it continues. Prints mean and 95 % interval (Student's t over seeds) of
the accuracy and of its difference to no head, paired by seed, and how each discrepancy correlates
with that difference over heads. "gain and NAME" is Spearman's rank correlation over runs with a
head.
`simclr, gradients through` is SimCLR whose base term sends gradients into the head.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.printing import with_interval
from benchmarks.recording import Deadline, execute
from hssl_search.engine.execution.jobs import Job, Plain, Send, Setting, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.worker.evaluate import evaluate
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.methods.base import method_class, methods
from hssl_search.training.pair import Pair
from hssl_search.training.recipe import Recipe

HEADS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "identity": {"family": "identity"},
    "convnext": {"family": "convnext", "depth": 2},
    "transformer": {"family": "transformer", "depth": 2},
    "mlp": {"family": "mlp", "depth": 2},
}
THROUGH = "simclr, gradients through"
BASES: dict[bool, tuple[str, dict[str, Any]]] = {
    False: ("test_resnet", {"output_stride": 8}),
    True: ("test_vit", {"patch_size": 4}),
}
"""By whether the method masks patches."""


class GradientsThrough(Pair):
    """The pair with the other answer to what the paper leaves open: the base's term also teaches
    the head.
    """

    def targets_of_the_base(self, targets: list[torch.Tensor]) -> list[torch.Tensor]:
        return targets


def run(job: Job, send: Send) -> None:
    """Train as a job says, and send what that came to; the worker of these jobs."""
    task, through = job.task, job.key.startswith(THROUGH)
    if task.setting.device == "cpu":
        torch.set_num_threads(int(job.cpus))
    setup = WorkerSetup(task.setting)
    trainer = setup.trainer(task)
    if through:
        trainer.pair.__class__ = GradientsThrough
    started = time.monotonic()
    trainer.advance(task.steps)
    seconds = time.monotonic() - started
    metrics = evaluate(setup, trainer, task, trainer.report())
    untrained = setup.accuracy(setup.base(task.seed).to(setup.device), trainer.views)
    send(task.steps, {**metrics, "untrained": untrained["accuracy"], "seconds": seconds})


def base_of(given: argparse.Namespace, method: str) -> tuple[str, dict[str, Any]]:
    return BASES[method_class(method).masks or given.vit]


def _recipe(method: str, given: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe.read(method).as_plain()
    changed = {
        "precision": given.precision,
        **({"batch_size": given.batch_size} if given.batch_size else {}),
    }
    return {**recipe, "proxy": {**recipe["proxy"], **changed}}


def jobs(given: argparse.Namespace) -> Iterator[Job]:
    """Yield every training, seed after seed."""
    gpus = int(given.device == "cuda")
    machine = Machine("gpu" if gpus else "cpu", os.cpu_count() or 1, gpus, 1 / given.workers)
    cpus, share = machine.resources(given.workers)
    for seed, method, (name, head) in product(range(given.seeds), given.methods, HEADS.items()):
        if method == THROUGH and head is None:
            continue  # the same as plain SimCLR
        recipe = "simclr" if method == THROUGH else method
        base, arguments = base_of(given, recipe)
        setting = Setting(
            base=base,
            base_args=arguments,
            image_size=given.image_size,
            data=str(given.data.resolve()),
            probe_data=given.probe_data and str(given.probe_data.resolve()),
            data_seed=0,
            recipe=_recipe(recipe, given),
            device=given.device,
        )
        task = Task(
            name=name,
            setting=setting,
            heads=[head] if head else [],
            steps=given.steps,
            rungs=[given.steps],
            seed=seed,
            architecture=True,
        )
        key = f"{method}/{base}/{name}/{seed}/{given.steps}"
        yield Job(
            key,
            "learn",
            task,
            str(given.out.with_suffix("") / key),
            None,
            cpus,
            share,
        )


def table_of(known: Mapping[str, Plain]) -> pd.DataFrame:
    """Return a row for each training that came to its end."""
    return pd.DataFrame(
        [
            _row(key, record["reports"][-1]["metrics"])
            for key, record in known.items()
            if record.get("state") == "done"
        ]
    )


def _row(key: str, metrics: Plain) -> Plain:
    method, base, head, seed, steps = key.split("/")
    [of_head] = metrics.get("heads") or [{}]
    named = {"method": method, "base": base, "head": head, "seed": int(seed), "steps": int(steps)}
    return {
        **named,
        **{name: value for name, value in metrics.items() if name != "heads"},
        **of_head,
    }


def show(table: pd.DataFrame) -> None:
    """Print a line for each method and head, and the correlations."""
    print(
        "| method | base | head | seeds | accuracy % | against no head | untrained | seconds "
        "|\n|---|---|---|---|---|---|---|---|"
    )
    for (method, base, head), rows in table.groupby(["method", "base", "head"], sort=False):
        gain = with_interval(gains(table, rows), ".1f") if head != "none" else ""
        print(
            f"| {method} | {base} | {head} | {len(rows)} | {with_interval(rows.accuracy, '.1f')} | "
            f"{gain} | {rows.untrained.mean():.1f} | {rows.seconds.mean():.0f} |"
        )
    heads = table[~table["head"].isin(["none"])].assign(gain=lambda rows: gains(table, rows))
    measures = [
        name
        for name in ("overlap", "cka", "output", "excess_loss", "architecture")
        if name in heads
    ]
    print(
        "\n| method | runs | "
        + " | ".join(f"gain and {name}" for name in measures)
        + " |\n"
        + "|---" * (2 + len(measures))
        + "|"
    )
    for method, rows in heads.groupby("method", sort=False):
        found = [rows[["gain", name]].corr(method="spearman").iloc[0, 1] for name in measures]
        print(
            f"| {method} | {len(rows)} | " + " | ".join(f"{value:+.2f}" for value in found) + " |"
        )


def gains(table: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Return the accuracy minus that of no head with the same method, base and seed."""
    none = table[table["head"] == "none"].set_index(["method", "base", "seed"]).accuracy
    keys = zip(rows.method.replace(THROUGH, "simclr"), rows.base, rows.seed, strict=True)
    return (rows.accuracy - [none.get(key, float("nan")) for key in keys]).dropna()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--probe-data", type=Path)
    parser.add_argument("--methods", nargs="+", default=[*methods(), THROUGH])
    parser.add_argument("--vit", action="store_true", help="test_vit as the base of every method")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path("learn.jsonl"))
    given = parser.parse_args()
    given.out = given.out.resolve()
    source = execute(
        "benchmarks.learn:run",
        list(jobs(given)),
        given.out,
        Deadline(given.minutes),
        Deadline(math.inf),
        given.workers,
    )
    show(table_of(source.known))


if __name__ == "__main__":
    main()
