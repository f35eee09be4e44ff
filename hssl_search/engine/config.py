"""SearchConfig: what a user asks for. The command line's flags are made from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.policy import Policy
from hssl_search.engine.statistics.metrics import LABELFREE
from hssl_search.errors import UserError

NO_FLAG = {"policy"}
"""What no flag of the command line sets."""
FILE = "hssl-search.yaml"
"""Read from the current folder when it exists; flags and `--config` go before it."""
NAME = re.compile(r"\w[\w.-]{0,99}")
NAME_BYTES = 200
"""Of a run's name, at most: file systems take 255 bytes, of which a file that is being written needs some, and a letter may be four."""


ADDED: Mapping[str, Any] = {
    "sampler": "random",
    "promote": "discrepancy",
    "pruner": "median",
    "max_head_cost": None,
    "policy": {},
}
"""Options that runs of an earlier version lack, and what those runs did: draw all heads before there were results, promote by the
paper's rule whatever a head cost, stop by the median."""


def flag(name: str) -> str:
    """How the command line spells an option: `--image-size`."""
    return f"--{name.replace('_', '-')}"


class SearchConfig(BaseModel):
    """One search as asked for. Anything left None is resolved before the search starts, and written to the run's search.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(description="timm model to pretrain, e.g. resnet50")
    base_arg: dict[str, Any] = Field(
        {},
        description="KEY=VALUE passed on to timm, e.g. patch_size=4 or output_stride=8; repeat for more",
    )
    image_size: int | None = Field(
        None, ge=8, le=2048, description="side of the images in pixels (default: the base's own)"
    )
    data: str = Field(
        "digits",
        description="folder of images, with or without class subfolders (default: built-in handwritten digits)",
    )
    probe_data: str | None = Field(
        None,
        description="labelled images to judge by: class folders, or train/ and test/ with class folders",
    )
    budget: str = Field(description="hard cap on device-time: 40gpu-h, 90gpu-min, 10cpu-min")
    space: str = Field(
        "default", description="search space: a name or a YAML file (see: hssl-search spaces)"
    )
    trainer: str = Field(
        "simclr", description="training recipe: a name or a YAML file (see: hssl-search trainers)"
    )
    rank_by: Literal["accuracy", "discrepancy", "labelfree"] | None = Field(
        None,
        description="what ranks heads (default: accuracy where there are labels, else discrepancy); "
        f"labelfree is {LABELFREE.name} of the base, which needs no labels",
    )
    sampler: Literal["tpe", "random", "exhaustive"] = Field(
        "tpe",
        description="what draws the heads to screen, after the first round from what proxies found (default: tpe); exhaustive "
        "lists a finite space without putting back",
    )
    promote: Literal["discrepancy", "learned", "random"] = Field(
        "learned",
        description="which screened heads get a proxy: the most discrepant (the paper's rule), by what the first proxies teach, "
        "or any healthy one (default: learned)",
    )
    pruner: Literal["median", "asha", "none"] = Field(
        "median",
        description="which proxies are stopped at a rung (default: median, which in a small search stops fewest by bad luck)",
    )
    max_head_cost: float | Literal["off"] = Field(
        4.0,
        description="leave out heads with which a training step takes more than this many times as long as without a head, while "
        "there are others; off for no limit (default: 4)",
    )
    name: str | None = Field(
        None, description="the run's folder under runs/ (default: from base and data)"
    )
    storage: str | None = Field(
        None,
        description="URL of the database for the study, or env:NAME, a variable that holds it (default: SQLite in the run folder)",
    )
    ray_address: str | None = Field(
        None, description="address of a running Ray cluster (default: this machine)"
    )
    gpus_per_trial: float | None = Field(
        None,
        gt=0,
        le=1,
        description="GPUs that one training holds; below 1 several share one (default: by measured peak memory, up to 4)",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    full_epochs: int | Literal["off"] | None = Field(
        None,
        description="length of the winner's full training; off for none (default: the recipe's)",
    )

    policy: Policy = Policy()
    """How the budget is divided and how far each phase goes; in a configuration file alone, or from Python."""

    @field_validator("base", "data", "probe_data", "space", "trainer", "storage", "ray_address")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("budget", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        """A file may say `budget: 40`, which is then refused for having no unit."""
        return str(value) if isinstance(value, int | float) else value

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise ValueError(
                "must be at most 100 letters, digits, '.', '_' and '-', and begin with none of '.' and '-'"
            )
        if value is not None and len(value.encode()) > NAME_BYTES:
            raise ValueError(
                f"must be at most {NAME_BYTES} bytes long, and its {len(value)} letters are {len(value.encode())}"
            )
        return value

    @field_validator("max_head_cost", mode="before")
    @classmethod
    def _times_or_off(cls, value: Any) -> Any:
        if value is False or value == "off":  # YAML reads an unquoted off as false
            return "off"
        try:
            times = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            times = math.nan
        if not 1 < times < math.inf:
            raise ValueError("must be a number above 1, or off")
        return times

    @field_validator("full_epochs", mode="before")
    @classmethod
    def _epochs_or_off(cls, value: Any) -> Any:
        if value in (None, "off") or (
            value is not True and re.fullmatch(r"[1-9]\d{0,8}", str(value))
        ):
            return value
        if value is False:  # YAML reads an unquoted off as false
            return "off"
        raise ValueError("must be a whole number of at least 1, or off")


def with_defaults(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What search.yaml holds, with what a run did by the options that were not there yet when it was written."""
    return {**deepcopy(ADDED), **resolved}


def gather(
    options: dict[str, Any], config_file: str | None = None, from_flags: bool = False
) -> SearchConfig:
    """`options` over `config_file` over `hssl-search.yaml` in this folder, checked. UserError naming the place of the first mistake.

    Args:
        options: None stands for one that is not given.
        from_flags: whether they come from the command line; messages then spell them as flags.
    """
    from hssl_search.configfile import read_yaml, validate

    values: dict[str, Any] = {}
    for place in [
        *([FILE] if Path(FILE).exists() else []),
        *([config_file] if config_file is not None else []),
    ]:
        written = read_yaml(Path(place))
        values |= validate(_Partial, written, place).model_dump(include=set(written))
    given = {key: value for key, value in options.items() if value is not None}
    if from_flags:
        validate(_Flags, {flag(key): value for key, value in given.items()}, "command line")
    else:
        validate(_Partial, given, "search()")
    values |= given
    for key, example in (("base", "resnet50"), ("budget", "40gpu-h")):
        if key not in values:
            raise UserError(f"no {key} is given; add it, for example {flag(key)} {example}.")
    config = validate(SearchConfig, values, "the search")
    parse_budget(config.budget)
    return config


class _Partial(SearchConfig):
    """A config file: any part of a SearchConfig."""

    base: str = ""
    budget: str = ""


class _Flags(_Partial):
    """The same under the flags' names."""

    model_config = ConfigDict(alias_generator=flag)
