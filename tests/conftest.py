"""Options and marks that all tests share."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-slow", action="store_true", help="run the tests marked slow, which take minutes"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        _skip(items, "slow", "takes minutes; give --run-slow")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "needs a CUDA device, and there is none")


@pytest.fixture(scope="session")
def setting() -> Any:
    """Return what all jobs of a small search have in common."""
    from hssl_search.engine.execution.jobs import Setting
    from hssl_search.training.recipe import Recipe  # torch, which many tests do without

    recipe = Recipe.read("simclr").as_plain()
    return Setting(
        base="test_resnet",
        base_args={"output_stride": 8},
        image_size=32,
        data="digits",
        probe_data=None,
        data_seed=0,
        recipe=recipe,
        device="cpu",
    )


@pytest.fixture
def resolved(setting: Any) -> Any:
    """Return a small search, as search.yaml holds it."""
    from hssl_search.engine.budget import parse_budget
    from hssl_search.engine.execution.machine import Machine
    from hssl_search.engine.policy import DEFAULT
    from hssl_search.engine.records.run import ResolvedSearch, ResolvedSpace
    from hssl_search.heads.config import HeadConfig
    from hssl_search.spaces.space import Space

    return ResolvedSearch(
        name="demo",
        budget=parse_budget("1cpu-h"),
        rank_by="accuracy",
        sampler="random",
        promote="learned",
        pruner="median",
        seed=0,
        max_head_cost=None,
        policy=DEFAULT,
        storage=None,
        full_epochs="off",
        machine=Machine("cpu", cpus=2, gpus=0),
        setting=setting,
        timm_args={},
        map_shapes=[(96, 4, 4)],
        same_architecture=HeadConfig(family="resnet"),
        space=ResolvedSpace.of(Space.read("tiny")),
        images={},
    )


def _skip(items: list[pytest.Item], mark: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(mark):
            item.add_marker(pytest.mark.skip(reason=f"{mark}: {reason}"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
