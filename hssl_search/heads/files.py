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
    """A head as it is written to disk: the keys of its HeadConfig and, where known, `base`,
    `recipe` and `provenance`.
    """

    head: HeadConfig
    context: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def channels_for(self, channels: int | None) -> int:
        """Return the number of channels C of the map that the head is fed.

        Args:
            channels: C where the caller knows it; None to take it from the recorded base.

        Raises:
            UserError: when neither is known.
        """
        if channels is not None:
            return channels
        base = self.context.get("base")
        if not isinstance(base, dict) or not base.get("map_shape"):
            raise UserError(
                f"{self.path} does not say how many channels the base's map has; call "
                "load_head(path, channels=C)."
            )
        return int(base["map_shape"][0])


def read_head(path: Path) -> HeadFile:
    """Read a `head.yaml`, written by a search or by hand.

    Raises:
        UserError: when the file is missing, is not YAML, or describes no valid head.
    """
    values = read_yaml(path)
    # What a search added is no part of the head, and HeadConfig refuses keys that it does not know.
    context = {key: values.pop(key) for key in CONTEXT if key in values}
    return HeadFile(validate(HeadConfig, values, str(path)), context, path)


def write_head(path: Path, head: HeadConfig, **context: Any) -> None:
    """Write `head.yaml` whole, or leave the old one.

    Args:
        path: where.
        head: what to write.
        context: any of `base`, `recipe` and `provenance`, as plain values.

    Raises:
        ValueError: for a section of another name.
    """
    if unknown := set(context) - set(CONTEXT):
        raise ValueError(f"head.yaml has no section {sorted(unknown)}")
    write_yaml(path, {**head.model_dump(exclude_none=True), **context})
