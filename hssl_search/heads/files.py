"""head.yaml: a HeadConfig on disk, with where it comes from when a search wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hssl_search.configfile import read_yaml, validate, write_yaml
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

CONTEXT = ("base", "recipe", "provenance")
"""Keys that a search adds to the HeadConfig's own."""


@dataclass(frozen=True)
class HeadFile:
    """A head as written to disk: the keys of its HeadConfig, and beside them `base`, `recipe` and
    `provenance` where known.
    """

    head: HeadConfig
    context: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def channels_for(self, given: int | None) -> int:
        """C of the map the head is fed: the given number, or that of the recorded base. UserError
        when neither is known.
        """
        if given is not None:
            return given
        base = self.context.get("base")
        if not isinstance(base, dict) or not base.get("map_shape"):
            raise UserError(
                f"{self.path} does not say how many channels the base's map has; call "
                "load_head(path, channels=C)."
            )
        return int(base["map_shape"][0])


def read_head(path: Path) -> HeadFile:
    values = read_yaml(path)
    context = {key: values.pop(key) for key in CONTEXT if key in values}
    return HeadFile(validate(HeadConfig, values, str(path)), context, path)


def write_head(path: Path, head: HeadConfig, **context: Any) -> None:
    """Write head.yaml; `context` may hold base, recipe and provenance."""
    if unknown := set(context) - set(CONTEXT):
        raise ValueError(f"head.yaml has no section {sorted(unknown)}")
    write_yaml(path, {**head.model_dump(exclude_none=True), **context})
