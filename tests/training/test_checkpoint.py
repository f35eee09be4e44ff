"""Checkpoints: whole or told apart from whole, and never fewer than one to fall back on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from hssl_search.training.checkpoint import CheckpointFolder


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "deep" / "checkpoint")


def save(folder: CheckpointFolder, *steps: int) -> list[Path]:
    return [
        folder.save(
            step, {"weight": torch.full((2, 3), float(step))}, {"base": torch.ones(2)}, {"seed": 4}
        )
        for step in steps
    ]


def test_newest_is_loaded_as_it_was_saved(folder: CheckpointFolder) -> None:
    save(folder, 5, 10)
    found = folder.load()
    assert found is not None
    assert (found.step, found.about) == (10, {"seed": 4, "step": 10})
    assert torch.equal(found.tensors["weight"], torch.full((2, 3), 10.0))


def test_two_newest_are_kept_and_nothing_else(folder: CheckpointFolder) -> None:
    (folder.folder / ".writing").mkdir(parents=True)  # of a worker that was killed
    (folder.folder / ".writing" / "state.safetensors").write_bytes(b"half")
    save(folder, 5, 10, 100)
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "step-00000010",
        "step-00000100",
    ]
    assert sorted(path.name for path in (folder.folder / "step-00000100").iterdir()) == [
        "about.json",
        "base.safetensors",
        "sha256.json",
        "state.safetensors",
    ]


def test_empty_or_missing_folder_has_no_checkpoint(folder: CheckpointFolder) -> None:
    assert folder.load() is None
    folder.folder.mkdir(parents=True)
    assert folder.latest() is None


@pytest.mark.parametrize(
    "name", ["state.safetensors", "base.safetensors", "about.json", "sha256.json"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damaged_checkpoint_falls_back_on_the_one_before(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    older, newer = save(folder, 5, 10)
    file = newer / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(
            {"flip": bytes(content), "truncate": bytes(content[:-3]), "empty": b""}[damage]
        )
    with caplog.at_level(logging.WARNING):
        found = folder.load()
    assert found is not None and found.step == 5
    assert folder.latest() == older
    assert f"{newer} is damaged" in caplog.text


def test_all_damaged_is_no_checkpoint(folder: CheckpointFolder) -> None:
    for path in save(folder, 5, 10):
        (path / "about.json").write_text("{")
    assert folder.load() is None


def test_saving_after_falling_back_drops_the_damaged_one_and_keeps_two(
    folder: CheckpointFolder,
) -> None:
    _, newer = save(folder, 5, 10)
    (newer / "state.safetensors").unlink()
    save(folder, 7)
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "step-00000005",
        "step-00000007",
    ]


def test_step_can_be_saved_again(folder: CheckpointFolder) -> None:
    save(folder, 5)
    folder.save(5, {"weight": torch.zeros(1)}, {}, {})
    found = folder.load()
    assert found is not None and torch.equal(found.tensors["weight"], torch.zeros(1))


def test_weight_with_several_names_or_in_another_memory_order_is_saved(
    folder: CheckpointFolder,
) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    folder.save(1, {"one": weight, "same": weight, "part": weight[:2]}, {}, {})
    found = folder.load()
    assert found is not None
    assert torch.equal(found.tensors["one"], weight) and torch.equal(found.tensors["same"], weight)
    assert torch.equal(found.tensors["part"], weight[:2])


def test_a_training_that_has_ended_keeps_one_checkpoint(folder: CheckpointFolder) -> None:
    save(folder, 5, 10)
    folder.keep_newest()
    assert [path.name for path in folder.folder.iterdir()] == ["step-00000010"]


def test_a_damaged_checkpoint_is_not_the_one_that_is_kept(folder: CheckpointFolder) -> None:
    save(folder, 5, 10)
    (folder.folder / "step-00000010" / "base.safetensors").write_bytes(b"")
    folder.keep_newest()
    assert [path.name for path in folder.folder.iterdir()] == ["step-00000005"]
