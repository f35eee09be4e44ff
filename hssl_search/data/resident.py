"""Images as training reads them: on the device where they fit, otherwise fetched batch by batch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from hssl_search.data.packed import PackedImages

DEVICE_SHARE = 0.2
"""Share of an accelerator's memory that images may take; the rest is for training, perhaps several
at once."""


class Images(Protocol):
    """What training reads: a tensor, N x 3 x S x S uint8, or anything that is indexed like one."""

    @property
    def device(self) -> torch.device:
        """Return the device on which indices are wanted."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on `device`; nothing waits for the device."""
    # Only from pinned memory can a copy run beside the device's work.
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def on_device(images: PackedImages, device: torch.device) -> Images:
    """Return the images as uint8 on `device`: an accelerator holds them all where they fit; on CPU
    the packed cache is read in place.
    """
    if device.type != "cpu":
        memory = torch.cuda.get_device_properties(device).total_memory
        if images.nbytes <= DEVICE_SHARE * memory:
            return images.tensor(None).to(device)
    return Fetched(images, device)


class Fetched:
    """Packed images that are read from the cache when they are indexed, and sent to `device`."""

    def __init__(self, images: PackedImages, device: torch.device) -> None:
        self.images, self._target = images, device
        self.device = torch.device("cpu")  # where indices are wanted: the map is read there

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return B x 3 x S x S uint8 on the target device, for B indices on the CPU; nothing waits
        for the device.
        """
        return send(self.images.tensor(indices), self._target)
