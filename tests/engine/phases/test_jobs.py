"""Jobs: their keys, folders, and parts of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hssl_search.engine.execution.jobs import Job, Setting, Task
from hssl_search.engine.execution.machine import Machine, packed
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig

MLP = Contender(
    7, TrialState(name="mlp depth 1", family="mlp", head=HeadConfig(family="mlp", depth=1))
)
CPU = Machine("cpu", cpus=8, gpus=0)


@pytest.mark.parametrize(
    ("machine", "jobs", "at_once"),
    [
        (Machine("cpu", 2, 0), 10, 2),
        (Machine("cpu", 2, 0), 1, 1),
        (Machine("cpu", 64, 0), 100, 8),
        (Machine("cpu", 1, 0), 0, 1),
        (Machine("gpu", 16, 4), 10, 4),
        (Machine("gpu", 16, 4, 0.25), 100, 16),
        (Machine("gpu", 16, 4, 0.1), 100, 40),
        (Machine("gpu", 16, 1, 0.3), 9, 3),
        (Machine("gpu", 16, 4, 0.6), 9, 4),
    ],
)
def test_as_many_jobs_run_at_once_as_have_places(machine: Machine, jobs: int, at_once: int) -> None:
    assert machine.concurrency(jobs) == at_once


@pytest.mark.parametrize(
    "machine",
    [Machine("cpu", cpus, 0) for cpus in (1, 2, 3, 5, 8, 64)]
    + [
        Machine("gpu", cpus, gpus, each)
        for cpus in (1, 16)
        for gpus in (1, 3, 8)
        for each in (0.1, 0.25, 0.5, 1.0)
    ],
)
def test_jobs_at_once_fit_on_the_machine_together(machine: Machine) -> None:
    for jobs in range(1, 100):
        at_once = machine.concurrency(jobs)
        cpus, gpus = machine.resources(at_once)
        assert cpus >= 1
        assert at_once * gpus <= machine.gpus + 1e-6
        assert machine.device == "gpu" or at_once * cpus <= machine.cpus


@pytest.mark.parametrize(
    ("machine", "at_once", "charged"),
    [(CPU, 4, 1.0), (Machine("gpu", 8, 4), 3, 3.0), (Machine("gpu", 8, 4, 0.5), 3, 1.5)],
)
def test_what_is_charged_while_jobs_run_is_the_sum_of_their_shares(
    machine: Machine, at_once: int, charged: float
) -> None:
    cpus, gpus = machine.resources(at_once)
    job = Job("a", "proxy", Task.model_construct(), "/nowhere", cpus=cpus, gpus=gpus)
    assert machine.charged(at_once) == charged
    assert machine.share(job) * at_once == pytest.approx(charged)
    assert machine.wall_s(6.0, at_once) == pytest.approx(6.0 / machine.share(job))


def test_seconds_of_a_job_that_has_a_part_of_the_machine() -> None:
    assert CPU.wall_s(3.0, 1) == 3.0
    assert CPU.wall_s(3.0, 4) == 12.0
    assert Machine("gpu", 8, 4).wall_s(3.0, 4) == 3.0
    assert Machine("gpu", 8, 4, 0.25).wall_s(3.0, 16) == 12.0


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 6, 8, 12, 64])
def test_few_cores_are_idle_however_many_jobs_there_are(cpus: int) -> None:
    machine = Machine("cpu", cpus, 0)
    for jobs in range(1, 50):
        at_once = machine.concurrency(jobs)
        rounds = -(-jobs // at_once)
        assert rounds * machine.wall_s(1.0, at_once) <= 1.25 * jobs, (
            "wall-clock, of which a CPU budget pays all, against device-time planned"
        )
    assert machine.concurrency(48) >= min(cpus, 4)


def test_places_are_those_of_jobs_of_that_size() -> None:
    assert CPU.places(Job("a", "proxy", Task.model_construct(), "/nowhere", cpus=3.0)) == 2
    assert CPU.places(Job("a", "proxy", Task.model_construct(), "/nowhere", cpus=16.0)) == 1
    assert (
        Machine("gpu", 16, 4, 0.1).places(
            Job("a", "proxy", Task.model_construct(), "/nowhere", gpus=0.1)
        )
        == 40
    )


@pytest.fixture
def maker(setting: Setting, tmp_path: Path) -> JobMaker:
    return JobMaker(setting, tmp_path, CPU)


def all_jobs(maker: JobMaker) -> list[Job]:
    return [
        maker.measure([{"family": "mlp"}], 3),
        maker.group(1, [{"family": "mlp"}, {"family": "noise"}], 41, 3, 1.5, 2),
        maker.training("proxy", MLP, 3, 100, [50, 100], 1.5, 2),
        maker.training("confirm", MLP, 4, 100, [100], 1.5, 2),
        maker.full("full training with mlp", MLP.heads, 900, [450, 900], 3, 1.5),
    ]


def test_keys_phases_folders_and_trials(maker: JobMaker, tmp_path: Path) -> None:
    assert [
        (job.key, job.phase, Path(job.folder).relative_to(tmp_path).as_posix(), job.trial)
        for job in all_jobs(maker)
    ] == [
        ("measure", "measure", "measure", None),
        ("screen/group1", "screen", "screening/group-01", None),
        ("proxy/0007/seed3", "proxy", "trials/0007/checkpoint", 7),
        ("confirm/0007/seed4", "confirm", "trials/0007/checkpoint-seed4", 7),
        ("full", "full", "winner/checkpoint", None),
    ]


def test_jobs_are_plain_data_that_a_worker_reads_and_the_same_when_made_again(
    maker: JobMaker, setting: Setting
) -> None:
    for job, again in zip(all_jobs(maker), all_jobs(maker), strict=True):
        assert Job.from_plain(json.loads(json.dumps(job.as_plain()))) == job == again
        assert job.task.setting == setting
        assert job.task.kind == "measure" or job.task.rungs[-1] == job.task.steps


def test_what_each_kind_of_job_trains(maker: JobMaker) -> None:
    measure, group, proxy, confirm, full = (job.task for job in all_jobs(maker))
    heads = MLP.heads
    assert (measure.kind, measure.heads) == ("measure", [HeadConfig(family="mlp")])
    assert (group.name, group.rungs, group.accuracy, group.stage) == (
        "group 2: 2 heads",
        [20, 41],
        False,
        "proxy",
    )
    assert (proxy.heads, proxy.rungs, proxy.seed, proxy.accuracy) == (heads, [50, 100], 3, True)
    assert (confirm.heads, confirm.seed) == (heads, 4)
    assert (full.stage, full.heads, full.steps) == ("full", heads, 900)


@pytest.mark.parametrize(
    ("machine", "cpus"),
    [
        (Machine("cpu", 1, 0), None),
        (Machine("cpu", 2, 0), 1),
        (Machine("cpu", 8, 0), 1),
        (Machine("cpu", 64, 0), 8),
        (Machine("gpu", 16, 4), None),
    ],
)
def test_measuring_times_a_step_on_the_cores_of_a_job_beside_others(
    setting: Setting, tmp_path: Path, machine: Machine, cpus: int
) -> None:
    assert JobMaker(setting, tmp_path, machine).measure([], 0).task.cpus_beside == cpus


@pytest.mark.parametrize(
    ("machine", "cpus", "used"),
    [
        (Machine("cpu", 8, 0), 8, 1.0),
        (Machine("cpu", 8, 0), 1, 0.65),
        (Machine("cpu", 8, 0), 4, 0.65 + 0.35 * 3 / 7),
        (Machine("cpu", 1, 0), 1, 1.0),
        (Machine("gpu", 16, 2), 4, 1.0),
    ],
)
def test_core_seconds_lie_between_those_on_all_cores_and_those_on_the_fewest(
    machine: Machine, cpus: float, used: float
) -> None:
    assert machine.cores_used(cpus, 0.65) == pytest.approx(used)
    amdahl = {cores: 2.0 + 14.0 / cores for cores in (1, 4, 8)}  # seconds of a step
    ratio = amdahl[1] / (8 * amdahl[8])
    if machine.cpus == 8:
        assert machine.cores_used(cpus, ratio) == pytest.approx(
            amdahl[int(cpus)] * cpus / (8 * amdahl[8])
        )


def test_label_free_quality_is_measured_at_each_rung_where_it_ranks_and_else_at_the_last(
    maker: JobMaker, setting: Setting
) -> None:
    ranked = JobMaker(setting, maker.folder, CPU, labelfree_ranks=True)
    always = [[job.task.labelfree_always for job in all_jobs(each)] for each in (maker, ranked)]
    assert always == [[False] * 5, [True, False, True, True, False]]


def test_trainings_may_be_still_for_15_minutes_and_twice_their_reserve_and_measuring_for_ever(
    maker: JobMaker,
) -> None:
    assert [job.still_s for job in all_jobs(maker)] == [None, 906.0, 906.0, 906.0, 903.0]


def test_only_further_seeds_are_told_in_the_name(maker: JobMaker, setting: Setting) -> None:
    names = [
        maker.training("confirm", MLP, seed, 10, [10], 0, 1).task.name
        for seed in (setting.data_seed, 5)
    ]
    assert names == ["mlp depth 1", "mlp depth 1 (seed 5)"]


def test_a_reserve_in_device_seconds_is_longer_for_a_job_with_a_part_of_the_machine(
    maker: JobMaker,
) -> None:
    assert [job.task.reserve_s for job in all_jobs(maker)] == [0.0, 3.0, 3.0, 3.0, 1.5]
    assert [job.cpus for job in all_jobs(maker)] == [8, 4, 4, 4, 8]


GIB = 2**30


@pytest.mark.parametrize(
    ("peak", "gpu", "share"),
    [
        (1, 80, 1 / 4),
        (14, 80, 1 / 4),
        (15, 80, 1 / 3),
        (30, 80, 1 / 2),
        (39, 80, 1.0),
        (79, 80, 1.0),
        (200, 80, 1.0),
        (2, 8, 1 / 2),
    ],
)
def test_as_many_trainings_share_a_gpu_as_its_memory_holds_with_a_margin_and_at_most_four(
    peak: float, gpu: int, share: float
) -> None:
    assert packed(int(peak * GIB), gpu * GIB) == share
    at_once = round(1 / share)
    assert at_once == 1 or at_once * (1.3 * peak + 1) <= gpu
    assert Machine("gpu", 16, 2, share).concurrency(100) == 2 * at_once
