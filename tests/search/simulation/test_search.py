"""A search of many trials on many workers, in virtual time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hssl_search.search.budget import Budget
from hssl_search.search.execution.tasks import Setting
from hssl_search.search.jobmaker import Machine
from hssl_search.search.planner import Plan
from hssl_search.search.simulation.search import Simulation
from hssl_search.search.simulation.synthetic_heads import SyntheticHeads
from hssl_search.search.simulation.worker import Faults
from hssl_search.spaces.space import Space

WIDE = {"family": {"choice": ["convnext", "mlp"]}, "depth": {"int": [1, 16]}, "width_ratio": {"choice": [0.25, 0.5, 0.75, 1.0]},
        "mlp_ratio": {"choice": [1.0, 2.0, 3.0, 4.0]}}
TRIALS, PROXIES = 300, 60


def test_a_search_of_many_trials_ends_with_true_states_within_its_budget(tmp_path: Path, setting: Setting) -> None:
    plan = Plan(TRIALS, 8, 40, PROXIES, 80, [20, 40, 80], 38, {"screen": 1.0, "proxy": 1.0, "confirm": 1.0, "full": 0.0})
    started = Simulation(tmp_path / "run", Space.from_plain({"parameters": WIDE}, "wide"), setting, SyntheticHeads(),
                         Machine("gpu", cpus=32, gpus=32), Budget(10_000.0, "gpu", "some"), faults=Faults(dies=0.1, straggling=0.2),
                         plan=plan, cost=lambda head, shape: (10, 10)).start()
    verdict = started.search()
    trials = [trial for trial in started.study.trials() if trial.user_attrs["role"] == "candidate"]
    states = Counter(trial.state.name for trial in trials)
    assert len(trials) == TRIALS
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert 0 < states["COMPLETE"] <= PROXIES
    assert all(max(trial.intermediate_values) == 80 for trial in trials if trial.state.name == "COMPLETE")
    assert next(trial for trial in trials if trial.number == verdict["winner"]).state.name == "COMPLETE"
    assert started.meter.spent() <= 10_000.0
