"""Crop, flip, resize and blur as matrices.

Each of them moves pixels linearly and separably, so for one image all together are `rows @ image @
columns^T` with its own two matrices. Two batched products make the views of a batch: exact
(torchvision's antialiased resize), without a gather, and the same on every device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10
"""Crops drawn for each image until one lies inside it, as in torchvision's RandomResizedCrop."""


def crop_boxes(
    draws: Tensor, side: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Draw random boxes in square images, distributed as torchvision's RandomResizedCrop.

    Args:
        draws: B x (2 TRIES + 2) uniform numbers in [0, 1).
        side: of the images, in pixels.
        scale: least and greatest area of a box, as a share of the image.
        ratio: least and greatest width / height; log-uniform between.

    Returns:
        First row and column, and height and width, of each box in whole pixels, both 2 x B float
        (vertical first).
    """
    areas, ratios, places = draws.split((TRIES, TRIES, 2), dim=1)
    area = side * side * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * ratios).exp()
    lengths = torch.stack(((area / aspect).sqrt(), (area * aspect).sqrt())).round()
    inside = ((lengths >= 1) & (lengths <= side)).all(0)
    # The first try that fits; argmax gives 0 where none does, which is replaced below.
    first = inside.byte().argmax(1)
    picked = lengths.gather(2, first.expand(2, -1)[..., None])[..., 0]
    length = torch.where(inside.any(1), picked, _widest(side, ratio, lengths))
    room = side - length
    # The smaller one, since float rounding can lift the product to room + 1.
    return torch.minimum((places.T * (room + 1)).floor(), room), length


def _widest(side: int, ratio: tuple[float, float], like: Tensor) -> Tensor:
    """Return height and width (2 x 1) of the largest box with an allowed ratio, for images in which
    no try fits.
    """
    aspect = min(max(1.0, ratio[0]), ratio[1])
    height, width = max(1, round(side / max(aspect, 1.0))), max(1, round(side * min(aspect, 1.0)))
    return torch.stack((like.new_full((1,), height), like.new_full((1,), width)))


def resize_matrices(
    start: Tensor, length: Tensor, side: int, size: int, mirrored: Tensor | None = None
) -> Tensor:
    """Return matrices that crop `length` pixels from `start` out of `side` and resize them to
    `size`, bilinear and antialiased.

    Args:
        start, length: any shape ..., in whole pixels.
        side: of the images, in pixels.
        size: of the result, in pixels.
        mirrored: bool, same shape: whether the result is reversed.

    Returns:
        ... x size x side; every row sums to 1 and uses no pixel outside the crop.
    """
    out = torch.arange(0.5, size, device=start.device)
    pixel = torch.arange(0.5, side, device=start.device)
    place = out if mirrored is None else torch.where(mirrored[..., None], size - out, out)
    step = (length / size)[..., None]
    centre = start[..., None] + step * place
    # A triangle around each centre, as wide as a step where the image shrinks (antialiasing); in
    # place, since these are the largest tensors of a view.
    distance = (pixel - centre[..., None]).abs_()
    weights = distance.div_(step.clamp(min=1)[..., None]).neg_().add_(1).clamp_(min=0)
    cropped = (pixel > start[..., None]) & (pixel < (start + length)[..., None])
    weights.mul_(cropped[..., None, :])
    return weights.div_(weights.sum(-1, keepdim=True))


def blur_kernel_size(size: int) -> int:
    """Return the pixels of the blur's kernel for views of `size` pixels: a tenth of it as in SimCLR
    (23 for 224), odd, at least 3.
    """
    return max(3, 2 * (size // 20) + 1)


def reflections(size: int, kernel_size: int, device: torch.device) -> Tensor:
    """Return kernel_size x size x size: 1 where a kernel's k-th weight reads pixel j for output i,
    reflected at the borders.
    """
    radius = kernel_size // 2
    indices = torch.arange(size, dtype=torch.float32, device=device)[None, None]
    read = F.pad(indices, (radius, radius), mode="reflect")[0, 0].long().unfold(0, size, 1)
    return F.one_hot(read, size).float()


def blur_matrices(sigma: Tensor, blurred: Tensor, reads: Tensor) -> Tensor:
    """Return the matrices of a Gaussian blur with each image's own standard deviation.

    Args:
        sigma: B, in pixels.
        blurred: B bool; the others get the identity.
        reads: `reflections(size, kernel_size, device)`.

    Returns:
        B x size x size.
    """
    count, size = reads.shape[:2]
    offset = torch.arange(count, device=sigma.device) - count // 2
    # A kernel of one pixel leaves an image as it is, without a branch on the device.
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel = torch.where(
        blurred[:, None], kernel / kernel.sum(1, keepdim=True), (offset == 0).float()
    )
    return (kernel @ reads.view(count, -1)).view(-1, size, size)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply each image's matrices: B x C x S x S, B x s x S and B x s x S to B x C x s x s."""
    batch, channels, side, _ = images.shape
    narrow = torch.bmm(images.reshape(batch, channels * side, side), columns.mT)
    return torch.matmul(rows[:, None], narrow.view(batch, channels, side, -1))
