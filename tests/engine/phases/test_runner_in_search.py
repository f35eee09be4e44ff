"""How the jobs of a search get their devices and are taken up again, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hssl_search.engine.execution.jobs import Job, Outcome, Report, State, Task
from hssl_search.engine.execution.machine import Machine

Lab = Any
"""See conftest.py."""


@pytest.mark.parametrize("machine", [Machine("gpu", 16, 1), Machine("gpu", 16, 1, 0.5)])
def test_on_gpus_the_same_search_is_charged_to_jobs_alone(
    make_lab: Callable[..., Lab], machine: Machine
) -> None:
    lab = make_lab(budget="10gpu-min", machine=machine)
    assert lab.search()["state"] == "better"
    lab.check()
    assert lab.charged() == pytest.approx(machine.gpus_per_trial * (lab.now - 100.0), rel=1e-3)


def test_trainings_share_a_gpu_by_measured_memory_and_the_full_training_has_it_alone(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(
        budget="10gpu-min", machine=Machine("gpu", 16, 1), gpus_per_trial=None, full_epochs=1000
    )
    lab.memory = {"memory_bytes": 20 * 2**30, "gpu_bytes": 80 * 2**30}
    held: dict[str, set[float]] = {}
    work = lab.work
    lab.work = lambda job, send: (held.setdefault(job.phase, set()).add(job.gpus), work(job, send))[
        1
    ]
    assert lab.search()["state"] == "better"
    lab.check()
    assert held == {
        "measure": {1.0},
        "screen": {0.5},
        "proxy": {0.5},
        "confirm": {0.5},
        "full": {1.0},
    }
    assert lab.study.job_records()["full"]["state"] == "done", (
        "alone it goes no faster than it was measured"
    )
    resolved = lab.run.config()
    assert resolved["gpus_per_trial"] == 0.5, "nothing is left to be found out"
    lab.search()
    assert lab.run.config() == resolved


KEY = "proxy/0003/seed0"
HELD = Report(10, {"accuracy": 30.0})
CUT, DONE = Outcome(State.CUT, reports=[HELD]), Outcome(State.DONE, reports=[HELD])


@pytest.mark.parametrize(
    ("trial", "ended", "steps"),
    [
        (3, {}, [10, 20]),
        (3, {KEY: CUT}, [10, 20]),
        (3, {KEY: DONE}, [10]),
        (None, {}, []),
        (4, {}, []),
    ],
    ids=["killed", "cut", "done", "of no trial", "of a trial without metrics"],
)
def test_what_a_killed_search_had_heard_of_a_job_is_known_again(
    lab: Lab, trial: int | None, ended: dict[str, Outcome], steps: list[int]
) -> None:
    for step, accuracy in ((10, 31.0), (20, 32.0)):
        lab.run.append_metrics(3, {"job": KEY, "step": step, "accuracy": accuracy})
        lab.run.append_metrics(3, {"job": "confirm/0003/seed1", "step": step + 5, "accuracy": 0.0})
    backend = replace(lab.controller().backend, ended=dict(ended))
    backend.recall(Job(KEY, "proxy", Task.model_construct(), "/nowhere", trial))
    reports = backend.ended[KEY].reports if KEY in backend.ended else []
    assert [report.step for report in reports] == steps
    assert HELD in reports or not ended, "what the study holds is not replaced"
    assert not steps or backend.ended[KEY].state is (
        State.DONE if ended == {KEY: DONE} else State.CUT
    )


def test_a_search_that_is_taken_up_knows_how_its_jobs_ended(lab: Lab) -> None:
    lab.search()
    outcomes = lab.controller().backend.ended
    assert outcomes == lab.study.job_outcomes()
    assert list(outcomes) == lab.starts
