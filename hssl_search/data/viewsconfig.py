"""ViewsConfig: which random views are made of an image; MasksConfig: which of their patches are
masked.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


def _for_both(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value, value)


EachGlobal = Annotated[tuple[Probability, Probability], BeforeValidator(_for_both)]
"""A probability of the first and of the second global view; written as a pair, or as one number for
both."""


class MasksConfig(BaseModel):
    """Blockwise masks of patches (BEiT, arXiv 2106.08254, algorithm 1), drawn as iBOT does (arXiv
    2111.07832).

    The defaults are iBOT's official ones (`--pred_ratio 0 0.3 --pred_ratio_var 0 0.2`): half of the
    views have no mask, of the others 10 to 50 % of the patches are masked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Share = 0.5
    """Probability that a view is masked at all."""
    ratio: Share = 0.3
    """Mean share of its patches that a masked view loses."""
    ratio_spread: Annotated[float, Field(ge=0)] = 0.2
    """The share is drawn from `ratio` - this to `ratio` + this."""
    aspect: Share = 0.3
    """Smallest height / width of a block; the largest is its inverse, and the logarithm is drawn
    uniformly."""
    smallest: Share = 1 / 3
    """Side of the smallest block as a share of the grid's shorter side, rounded down to whole
    patches."""

    @model_validator(mode="after")
    def _ratios_are_shares(self) -> MasksConfig:
        low, high = self.ratio - self.ratio_spread, self.ratio + self.ratio_spread
        if low < 0 or high > 1:
            raise ValueError(
                f"ratio - ratio_spread to ratio + ratio_spread is {low:g} to {high:g}; keep it "
                "within 0 to 1"
            )
        return self


class ViewsConfig(BaseModel):
    """The random crop, flip, colours, blur and solarization of two global views, and of small local
    crops; each image draws its own.

    The defaults are SimCLR's for small images (arXiv 2002.05709, appendix B.9: half the ImageNet
    colour strength, no blur), with MoCo's lower crop bound of 0.2 (arXiv 1911.05722), since a crop
    of 8 % of 32 x 32 pixels is 9 pixels wide. Local crops (multi-crop, arXiv 2006.09882) differ
    from global views by the settings named `local_...`, and are never solarized, as in DINO (arXiv
    2104.14294). These settings are ignored while there are no local crops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: tuple[Positive, Positive] = (0.2, 1.0)
    """Smallest and largest area of a global view's crop, as a share of the image."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of the crop; drawn uniformly in the logarithm."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    jitter: Probability = 0.8
    """Probability that brightness, contrast, saturation and hue are changed."""
    brightness: Strength = 0.4
    """Brightness factor is drawn from 1 - this to 1 + this."""
    contrast: Strength = 0.4
    """Contrast factor is drawn from 1 - this to 1 + this."""
    saturation: Strength = 0.4
    """Saturation factor is drawn from 1 - this to 1 + this."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Hue is turned by up to this share of the colour circle, either way."""
    grayscale: Probability = 0.2
    """Probability of losing all colour."""
    blur: EachGlobal = (0.0, 0.0)
    """Probability of a Gaussian blur, one for both global views or a pair. SimCLR uses 0.5 for
    224-pixel images and none for 32-pixel ones, where it leaves only blobs; BYOL (arXiv
    2006.07733), DINO and MoCo v3 (arXiv 2104.02057) use [1.0, 0.1]."""
    blur_sigma: tuple[Positive, Positive] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the view."""
    solarize: EachGlobal = (0.0, 0.0)
    """Probability that pixels of at least half the full brightness are inverted, one for both
    global views or a pair. BYOL, DINO and MoCo v3 use [0.0, 0.2]."""
    local_crops: Annotated[int, Field(ge=0)] = 0
    """Number of local crops of each image. DINO and iBOT use 10 with ViT-S/16."""
    local_size: Annotated[int, Field(ge=8)] | None = None
    """Side of the local crops in pixels; None: `local_side`. A ViT needs a multiple of its patch
    size."""
    local_scale: tuple[Positive, Positive] = (0.05, 0.2)
    """Smallest and largest area of a local crop, as a share of the image. By default it ends where
    `scale` begins, as in SwAV and iBOT, whose ViT-S/16 has [0.05, 0.25] with `scale` [0.25, 1.0];
    give both where you change one."""
    local_blur: Probability = 0.0
    """Probability that a local crop is blurred. DINO uses 0.5."""
    masks: MasksConfig | None = None
    """Masks of the global views, for methods that hide patches; None: no masks."""

    @model_validator(mode="after")
    def _ranges_run_upwards(self) -> ViewsConfig:
        for name in ("scale", "ratio", "blur_sigma", "local_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"{name} runs from {low:g} down to {high:g}; write the smaller first"
                )
        for name in ("scale", "local_scale"):
            if (high := getattr(self, name)[1]) > 1:
                raise ValueError(
                    f"{name} ends at {high:g}; a crop has at most the area 1 of its image"
                )
        return self

    def local_side(self, image_size: int) -> int:
        """Return the side of the local crops in pixels: `local_size`, or 3/7 of `image_size` (96
        for 224: SwAV) rounded to a multiple of 16.
        """
        return self.local_size or max(16, round(image_size * 3 / 7 / 16) * 16)
