"""What a job asks of a worker, as plain data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hssl_search.data.sources import Contents


class Setting(BaseModel):
    """What all jobs of a search have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    base_args: dict[str, Any]
    image_size: int
    data: str
    probe_data: str | None
    data_seed: int
    """Of the probe split; the same for all jobs."""
    images: dict[str, Contents] = {}
    """What the search began with, by part of the data (`hssl_search.data.splits`); empty in a run of an earlier version."""
    recipe: dict[str, Any]
    device: Literal["cpu", "cuda"]


class Task(BaseModel):
    """One training of a base with N >= 0 heads, or with `kind: measure` a timing of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["train", "measure"] = "train"
    name: str = ""
    """For people: what is trained."""
    setting: Setting
    heads: list[dict[str, Any]] = []
    """HeadConfigs; for `measure`, those whose step is timed."""
    stage: Literal["proxy", "full"] = "proxy"
    steps: int = 1
    rungs: list[int] = []
    """Steps after which the worker evaluates and reports; the last is `steps`."""
    seed: int = 0
    accuracy: bool = True
    """Whether to judge the base: its accuracy at each rung where there are labels, its label-free quality at the last."""
    labelfree_always: bool = False
    """Whether to measure label-free quality, which costs as much as all else of an evaluation, at each rung: where it ranks."""
    architecture: bool = False
    """Whether to measure, at the last rung, how different the structures of base and heads are."""
    together: list[dict[str, Any]] = []
    """For `measure`: heads as the space has them, each as `head` with its multiply-adds as `macs`, whose joint step is timed."""
    measure_s: float | None = None
    """For `measure`: seconds in which may be timed what multiply-adds predict too; None: no limit."""
    cpus_beside: int | None = None
    """For `measure`: cores of a job that runs beside as many others as may, where those are fewer than all."""
    reserve_s: float = 0.0
    """Seconds that evaluation and checkpoint need at the end."""
