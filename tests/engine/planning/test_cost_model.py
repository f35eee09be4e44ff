"""What is read from the measure job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hssl_search.engine.execution.jobs import Outcome, Report, Setting, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.statistics.metrics import ACCURACY, ALIGNMENT, DISCREPANCY, RANKME

CPU = Machine("cpu", 2, 0)


def outcome(**changes: Any) -> Outcome:
    metrics = {
        "precision": "bf16",
        "step_s": 0.1,
        "head_step_s": [0.02, 0.05],
        "joint": 1.5,
        "profile_s": 0.25,
        "evaluate_s": 0.4,
        "last_evaluate_s": 0.2,
        "checkpoint_s": 0.3,
        "images": 1_000,
        "costs": [[500, 10_000], [900, 40_000]],
        "worker_s": 4.0,
        "reference": {"raw pixels": {"accuracy": 39.8}, "untrained base": {"accuracy": 29.3}},
    }
    return Outcome(State.DONE, "", [Report(1, metrics | changes)], seconds=11.0)


def measured(machine: Machine = CPU, **changes: Any) -> Measurement:
    return Measurement.of(outcome(**changes), ["mlp", "convnext"], machine)


def test_costs_on_cpu_are_the_seconds_measured_and_the_start_is_what_the_worker_did_not_see() -> (
    None
):
    costs = measured().costs
    assert (costs.step, costs.heads, costs.evaluate, costs.checkpoint) == (
        0.1,
        {"mlp": 0.02, "convnext": 0.05},
        0.4,
        0.3,
    )
    assert costs.startup == pytest.approx(7.0)
    assert (costs.joint, costs.profile, costs.last) == (1.5, 0.25, 0.2)
    assert measured(worker_s=12.0).costs.startup == 0.0


def test_the_start_of_a_worker_that_died_before_is_not_counted() -> None:
    found = Measurement.of(replace(outcome(), seconds=61.0, last_s=11.0), ["mlp", "convnext"], CPU)
    assert found.costs.startup == pytest.approx(7.0)


@pytest.mark.parametrize("held", [0.25, 1.0, 2.0])
def test_costs_on_a_gpu_are_seconds_times_the_gpus_held(held: float) -> None:
    whole, part = measured().costs, measured(Machine("gpu", 8, 4, held)).costs
    assert (part.step, part.evaluate, part.last, part.checkpoint, part.startup) == pytest.approx(
        tuple(
            held * cost
            for cost in (whole.step, whole.evaluate, whole.last, whole.checkpoint, whole.startup)
        )
    )
    assert part.heads == pytest.approx(
        {family: held * cost for family, cost in whole.heads.items()}
    )


def test_a_head_costs_its_familys_seconds_in_proportion_to_its_multiply_adds() -> None:
    found = measured()
    assert found.head_s("mlp", 10_000) == pytest.approx(0.02)
    assert found.head_s("mlp", 30_000) == pytest.approx(0.06)
    assert found.head_s("convnext", 20_000) == pytest.approx(0.025)
    assert found.head_s("convnext", 1) == pytest.approx(0.25 * 0.05)


def test_heads_of_families_that_were_not_measured() -> None:
    found = measured()
    assert [found.head_s(family, 0) for family in ("identity", "noise", "none")] == [0.0, 0.0, 0.0]
    assert found.head_s("resnet", 77) == pytest.approx(0.035), "the mean of those measured"


def test_references_are_named_for_people() -> None:
    assert measured().reference(ACCURACY) == {"raw pixels": 39.8, "untrained base": 29.3}
    vit = {
        "raw pixels": {"accuracy": 39.8},
        "untrained base": {"accuracy": 20.0, "accuracy_mean": 25.0},
    }
    expected = {"raw pixels": 39.8, "untrained base": 20.0, "untrained base, mean token": 25.0}
    assert measured(reference=vit).reference(ACCURACY) == expected
    assert measured(reference={"raw pixels": {}, "untrained base": {}}).reference(ACCURACY) == {}


@pytest.mark.parametrize(
    "accuracy",
    [{}, {"accuracy": 20.0, "accuracy_mean": 25.0}],
    ids=["without labels", "with labels"],
)
def test_only_the_untrained_base_has_a_score_without_labels(accuracy: dict[str, float]) -> None:
    base = {**accuracy, "labelfree_rankme": 12.5, "labelfree_alignment": 0.5}
    found = measured(
        reference={"raw pixels": {"accuracy": 39.8} if accuracy else {}, "untrained base": base}
    )
    assert found.reference(RANKME) == {"untrained base": 12.5}
    assert found.reference(ALIGNMENT) == {"untrained base": -0.5}
    assert found.reference(DISCREPANCY) == {}


def test_auto_precision_becomes_what_was_faster_and_a_chosen_one_stays(setting: Setting) -> None:
    assert {setting.recipe[stage]["precision"] for stage in ("proxy", "full")} == {"auto"}
    settled = measured().settle(setting)
    assert [settled.recipe[stage]["precision"] for stage in ("proxy", "full")] == ["bf16", "bf16"]
    assert {setting.recipe[stage]["precision"] for stage in ("proxy", "full")} == {"auto"}, (
        "the setting itself is not changed"
    )
    chosen = setting.model_copy(
        update={
            "recipe": {**setting.recipe, "full": {**setting.recipe["full"], "precision": "fp32"}}
        }
    )
    assert [
        measured().settle(chosen).recipe[stage]["precision"] for stage in ("proxy", "full")
    ] == ["bf16", "fp32"]


@pytest.mark.parametrize(
    ("images", "steps", "batches"),
    [(1_000, 3, 2.0), (256, 1, 2.0), (200, 1, 1.5625), (100, 1, 1.0)],
)
def test_steps_and_seconds_of_the_full_training_follow_its_batches(
    setting: Setting, images: int, steps: int, batches: float
) -> None:
    assert [setting.recipe[stage]["batch_size"] for stage in ("proxy", "full")] == [128, 256]
    full = measured(images=images).full(setting, 1)
    assert (full.steps, full.batches) == (steps, pytest.approx(batches))
    assert measured(images=images).full(setting, "off").steps == 0


def test_the_share_of_a_gpu_is_that_of_the_memory_measured_and_whole_without_one() -> None:
    assert (
        measured(Machine("gpu", 8, 1), memory_bytes=20 * 2**30, gpu_bytes=80 * 2**30).gpu_share
        == 0.5
    )
    assert (
        measured(memory_bytes=20 * 2**30, gpu_bytes=None).gpu_share == measured().gpu_share == 1.0
    )


@pytest.mark.parametrize(
    ("machine", "planned"),
    [
        (Machine("cpu", 1, 0), 1.0),
        (Machine("cpu", 2, 0), 0.6),
        (Machine("cpu", 3, 0), 1.0),
        (Machine("gpu", 8, 2), 1.0),
    ],
    ids=["one core", "always two at once", "four jobs one by one", "gpu"],
)
def test_trainings_are_planned_as_the_dearest_way_in_which_they_may_share_the_cores(
    machine: Machine, planned: float
) -> None:
    found = measured(machine, side_by_side=0.6)
    assert (found.side_by_side, found.costs.side_by_side) == (0.6, pytest.approx(planned))
    assert measured(machine).costs.side_by_side == pytest.approx(1.0), (
        "a run from before it was measured"
    )
