"""Random views of images, made in batches on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hssl_search.data.colours import apply_colours, colour_matrices, solarize
from hssl_search.data.crops import (
    TRIES,
    blur_kernel_size,
    blur_matrices,
    crop_boxes,
    reflections,
    resample,
    resize_matrices,
)
from hssl_search.data.masks import block_masks
from hssl_search.data.viewsconfig import ViewsConfig

__all__ = ["Batch", "Views", "ViewsConfig"]

CROP_DRAWS = 2 * TRIES + 2
OTHER_DRAWS = 10
"""Random numbers of a view beside its crop: flip, jitter, brightness, contrast, saturation, hue,
grayscale, blur, sigma, solarize."""


class Batch(NamedTuple):
    """The views of B images that one training step sees."""

    globals: Tensor
    """2 x B x 3 x S x S float32, normalised, S the image size."""
    locals: Tensor | None
    """L x B x 3 x s x s, the local crops; None without them."""
    masks: Tensor | None
    """2 x B x h x w bool on the CPU, which patches of the global views are masked; None without
    masks."""


class Kind(NamedTuple):
    """The settings that set one kind of view apart from the others."""

    size: int
    scale: tuple[float, float]
    blur: float
    solarize: float


class Views:
    """The maker of random views: crop, flip, blur, colours, solarize, normalise, each image with
    its own parameters.

    All randomness comes from the generator that is passed: from the same state, on the same device,
    come the same views. Nothing waits for the device. The blur is applied with the resize, before
    the colours; both are linear, so that order matters only where colours clip.

    Args:
        config: what is drawn.
        image_size: side of the global views, in pixels.
        mean, std: of each channel on the scale 0..1, what the model was made for.
        mask_grid: h and w of the model's patches; None where it has none to mask.
    """

    def __init__(
        self,
        config: ViewsConfig,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        mask_grid: tuple[int, int] | None = None,
    ) -> None:
        self.config = config
        self.image_size = image_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.mask_grid = mask_grid
        self._globals = [
            Kind(image_size, config.scale, blur, solarize)
            for blur, solarize in zip(config.blur, config.solarize, strict=True)
        ]
        self._local = Kind(
            config.local_side(image_size), config.local_scale, config.local_blur, 0.0
        )
        self._constants: dict[tuple[int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, batch: Tensor, generator: torch.Generator, view: int = 0) -> Tensor:
        """Make one global view of each image.

        Args:
            batch: uint8 B x 3 x S x S.
            generator: on the batch's device.
            view: 0 for the first, 1 for the second.

        Returns:
            float32 B x 3 x image_size x image_size, normalised.
        """
        return self._make(batch, generator, self._globals[view])

    def batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Make all that a training step sees of uint8 B x 3 x S x S: the two global views are drawn
        first, then local crops, then masks.
        """
        both = torch.stack([self._make(images, generator, kind) for kind in self._globals])
        crops = [self._make(images, generator, self._local) for _ in range(self.config.local_crops)]
        masks = None
        if self.config.masks is not None and self.mask_grid is not None:
            # Drawn on the CPU, where it is known how many patches are masked.
            count, on_host = 2 * len(images), on_cpu(generator)
            drawn = block_masks(count, self.mask_grid, self.config.masks, on_host)
            masks = drawn.unflatten(0, (2, len(images)))
        return Batch(both, torch.stack(crops) if crops else None, masks)

    @torch.no_grad()
    def _make(self, batch: Tensor, generator: torch.Generator, kind: Kind) -> Tensor:
        _check(batch)
        # The same numbers are drawn whatever is switched off: settings do not disturb each other.
        count = CROP_DRAWS + OTHER_DRAWS
        draws = torch.rand(len(batch), count, generator=generator, device=batch.device)
        crop = draws[:, :CROP_DRAWS]
        flip, jitter, *factors, grey, blur, sigma, solar = draws[:, CROP_DRAWS:].unbind(1)
        with torch.autocast(batch.device.type, enabled=False):
            rows, columns = self._space(crop, flip, batch.shape[-1], kind)
            if kind.blur:
                low, high = self.config.blur_sigma
                _, _, reads = self._constant(kind.size, batch.device)
                blurs = blur_matrices(low + (high - low) * sigma, blur < kind.blur, reads)
                rows, columns = blurs @ rows, blurs @ columns
            # The scale to 0..1 goes into the smaller matrix, and costs no pass over the images.
            images = resample(batch.float(), rows / 255, columns)
            images = self._colour(images, jitter, factors, grey)
            if kind.solarize:
                images = solarize(images, solar < kind.solarize)
            return self._normalise(images)

    @torch.no_grad()
    def plain(self, batch: Tensor) -> Tensor:
        """Return the whole images, not augmented, for evaluation.

        Args:
            batch: uint8 B x 3 x S x S.

        Returns:
            float32 B x 3 x image_size x image_size, normalised.
        """
        _check(batch)
        images = batch.float().div_(255)
        if batch.shape[-1] != self.image_size:
            images = F.interpolate(
                images, size=(self.image_size, self.image_size), mode="bilinear", antialias=True
            )
        return self._normalise(images)

    def _space(self, draws: Tensor, flip: Tensor, side: int, kind: Kind) -> tuple[Tensor, Tensor]:
        """Return the matrices that crop, resize and flip, both B x size x side."""
        start, length = crop_boxes(draws, side, kind.scale, self.config.ratio)
        flipped = flip < self.config.flip
        # Columns alone are mirrored.
        mirrored = torch.stack((torch.zeros_like(flipped), flipped))
        rows, columns = resize_matrices(start, length, side, kind.size, mirrored)
        return rows, columns

    def _colour(
        self, images: Tensor, jitter: Tensor, factors: Sequence[Tensor], grey: Tensor
    ) -> Tensor:
        config = self.config
        strengths = (config.brightness, config.contrast, config.saturation, config.hue)
        # 0 for images without jitter: every change is then 0, and its factor 1.
        changed = (jitter < config.jitter).float()
        changes = [
            changed * strength * (2 * draw - 1)
            for strength, draw in zip(strengths, factors, strict=True)
        ]
        brightness, contrast, saturation = (1 + change for change in changes[:3])
        grey_only, mean = grey < config.grayscale, images.mean((2, 3))
        return apply_colours(
            images, *colour_matrices(brightness, contrast, saturation, changes[3], grey_only, mean)
        )

    def _normalise(self, images: Tensor) -> Tensor:
        mean, std, _ = self._constant(images.shape[-1], images.device)
        return images.sub_(mean).div_(std)

    def _constant(self, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return (mean, std, blur reads) for views of this size on this device, sent there once."""
        if (size, device) not in self._constants:
            mean, std = (
                torch.tensor(values, device=device).view(3, 1, 1)
                for values in (self.mean, self.std)
            )
            reads = reflections(size, blur_kernel_size(size), device)
            self._constants[size, device] = mean, std, reads
        return self._constants[size, device]


def on_cpu(generator: torch.Generator) -> torch.Generator:
    """Return the generator itself or, for a CUDA generator, one on the CPU that depends on its
    state.

    The state is kept on the CPU: nothing waits.
    """
    if generator.device.type == "cpu":
        return generator
    # The offset counts what was drawn on the device, so that every batch gets other numbers.
    return torch.Generator().manual_seed(
        (generator.initial_seed() * 1_000_003 + generator.get_offset()) % 2**63
    )


def _check(batch: Tensor) -> None:
    if (
        batch.dtype != torch.uint8
        or batch.ndim != 4
        or batch.shape[1] != 3
        or batch.shape[2] != batch.shape[3]
    ):
        raise ValueError(
            f"views are made of uint8 B x 3 x S x S, not of {batch.dtype} "
            f"{' x '.join(map(str, batch.shape))}"
        )
