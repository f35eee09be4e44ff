"""Search spaces, declared in YAML: which heads may be tried."""

from hssl_search.spaces.space import Space

__all__ = ["Space"]
