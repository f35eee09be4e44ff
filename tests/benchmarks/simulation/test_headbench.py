"""The HeadBench table: what is written is read, what was not measured is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulation.headbench import ABOUT, TABLE, HeadBench
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

MLP, RESNET = HeadConfig(family="mlp", depth=1), HeadConfig(family="resnet", depth=2)
IDENTITY = HeadConfig(family="identity")
ABOUT_IT: dict[str, Any] = {
    "command": "python make.py",
    "setting": {},
    "images": {},
    "space": {},
    "versions": {},
    "measured": {},
}


def row(
    head: Any, role: str = "candidate", step: int = 10, seed: int = 0, **values: Any
) -> dict[str, Any]:
    return {
        "training": "alone",
        "role": role,
        "head": head,
        "seed": seed,
        "steps": 40,
        "step": step,
        "accuracy": 30.0 + step,
        "step_s": 0.1,
        "core_s": 2.0,
        "parameters": 10,
        "macs": 100,
        **values,
    }


def rows() -> list[dict[str, Any]]:
    alone = [
        row(head, role, step, seed, accuracy=30.0 + step + seed)
        for head, role in ((None, "none"), (MLP, "candidate"), (RESNET, "candidate"))
        for seed in (0, 1)
        for step in (10, 40)
    ]
    joint = [
        row(
            IDENTITY,
            "identity",
            20,
            training="joint",
            group=group,
            accuracy=None,
            overlap=overlap,
            gate=gate,
        )
        for group, overlap, gate in (
            (0, 0.2, "healthy"),
            (1, 0.4, "healthy"),
            (2, 0.6, "not learning"),
        )
    ]
    return [*alone, *joint]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    HeadBench(rows(), ABOUT_IT).write(tmp_path)
    return tmp_path


def test_what_is_written_is_read(written: Path) -> None:
    before, read = HeadBench(rows(), ABOUT_IT), HeadBench.read(written)
    assert read.rows == before.rows
    assert read.about == ABOUT_IT
    assert read.candidates == [MLP, RESNET]
    assert (read.seeds(), read.rungs(), read.rungs("joint")) == ([0, 1], [10, 40], [20])
    assert read.control("none") is None


@pytest.mark.parametrize(("step", "measured"), [(10, 10), (11, 10), (39, 10), (40, 40), (1000, 40)])
def test_a_step_between_rungs_is_answered_by_the_one_below(
    written: Path, step: int, measured: int
) -> None:
    found = HeadBench.read(written).at("alone", MLP, 1, step)
    assert (found.step, found.values["accuracy"]) == (measured, 31.0 + measured)


def test_a_head_of_several_groups_is_answered_with_its_mean(written: Path) -> None:
    values = HeadBench.read(written).at("joint", IDENTITY, 0, 20).values
    assert values["overlap"] == pytest.approx(0.4)
    assert values["gate"] == "healthy"


@pytest.mark.parametrize(
    ("training", "head", "seed", "step", "told"),
    [
        (
            "alone",
            MLP,
            0,
            9,
            "nothing of mlp .* alone under seed 0 at step 9; its first rung is 10",
        ),
        ("alone", MLP, 7, 10, "nothing of mlp .* alone under seed 7"),
        ("alone", HeadConfig(family="swin"), 0, 10, "nothing of swin"),
        ("joint", MLP, 0, 20, "nothing of mlp .* joint"),
    ],
)
def test_what_was_not_measured_is_refused(
    written: Path, training: str, head: HeadConfig, seed: int, step: int, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        HeadBench.read(written).at(training, head, seed, step)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (row(MLP, accuracy="good"), "row 14 cannot be read: .*'good'"),
        (
            row(MLP, accuracy=float("inf")),
            "row 14 cannot be read: accuracy is inf, and must be finite",
        ),
        (row('{"family": "mpl"}'), "row 14 cannot be read: .*mpl"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_number(
    wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        HeadBench([*rows()[:12], row(RESNET, seed=5), wrong], ABOUT_IT)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / TABLE).unlink(), "holds no HeadBench table"),
        (
            lambda folder: (folder / ABOUT).write_text(
                json.dumps({**ABOUT_IT, "format": "hssl-headbench/9"})
            ),
            "has the format '.*/9' and",
        ),
        (lambda folder: (folder / ABOUT).write_text(json.dumps(ABOUT_IT)), "has the format None"),
        (
            lambda folder: (folder / TABLE).write_text(
                (folder / TABLE).read_text().replace("cka", "ckka", 1)
            ),
            "no column 'cka'",
        ),
    ],
)
def test_a_folder_of_another_format_is_refused(
    written: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    spoil(written)
    with pytest.raises(UserError, match=told):
        HeadBench.read(written)


PUBLISHED = Path(__file__).resolve().parents[3] / "reports/headbench"


def test_the_published_table_holds_what_the_documentation_says() -> None:
    setup = HeadBench.read(PUBLISHED)
    assert (len(setup.candidates), setup.seeds(), setup.rungs(), setup.rungs("joint")) == (
        40,
        [0, 1, 2],
        [25, 50, 100],
        [20, 40],
    )
    controls = [setup.control(role) for role in ("none", "identity", "noise", "same_architecture")]
    alone, joint = (
        {(head, seed): rungs for head, seed, rungs in setup.trainings(training)}
        for training in ("alone", "joint")
    )
    for of_head in itertools.product([*setup.candidates, *controls], setup.seeds()):
        assert [
            rung.step for rung in alone[of_head] if 0 < rung.values["accuracy"] < 100
        ] == setup.rungs()
    for of_head in itertools.product(setup.candidates, setup.seeds()):
        assert [rung.step for rung in joint[of_head]] == setup.rungs("joint")
    assert "earlier revision" in setup.about["notes"]
