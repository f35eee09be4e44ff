"""Jobs in virtual time: what they cost, what goes wrong, and that they are answered as real workers
answer.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulation.executor import SimulatedExecutor, VirtualClock
from benchmarks.simulation.headbench import OF_BASE, OF_HEAD, HeadBench
from benchmarks.simulation.measured_heads import MeasuredHeads
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from benchmarks.simulation.worker import Faults, SimulatedWorker
from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import Decision, Job, Outcome, Report, Setting, State, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.worker.run_job import run_job
from hssl_search.heads.config import HeadConfig

GPUS = Machine("gpu", cpus=8, gpus=4)
RUNGS = [20, 40, 80]
TRUTH = SyntheticHeads()
ALONE_S = 80 * 0.12 + 3 * (1.0 + 0.1) + 0.5
"""Of one head alone by the costs of `SyntheticHeads`: steps, three evaluations and checkpoints, and
what the last measures more."""


class Source:
    """Hands out jobs and writes down what it hears."""

    def __init__(
        self, jobs: list[Job], stop: Callable[[Job, Report], bool] = lambda job, report: False
    ) -> None:
        self.jobs, self.stop = list(jobs), stop
        self.heard: dict[str, list[int]] = {job.key: [] for job in jobs}
        self.outcomes: dict[str, Outcome] = {}
        self.told: Counter[str] = Counter()

    def next_job(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def on_report(self, job: Job, report: Report) -> Decision:
        self.heard[job.key].append(report.step)
        return Decision.STOP if self.stop(job, report) else Decision.CONTINUE

    def again(self, job: Job) -> Job:
        return job

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.told[job.key] += 1
        self.outcomes[job.key] = outcome

    def states(self) -> Counter[State]:
        return Counter(outcome.state for outcome in self.outcomes.values())


def training(
    setting: Setting, number: int = 0, seconds: float | None = None, **changes: Any
) -> Job:
    asked: dict[str, Any] = {
        "heads": [{"family": "mlp"}],
        "steps": RUNGS[-1],
        "rungs": RUNGS,
        **changes,
    }
    task = Task(setting=setting, **asked)
    return Job(
        f"proxy/{number}",
        "proxy",
        task,
        f"/nowhere/{number}",
        number,
        gpus=1.0,
        seconds=seconds,
    )


class Site:
    """An executor with its meter and clock."""

    def __init__(
        self, folder: Path, budget_s: float = 1e9, answers: Any = TRUTH, **faults: Any
    ) -> None:
        self.clock = VirtualClock()
        self.meter = DeviceMeter(
            Ledger(folder / "ledger.jsonl", self.clock),
            Budget(budget_s, "gpu", "some"),
            8,
            4,
            clock=self.clock,
        )
        self.executor = SimulatedExecutor(
            SimulatedWorker(answers, GPUS, Faults(**faults)), self.meter, self.clock
        )


def test_time_and_charges_follow_from_the_costs(tmp_path: Path, setting: Setting) -> None:
    site, source = (
        Site(tmp_path, startup_s=5.0),
        Source([training(setting, number) for number in range(10)]),
    )
    site.executor.run(source, concurrency=4)
    # workers start once; ten jobs on four devices are three rounds
    assert site.clock.now == pytest.approx(5.0 + 3 * ALONE_S)
    assert site.meter.spent() == pytest.approx(4 * 5.0 + 10 * ALONE_S)
    assert source.states() == {State.DONE: 10}
    assert set(source.told.values()) == {1}
    assert all(steps == RUNGS for steps in source.heard.values())


def test_the_same_faults_give_the_same_events(tmp_path: Path, setting: Setting) -> None:
    def events(place: str) -> list[Any]:
        (tmp_path / place).mkdir()
        site, source = (
            Site(tmp_path / place, dies=0.2, straggling=0.5, startup_s=2.0),
            Source([training(setting, n) for n in range(20)]),
        )
        site.executor.run(source, concurrency=3)
        return [(key, outcome.state, outcome.seconds) for key, outcome in source.outcomes.items()]

    assert events("once") == events("again")


def test_a_dead_worker_costs_what_it_had_not_saved_and_is_tried_again(
    tmp_path: Path, setting: Setting
) -> None:
    site, source = (
        Site(tmp_path, dies=0.3),
        Source([training(setting, number) for number in range(200)]),
    )
    site.executor.run(source, concurrency=4)
    expected_failures = 200 * failing(0.3, rungs=3, attempts=3)
    assert abs(source.states()[State.FAILED] - expected_failures) < 4 * expected_failures**0.5
    for outcome in source.outcomes.values():
        steps = [report.step for report in outcome.reports]
        assert steps == RUNGS[: len(steps)]
        if outcome.state is State.FAILED:
            assert outcome.cause == "the worker process died 3 times"
        else:
            assert ALONE_S <= outcome.seconds + 1e-6
            # two stretches lost, and two rungs looked at again
            assert outcome.seconds < ALONE_S + 2 * (40 * 0.12 + 1.6) + 2 * 1.1 + 1e-6


def failing(dies: float, rungs: int, attempts: int) -> float:
    """Return the probability that a job dies `attempts` times: each attempt begins by reporting the
    rung again that the last one reached."""
    reached = {0: 1.0}
    for _ in range(attempts):
        after: Counter[int] = Counter()
        for done, chance in reached.items():
            stretches = rungs - done + (1 if done else 0)
            for survived in range(stretches):
                after[max(done, done + survived - (1 if done else 0))] += (
                    chance * (1 - dies) ** survived * dies
                )
        reached = dict(after)
    return sum(reached.values())


def test_stragglers_are_lognormal(tmp_path: Path, setting: Setting) -> None:
    site, source = (
        Site(tmp_path, straggling=0.5),
        Source([training(setting, number) for number in range(300)]),
    )
    site.executor.run(source, concurrency=4)
    factors = [outcome.seconds / ALONE_S for outcome in source.outcomes.values()]
    assert statistics.median(factors) == pytest.approx(1.0, abs=0.12)
    # one sigma above
    assert statistics.quantiles(factors, n=100)[83] == pytest.approx(2.718**0.5, rel=0.15)


def test_a_spent_budget_ends_everything_at_that_very_moment(
    tmp_path: Path, setting: Setting
) -> None:
    site, source = (
        Site(tmp_path, budget_s=6 * ALONE_S),
        Source([training(setting, number) for number in range(10)]),
    )
    site.executor.run(source, concurrency=4)
    assert source.states() == {State.DONE: 4, State.CUT: 4}
    assert site.meter.spent() == pytest.approx(6 * ALONE_S)
    assert site.clock.now == pytest.approx(1.5 * ALONE_S)


def test_a_job_that_is_cut_goes_on_from_its_checkpoint(tmp_path: Path, setting: Setting) -> None:
    site = Site(tmp_path)
    stopped = Source([training(setting)], stop=lambda job, report: report.step == 40)
    site.executor.run(stopped, 1)
    again = Source([training(setting)])
    site.executor.run(again, 1)
    assert stopped.states() == {State.STOPPED: 1}
    assert again.heard == {"proxy/0": [40, 80]}
    assert again.outcomes["proxy/0"].reports[0].metrics["train_steps"] == 0


def test_a_job_ends_at_a_checkpoint_before_its_seconds_are_over(
    tmp_path: Path, setting: Setting
) -> None:
    source = Source([training(setting, seconds=7.0, reserve_s=2.0)])
    Site(tmp_path).executor.run(source, 1)
    outcome = source.outcomes["proxy/0"]
    # 5 s: 20 steps, 1.1 s at the rung, and 12 of the next steps
    assert [report.step for report in outcome.reports] == [
        20,
        32,
    ]
    assert outcome.seconds <= 7.0


def test_a_job_without_seconds_for_a_step_reports_nothing(tmp_path: Path, setting: Setting) -> None:
    source = Source([training(setting, seconds=0.0, reserve_s=2.0)])
    Site(tmp_path).executor.run(source, 1)
    assert (source.outcomes["proxy/0"].reports, source.outcomes["proxy/0"].seconds) == ([], 0.0)


def test_what_answers_raise_ends_the_run(tmp_path: Path, setting: Setting) -> None:
    class Broken(SyntheticHeads):
        def step_s(self, heads: Any) -> float:
            raise ValueError("no such head")

    source = Source([training(setting)])
    with pytest.raises(ValueError, match="no such head"):
        Site(tmp_path, answers=Broken()).executor.run(source, 1)
    assert source.states() == {State.CUT: 1}


def test_synthetic_heads_are_as_they_are_said_to_be() -> None:
    truth = SyntheticHeads(spread=2.0, error=0.5, agreement=0.6)
    heads = [
        HeadConfig(family="mlp", depth=depth, mlp_ratio=ratio / 8)
        for depth in range(1, 33)
        for ratio in range(1, 65)
    ]
    gains = [truth.gain(head) for head in heads]
    errors = [truth.accuracy(head, 3, 10**6) - truth.accuracy(head, 4, 10**6) for head in heads]
    overlaps = [truth._of_head(head, True)["overlap"] for head in heads]
    assert statistics.stdev(gains) == pytest.approx(2.0, rel=0.05)
    assert statistics.stdev(errors) == pytest.approx(0.5 * 2**0.5, rel=0.05)
    assert statistics.correlation(gains, overlaps) == pytest.approx(0.6, abs=0.05)


def test_a_table_answers_as_the_real_worker_it_was_measured_with(
    tmp_path: Path, setting: Setting
) -> None:
    setting = setting.model_copy(
        update={"recipe": {**setting.recipe, "proxy": {**setting.recipe["proxy"], "batch_size": 8}}}
    )
    heads: list[dict[str, Any]] = [{"family": "mlp"}, {"family": "identity"}, {"family": "noise"}]
    shape: dict[str, Any] = {"steps": 2, "rungs": [1, 2]}
    asked = [
        training(setting, 0, heads=[], **shape),
        training(setting, 1, heads=heads[:1], **shape),
        training(setting, 2, heads=heads, accuracy=False, architecture=True, **shape),
    ]
    jobs = [Job(job.key, job.phase, job.task, str(tmp_path / job.key)) for job in asked]
    real, simulated = Source(jobs), Source(asked)
    site = Site(tmp_path)
    InlineExecutor(run_job, site.meter).run(real)
    rows = [
        row
        for number, job in enumerate(jobs)
        for report in real.outcomes[job.key].reports
        for row in rows_of(report, job.task, number)
    ]
    # for their cost
    rows += [
        {**rows[0], "head": HeadConfig(family=control), "role": control}
        for control in ("identity", "noise")
    ]
    measured = {
        **TRUTH.measured([]),
        "families": ["mlp"],
        "costs": [[1, 1]],
        "head_step_s": [0.02],
        "last_evaluate_s": 0.1,
    }
    table = HeadBench(rows, {"measured": measured})
    Site(tmp_path, answers=MeasuredHeads(table, {0: 0})).executor.run(simulated, 3)
    timing = {"train_s", "train_steps", "gpus", "surroundings"}
    for job in jobs:
        for found, expected in zip(
            simulated.outcomes[job.key].reports, real.outcomes[job.key].reports, strict=True
        ):
            assert set(found.metrics) | {"heads"} == set(expected.metrics) | {"heads"}
            for key in set(found.metrics) & set(expected.metrics) - timing - {"heads"}:
                assert found.metrics[key] == pytest.approx(expected.metrics[key])
            heads = [
                [
                    {key: value for key, value in head.items() if key != "step_ratio"}
                    for head in report.metrics.get("heads", [])
                ]
                for report in (found, expected)
            ]
            assert heads[0] == heads[1]


def rows_of(report: Report, task: Task, group: int) -> list[dict[str, Any]]:
    heads: list[HeadConfig | None] = [HeadConfig.model_validate(head) for head in task.heads]
    joint = len(heads) > 1
    roles = {"identity": "identity", "noise": "noise"}
    return [
        {
            "training": "joint" if joint else "alone",
            "group": group if joint else None,
            "role": roles.get(head.family, "candidate") if head else "none",
            "head": head,
            "seed": task.seed,
            "steps": task.steps,
            "step": report.step,
            "step_s": 0.1,
            "core_s": 1.0,
            "parameters": 1,
            "macs": 1,
            **{key: report.metrics.get(key) for key in OF_BASE},
            **{key: report.metrics["heads"][place].get(key) for key in OF_HEAD if head},
        }
        for place, head in enumerate(heads or [None])
    ]
