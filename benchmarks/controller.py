"""How fast the controller decides: a search of many trials on many workers, in virtual time.

    python benchmarks/controller.py --trials 10000 --workers 256

The real controller, trials, study, ledger and dispatcher run; only training is looked up
(SyntheticHeads). A tenth of the workers' stretches ends in a death, and attempts straggle. The
study is in memory (Optuna's InMemoryStorage) unless `--storage sqlite` asks for a run's own
database; run folder and ledger are on the disk in both cases. The time is that of the search alone,
without the imports before it. Prints seconds, peak memory, how the budget was met, and what a job
costs early and late in a phase; a first fifth has imports in it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulation.search import Simulation
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from benchmarks.simulation.worker import Faults
from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records.storage import open_storage
from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.spaces.space import Space

WIDE = {
    "family": {"choice": ["convnext", "resnet", "transformer", "mlp"]},
    "depth": {"int": [1, 16]},
    "width_ratio": {"choice": [0.25, 0.5, 0.75, 1.0]},
    "mlp_ratio": {"choice": [round(1 + n / 8, 3) for n in range(64)]},
    "first_shortcut": {"choice": [False, True]},
}
"""More than 16,000 heads, drawn from without putting back."""
FAULTS = Faults(dies=0.1, straggling=0.2, startup_s=20.0)
PROXIES = 0.2
"""Share of the trials that are promoted."""
BUDGET = 1.3
"""The budget as a share of what all trials would take if none were stopped early."""


def simulation(
    folder: Path, trials: int, workers: int, share: float = BUDGET, promote: str = "discrepancy"
) -> Simulation:
    setting = Setting(
        base="test_resnet",
        base_args={},
        image_size=32,
        data="digits",
        probe_data=None,
        data_seed=0,
        recipe={stage: {"batch_size": 128, "precision": "fp32"} for stage in ("proxy", "full")},
        device="cuda",
    )
    proxies = max(2, int(PROXIES * trials))
    plan = Plan(
        trials,
        8,
        40,
        proxies,
        80,
        [20, 40, 80],
        38,
        {"screen": 1.0, "proxy": 1.0, "confirm": 1.0, "full": 0.0},
    )
    needed_s = (
        trials / 8 * (40 * 0.3 + 4.0) + proxies * (80 * 0.12 + 4.0) + 4 * FAULTS.startup_s * workers
    )
    budget = Budget(share * needed_s, "gpu", "some")
    return Simulation(
        folder / "run",
        Space.from_plain({"parameters": WIDE}, "wide"),
        setting,
        SyntheticHeads(),
        Machine("gpu", cpus=workers, gpus=workers),
        budget,
        faults=FAULTS,
        plan=plan,
        promote=promote,
        cost=lambda head, shape: (10, 10),
    )


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[BaseStorage]:
    if kind == "memory":
        yield InMemoryStorage()
    else:
        with open_storage(sqlite_url(folder / "study.db")) as opened:
            yield opened


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--storage", choices=["memory", "sqlite"], default="memory")
    parser.add_argument(
        "--promote", choices=["discrepancy", "learned", "random"], default="discrepancy"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        help="share of what all trials would take (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        help="where the run folder is made and removed (default: the system's for temporary files)",
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        storage(given.storage, Path(folder)) as opened,
    ):
        began, busy = time.monotonic(), time.process_time()
        started = simulation(
            Path(folder), given.trials, given.workers, given.budget, given.promote
        ).start(opened)
        ends = Timed(started.study)
        verdict = started.search()
        seconds, busy = time.monotonic() - began, time.process_time() - busy
        states = Counter(trial.state.name for trial in started.study.trials())
    print(
        f"{given.trials} trials, {given.workers} workers, {given.storage}, {given.promote}: "
        f"{seconds:.1f} s ({busy:.1f} s of processor), "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most"
    )
    print(
        f"{started.clock() / 3600:.2f} virtual hours; budget {started.meter.budget.seconds:.3f}, "
        f"spent {started.meter.spent():.3f} device-seconds"
    )
    print(f"states {dict(states)}; {verdict.sentence}")
    print("\n".join(ends.lines()))


class Timed:
    """Notes when jobs end, by wrapping the study's `record_job`."""

    def __init__(self, study: object) -> None:
        self.at: dict[str, list[float]] = {}
        record = study.record_job  # type: ignore[attr-defined]

        def timed(job: object, outcome: object) -> None:
            record(job, outcome)
            self.at.setdefault(job.phase, []).append(time.process_time())  # type: ignore[attr-defined]

        study.record_job = timed  # type: ignore[attr-defined]

    def lines(self) -> Iterator[str]:
        """Yield milliseconds of processor for each job that ended, in the first and in the last
        fifth of each phase."""
        for phase, at in self.at.items():
            if (part := len(at) // 5) > 1:
                first, last = (
                    1000 * (its[-1] - its[0]) / (part - 1) for its in (at[:part], at[-part:])
                )
                yield (
                    f"{phase}: {len(at)} jobs, {first:.2f} ms of processor each in the first "
                    f"fifth, {last:.2f} in the last"
                )


if __name__ == "__main__":
    main()
