"""Training continues from a checkpoint as if it had never stopped."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from hssl_search.training.checkpoint import CheckpointFolder
from hssl_search.training.pair import Pair
from hssl_search.training.trainer import StepReport, Trainer, train

Make = Callable[[], Trainer]


@pytest.fixture(
    params=[
        ("simclr", "test_resnet", "adamw"),
        ("dino", "test_resnet", "adamw"),
        ("dino", "test_vit", "sgd"),
        ("moco_v2", "test_resnet", "adamw"),
        ("ibot", "test_vit", "adamw"),
    ],
    ids="-".join,
)
def make(
    request: pytest.FixtureRequest, pair: Callable[..., Pair], trainer: Callable[..., Trainer]
) -> Make:
    method, base, optimizer = request.param
    heads = ("convnext", "noise", {"family": "transformer", "depth": 2})
    return lambda: trainer(pair(method, *heads, base=base, drop_path=0.2), optimizer=optimizer)


@pytest.fixture
def simclr(pair: Callable[..., Pair], trainer: Callable[..., Trainer]) -> Make:
    return lambda: trainer(pair("simclr", "mlp"))


def state(trainer: Trainer) -> dict[str, Tensor]:
    found = dict(trainer.pair.state_dict())
    for index, moments in trainer.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    return found


def assert_same_state(one: Trainer, other: Trainer) -> None:
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def timeless(reports: list[StepReport]) -> list[StepReport]:
    return [replace(report, seconds=0.0, timed_steps=0) for report in reports]


def test_resumed_training_equals_an_uninterrupted_one_bit_by_bit(
    make: Make, tmp_path: Path
) -> None:
    whole = make()
    expected = list(train(whole, [3, 6], CheckpointFolder(tmp_path / "whole")))
    first = next(iter(train(make(), [3, 6], CheckpointFolder(tmp_path / "parts"))))
    resumed = make()
    torch.rand(7)  # a fresh process has other random numbers behind it
    found = list(train(resumed, [3, 6], CheckpointFolder(tmp_path / "parts")))
    assert timeless([first]) == timeless(expected[:1])
    # the rung whose report may have been lost is reported again
    assert timeless(found) == timeless(expected)
    assert_same_state(resumed, whole)


def test_resuming_between_rungs_keeps_the_means_of_the_whole_stretch(
    simclr: Make, tmp_path: Path
) -> None:
    whole = simclr()
    expected = list(train(whole, [2, 6], CheckpointFolder(tmp_path / "whole")))
    parts = CheckpointFolder(tmp_path / "parts")
    cut = simclr()
    assert [report.step for report in train(cut, [2, 6], parts, lambda: cut.step >= 4)] == [2, 4]
    resumed = simclr()
    assert timeless(list(train(resumed, [2, 6], parts))) == timeless(expected[1:])
    assert_same_state(resumed, whole)


def test_running_out_of_time_leaves_a_checkpoint_and_a_short_report(
    simclr: Make, tmp_path: Path
) -> None:
    folder, cut = CheckpointFolder(tmp_path), simclr()
    (report,) = train(cut, [6], folder, lambda: cut.step >= 3)
    saved = folder.load()
    assert saved is not None
    assert saved.step == report.step == 3
    assert report.loss > 0


def test_no_step_since_the_last_rung_is_no_report(simclr: Make, tmp_path: Path) -> None:
    assert list(train(simclr(), [6], CheckpointFolder(tmp_path / "none"), lambda: True)) == []
    steps: list[int] = []
    for report in train(simclr(), [2, 6], CheckpointFolder(tmp_path / "some"), lambda: bool(steps)):
        steps.append(report.step)  # evaluating this rung took what time was left
    assert steps == [2]


def test_finished_training_reports_its_last_rung_again(simclr: Make, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    expected = list(train(simclr(), [2, 4], folder))
    assert timeless(list(train(simclr(), [2, 4], folder))) == timeless(expected[1:])


def test_long_stretches_are_saved_on_the_way(
    simclr: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=25.0)
    monkeypatch.setattr("hssl_search.training.trainer.time.monotonic", lambda: next(clock))
    steps: list[int] = []
    folder = CheckpointFolder(tmp_path)
    monkeypatch.setattr(folder, "save", lambda step, *rest: steps.append(step))
    assert [report.step for report in train(simclr(), [5], folder)] == [5]
    assert steps[-1] == 5 and len(steps) > 1


def test_damaged_checkpoint_costs_its_steps_and_nothing_else(simclr: Make, tmp_path: Path) -> None:
    whole = simclr()
    expected = list(train(whole, [2, 4, 6], CheckpointFolder(tmp_path / "whole")))
    parts = CheckpointFolder(tmp_path / "parts")
    running = train(simclr(), [2, 4, 6], parts)
    next(running), next(running)
    weights = tmp_path / "parts" / "step-00000004" / "state.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(content)
    resumed = simclr()
    assert timeless(list(train(resumed, [2, 4, 6], parts))) == timeless(expected)
    assert_same_state(resumed, whole)


@pytest.mark.parametrize("changed", [{"steps": 7}, {"seed": 6}])
def test_checkpoint_of_another_training_is_refused(
    pair: Callable[..., Pair],
    trainer: Callable[..., Trainer],
    tmp_path: Path,
    changed: dict[str, int],
) -> None:
    list(train(trainer(pair("simclr")), [1], CheckpointFolder(tmp_path)))
    with pytest.raises(ValueError, match="another length or seed"):
        list(train(trainer(pair("simclr"), **changed), [1], CheckpointFolder(tmp_path)))


def test_base_of_a_checkpoint_loads_with_timm_alone(make: Make, tmp_path: Path) -> None:
    trained = make()
    folder = CheckpointFolder(tmp_path)
    list(train(trained, [2], folder))
    newest = folder.latest()
    assert newest is not None
    # other kernels round differently
    base = trained.pair.kept.base.eval().to(memory_format=torch.contiguous_format)
    alone = timm.create_model(
        base.name, num_classes=0, **base.timm_args, checkpoint_path=str(newest / "base.safetensors")
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(alone(x), base(x).embedding)


def test_base_that_uses_a_weight_twice_is_saved_and_resumed(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    from hssl_search.backbones import Base
    from hssl_search.methods.simclr import SimCLR, SimCLRConfig

    def make() -> Trainer:
        torch.manual_seed(0)
        base = Base(
            "coat_lite_tiny", 32, {"embed_dims": (8, 16, 24, 32), "serial_depths": (2, 1, 1, 1)}
        )
        return trainer(Pair(base, [], SimCLR(SimCLRConfig(projector_hidden=16, projector_out=8))))

    whole = make()
    list(train(whole, [2, 4], CheckpointFolder(tmp_path / "whole")))
    next(iter(train(make(), [2, 4], CheckpointFolder(tmp_path / "parts"))))
    resumed = make()
    list(train(resumed, [2, 4], CheckpointFolder(tmp_path / "parts")))
    assert_same_state(resumed, whole)
