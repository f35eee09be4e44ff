"""The health gate: its measures on embeddings whose answer is known, its verdicts on figures and on
real training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from hssl_search.data.views import Views, ViewsConfig
from hssl_search.data.viewsconfig import MasksConfig
from hssl_search.evaluation.assignment import Assignment
from hssl_search.evaluation.embed import embed_heads
from hssl_search.evaluation.matching import matching_error
from hssl_search.methods.base import methods
from hssl_search.training.health import (
    HEAD_LOSS,
    MATCHING_ERROR,
    GateResult,
    Shape,
    effective_rank,
    judge,
    judge_alone,
    judge_group,
    shape,
    spread,
    varying,
)
from hssl_search.training.outputs import compare_outputs
from hssl_search.training.pair import Pair
from hssl_search.training.trainer import NonFiniteError, Trainer

MakePair = Callable[..., Pair]
MakePatterns = Callable[..., Tensor]


SOUND = Shape(spread=1.0, rank=20.0, varying=1.0)
TOLD = Assignment(entropy=0.7, information=0.3, unsharpened=0.1)


def normal(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [4, 64])
def test_spread_is_one_on_the_sphere_at_any_scale_and_nothing_at_a_point(width: int) -> None:
    assert spread(normal(4000, width)) == pytest.approx(1.0, abs=0.03)
    assert spread(normal(4000, width) * 1000) == pytest.approx(
        spread(normal(4000, width)), rel=1e-4
    )
    assert spread(torch.full((50, width), 3.0)) == pytest.approx(0.0, abs=1e-5)


def test_effective_rank_counts_equal_directions() -> None:
    assert effective_rank(torch.cat([torch.eye(6), -torch.eye(6)])) == pytest.approx(6.0, rel=1e-4)
    assert effective_rank(normal(20, 1) @ normal(1, 8)) == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.full((20, 8), 2.0)) == pytest.approx(1.0)


def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values() -> None:
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])
    rows, shares = torch.cat([torch.diag(values), -torch.diag(values)]), values / values.sum()
    assert effective_rank(rows) == pytest.approx(math.exp(-(shares * shares.log()).sum()), rel=1e-4)
    assert effective_rank(rows * 50 + 7) == pytest.approx(effective_rank(rows), rel=1e-4)


def test_effective_rank_of_a_large_shared_mean_is_that_of_what_is_left() -> None:
    assert effective_rank(normal(50, 8).double() + 1e6) == pytest.approx(
        effective_rank(normal(50, 8)), rel=1e-6
    )


def test_varying_counts_dimensions_at_any_scale() -> None:
    few = normal(60, 40) * (torch.arange(40) < 6)
    assert varying(few) == varying(few * 1000) == pytest.approx(6 / 40)
    assert varying(normal(60, 40)) == 1
    assert varying(torch.full((60, 40), 3.0)) == 0
    assert varying(few + 1e-3 * normal(60, 40)) == pytest.approx(6 / 40)


def test_shape_is_the_three_measures_and_nothing_of_what_is_not_finite() -> None:
    embeddings = normal(60, 8)
    assert shape(embeddings) == (
        spread(embeddings),
        effective_rank(embeddings),
        varying(embeddings),
    )
    embeddings[3, 2] = math.inf
    assert all(map(math.isnan, shape(embeddings)))


@pytest.mark.parametrize(
    ("head_loss", "gate"),
    [
        (3.0, "healthy"),
        (4.09, "healthy"),
        (4.11, "not learning"),
        (4.5, "not learning"),
        (5.0, "not learning"),
        (math.nan, "non-finite"),
        (math.inf, "non-finite"),
    ],
)
def test_gate_asks_for_a_share_of_the_way_from_noise_to_the_best(
    head_loss: float, gate: str
) -> None:
    """Noise at 4.5, the best head at 2.9: a quarter of the way is at 4.1."""
    assert judge(head_loss, 4.5, 2.9, SOUND).gate == gate


def test_tiny_lead_over_noise_is_not_learning_even_for_the_best() -> None:
    assert judge(4.49, 4.5, 4.49, SOUND).gate == "not learning"
    assert judge(4.47, 4.5, 4.47, SOUND).gate == "healthy"


@pytest.mark.parametrize(
    ("found", "gate"),
    [
        ((0.01, 20.0, 1.0), "collapsed"),
        ((1.0, 1.2, 1.0), "collapsed"),
        ((0.3, 3.0, 0.05), "collapsed"),
        ((0.5, 5.0, 0.3), "healthy"),
        ((math.nan, 20.0, 1.0), "non-finite"),
        ((1.0, 20.0, math.nan), "non-finite"),
    ],
)
def test_gate_looks_at_the_embeddings(found: tuple[float, float, float], gate: str) -> None:
    verdict = judge(2.9, 4.5, 2.9, Shape(*found))
    assert (verdict.gate, verdict.healthy) == (gate, gate == "healthy")
    assert judge_alone(2.9, Shape(*found)).gate == gate


@pytest.mark.parametrize(
    ("assignment", "gate"),
    [
        (None, "healthy"),
        (TOLD, "healthy"),
        (TOLD._replace(entropy=0.2), "collapsed"),
        (TOLD._replace(entropy=0.0), "collapsed"),
        (TOLD._replace(entropy=math.nan), "non-finite"),
        (TOLD._replace(information=math.nan), "non-finite"),
        (Assignment(0.98, 5e-4, 5e-4), "collapsed"),
        (Assignment(0.98, 0.0, 0.0), "collapsed"),  # neither told apart nor driven apart
        (Assignment(0.98, 5e-4, 2e-4), "healthy"),  # young: driven apart by sharp targets
        (Assignment(0.98, 0.05, 0.05), "healthy"),
    ],
)
def test_gate_looks_at_the_prototypes_where_there_are_any(
    assignment: Assignment | None, gate: str
) -> None:
    assert judge(2.9, 4.5, 2.9, SOUND, assignment=assignment).gate == gate
    assert judge_alone(2.9, SOUND, assignment).gate == gate


def test_reason_holds_the_figures() -> None:
    assert judge(4.4, 4.5, 2.9, SOUND) == GateResult(
        "not learning",
        "it learned no more than noise does (head-to-head loss 4.400; noise 4.500, best head "
        "2.900).",
    )
    assert judge_alone(2.9, Shape(0.01, 20.0, 0.5)) == GateResult(
        "collapsed",
        "its embeddings are nearly one point or direction (spread 0.010, effective rank 20.0, 50% "
        "of its dimensions vary).",
    )
    assert judge_alone(2.9, SOUND, Assignment(0.03, 0.0123, 0.01)).reason == (
        "it assigns nearly all images to the same few prototypes (spread 1.000, effective rank "
        "20.0, 100% of its dimensions vary, mean "
        "assignment 3% of the entropy of all prototypes, an assignment tells 0.012 of what it "
        "could about its image)."
    )
    assert "(loss nan, spread 1.000" in judge_alone(math.nan, SOUND).reason


def test_group_is_judged_together_and_a_broken_head_does_not_judge_the_others() -> None:
    good, broken = normal(40, 8), normal(40, 8)
    broken[3, 2] = math.nan
    found = judge_group(
        [3.0, 4.5, math.nan, 3.0, 3.0], [good, good, good, broken, torch.ones(40, 8)], noise=1
    )
    assert [verdict.gate for verdict in found] == [
        "healthy",
        "not learning",
        "non-finite",
        "non-finite",
        "collapsed",
    ]


def test_group_takes_an_assignment_for_each_head() -> None:
    few = TOLD._replace(entropy=0.02)
    found = judge_group(
        [0.1, 0.5, 0.1],
        [normal(40, 8)] * 3,
        noise=1,
        measure=MATCHING_ERROR,
        assignments=[TOLD, TOLD, few],
    )
    assert [verdict.gate for verdict in found] == ["healthy", "not learning", "collapsed"]
    with pytest.raises(ValueError):
        judge_group([0.1, 0.5], [normal(40, 8)] * 2, noise=1, assignments=[TOLD])


@dataclass
class Examined:
    """What the gate is shown of each head of a trained pair."""

    losses: list[float]
    matching: list[float]
    embeddings: list[Tensor]
    assignments: list[Assignment | None]


Examine = Callable[..., Examined]


@pytest.fixture
def examine(trainer: Callable[..., Trainer], patterns: MakePatterns) -> Examine:
    def examine(pair: Pair, steps: int = 10, **stage: float) -> Examined:
        images, masks = patterns(64), MasksConfig() if pair.method.masks else None
        # a few steps suffice to find an image's other view
        easy = ViewsConfig(scale=(0.6, 1.0), jitter=0.0, grayscale=0.0, masks=masks)
        views = Views(
            easy,
            32,
            *pair.student.base.mean_std,
            mask_grid=pair.student.base.mask_grid if masks else None,
        )
        training = trainer(pair, images, steps, views=views, batch_size=16, **stage)
        training.advance(steps // 2)
        training.report()
        training.advance(steps)
        pair.eval()
        network, generator = pair.kept, torch.Generator().manual_seed(0)
        base, heads = embed_heads(network.base, list(network.heads), images, views.plain)
        both = [
            embed_heads(
                network.base, list(network.heads), images, lambda batch: views(batch, generator)
            )[1]
            for _ in range(2)
        ]
        matching = [matching_error(first, second) for first, second in zip(*both, strict=True)]
        assignments = [output.assignment for output in compare_outputs(pair, base, heads)]
        return Examined(training.report().head_losses, matching, heads, assignments)

    return examine


@pytest.mark.parametrize("method", methods())
def test_real_heads_are_healthy_and_the_noise_head_does_not_learn_in_every_method(
    method: str, pair: MakePair, examine: Examine
) -> None:
    families = ["identity", "convnext", "noise"]
    made = pair(method, *families)
    found = examine(made)
    by_loss = made.method.loss_shows_learning
    verdicts = judge_group(
        found.losses if by_loss else found.matching,
        found.embeddings,
        families.index("noise"),
        HEAD_LOSS if by_loss else MATCHING_ERROR,
        found.assignments,
    )
    assert {family: verdict.gate for family, verdict in zip(families, verdicts, strict=True)} == {
        "identity": "healthy",
        "convnext": "healthy",
        "noise": "not learning",
    }, [verdict.reason for verdict in verdicts]


@pytest.mark.parametrize(("center_momentum", "gate"), [(0.9, "healthy"), (1 - 1e-9, "collapsed")])
def test_dino_without_centring_sends_all_images_to_few_prototypes(
    center_momentum: float, gate: str, pair: MakePair, examine: Examine
) -> None:
    """A centre that never moves is none. The embeddings look healthy; the mean assignment alone
    tells.
    """
    settings = {
        "center_momentum": center_momentum,
        "teacher_temperature": 0.04,
        "teacher_temperature_end": 0.04,
    }
    found = examine(
        pair("dino", "resnet", settings=settings), steps=20, lr=0.01, teacher_momentum=0.5
    )
    [loss], [embedding], [assignment] = found.losses, found.embeddings, found.assignments
    assert judge_alone(loss, shape(embedding)).healthy
    verdict = judge_alone(loss, shape(embedding), assignment)
    assert verdict.gate == gate, verdict.reason


@pytest.mark.parametrize("method", [name for name, kind in methods().items() if kind.assigns])
def test_targets_no_sharper_than_the_student_without_centring_send_each_image_to_many_prototypes(
    method: str, pair: MakePair, examine: Examine
) -> None:
    """Neither the embeddings nor the mean assignment tell."""
    settings = {
        "center_momentum": 1 - 1e-9,
        "teacher_temperature": 0.1,
        "teacher_temperature_end": 0.1,
    }
    found = examine(
        pair(method, "identity", settings=settings), steps=20, lr=0.003, teacher_momentum=0.5
    )
    [loss], [embedding], [assignment] = found.losses, found.embeddings, found.assignments
    assert assignment is not None
    assert judge_alone(loss, shape(embedding), assignment._replace(information=1.0)).healthy
    verdict = judge_alone(loss, shape(embedding), assignment)
    assert verdict.gate == "collapsed" and "many prototypes" in verdict.reason, verdict.reason


@pytest.mark.parametrize("kept", [0, 3])
def test_head_whose_last_norm_lets_few_dimensions_through_is_collapsed(
    kept: int, pair: MakePair, examine: Examine
) -> None:
    made = pair("simclr", "convnext")
    norm = made.student.heads[0].norm
    norm.requires_grad_(False)
    norm.weight[kept:] = 0
    norm.bias.fill_(0.1)
    found = examine(made)
    verdict = judge_alone(found.losses[0], shape(found.embeddings[0]))
    assert verdict.gate == "collapsed", verdict.reason
    assert varying(found.embeddings[0]) == kept / made.student.heads[0].width


class Overflow(nn.Module):
    """Infinite in evaluation, or in training."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.when = training

    def forward(self, x: Tensor) -> Tensor:
        return x * math.inf if self.training is self.when else x


def test_head_that_emits_what_is_not_finite_is_told_apart_from_its_neighbours(
    pair: MakePair, examine: Examine
) -> None:
    made = pair("simclr", "convnext", "identity", "noise")
    made.student.heads[0].norm = nn.Sequential(made.student.heads[0].norm, Overflow(training=False))
    found = examine(made)
    gates = [verdict.gate for verdict in judge_group(found.losses, found.embeddings, noise=2)]
    assert gates == ["non-finite", "healthy", "not learning"]


def test_head_that_emits_what_is_not_finite_in_training_stops_it(
    pair: MakePair, examine: Examine
) -> None:
    made = pair("simclr", "convnext")
    made.student.heads[0].norm = nn.Sequential(made.student.heads[0].norm, Overflow(training=True))
    with pytest.raises(NonFiniteError, match="at step 0"):
        examine(made)
