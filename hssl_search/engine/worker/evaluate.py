"""What is measured of a pair at a rung, inside a worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hssl_search.data.resident import on_device
from hssl_search.discrepancy.architecture import base_profile, distance, head_profile
from hssl_search.discrepancy.feature import feature_discrepancy
from hssl_search.engine.execution.jobs import REFERENCE_HEADS, Metrics, Task
from hssl_search.engine.planning.costs import ALONE
from hssl_search.engine.worker.setup import WorkerSetup, step_seconds
from hssl_search.evaluation.embed import embed_base, embed_heads
from hssl_search.evaluation.matching import matching_error
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import Head
from hssl_search.training.health import MATCHING_ERROR, GateResult, judge_alone, judge_group, shape
from hssl_search.training.outputs import HeadOutput, compare_outputs
from hssl_search.training.pair import Pair
from hssl_search.training.recipe import Stage
from hssl_search.training.trainer import StepReport, Trainer

MATCHED = 512
"""Held-out images, at most, among which the health gate looks for an image's other view."""


def evaluate(setup: WorkerSetup, trainer: Trainer, task: Task, report: StepReport) -> Metrics:
    """Return accuracy and label-free quality of the base, and under `heads` discrepancy and health
    of each head; of the network that is kept, which may be the teacher.

    The training continues as if it had not been looked at: torch's random state stays as it is.
    """
    with torch.random.fork_rng([setup.device] if setup.device.type == "cuda" else []):
        metrics: Metrics = {}
        base, views = trainer.pair.kept.base, trainer.views
        if task.accuracy:
            metrics |= setup.accuracy(base, views)
            if task.labelfree_always or report.step >= task.steps:
                metrics |= setup.labelfree(base, views)
        if task.heads:
            metrics["heads"] = _heads(setup, trainer, task, report)
        return metrics


def _heads(setup: WorkerSetup, trainer: Trainer, task: Task, report: StepReport) -> list[Metrics]:
    """Return the discrepancies of each head on held-out images, and the gate's verdict: against the
    noise head where one is among them."""
    pair, plain = trainer.pair, trainer.views.plain
    images = on_device(setup.data.queries, setup.device)
    base, heads = embed_heads(pair.kept.base, list(pair.kept.heads), images, plain)
    # Outputs are compared where the loss compares them: the base's there is the student's.
    of_student = base
    if pair.kept is not pair.student:
        of_student = embed_base(pair.student.base, images, plain)["embedding"]
    outputs = compare_outputs(pair, of_student, heads)
    losses = zip(report.base_losses, report.head_losses, strict=True)
    measured: list[Metrics] = [
        {
            **feature_discrepancy(base, head),
            "output": output.discrepancy,
            "head_loss": of_head,
            "excess_loss": of_base - of_head,
        }
        for head, output, (of_base, of_head) in zip(heads, outputs, losses, strict=True)
    ]
    verdicts = _gate(setup, trainer, task, report, heads, outputs)
    for metrics, verdict in zip(measured, verdicts, strict=True):
        metrics |= {"gate": verdict.gate, "gate_reason": verdict.reason}
    if task.architecture and report.step >= task.steps:
        healthy = [metrics["gate"] == "healthy" for metrics in measured]
        timed = _alone(setup, setup.recipe.stage(task.stage), task.heads, healthy)
        for metrics, structure, ratio in zip(measured, architectures(pair), timed, strict=True):
            metrics |= {**structure, **ratio}
    return measured


def _gate(
    setup: WorkerSetup,
    trainer: Trainer,
    task: Task,
    report: StepReport,
    heads: list[Tensor],
    outputs: list[HeadOutput],
) -> list[GateResult]:
    """Return the health gate's result for each head, by what its method's loss can show."""
    families = [head.family for head in task.heads]
    assignments = [output.assignment for output in outputs]
    if "noise" not in families:  # in a proxy, whose head is alone with the base
        return [
            judge_alone(loss, shape(head), assignment)
            for loss, head, assignment in zip(report.head_losses, heads, assignments, strict=True)
        ]
    noise = families.index("noise")
    if trainer.pair.method.loss_shows_learning:
        return judge_group(report.head_losses, heads, noise, assignments=assignments)
    return judge_group(_matching_errors(setup, trainer), heads, noise, MATCHING_ERROR, assignments)


def _matching_errors(setup: WorkerSetup, trainer: Trainer) -> list[float]:
    """Return how often each head does not find an image's other view among others."""
    # Seeded, so that a rung that is evaluated again after a resume draws the same views.
    network, generator = trainer.pair.kept, torch.Generator(setup.device).manual_seed(trainer.seed)
    images = setup.some_queries(MATCHED)
    views = [
        embed_heads(
            network.base,
            list(network.heads),
            images,
            partial(trainer.views, generator=generator, view=view),
        )[1]
        for view in range(2)
    ]
    return [matching_error(first, second) for first, second in zip(*views, strict=True)]


def architectures(pair: Pair) -> list[dict[str, float]]:
    """Return the `architecture` of each head that is fed from the base's last stage: how different
    its structure is from the base's; nothing of one without structure."""
    base = pair.kept.base
    device, (_, height, width) = next(base.parameters()).device, base.map_shape
    profile = base_profile(base, device=device)

    def architecture(head: Head) -> dict[str, float]:
        # The base that a tapped head differs from is one of fewer stages.
        if head.config.family == "noise" or head.config.tap:
            return {}
        of_head = head_profile(head, (height, width), device=device)
        return {"architecture": distance(profile, of_head)["architecture"]}

    return [architecture(head) for head in pair.kept.heads]


def _alone(
    setup: WorkerSetup, stage: Stage, heads: Sequence[HeadConfig], healthy: Sequence[bool]
) -> list[dict[str, float]]:
    """Return for each head of a group how many times the base's step one with that head alone
    takes, as its proxy will; nothing for reference heads and for those that are not healthy, which
    have no proxy."""
    # Timed here too, since this job may have other cores than measuring had.
    base_s = step_seconds(setup, stage, [], most=ALONE)
    return [
        {"step_ratio": step_seconds(setup, stage, [head], most=ALONE) / base_s}
        if well and head not in REFERENCE_HEADS
        else {}
        for head, well in zip(heads, healthy, strict=True)
    ]
