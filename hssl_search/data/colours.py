"""Brightness, contrast, saturation, hue and grayscale as one matrix and one offset an image.

All five are affine in RGB (hue as a rotation of the chroma plane of YIQ, which keeps luma, not as
HSV's hexagon), so they are composed before they are applied. Unlike torchvision, values are clipped
to 0..1 once, at the end, and the order is always brightness, contrast, saturation, hue: one order
for a batch would need a random permutation known to the host.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in a grey value (ITU-R BT.601)."""
YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""RGB to luma and chroma (NTSC); the chroma rows sum to 0, so grey has none."""


def colour_matrices(
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    turn: Tensor,
    grey: Tensor,
    mean: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the affine map of each image's colours: `matrix @ rgb + offset`.

    Args:
        brightness, contrast, saturation: B factors; 1 changes nothing.
        turn: B, rotation of the hue as a share of the circle; 0 changes nothing.
        grey: B bool, whether all colour is lost.
        mean: B x 3, mean colour of each image.

    Returns:
        B x 3 x 3 and B x 1 x 1.
    """
    luma = _constants(mean.device)[0]
    to_grey = luma.expand(3, 3)
    # Saturation blends with grey, and so does contrast with the mean grey, in the offset below.
    matrix = torch.lerp(to_grey, torch.eye(3, device=mean.device), saturation[:, None, None])
    matrix = _hue_matrices(turn) @ matrix
    matrix = torch.where(grey[:, None, None], to_grey, matrix)
    matrix = matrix * (contrast * brightness)[:, None, None]
    offset = (1 - contrast) * brightness * (mean @ luma)
    return matrix, offset[:, None, None]


def _hue_matrices(turn: Tensor) -> Tensor:
    """Return B x 3 x 3 rotations of the IQ plane by `turn` of a circle, red towards green."""
    angle = 2 * math.pi * turn
    _, to_yiq, from_yiq = _constants(turn.device)
    one, zero, cos, sin = torch.ones_like(angle), torch.zeros_like(angle), angle.cos(), angle.sin()
    rotation = torch.stack((one, zero, zero, zero, cos, sin, zero, -sin, cos), 1).view(-1, 3, 3)
    return from_yiq @ rotation @ to_yiq


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return (luma weights, RGB to YIQ, YIQ to RGB) on this device, sent there once: sending waits
    for the device.
    """
    # Inverted in float64, so that turning by 0 changes nothing beyond float32's rounding.
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    constants = (to_yiq[0], to_yiq, torch.linalg.inv(to_yiq))
    luma, to_yiq, from_yiq = (constant.float().to(device) for constant in constants)
    return luma, to_yiq, from_yiq


def apply_colours(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Map the colours of B x 3 x s x s images, and clip them to 0..1.

    Args:
        images: B x 3 x s x s in 0..1.
        matrix, offset: of `colour_matrices`.

    Returns:
        B x 3 x s x s.
    """
    return torch.bmm(matrix, images.flatten(2)).add_(offset).clamp_(0, 1).view_as(images)


def solarize(images: Tensor, chosen: Tensor) -> Tensor:
    """Invert the values of at least 0.5 in the `chosen` images.

    Args:
        images: B x 3 x s x s in 0..1.
        chosen: B bool.
    """
    # No value reaches 2: the others stay as they are, without a branch on the device.
    threshold = torch.where(chosen, 0.5, 2.0)[:, None, None, None]
    return torch.where(images >= threshold, 1 - images, images)
