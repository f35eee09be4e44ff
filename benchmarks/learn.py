"""Does an SSL method learn here, and what do heads change? Methods x heads x seeds, each a short training of its own, k-NN at its end.

    python benchmarks/learn.py --data cifar10/train --probe-data cifar10 --steps 100 --seeds 3 --minutes 40 --out learn.csv

Runs seed after seed, so that a run cut short by --minutes has every cell with fewer seeds; started again with the same --out it goes on.
Prints mean and 95 % interval (Student's t over seeds) of the accuracy and of its difference to no head, paired by seed, and how each
discrepancy correlates with that difference over heads. "gain and NAME" is Spearman's rank correlation over runs
with a head. `simclr, gradients through` is SimCLR whose base term sends gradients into the head.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hssl_search.methods.base import method_class, methods
from hssl_search.search.execution.bench import Bench
from hssl_search.search.execution.evaluating import evaluate
from hssl_search.search.execution.tasks import Setting, Task
from hssl_search.search.inference import t_interval
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
BASES: dict[bool, tuple[str, dict[str, Any]]] = {False: ("test_resnet", {"output_stride": 8}), True: ("test_vit", {"patch_size": 4})}
"""By whether the method masks patches."""
KEY = ["method", "base", "head", "seed", "steps"]


class GradientsThrough(Pair):
    """The pair with the other answer to what the paper leaves open: the base's term also teaches the head."""

    def targets_of_the_base(self, targets: list[torch.Tensor]) -> list[torch.Tensor]:
        return targets


def run(given: argparse.Namespace, method: str, head: str, seed: int) -> dict[str, Any]:
    """One training and what it came to."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // given.workers))
    name = "simclr" if method == THROUGH else method
    base, arguments = base_of(given, name)
    setting = Setting(base=base, base_args=arguments, image_size=given.image_size, data=given.data, probe_data=given.probe_data,
                      data_seed=0, recipe=_recipe(name, given), device=given.device)
    bench, config = Bench(setting), HEADS[head]
    task = Task(setting=setting, heads=[config] if config else [], steps=given.steps, rungs=[given.steps], seed=seed, architecture=True)
    trainer = bench.trainer(task)
    if method == THROUGH:
        trainer.pair.__class__ = GradientsThrough
    started = time.monotonic()
    trainer.advance(given.steps)
    seconds = time.monotonic() - started
    metrics = evaluate(bench, trainer, task, trainer.report())
    [of_head] = metrics.pop("heads", [{}])
    untrained = bench.accuracy(bench.base(seed).to(bench.device), trainer.views)
    return {**dict(zip(KEY, (method, base, head, seed, given.steps), strict=True)), "untrained": untrained["accuracy"], "seconds": seconds,
            **metrics, **{key: value for key, value in of_head.items() if key != "gate_reason"}}


def base_of(given: argparse.Namespace, method: str) -> tuple[str, dict[str, Any]]:
    return BASES[method_class(method).masks or given.vit]


def _recipe(method: str, given: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe.read(method).as_plain()
    changed = {"precision": given.precision, **({"batch_size": given.batch_size} if given.batch_size else {})}
    return {**recipe, "proxy": {**recipe["proxy"], **changed}}


def wanted(given: argparse.Namespace, done: pd.DataFrame) -> Iterator[tuple[str, str, int]]:
    known = set(done[KEY].itertuples(index=False, name=None)) if len(done) else set()
    for seed, method, head in product(range(given.seeds), given.methods, HEADS):
        if method == THROUGH and head == "none":
            continue  # the same as plain SimCLR
        if (method, base_of(given, "simclr" if method == THROUGH else method)[0], head, seed, given.steps) not in known:
            yield method, head, seed


def work(given: argparse.Namespace) -> pd.DataFrame:
    """Run what is missing until the time is over; the table so far."""
    path, deadline = Path(given.out), time.monotonic() + 60 * given.minutes
    table = pd.read_csv(path, na_values=[""], keep_default_na=False) if path.exists() else pd.DataFrame()
    waiting = wanted(given, table)
    running: set[Future[dict[str, Any]]] = set()
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        while True:
            while len(running) < given.workers and time.monotonic() < deadline and (one := next(waiting, None)) is not None:
                running.add(pool.submit(run, given, *one))
            if not running:
                return table
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            table = pd.concat([table, pd.DataFrame([future.result() for future in ended])], ignore_index=True)
            table.to_csv(path, index=False)
            print(f"{len(table)} runs, {(deadline - time.monotonic()) / 60:.0f} min left", flush=True)


def with_interval(values: pd.Series) -> str:
    found = t_interval(list(values))
    return f"{values.mean():.1f}" + (f" ± {(found[1] - found[0]) / 2:.1f}" if found else "") if len(values) else ""


def show(table: pd.DataFrame) -> None:
    """Print a line for each method and head, and the correlations."""
    print("| method | base | head | seeds | accuracy % | against no head | untrained | seconds |\n|---|---|---|---|---|---|---|---|")
    for (method, base, head), rows in table.groupby(["method", "base", "head"], sort=False):
        gain = with_interval(gains(table, rows)) if head != "none" else ""
        print(f"| {method} | {base} | {head} | {len(rows)} | {with_interval(rows.accuracy)} | {gain} | {rows.untrained.mean():.1f} "
              f"| {rows.seconds.mean():.0f} |")
    heads = table[~table["head"].isin(["none"])].assign(gain=lambda rows: gains(table, rows))
    measures = [name for name in ("overlap", "cka", "output", "excess_loss", "architecture") if name in heads]
    print("\n| method | runs | " + " | ".join(f"gain and {name}" for name in measures) + " |\n" + "|---" * (2 + len(measures)) + "|")
    for method, rows in heads.groupby("method", sort=False):
        found = [rows[["gain", name]].corr(method="spearman").iloc[0, 1] for name in measures]
        print(f"| {method} | {len(rows)} | " + " | ".join(f"{value:+.2f}" for value in found) + " |")


def gains(table: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Accuracy minus that of no head with the same method, base and seed."""
    none = table[table["head"] == "none"].set_index(["method", "base", "seed"]).accuracy
    keys = zip(rows.method.replace(THROUGH, "simclr"), rows.base, rows.seed, strict=True)
    return (rows.accuracy - [none.get(key, float("nan")) for key in keys]).dropna()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--probe-data")
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
    parser.add_argument("--out", default="learn.csv")
    show(work(parser.parse_args()))


if __name__ == "__main__":
    main()
