"""What is measured of a pair, and that measuring changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hssl_search.engine.execution.jobs import Setting, Task
from hssl_search.engine.worker.evaluate import architectures, evaluate
from hssl_search.engine.worker.setup import WorkerSetup
from hssl_search.methods.base import methods
from hssl_search.training.outputs import compare_outputs
from hssl_search.training.recipe import Recipe

torch.set_num_threads(1)
HEADS: list[dict[str, Any]] = [
    {"family": "identity"},
    {"family": "transformer", "depth": 1},
    {"family": "resnet", "depth": 1},
    {"family": "noise"},
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSSL_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def setting(method: str, **changes: Any) -> Setting:
    recipe = Recipe.read(method).as_plain()
    recipe = {**recipe, "proxy": {**recipe["proxy"], "batch_size": 8, "precision": "fp32"}}
    base = (
        ("test_vit", {"patch_size": 4})
        if methods()[method].masks
        else ("test_resnet", {"output_stride": 8})
    )
    return Setting(
        **{
            "base": base[0],
            "base_args": base[1],
            "image_size": 16,
            "data": "digits",
            "probe_data": None,
            "data_seed": 0,
            "recipe": recipe,
            "device": "cpu",
            **changes,
        }
    )


@pytest.mark.parametrize("method", list(methods()))
def test_evaluation_leaves_weights_states_modes_and_random_numbers_as_they_were(
    method: str,
) -> None:
    setup = WorkerSetup(setting(method))
    task = Task(setting=setup.setting, heads=HEADS, steps=1, rungs=[1], architecture=True)
    trainer = setup.trainer(task)
    trainer.advance(1)
    before, modes = (
        copy.deepcopy(trainer.pair.state_dict()),
        [module.training for module in trainer.pair.modules()],
    )
    random = torch.get_rng_state(), trainer.generator.get_state()
    found = evaluate(setup, trainer, task, trainer.report())
    assert [
        key
        for key, value in trainer.pair.state_dict().items()
        if not torch.equal(value, before[key])
    ] == []
    assert [module.training for module in trainer.pair.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random[0]) and torch.equal(
        trainer.generator.get_state(), random[1]
    )
    assert all(0 <= head["output"] for head in found["heads"])
    assert ["architecture" in head for head in found["heads"]] == [True, True, True, False]


@pytest.mark.parametrize(("always", "at_rungs"), [(False, [False, True]), (True, [True, True])])
def test_label_free_quality_is_measured_at_the_last_rung_or_at_each(
    always: bool, at_rungs: list[bool]
) -> None:
    setup = WorkerSetup(setting("simclr"))
    task = Task(setting=setup.setting, steps=2, rungs=[1, 2], labelfree_always=always)
    trainer, found = setup.trainer(task), []
    for rung in task.rungs:
        trainer.advance(rung)
        found.append(evaluate(setup, trainer, task, trainer.report()))
    assert ["labelfree_rankme" in metrics for metrics in found] == at_rungs
    assert ["accuracy" in metrics for metrics in found] == [True, True]


def test_a_head_of_the_bases_kind_is_nearer_to_it() -> None:
    setup = WorkerSetup(setting("simclr"))
    identity, transformer, resnet, noise = architectures(
        setup.trainer(Task(setting=setup.setting, heads=HEADS)).pair
    )
    assert noise == {}
    assert resnet["architecture"] < transformer["architecture"]
    assert resnet["architecture"] < identity["architecture"]


def test_tapped_heads_have_no_architecture_distance() -> None:
    setup = WorkerSetup(setting("simclr"))
    task = Task(setting=setup.setting, heads=[{"family": "mlp", "depth": 1, "tap": 1}])
    assert architectures(setup.trainer(task).pair) == [{}]


def test_some_held_out_images_are_of_all_classes(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels // 8 + 50 * "abcd".index(name)).save(
                tmp_path / name / f"{number}.png"
            )
    setup = WorkerSetup(setting("simclr", data=str(tmp_path)))
    shades = {int(image.float().mean()) // 50 for image in setup.some_queries(8)[torch.arange(8)]}
    assert shades == {0, 1, 2, 3}


def test_outputs_that_are_the_same_have_no_discrepancy_and_unrelated_ones_have_one() -> None:
    setup = WorkerSetup(setting("simclr"))
    pair = setup.trainer(Task(setting=setup.setting, heads=[{"family": "identity"}])).pair
    couple, embedding = pair.student.couples[0], torch.randn(64, pair.student.base.embedding_width)
    unrelated = compare_outputs(pair, embedding, [embedding])[0].discrepancy
    couple.head_projector.load_state_dict(couple.base_projector.state_dict())
    assert compare_outputs(pair, embedding, [embedding])[0].discrepancy == pytest.approx(
        0, abs=1e-6
    )
    assert unrelated == pytest.approx(1, abs=0.2)
