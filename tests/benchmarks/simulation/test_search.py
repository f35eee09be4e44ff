"""A search of many trials on many workers, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulation.search import Simulation, Started
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from benchmarks.simulation.worker import Faults
from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.storage import open_storage
from hssl_search.engine.records.storage_url import sqlite_url
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

WIDE = {
    "family": {"choice": ["convnext", "mlp"]},
    "depth": {"int": [1, 16]},
    "width_ratio": {"choice": [0.25, 0.5, 0.75, 1.0]},
    "mlp_ratio": {"choice": [1.0, 2.0, 3.0, 4.0]},
}
HEADS = SyntheticHeads()


def simulation(
    folder: Path,
    setting: Setting,
    trials: int,
    proxies: int,
    gpus: int,
    budget_s: float,
    **changes: Any,
) -> Simulation:
    """Return a search with this plan, whether its budget lasts for it or not."""
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
    return Simulation(
        folder / "run",
        Space.from_plain({"parameters": WIDE}, "wide"),
        setting,
        HEADS,
        Machine("gpu", cpus=gpus, gpus=gpus),
        Budget(budget_s, "gpu", "some"),
        **{
            "faults": Faults(dies=0.1, straggling=0.2),
            "plan": plan,
            "cost": lambda head, shape: (10, 10),
            **changes,
        },
    )


def test_a_search_of_many_trials_ends_with_true_states_within_its_budget(
    tmp_path: Path, setting: Setting
) -> None:
    started = simulation(tmp_path, setting, 300, 60, 32, 10_000.0).start()
    verdict = started.search()
    trials = [trial for trial in started.study.trials() if trial.user_attrs["role"] == "candidate"]
    states = Counter(trial.state.name for trial in trials)
    assert len(trials) == 300
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert 0 < states["COMPLETE"] <= 60
    assert all(
        max(trial.intermediate_values) == 80 for trial in trials if trial.state.name == "COMPLETE"
    )
    assert (
        next(trial for trial in trials if trial.number == verdict.winner).state.name == "COMPLETE"
    )
    assert started.meter.spent() <= 10_000.0


@pytest.mark.parametrize(
    ("budget_s", "cut_in"),
    [
        (700.0, {"screen"}),
        (1_000.0, {"screen", "proxy"}),
        (3_000.0, None),
        (6_000.0, None),  # what screening leaves goes to proxies
    ],
)
def test_64_workers_that_straggle_and_die_meet_the_budget_within_a_step(
    tmp_path: Path, setting: Setting, budget_s: float, cut_in: set[str] | None
) -> None:
    faults = Faults(dies=0.1, straggling=0.3, startup_s=20.0)
    started = simulation(tmp_path, setting, 200, 60, 64, budget_s, faults=faults).start()
    started.search()
    step_s = 64 * HEADS.step_s([])
    assert Ledger(tmp_path / "run" / "ledger.jsonl").total() == pytest.approx(
        started.meter.spent(), abs=1e-3
    )
    assert started.meter.spent() <= budget_s + step_s / 1000, (
        "what runs when the budget is spent is cut then"
    )
    if cut_in:
        assert started.controller.backend.short == cut_in
        assert started.meter.spent() > budget_s - step_s


class SlowTrainings(SyntheticHeads):
    """Trainings of one head take three times what was measured; joint screenings do not."""

    def step_s(self, heads: Sequence[HeadConfig]) -> float:
        return super().step_s(heads) * (3 if len(heads) < 2 else 1)


@pytest.mark.parametrize(
    ("faults", "seed"),
    [(Faults(), 0), (Faults(dies=0.1, straggling=0.3, startup_s=20.0), 4)],
    ids=["healthy", "straggling"],
)
def test_on_several_gpus_slow_trainings_are_confirmed_as_long_as_the_budget_buys_another(
    tmp_path: Path, setting: Setting, faults: Faults, seed: int
) -> None:
    machine, budget = (
        Machine("gpu", cpus=16, gpus=8, gpus_per_trial=0.25),
        Budget(4_000.0, "gpu", "4000gpu-s"),
    )
    space = Space.from_plain({"parameters": WIDE}, "wide")
    started = Simulation(
        tmp_path / "run",
        space,
        setting,
        SlowTrainings(),
        machine,
        budget,
        seed=seed,
        faults=faults,
        cost=lambda head, shape: (10, 10),
    ).start()
    started.search()
    confirmed = [
        record
        for key, record in started.study.job_records().items()
        if key.startswith("confirm/") and record["state"] == "done"
    ]
    assert started.controller.backend.pace.now > 2
    assert len(confirmed) > 4, "more than the controls"
    assert started.meter.remaining() < machine.gpus_per_trial * max(
        record["seconds"] for record in confirmed
    )
    assert 0.95 * budget.seconds < started.meter.spent() <= budget.seconds + 1e-3


def found(started: Started) -> list[Any]:
    """Return everything that a search finds."""
    verdict = started.search()
    trials = [
        (
            trial.number,
            trial.state,
            trial.value,
            trial.params,
            trial.intermediate_values,
            trial.user_attrs,
        )
        for trial in started.study.trials()
    ]
    return [verdict, trials, started.study.job_records(), started.meter.spent()]


def test_the_same_seed_gives_the_same_study_in_memory_and_in_sqlite(
    tmp_path: Path, setting: Setting
) -> None:
    def search(name: str, storage: BaseStorage, seed: int = 0) -> list[Any]:
        return found(
            simulation(
                tmp_path / name, setting, 16, 8, 4, 1_000.0, promote="learned", seed=seed
            ).start(storage)
        )

    in_memory = search("memory", InMemoryStorage())
    with open_storage(sqlite_url(tmp_path / "study.db")) as sqlite:
        assert search("sqlite", sqlite) == in_memory
    assert search("another", InMemoryStorage(), seed=1) != in_memory
