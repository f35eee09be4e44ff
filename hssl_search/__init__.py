"""hssl-search: searches for the auxiliary head that teaches a self-supervised base the most.

Everything public is here; heavy imports happen when a name is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from hssl_search.version import __version__ as __version__

if TYPE_CHECKING:
    from hssl_search.api import (
        curves,
        device_time,
        leaderboard,
        plan,
        replay,
        resume,
        search,
        status,
        trials,
    )
    from hssl_search.engine.records.run import Run
    from hssl_search.errors import UserError
    from hssl_search.heads.config import HeadConfig
    from hssl_search.heads.head import load_head
    from hssl_search.spaces.space import Space

# What each name's first use imports: `__getattr__` looks it up.
_HOMES = {
    "curves": "hssl_search.api",
    "device_time": "hssl_search.api",
    "leaderboard": "hssl_search.api",
    "plan": "hssl_search.api",
    "replay": "hssl_search.api",
    "resume": "hssl_search.api",
    "search": "hssl_search.api",
    "status": "hssl_search.api",
    "trials": "hssl_search.api",
    "HeadConfig": "hssl_search.heads.config",
    "load_head": "hssl_search.heads.head",
    "Space": "hssl_search.spaces.space",
    "Run": "hssl_search.engine.records.run",
    "UserError": "hssl_search.errors",
}

__all__ = [
    "HeadConfig",
    "Run",
    "Space",
    "UserError",
    "curves",
    "device_time",
    "leaderboard",
    "load_head",
    "plan",
    "replay",
    "resume",
    "search",
    "status",
    "trials",
]


# Without a handler, Python prints warnings on the standard error stream.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hssl_search' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
