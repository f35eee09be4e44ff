"""SearchConfig: what a user asks for. The command line's flags are made from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hssl_search.engine.budget import Budget
from hssl_search.engine.policy import Policy
from hssl_search.engine.statistics.metrics import LABELFREE
from hssl_search.errors import UserError

SamplerName = Literal["tpe", "random", "exhaustive"]
PromotionRule = Literal["discrepancy", "learned", "random"]
PrunerName = Literal["median", "asha", "none"]

RANDOM = "bases begin from random weights"
THREE = "images are read with three channels, grey ones too"
NOT_GIVEN = {
    "pretrained": RANDOM,
    "checkpoint_path": RANDOM,
    "pretrained_cfg": RANDOM,
    "pretrained_strict": RANDOM,
    "in_chans": THREE,
    "num_classes": "a base has no classifier",
    "features_only": "heads are fed by the whole model",
    "out_indices": "the space's tap says which maps heads are fed with",
}
"""Arguments of timm that no base may be given, and why."""
NO_FLAG = {"policy"}
"""What no flag of the command line sets."""
EXAMPLES = {"base": "resnet50", "budget": "40gpu-h"}
"""The options without a default, each with the example that a user is shown."""
FILE = "hssl-search.yaml"
"""Read from the current folder when it exists; flags and `--config` go before it."""
NAME = re.compile(r"\w[\w.-]{0,99}")
"""A run's name, which is its folder's."""
NAME_BYTES = 200
"""Bytes that a run's name has at most: file systems take 255, of which a file that is being written
needs some, and a letter may be four."""


ADDED: Mapping[str, Any] = {
    "sampler": "random",
    "promote": "discrepancy",
    "pruner": "median",
    "max_head_cost": None,
    "warm_start": [],
    "policy": {},
}
"""Options that runs of an earlier version lack, and what those runs did: draw all heads before
there were results, promote by the paper's rule whatever a head cost, stop by the median."""


def flag(name: str) -> str:
    """Return how the command line spells an option: `--image-size`."""
    return f"--{name.replace('_', '-')}"


class SearchConfig(BaseModel):
    """One search as asked for.

    Anything left None is resolved before the search starts, and written to the run's search.yaml.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(description="timm model to pretrain, e.g. resnet50")
    base_arg: dict[str, object] = Field(
        {},
        description="KEY=VALUE passed on to timm, e.g. patch_size=4 or output_stride=8; repeat for "
        "more",
    )
    image_size: int | None = Field(
        None, ge=8, le=2048, description="side of the images in pixels (default: the base's own)"
    )
    data: str = Field(
        "digits",
        description="folder of images, with or without class subfolders (default: built-in "
        "handwritten digits)",
    )
    probe_data: str | None = Field(
        None,
        description="labelled images to judge by: class folders, or train/ and test/ with class "
        "folders",
    )
    budget: Budget = Field(description="hard cap on device-time: 40gpu-h, 90gpu-min, 10cpu-min")
    space: str = Field(
        "default", description="search space: a name or a YAML file (see: hssl-search spaces)"
    )
    trainer: str = Field(
        "simclr", description="training recipe: a name or a YAML file (see: hssl-search trainers)"
    )
    rank_by: Literal["accuracy", "discrepancy", "labelfree"] | None = Field(
        None,
        description="what ranks heads (default: accuracy where there are labels, else "
        f"discrepancy); labelfree is {LABELFREE.name} of the base, which needs no labels",
    )
    sampler: SamplerName = Field(
        "tpe",
        description="what draws the heads to screen, after the first round from what proxies found "
        "(default: tpe); exhaustive lists a finite space without putting back",
    )
    promote: PromotionRule = Field(
        "learned",
        description="which screened heads get a proxy: the most discrepant (the paper's rule), by "
        "what the first proxies teach, or any healthy one (default: learned)",
    )
    pruner: PrunerName = Field(
        "median",
        description="which proxies are stopped at a rung (default: median, which in a small search "
        "stops fewest by bad luck)",
    )
    max_head_cost: float | Literal["off"] = Field(
        4.0,
        description="leave out heads with which a training step takes more than this many times as "
        "long as without a head, while there are others; off for no limit (default: 4)",
    )
    warm_start: list[str] = Field(
        [],
        description="earlier runs whose results teach promotion from the start: folders such as "
        "runs/resnet50-photos, or their names",
    )
    name: str | None = Field(
        None, description="the run's folder under runs/ (default: from base and data)"
    )
    storage: str | None = Field(
        None,
        description="URL of the database for the study, or env:NAME, a variable that holds it "
        "(default: SQLite in the run folder)",
    )
    ray_address: str | None = Field(
        None, description="address of a running Ray cluster (default: this machine)"
    )
    gpus_per_trial: float | None = Field(
        None,
        gt=0,
        le=1,
        description="GPUs that one training holds; below 1 several share one (default: by measured "
        "peak memory, up to 4)",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random")
    full_epochs: int | Literal["off"] | None = Field(
        None,
        description="length of the winner's full training; off for none (default: the recipe's)",
    )

    policy: Policy = Policy()
    """How the budget is divided and how far each phase goes; in a configuration file alone, or from
    Python."""

    @field_validator("base", "data", "probe_data", "space", "trainer", "storage", "ray_address")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("base")
    @classmethod
    def _without_weights(cls, base: str) -> str:
        """Raise UserError for weights, which a base cannot have yet."""
        # pydantic lets a UserError through as it is, and puts a ValueError behind the key.
        if re.search(r"[:/\\]", base):
            raise UserError(
                f"--base {base} is no timm model's name, and {RANDOM}; give one such as resnet50."
            )
        architecture, tagged, _ = base.partition(".")
        if tagged:
            raise UserError(
                f"--base {base} names trained weights, and {RANDOM}; give --base {architecture}."
            )
        return base

    @field_validator("base_arg")
    @classmethod
    def _leaves_a_base(cls, arguments: dict[str, object]) -> dict[str, object]:
        """Raise UserError for arguments of timm that would make the model no base."""
        for key, value in arguments.items():
            refused = f"--base-arg {key}={value} cannot be given"
            # Three channels are what a base has anyway.
            if key in NOT_GIVEN and (key, value) != ("in_chans", 3):
                raise UserError(f"{refused}: {NOT_GIVEN[key]}; leave it out.")
            if key == "global_pool" and not value:
                raise UserError(
                    f"--base-arg global_pool={value!r} cannot be given: a base gives one vector an "
                    "image; leave it out, or give global_pool=avg."
                )
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"{refused}: search.yaml could not hold it; give a number, a text, true or "
                    "false."
                ) from None
        return arguments

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise ValueError(
                "must be at most 100 letters, digits, '.', '_' and '-', and begin with none of '.' "
                "and '-'"
            )
        if value is not None and len(value.encode()) > NAME_BYTES:
            raise ValueError(
                f"must be at most {NAME_BYTES} bytes long, and its {len(value)} letters are "
                f"{len(value.encode())}"
            )
        return value

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        """Read one run or several, each a path, a name or a `Run`."""
        runs = value if isinstance(value, list | tuple) else [] if value is None else [value]
        # A `Run` is told by its folder: its module imports this one.
        paths = [getattr(run, "folder", run) for run in runs]
        if strange := [path for path in paths if not isinstance(path, str | Path)]:
            raise ValueError(f"{strange[0]!r} is no run; give its folder or its name")
        return list(dict.fromkeys(map(str, paths)))

    @field_validator("max_head_cost", mode="before")
    @classmethod
    def _times_or_off(cls, value: Any) -> Any:
        if value is False or value == "off":  # YAML reads an unquoted off as false
            return "off"
        try:
            times = float(value)
        except (TypeError, ValueError):
            times = math.nan
        if not 1 < times < math.inf:
            raise ValueError("must be a number above 1, or off")
        return times

    @field_validator("full_epochs", mode="before")
    @classmethod
    def _epochs_or_off(cls, value: Any) -> Any:
        # As text too: the command line's flags are.
        if value in (None, "off") or re.fullmatch(r"[1-9]\d{0,8}", str(value)):
            return value
        if value is False:  # YAML reads an unquoted off as false
            return "off"
        raise ValueError("must be a whole number of at least 1, or off")


def with_defaults(resolved: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what search.yaml holds, with what a run did by options that were not there yet when it
    was written."""
    # Copied: its list and its mapping become those of the run that is read.
    return {**deepcopy(ADDED), **resolved}


def gather(
    options: Mapping[str, Any], config_file: str | None = None, from_flags: bool = False
) -> SearchConfig:
    """Put `options` over `config_file` over `hssl-search.yaml` in this folder, and check them.

    Args:
        options: None stands for one that is not given.
        from_flags: whether they come from the command line; messages then spell them as flags.

    Raises:
        UserError: names the place of the first mistake.
    """
    from hssl_search.configfile import read_yaml, validate

    explicit = {key: value for key, value in options.items() if value is not None}
    places = [place for place in (FILE if Path(FILE).exists() else None, config_file) if place]
    written = {place: read_yaml(Path(place)) for place in places}
    values: dict[str, object] = {}
    # Each place is checked alone, with what it lacks filled in: a mistake is told of its place.
    for number, place in enumerate(places):
        values |= written[place]
        later = {*explicit, *(key for after in places[number + 1 :] for key in written[after])}
        counts = {key: value for key, value in written[place].items() if key not in later}
        try:
            validate(SearchConfig, {**EXAMPLES, **counts}, place)
        except UserError as error:
            if str(error).startswith(f"{place}: "):
                raise
            raise UserError(f"{place}: {error}") from error
    if from_flags:
        flags = {flag(key): value for key, value in {**EXAMPLES, **explicit}.items()}
        validate(_Flags, flags, "command line")
    else:
        validate(SearchConfig, {**EXAMPLES, **explicit}, "search()")
    values |= explicit
    # Asked after every place was read: any of them may give it.
    for key, example in EXAMPLES.items():
        if key not in values:
            raise UserError(f"no {key} is given; add it, for example {flag(key)} {example}.")
    return validate(SearchConfig, values, "the search")


class _Flags(SearchConfig):
    """A SearchConfig under the flags' names."""

    model_config = ConfigDict(alias_generator=flag)
