"""Any timm model as a base: the network that is pretrained, and kept."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hssl_search.errors import UserError, advice, nearest

SMALLEST_MAP = 4
"""Side below which a map is small: heads differ only in how they mix positions, and there is little
to mix on it."""


class Features(NamedTuple):
    """The outputs of a base or a head for a batch of images."""

    map: Tensor
    """B x C x h x w: a base's last feature map before its final norm; a head's last feature map."""
    embedding: Tensor
    """B x D: one vector an image, after the norm."""
    tokens: Tensor | None = None
    """B x N x D: a base's patch tokens after its final norm, row by row of the map; None where it
    has none."""
    tapped: tuple[Tensor, ...] = ()
    """B x C x h x w each: a base's maps, of the last stage first; as many as were asked for."""


class Masking(NamedTuple):
    """The patch tokens that are hidden from a base."""

    mask: Tensor
    """B x h x w, true where a token is hidden."""
    token: Tensor
    """What stands there instead, as wide as the patch embedding."""


class Base(nn.Module):
    """A timm model, without classifier, that gives map and embedding in one pass.

    The embedding is what timm's own head would classify: the class token or the pooled features,
    after the model's norm.

    Args:
        name: a timm model name.
        args: passed to `timm.create_model`, e.g. `{"patch_size": 4}` or `{"output_stride": 8}`.
        image_size: side of the square images in pixels; passed on as `img_size` to models whose
            weights depend on it.
        taps: how many maps a pass gives in `Features.tapped`: 1 for the last stage's alone.
        any_size: whether images of other sizes must go through too, as local crops do; asks timm
            for `dynamic_img_size` where it has it.

    Attributes:
        timm_args: all arguments that `timm.create_model` was given beside the name and
            `num_classes=0`.
        map_shape: C x h x w of the last map.
        tap_shapes: C x h x w of each tapped map, the last stage's first.
        mask_grid: h x w of the patch tokens that can be hidden; None where the model has none, or
            embeds overlapping patches.

    Raises:
        UserError: for an unknown name, an argument that the model refuses, or an image size that it
            cannot take.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        args: Mapping[str, Any] | None = None,
        taps: int = 1,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.image_size, self.args, self.taps = name, image_size, dict(args or {}), taps
        self.model, self.timm_args = _create(name, image_size, self.args, any_size)
        try:
            features = self._probe(image_size)
        except Exception as error:
            raise self._refusal(error) from error
        self.map_shape, self.embedding_width = _shape(features.map), features.embedding.shape[1]
        self.tap_shapes = [_shape(tapped) for tapped in features.tapped]
        self.mask_grid, self.token_width = self._patches(features)

    def forward(self, x: Tensor, masking: Masking | None = None) -> Features:
        """Return the features of images.

        Args:
            x: B x 3 x H x W.
            masking: hides patch tokens behind the patch embedding, as in arXiv 2106.08254.
        """
        with self._hidden(masking) if masking is not None else contextlib.nullcontext():
            final, maps = self.model.forward_intermediates(x, indices=self.taps, output_fmt="NCHW")
        # timm gives maps from the first to the last stage, and heads count from the last.
        return Features(
            maps[-1],
            self.model.forward_head(final, pre_logits=True),
            self._tokens(final),
            tuple(reversed(maps)),
        )

    def _tokens(self, final: Any) -> Tensor | None:
        """Return the patch tokens, B x N x D, of what timm calls the features: a tensor, or of a
        model with several branches a list.
        """
        if not isinstance(final, Tensor) or final.ndim != 3:
            return None
        # timm moves the norm of mean-pooled transformers here.
        after_pooling = getattr(self.model, "fc_norm", None) or nn.Identity()
        return after_pooling(final[:, self._prefix_tokens :])

    @property
    def _prefix_tokens(self) -> int:
        """Return the number of class, register and distillation tokens before the patches."""
        return getattr(self.model, "num_prefix_tokens", 0)

    @contextlib.contextmanager
    def _hidden(self, masking: Masking) -> Iterator[None]:
        # A vision transformer's patches are embedded as B x N x D, or B x h x w x D.
        def hide(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
            mask = masking.mask.reshape(*embedded.shape[:-1], 1)
            return torch.where(mask, masking.token.to(embedded.dtype), embedded)

        handle = self.model.patch_embed.register_forward_hook(hide)
        try:
            yield
        finally:
            handle.remove()

    def embeddings(self, x: Tensor) -> dict[str, Tensor]:
        """Return the embeddings to evaluate, B x D each: `embedding`, and for a model with a class
        token `mean`, the mean of its patch tokens.

        Args:
            x: B x 3 x H x W.
        """
        final = self.model.forward_features(x)
        return self._named(self.model.forward_head(final, pre_logits=True), self._tokens(final))

    def embeddings_of(self, features: Features) -> dict[str, Tensor]:
        """Return the same embeddings, from what a pass has given already."""
        return self._named(features.embedding, features.tokens)

    def _named(self, embedding: Tensor, tokens: Tensor | None) -> dict[str, Tensor]:
        if tokens is not None and self._prefix_tokens and self.model.global_pool == "token":
            return {"embedding": embedding, "mean": tokens.mean(dim=1)}
        return {"embedding": embedding}

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the normalisation of input images that timm configures for this model."""
        config = self.model.pretrained_cfg
        return tuple(config["mean"]), tuple(config["std"])

    @torch.no_grad()
    def _probe(self, side: int) -> Features:
        with self._evaluating():
            features: Features = self(torch.zeros(2, 3, side, side))
        if features.embedding.ndim != 2:
            raise ValueError(
                f"it gives {' x '.join(map(str, features.embedding.shape[1:]))} numbers an image, "
                "not one vector"
            )
        return features

    def _refusal(self, error: Exception) -> UserError:
        """Return the error for a first pass that failed. The cause is found by trying which other
        choice mends it; this base is given up.
        """
        why = f"({_first_line(error)})"
        # The taps, then the size: each is at fault if a pass works with another choice of it alone.
        asked, self.taps = self.taps, 1
        if asked > 1 and self._passes(self.model, self.image_size):
            return UserError(
                f"base {self.name!r} has no {asked} maps to tap {why}; choose a tap below "
                f"{asked - 1}."
            )
        free = {key: value for key, value in self.args.items() if key != "img_size"}
        multiple = math.ceil(self.image_size / 64) * 64  # what strides and patches divide
        for side in (multiple, default_image_size(self.name)):
            with contextlib.suppress(UserError):
                model, _ = _create(self.name, side, free, any_size=False)
                if self._passes(model, side):
                    return UserError(
                        f"base {self.name!r} cannot take images of {self.image_size} x "
                        f"{self.image_size} pixels {why}; choose another --image-size."
                    )
        return UserError(
            f"base {self.name!r} with {_given(self.args)} is built, but a pass through it fails "
            f"{why}; change {'--base-arg' if self.args else '--base'}."
        )

    def _passes(self, model: Any, side: int) -> bool:
        self.model = model
        try:
            self._probe(side)
        except Exception:  # whatever it is, it is not what the user is told of
            return False
        return True

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        before = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(before)

    def require_size(self, side: int) -> None:
        """Check that the base can take square images of `side` pixels beside those of its own size.

        Raises:
            UserError: where it cannot.
        """
        try:
            self._probe(side)
        except Exception as error:
            raise UserError(
                f"base {self.name!r} cannot take local crops of {side} x {side} pixels "
                f"({_first_line(error)}); set views: local_size in the recipe to the image size, "
                "or local_crops to 0."
            ) from error

    @torch.no_grad()
    def _patches(self, features: Features) -> tuple[tuple[int, int] | None, int]:
        """Return (grid of the patch tokens, width of their embedding) where each token is embedded
        from its own pixels and goes through the model; else (None, 0).
        """
        _, height, width = _shape(features.map)
        embed = getattr(self.model, "patch_embed", None)
        if embed is None or features.tokens is None or features.tokens.shape[1] != height * width:
            return None, 0
        images, half = torch.zeros(2, 3, self.image_size, self.image_size), width // 2
        # Two images that differ on the left alone: tokens of their own pixels do not on the right.
        images[1, ..., : self.image_size // width * half] = 1
        with self._evaluating():
            embedded = embed(images)
        if not isinstance(embedded, Tensor) or embedded[0, ..., 0].numel() != height * width:
            return None, 0
        right = embedded.reshape(2, height, width, -1)[:, :, half:]
        if not torch.allclose(right[0], right[1]):
            return None, 0
        return (height, width), right.shape[-1]

    def small_map_warning(self) -> str | None:
        """Return a sentence when the map is smaller than 4 x 4; None otherwise.

        It names the arguments (tried on this model) and the image size that enlarge the map.
        """
        _, height, width = self.map_shape
        side = min(height, width)
        if side >= SMALLEST_MAP:
            return None
        stride = 2 ** math.ceil(math.log2(self.image_size / side))
        patch = max(1, self.image_size // (2 * SMALLEST_MAP))
        arguments = {"output_stride": 8, "patch_size": patch}
        remedies = [
            f"--base-arg {key}={value}"
            for key, value in arguments.items()
            if self._has_larger_map_with({key: value})
        ]
        remedies.append(f"--image-size {SMALLEST_MAP * stride}")
        return (
            f"the last feature map of {self.name} at {self.image_size} px is only {height} x "
            f"{width}: heads differ in how they mix positions and can hardly differ here; use "
            f"{' or '.join(remedies)}."
        )

    def _has_larger_map_with(self, args: Mapping[str, Any]) -> bool:
        try:
            base = Base(self.name, self.image_size, {**self.args, **args})
        except UserError:
            return False
        return min(base.map_shape[1:]) >= SMALLEST_MAP


@lru_cache(maxsize=1)
def base_names() -> list[str]:
    """Return all model names that timm knows."""
    return timm.list_models()


def _create(
    name: str, image_size: int, args: Mapping[str, Any], any_size: bool
) -> tuple[Any, dict[str, Any]]:
    _check_name(name)
    sized = {"img_size": image_size, **args}
    # `img_size` and `dynamic_img_size` are asked for, and left out for models that know neither.
    attempts = [*([{**sized, "dynamic_img_size": True}] if any_size else []), sized, dict(args)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm's hints on overwritten registry entries
        for attempt in attempts:
            try:
                return timm.create_model(name, pretrained=False, num_classes=0, **attempt), attempt
            except TypeError as error:
                if "img_size" in str(error) and attempt is not attempts[-1]:
                    continue
                raise _refused(name, args, error) from error
            except Exception as error:
                raise _refused(name, args, error) from error
    raise AssertionError("unreachable: the last attempt has no img_size to refuse")


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if architecture in base_names():
        if tag and name not in (tagged := timm.list_models(f"{architecture}.*", pretrained=True)):
            raise UserError(
                f"base {architecture!r} has no weights {tag!r} in timm; "
                f"{advice(name, [architecture, *tagged])}"
            )
        return
    hint = (
        advice(name, base_names())
        if nearest(name, base_names())
        else f"timm.list_models() gives the {len(base_names())} valid names."
    )
    raise UserError(f"unknown base {name!r}; {hint}")


def _refused(name: str, args: Mapping[str, Any], error: Exception) -> UserError:
    return UserError(
        f"timm refuses to build base {name!r} with {_given(args)} ({_first_line(error)}); mend "
        "--base-arg or --image-size."
    )


def _given(args: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in args.items()) or "no arguments"


def _shape(feature_map: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = feature_map.shape
    return channels, height, width


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def residual_blocks(name: str, image_size: int, args: Mapping[str, Any]) -> int:
    """Return the number of blocks over which timm spreads a base's stochastic depth; 2 where it
    gives all of them the same rate.

    Raises:
        UserError: for a model that has none.
    """
    return _residual_blocks(name, image_size, json.dumps(dict(args), sort_keys=True))


@lru_cache
def _residual_blocks(name: str, image_size: int, args: str) -> int:
    without = f"base {name!r} has no stochastic depth in timm; set drop_path to 0 in the recipe."
    try:
        model, _ = _create(
            name, image_size, {**json.loads(args), "drop_path_rate": 0.5}, any_size=False
        )
    except UserError as error:
        if "'drop_path_rate'" in str(error.__cause__):
            raise UserError(without) from error
        raise
    # timm's rates rise evenly from 0, whose DropPath is often left out: one rate a block, and 0.
    rates = {module.drop_prob for module in model.modules() if isinstance(module, DropPath)}
    if not rates:
        raise UserError(without)
    return len(rates | {0.0})


def default_image_size(name: str) -> int:
    """Return the side in pixels of the images that timm configures a model for.

    Raises:
        UserError: for an unknown name.
    """
    _check_name(name)
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config is not None else 224  # most timm models have it


@torch.no_grad()
def base_macs(base: Base) -> int:
    """Return the multiply-adds of an image in the base, in matrix products and convolutions."""
    trains, side = base.training, base.image_size
    image = torch.zeros(1, 3, side, side, device=next(base.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        base.eval()(image)
    base.train(trains)
    return max(1, counter.get_total_flops() // 2)  # torch counts two operations for one
