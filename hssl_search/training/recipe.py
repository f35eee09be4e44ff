"""Recipes: how to train, as written in `trainers/*.yaml`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from hssl_search.bundled import find
from hssl_search.configfile import read_yaml, validate
from hssl_search.data.views import ViewsConfig
from hssl_search.errors import UserError
from hssl_search.methods.base import MethodConfig, method_class


class Stage(BaseModel):
    """The settings of one training. A proxy is a short one, `full` the real one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(128, ge=2)
    """Images a step; fewer where the data have fewer."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate, at this batch size."""
    final_lr: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly; after it, a cosine leads to
    `final_lr`."""
    weight_decay: float = Field(0.05, ge=0)
    """On matrices and kernels; biases, norms and scales have none."""
    weight_decay_end: float | None = Field(None, ge=0)
    """Weight decay at the end, reached on a cosine; None: constant."""
    clip_grad: float | None = Field(None, gt=0)
    """Largest norm of all gradients together; None: not clipped."""
    teacher_momentum: float = Field(0.9, ge=0, lt=1)
    """Of the teacher's moving average at the start; a cosine leads to 1. Read by methods with a
    teacher."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last block, the head's where there is one; base and head lie on one
    line that rises from 0."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` measures both on the device before the search and keeps the faster."""
    channels_last: bool = True
    """Whether weights and maps lie in memory channel by channel last, which convolutions are faster
    on."""

    @model_validator(mode="after")
    def _fill(self) -> Stage:
        # Written out, so that a recipe in a study says what was done. The model is frozen.
        if self.weight_decay_end is None:
            object.__setattr__(self, "weight_decay_end", self.weight_decay)
        return self


class Full(Stage):
    """The settings of the training in full."""

    epochs: int = Field(100, ge=1)
    """Passes over the data that the full training is planned for; the budget may allow fewer."""


class Recipe(BaseModel):
    """A whole recipe: the method, its views, and the two stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    method: SerializeAsAny[MethodConfig]
    views: ViewsConfig = ViewsConfig()
    proxy: Stage = Stage()
    full: Full = Full()

    @model_validator(mode="after")
    def _views_fit_the_method(self) -> Recipe:
        method = method_class(self.method.name)
        if method.masks and self.views.masks is None:
            raise ValueError(
                f"method {method.name} masks patches; write a section `views: {{masks: {{ratio: "
                f"0.3}}}}`"
            )
        if self.views.masks is not None and not method.masks:
            raise ValueError(f"method {method.name} masks nothing; remove `masks` from views")
        if self.views.local_crops and not method.local_views:
            raise ValueError(
                f"method {method.name} has no use for local crops; remove `local_crops` from views"
            )
        return self

    @classmethod
    def read(cls, name: str) -> Recipe:
        """Read the recipe of a name or a path.

        Raises:
            UserError: for an unknown name, corrupt YAML, an unknown key, or a value that no recipe
                may have.
        """
        path = find("trainers", name)
        return cls.from_plain(read_yaml(path), str(path))

    @classmethod
    def from_plain(cls, values: dict[str, Any], where: str = "recipe") -> Recipe:
        """Make a recipe of plain values.

        Args:
            values: as `as_plain` gives them, or as a file holds them.
            where: what messages call their place.

        Raises:
            UserError: for an unknown method or key, or a value that no recipe may have.
        """
        method = values.get("method")
        if not isinstance(method, dict) or not isinstance(method.get("name"), str):
            raise UserError(
                f"{where}: method is {method!r}; write a section such as "
                "`method: {name: simclr}`."
            )
        try:
            config = method_class(method["name"]).Config
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        # The method's own config first: the recipe's field has the type that all methods share.
        checked = validate(config, method, f"{where}: method")
        return validate(cls, {**values, "method": checked}, where)

    def stage(self, name: str) -> Stage:
        """Return the `full` stage, or for any other name the proxy stage."""
        return self.full if name == "full" else self.proxy

    def as_plain(self) -> dict[str, Any]:
        """Return the recipe as plain values, for JSON and YAML."""
        return self.model_dump(mode="json")
