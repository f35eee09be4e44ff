"""A worker runs real jobs on the built-in digits: what it reports, and how it continues."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from timm.layers import DropPath

from hssl_search.engine.execution.jobs import DeviceFull, Halt, Job, Plain, Setting, Task
from hssl_search.engine.worker import measure as measuring
from hssl_search.engine.worker import setup as worker_setup
from hssl_search.engine.worker.run_job import run_job
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.heads.config import HeadConfig
from hssl_search.methods.base import methods
from hssl_search.training.recipe import Recipe, Stage
from hssl_search.training.trainer import Trainer

RECIPE = {
    "method": {"name": "simclr", "projector_hidden": 64, "projector_out": 32},
    "proxy": {"batch_size": 48, "precision": "fp32"},
}
HEADS: list[Plain] = [
    {"family": "identity"},
    {"family": "convnext", "depth": 1, "kernel_size": 3},
    {"family": "noise"},
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSSL_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


ALWAYS = (
    "recomputed",
    "gpus",
    "surroundings",
    "loss",
    "base_losses",
    "head_losses",
    "patch_losses",
    "train_s",
    "train_steps",
)
LABELFREE = [
    f"labelfree_{name}" for name in ("rankme", "alpha_req", "lidar", "alignment", "uniformity")
]
OF_A_HEAD = ("cka", "overlap", "output", "head_loss", "excess_loss", "gate", "gate_reason")


def setting(**changes: Any) -> Setting:
    values: dict[str, Any] = {
        "base": "test_resnet",
        "base_args": {"output_stride": 8},
        "image_size": 16,
        "data": "digits",
        "probe_data": None,
        "data_seed": 0,
        "recipe": Recipe.from_plain(RECIPE).as_plain(),
        "device": "cpu",
    }
    return Setting(**{**values, **changes})


def job(folder: Path, task: Task, seconds: float | None = None) -> Job:
    """As it comes out of a file."""
    made = Job("screen/group0", "screen", task, str(folder), seconds=seconds)
    return Job.from_plain(json.loads(json.dumps(made.as_plain())))


def run(made: Job) -> list[tuple[int, Plain]]:
    reports: list[tuple[int, Plain]] = []
    run_job(made, lambda step, metrics: reports.append((step, json.loads(json.dumps(metrics)))))
    return reports


def without_time(report: tuple[int, Plain]) -> tuple[int, Plain]:
    step, metrics = report
    told = {key: value for key, value in metrics.items() if not key.startswith("train_")}
    return step, {
        **told,
        "heads": [
            {key: value for key, value in head.items() if key != "step_ratio"}
            for head in told.get("heads", [])
        ],
    }


@pytest.fixture(scope="module")
def screening() -> Task:
    return Task(setting=setting(), heads=HEADS, steps=30, rungs=[15, 30], architecture=True)


@pytest.fixture(scope="module")
def screened(
    cache: None, screening: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, list[tuple[int, Plain]]]:
    made = job(tmp_path_factory.mktemp("screening") / "checkpoint", screening)
    return made, run(made)


def test_every_rung_reports_losses_accuracy_and_each_head(
    screened: tuple[Job, list[tuple[int, Plain]]],
) -> None:
    _, reports = screened
    assert [step for step, _ in reports] == [15, 30]
    for step, metrics in reports:
        assert metrics.keys() == {*ALWAYS, *(LABELFREE if step == 30 else []), "accuracy", "heads"}
        assert [len(metrics[key]) for key in ("base_losses", "head_losses", "heads")] == [3, 3, 3]
        assert 0 < metrics["accuracy"] < 100
        for head, loss in zip(metrics["heads"], metrics["head_losses"], strict=True):
            last = step == 30
            assert head.keys() == {
                *OF_A_HEAD,
                *(["architecture"] if last and head is not metrics["heads"][2] else []),
                *(["step_ratio"] if last and head is metrics["heads"][1] else []),
            }, "reference heads have no proxy"
            assert head["head_loss"] == loss
        assert [
            head["head_loss"] + head["excess_loss"] for head in metrics["heads"]
        ] == pytest.approx(metrics["base_losses"])


def test_noise_is_rejected_and_identity_has_about_no_discrepancy(
    screened: tuple[Job, list[tuple[int, Plain]]],
) -> None:
    identity, convnext, noise = screened[1][-1][1]["heads"]
    assert noise["gate"] == "not learning"
    assert [identity["gate"], convnext["gate"]] == ["healthy", "healthy"]
    assert identity["overlap"] < 0.15 and identity["cka"] < 0.15
    assert noise["overlap"] > 0.9 and noise["cka"] > 0.9
    assert identity["overlap"] < convnext["overlap"] < noise["overlap"]


@pytest.mark.parametrize("method", list(methods()))
def test_another_noise_head_is_rejected_and_another_identity_head_has_no_excess(
    tmp_path: Path, cache: None, method: str
) -> None:
    recipe = (
        {**RECIPE, "method": {"name": method}}
        if method == "simclr"
        else Recipe.read(method).as_plain()
    )
    base = {"base": "test_vit", "base_args": {"patch_size": 4}} if methods()[method].masks else {}
    if base:
        # takes a minute with 128
        recipe = {
            **recipe,
            "proxy": {**recipe["proxy"], "batch_size": 48},
        }
    heads = [
        {"family": family} for family in ("noise", "identity", "convnext", "identity", "noise")
    ]
    task = Task(
        setting=setting(recipe=recipe, **base), heads=heads, steps=40, rungs=[40], accuracy=False
    )
    _, identity, convnext, other_identity, other_noise = run(job(tmp_path / "checkpoint", task))[
        -1
    ][1]["heads"]
    assert other_noise["gate"] == "not learning", other_noise["gate_reason"]
    assert {identity["gate"], convnext["gate"], other_identity["gate"]} == {"healthy"}
    assert abs(identity["overlap"] - other_identity["overlap"]) < 0.05
    assert convnext["overlap"] - identity["overlap"] > 0.1


@pytest.mark.parametrize("heads", [HEADS, HEADS[1:2]], ids=["screening", "proxy"])
@pytest.mark.parametrize("method", [name for name, kind in methods().items() if kind.local_views])
def test_local_crops_and_masks_go_through_whole_jobs(
    tmp_path: Path, cache: None, method: str, heads: list[Plain]
) -> None:
    recipe = Recipe.read(method).as_plain()
    recipe = {**recipe, "proxy": {**recipe["proxy"], "batch_size": 8, "precision": "fp32"}}
    with_crops = {**recipe, "views": {**recipe["views"], "local_crops": 2, "local_size": 8}}
    base = {"base": "test_vit", "base_args": {"patch_size": 4}} if methods()[method].masks else {}
    tasks = [
        Task(
            setting=setting(recipe=given, **base),
            heads=heads,
            steps=2,
            rungs=[1, 2],
            accuracy=len(heads) == 1,
        )
        for given in (recipe, with_crops)
    ]
    without, reports = (
        run(job(tmp_path / str(index) / "checkpoint", task)) for index, task in enumerate(tasks)
    )
    assert [step for step, _ in reports] == [1, 2]
    for _, metrics in reports:
        assert [len(metrics[key]) for key in ("base_losses", "head_losses", "heads")] == [
            len(heads)
        ] * 3
        assert len(metrics["patch_losses"]) == (len(heads) if base else 0)
        assert np.isfinite(
            [*metrics["base_losses"], *metrics["head_losses"], *metrics["patch_losses"]]
        ).all()
        assert ("accuracy" in metrics) is (len(heads) == 1)
    # of the same weights and global views at the first step, with more student views
    for key in (
        "base_losses",
        "head_losses",
    ):
        assert np.abs(np.subtract(reports[0][1][key], without[0][1][key])).min() > 1e-4
    assert [
        without_time(report) for report in run(job(tmp_path / "1" / "checkpoint", tasks[1]))
    ] == [without_time(reports[-1])]


def test_job_that_is_run_again_goes_on_from_its_checkpoint(
    screened: tuple[Job, list[tuple[int, Plain]]],
) -> None:
    made, reports = screened
    assert [without_time(report) for report in run(made)] == [without_time(reports[-1])]


def test_job_that_died_at_a_rung_reports_as_if_it_had_not(
    screened: tuple[Job, list[tuple[int, Plain]]], screening: Task, tmp_path: Path
) -> None:
    class Died(BaseException):
        pass

    def die(step: int, metrics: Plain) -> None:
        raise Died

    made = job(tmp_path / "checkpoint", screening)
    with pytest.raises(Died):
        run_job(made, die)
    assert [without_time(report) for report in run(made)] == [
        without_time(report) for report in screened[1]
    ]


Held = Callable[[Trainer], bool]
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.fixture
def memory_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, Held], None]:
    """`memory_ends(error, where)`: steps of trainers where it is so raise the error, after the
    forward pass has changed their state.
    """
    step = Trainer._one_step

    def set_up(error: Exception, where: Held) -> None:
        def one_step(trainer: Trainer) -> None:
            if where(trainer):
                trainer.pair.losses(
                    trainer.views.batch(trainer.images[trainer._indices()], trainer.generator), 0.5
                )
                raise error
            step(trainer)

        monkeypatch.setattr(Trainer, "_one_step", one_step)

    return set_up


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_training_that_runs_out_of_memory_goes_on_in_less_with_the_same_numbers(
    screened: tuple[Job, list[tuple[int, Plain]]],
    screening: Task,
    tmp_path: Path,
    memory_ends: Callable[[Exception, Held], None],
    error: Exception,
) -> None:
    memory_ends(error, lambda trainer: trainer.step >= 20 and not trainer.recomputes)
    reports = run(job(tmp_path / "checkpoint", screening))
    assert [metrics.pop("recomputed") for _, metrics in reports] == [False, True, True], (
        "the rung before is reported again"
    )
    assert without_time(reports[0]) == without_time(reports[1])
    expected = [
        (step, {key: value for key, value in metrics.items() if key != "recomputed"})
        for step, metrics in screened[1]
    ]
    assert [without_time(report) for report in reports[1:]] == [
        without_time(report) for report in expected
    ]


def test_a_training_that_needed_less_memory_goes_on_so_from_its_checkpoint(
    tmp_path: Path, memory_ends: Callable[[Exception, Held], None]
) -> None:
    tried: list[bool] = []
    memory_ends(
        OUT_OF_MEMORY[0],
        lambda trainer: (tried.append(trainer.recomputes), not trainer.recomputes)[1],
    )
    task = Task(setting=setting(), heads=HEADS[:1], steps=4, rungs=[2, 4], accuracy=False)

    class Died(BaseException):
        pass

    def die(step: int, metrics: Plain) -> None:
        raise Died

    with pytest.raises(Died):
        run_job(job(tmp_path / "checkpoint", task), die)
    assert tried == [False, True, True]
    assert [metrics["recomputed"] for _, metrics in run(job(tmp_path / "checkpoint", task))] == [
        True,
        True,
    ]
    assert tried == [False, True, True, True, True]


def test_a_training_that_no_memory_holds_says_so_and_what_to_do(
    tmp_path: Path, memory_ends: Callable[[Exception, Held], None]
) -> None:
    memory_ends(OUT_OF_MEMORY[0], lambda trainer: True)
    with pytest.raises(
        DeviceFull,
        match=(
            r"memory of the cpu device ran out.* held 1 of the CPUs; give the recipe a smaller "
            r"batch_size"
        ),
    ):
        run(
            job(
                tmp_path / "checkpoint",
                Task(setting=setting(), heads=HEADS[:1], steps=4, rungs=[4]),
            )
        )


def test_a_checkpoint_that_finds_no_space_halts_the_search_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(tensors: Any, path: Path) -> None:
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("hssl_search.training.checkpoint.save_file", save_file)
    with pytest.raises(
        Halt,
        match=f"no space is left on the disk of {tmp_path}/checkpoint; free some, then continue",
    ):
        run(job(tmp_path / "checkpoint", Task(setting=setting(), steps=1, rungs=[1])))


def test_measuring_goes_on_in_less_memory(
    tmp_path: Path, memory_ends: Callable[[Exception, Held], None]
) -> None:
    memory_ends(
        OUT_OF_MEMORY[0],
        lambda trainer: len(trainer.pair.student.heads) > 0 and not trainer.recomputes,
    )
    fp32 = Recipe.from_plain({**RECIPE, "proxy": {"batch_size": 8, "precision": "fp32"}}).as_plain()
    *_, (_, found) = run(
        job(
            tmp_path / "checkpoint",
            Task(kind="measure", setting=setting(recipe=fp32), heads=HEADS[:1]),
        )
    )
    assert found["step_s"] > 0 and found["evaluate_s"] > 0


def test_job_without_time_ends_without_a_report(screening: Task, tmp_path: Path) -> None:
    assert run(job(tmp_path / "checkpoint", screening, seconds=0.0)) == []


def test_base_alone_has_an_accuracy_and_no_heads(tmp_path: Path) -> None:
    vit = setting(base="test_vit", base_args={"patch_size": 4})
    ((step, metrics),) = run(job(tmp_path / "checkpoint", Task(setting=vit, steps=2, rungs=[2])))
    assert step == 2
    assert metrics.keys() == {*ALWAYS, *LABELFREE, "accuracy", "accuracy_mean"}
    assert metrics["head_losses"] == []


def test_images_without_labels_are_judged_by_discrepancy_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    task = Task(setting=setting(data=str(tmp_path / "photos")), heads=HEADS[:2], steps=2, rungs=[2])
    ((_, metrics),) = run(job(tmp_path / "checkpoint", task))
    assert "accuracy" not in metrics
    assert set(LABELFREE) <= metrics.keys()
    assert [head.keys() for head in metrics["heads"]] == [set(OF_A_HEAD)] * 2


def measured(task: Task, tmp_path: Path) -> tuple[list[str], Plain]:
    """(what was told on the way, all that was found)."""
    reports = run(job(tmp_path / "checkpoint", task))
    assert [step for step, _ in reports] == [1, 2, 3, 4]
    return [metrics["doing"] for _, metrics in reports], reports[-1][1]


def test_measuring_gives_all_that_a_plan_needs(tmp_path: Path) -> None:
    auto = {**RECIPE, "proxy": {"batch_size": 8, "precision": "auto"}}
    heads = [{"family": "mlp"}, {"family": "convnext"}]
    task = Task(
        kind="measure", setting=setting(recipe=Recipe.from_plain(auto).as_plain()), heads=heads
    )
    told, found = measured(task, tmp_path)
    assert found.keys() == {
        "precision",
        "step_s",
        "head_step_s",
        "evaluate_s",
        "last_evaluate_s",
        "checkpoint_s",
        "checkpoint_bytes",
        "memory_bytes",
        "gpu_bytes",
        "images",
        "batch_size",
        "joint",
        "profile_s",
        "reference",
        "map_shape",
        "side_by_side",
        "embedding_width",
        "skipped",
        "worker_s",
        "costs",
        "base_macs",
        "judged",
        "doing",
        "open",
        "timed",
    }
    assert found["precision"] in ("fp32", "bf16")
    assert re.fullmatch(r"a step of the base takes \S+ s; timing it further", told[0])
    assert told[2] == "2 of 2 head families timed; timing an evaluation"
    assert found["side_by_side"] == 1, "it was not said on how many cores"
    assert (
        min(
            found["step_s"],
            found["evaluate_s"],
            found["checkpoint_s"],
            found["checkpoint_bytes"],
            found["memory_bytes"],
        )
        > 0
    )
    assert min(found["head_step_s"]) > 0 and found["base_macs"] > 10**6
    assert [len(found["head_step_s"]), len(found["costs"])] == [2, 2]
    assert found["reference"].keys() == {"raw pixels", "untrained base"}
    assert found["reference"]["raw pixels"]["accuracy"] > 90
    assert found["reference"]["untrained base"].keys() == {"accuracy", *LABELFREE}
    assert 1 < found["reference"]["untrained base"]["labelfree_rankme"] < 96
    assert (found["map_shape"], found["embedding_width"], found["batch_size"]) == (
        [96, 2, 2],
        96,
        8,
    )
    assert found["images"] == len(WorkerSetup(task.setting).data.train)


def test_without_time_heads_are_taken_from_multiply_adds_and_the_base_is_timed_all_the_same(
    tmp_path: Path,
) -> None:
    heads = [{"family": "mlp"}, {"family": "convnext"}, {"family": "resnet"}]
    task = Task(
        kind="measure",
        setting=setting(),
        heads=heads,
        measure_s=0.0,
        together=[{"head": heads[0], "macs": 10}] * 2,
        cpus_beside=1,
    )
    told, found = measured(task, tmp_path)
    assert told[2].startswith("0 of 3 head families timed") and found["step_s"] > 0
    by_macs = [2.0 * found["step_s"] * macs / found["base_macs"] for _, macs in found["costs"]]
    assert found["head_step_s"] == pytest.approx(by_macs)
    assert found["joint"] == 1.4


class Seconds:
    """Stands in for timing: seconds of a step by family of the only head, one after the other."""

    def __init__(self, **seconds: list[float]) -> None:
        self.seconds, self.asked = seconds, list[str]()

    def __call__(
        self, setup: WorkerSetup, stage: Stage, heads: list[HeadConfig], *more: Any, **others: Any
    ) -> float:
        self.asked.append("+".join(head.family for head in heads) or "base")
        return self.seconds[self.asked[-1]].pop(0)


def timed_heads(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Seconds,
    families: list[str],
    limit_s: float | None = None,
) -> measuring._Heads:
    monkeypatch.setattr(measuring, "step_seconds", seconds)
    task = Task(kind="measure", setting=setting(), heads=[{"family": name} for name in families])
    return measuring._Heads(
        WorkerSetup(task.setting),
        Stage(batch_size=8),
        task,
        measuring._Clock(limit_s),
        1.0,
        1_000,
        [100] * len(families),
    )


def test_the_first_step_of_a_process_is_not_taken_for_the_steps_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look at the clock is later by what the step before it took."""
    took = iter([5.0, 1.5, 1.6, 9.0])
    now = [0.0]

    class Stepping:
        recomputes = False

        def advance(self, step: int) -> None:
            now[0] += next(took)

    monkeypatch.setattr(worker_setup.time, "monotonic", lambda: now[0])
    setup: Any = type("OneBench", (), {"trainer_of": lambda *asked, **seed: Stepping()})()
    told: list[float] = []
    assert (
        worker_setup.step_seconds(
            setup, Stage(batch_size=8), [], spare_s=0.1, least=2, told=told.append
        )
        == 1.5
    )
    assert (told, now) == ([1.5], [6.5])


def test_one_family_of_each_kind_of_operation_is_timed_first_and_stands_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = Seconds(convnext=[1.3], swin=[1.1], transformer=[1.2])
    heads = timed_heads(monkeypatch, seconds, ["convnext", "resnet", "swin", "transformer"])
    heads.time_kinds()
    assert seconds.asked == ["convnext", "swin"]
    assert heads.seconds() == pytest.approx([0.3, 0.3, 0.1, 0.1]), (
        "by multiply-adds, of which all have equally many"
    )
    seconds.seconds["resnet"] = [1.15]
    heads.time_others()
    assert heads.seconds() == pytest.approx([0.3, 0.15, 0.1, 0.2])


def test_a_head_that_contradicts_its_multiply_adds_is_timed_again_and_none_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The base was timed while the machine was busy: heads seem to cost nothing beside it."""
    seconds = Seconds(mlp=[0.9, 0.7], swin=[0.6, 0.6], base=[0.6, 0.6])
    heads = timed_heads(monkeypatch, seconds, ["mlp", "swin"])
    heads.time_kinds()
    assert seconds.asked == ["mlp", "base", "mlp", "swin", "base", "swin"]
    assert (heads.base_s, heads.seconds()) == (0.6, pytest.approx([0.1, 0.25 * 0.1 * 0.6])), (
        "a quarter of that by multiply-adds at least"
    )


@pytest.mark.parametrize(
    ("seconds", "ratio"),
    [(0.3, 0.75), (9.0, 1.5), (0.01, 0.5)],
    ids=["fits", "too slow", "too fast"],
)
def test_a_step_beside_others_is_timed_on_fewer_cores(
    seconds: float, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(measuring, "step_seconds", lambda setup, stage, heads: seconds)
    found = measuring._side_by_side(
        WorkerSetup(setting()), Stage(batch_size=8), 0.2, 2, measuring._Clock(0.0)
    )
    assert found == pytest.approx(ratio), "half of the cores for one and a half of the time"
    assert threads == [2, 4], (
        "a short step is timed though the time is over: no multiply-adds predict it"
    )


@pytest.mark.parametrize(
    ("base_s", "cpus"), [(60.0, 2), (0.2, None)], ids=["a long step", "all cores"]
)
def test_a_step_beside_others_that_cannot_be_timed_is_taken_as_one_alone(
    base_s: float, cpus: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(measuring, "step_seconds", lambda *_: pytest.fail("it was timed"))
    assert (
        measuring._side_by_side(
            WorkerSetup(setting()), Stage(batch_size=8), base_s, cpus, measuring._Clock(0.0)
        )
        == 1.0
    )


def test_equal_seeds_start_from_the_same_base_whatever_the_heads() -> None:
    setup = WorkerSetup(setting())
    bases = [
        setup.trainer(
            Task(setting=setup.setting, heads=heads, steps=2, seed=seed)
        ).pair.student.base
        for heads, seed in (([], 1), (HEADS, 1), ([], 2))
    ]
    weights = [
        torch.cat([parameter.flatten() for parameter in base.parameters()]) for base in bases
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_stochastic_depth_of_a_recipe_runs_through_the_base_to_the_last_block_of_the_head() -> None:
    setup = WorkerSetup(
        setting(recipe=Recipe.from_plain({**RECIPE, "proxy": {"drop_path": 0.6}}).as_plain())
    )
    pair = setup.trainer(
        Task(
            setting=setup.setting,
            heads=[{"family": "mlp", "depth": 3}, {"family": "identity"}],
            steps=2,
        )
    ).pair
    of_base, of_head = (
        sorted(module.drop_prob for module in network.modules() if isinstance(module, DropPath))
        for network in (pair.student.base, pair.student.heads[0])
    )
    assert of_base == pytest.approx([0.1, 0.2, 0.3])  # the first of four blocks is never dropped
    assert of_head == pytest.approx([0.5, 0.6])  # nor the head's first, which has no shortcut
    none = setup.trainer(Task(setting=setup.setting, steps=2)).pair.student.base
    assert max(
        module.drop_prob for module in none.modules() if isinstance(module, DropPath)
    ) == pytest.approx(0.6)


def test_unknown_fields_of_a_task_are_refused(tmp_path: Path, screening: Task) -> None:
    plain = Job("a", "screen", screening, str(tmp_path)).as_plain()
    with pytest.raises(ValueError, match="stepps"):
        Job.from_plain({**plain, "task": {**plain["task"], "stepps": 3}})


@pytest.mark.parametrize(
    ("together", "timed", "joint_s", "ratio", "dearer"),
    [
        ([], HEADS[:2], 0.6, 0.6 / (0.1 + 0.2 + 0.1), 1.0),
        (
            [
                {"head": {"family": "mlp", "depth": 2}, "macs": 200},
                {"head": {"family": "mlp"}, "macs": 10},
            ],
            [
                {"family": "mlp", "depth": 2},
                {"family": "mlp"},
                {"family": "identity"},
                {"family": "noise"},
            ],
            0.6,
            0.6 / (0.1 + 0.4 + 0.05 + 2 * 0.225),
            1.0,
        ),
        ([], HEADS[:2], 1.7 * (0.1 + 2 * 0.3), 1.7, 2.0),
    ],
    ids=[
        "of the families' default heads",
        "of a group of the space's heads",
        "heads dearer than their multiply-adds say",
    ],
)
def test_a_joint_step_is_timed_beside_what_its_heads_are_priced_at(
    together: list[Plain], timed: list[Plain], joint_s: float, ratio: float, dearer: float
) -> None:
    heads = HEADS[:2] if not together else [{"family": "mlp"}, {"family": "convnext"}]
    task = Task(kind="measure", setting=setting(), heads=heads, together=together)
    assert measuring._group(task) == [HeadConfig(**head) for head in timed]
    assert measuring._joint(task, 0.1, [(0.2, 100), (0.1, 50)], joint_s) == pytest.approx(
        (ratio, dearer)
    )
