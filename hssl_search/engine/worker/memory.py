"""What a worker does when its device's memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from hssl_search.training.trainer import Trainer

T = TypeVar("T")
SAID = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What libraries below torch say in a RuntimeError when they find no memory."""


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in str(error) for said in SAID
    )


def in_memory(make: Callable[[], Trainer], use: Callable[[Trainer], T]) -> T:
    """What `use` gives of a trainer. Where memory runs out, all of it is done again with a trainer
    that keeps fewer activations."""
    trainer = make()
    try:
        return use(trainer)
    except Exception as error:
        if trainer.recomputes or not out_of_memory(error):
            raise
    del trainer
    _release()
    trainer = make()
    trainer.recompute()
    return use(trainer)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
