"""Checkpoints: written beside and renamed, and checksummed, so that a damaged one is told apart and
the previous one is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints kept in a folder: the newest, and the one to fall back on."""
FILES = ("state.safetensors", "base.safetensors", "about.json")
SUMS = "sha256.json"
"""The checksums of these."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    step: int
    """Optimizer steps taken."""
    tensors: dict[str, Tensor]
    """All that training needs, by name."""
    about: dict[str, Any]
    """The content of `about.json`."""


class CheckpointFolder:
    """The checkpoints of one training.

    Each is a folder `step-00000150` with `state.safetensors` (all that training needs),
    `base.safetensors` (the base alone, which `timm.create_model(..., checkpoint_path=...)` loads),
    `about.json` (the step, and what the trainer adds) and `sha256.json` (of the three).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def save(
        self, step: int, state: dict[str, Tensor], base: dict[str, Tensor], about: dict[str, Any]
    ) -> Path:
        """Write one checkpoint durably, then drop all but this one and the one before it.

        Args:
            step: optimizer steps taken.
            state: all that training needs, by name.
            base: the state of the base alone.
            about: plain values, written beside the step.

        Returns:
            the folder of the checkpoint.
        """
        beside = self.folder / ".writing"
        shutil.rmtree(beside, ignore_errors=True)  # a worker that was killed left it
        beside.mkdir(parents=True)
        for name, tensors in (("state", state), ("base", base)):
            # Copies: a base such as CoaT has one weight under several names, which is refused.
            copies = {
                key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                for key, value in tensors.items()
            }
            save_file(copies, beside / f"{name}.safetensors")
        (beside / "about.json").write_text(json.dumps({**about, "step": step}))
        (beside / SUMS).write_text(json.dumps(_checksums(beside)))
        # On the disk before the rename, and the rename itself after it: a power cut leaves the old
        # checkpoint or the new one.
        for file in beside.iterdir():
            _sync(file)
        final = self.folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        beside.rename(final)
        _sync(self.folder)
        # Later steps are dropped too: they are of a training that went on from an older checkpoint.
        kept = [path for path in self._steps() if path <= final][:KEPT]
        for other in set(self._steps()) - set(kept):
            shutil.rmtree(other)
        return final

    def keep_newest(self) -> None:
        """Drop all but the newest whole checkpoint, once the training has ended."""
        newest = self.latest()
        for other in set(self._steps()) - {newest}:
            shutil.rmtree(other)

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole, or None."""
        for path in self._steps():
            if problem := _damage(path):
                log.warning(
                    "checkpoint %s is damaged (%s); falling back on the one before it",
                    path,
                    problem,
                )
                continue
            return path
        return None

    def load(self) -> Checkpoint | None:
        """Read the newest whole checkpoint; None when there is none."""
        path = self.latest()
        if path is None:
            return None
        about = json.loads((path / "about.json").read_text())
        return Checkpoint(about["step"], load_file(path / "state.safetensors"), about)

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _checksums(folder: Path) -> dict[str, str]:
    sums = {}
    for name in FILES:
        with (folder / name).open("rb") as stream:
            sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _damage(path: Path) -> str:
    """Return what is wrong with a checkpoint; empty when it is whole."""
    try:
        whole = json.loads((path / SUMS).read_text()) == _checksums(path)
        return "" if whole else "its checksums do not fit"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
