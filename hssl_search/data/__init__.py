"""Images: where they come from, the packed cache, the probe split, and the views that are trained
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hssl_search.data.packed import PackedImages, pack
from hssl_search.data.sources import open_source
from hssl_search.data.splits import SearchData, load_data
from hssl_search.data.viewsconfig import ViewsConfig

if TYPE_CHECKING:
    from hssl_search.data.views import Views

__all__ = ["PackedImages", "SearchData", "Views", "ViewsConfig", "load_data", "open_source", "pack"]


def __getattr__(name: str) -> Any:
    if name == "Views":  # needs torch, which the others do not
        from hssl_search.data.views import Views

        return Views
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
