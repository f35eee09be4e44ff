"""Images made on the spot, and a cache of each test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "image-cache"
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(folder))
    return folder


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Return a function: `draw("cats/a.png")` writes a random image below `photos/` and returns
    that folder.
    """
    random = np.random.default_rng(0)

    def one(name: str, width: int = 12, height: int = 12, root: str = "photos") -> Path:
        path = tmp_path / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return tmp_path / root

    return one


@pytest.fixture
def draw_classes(draw: Draw) -> Draw:
    """Return a function: `draw_classes({"cat": 3, "dog": 4})` writes that many images of each
    class.
    """

    def many(sizes: dict[str, int], root: str = "photos", into: str = "") -> Path:
        return [
            draw(f"{into}{name}/{index:03d}.png", root=root)
            for name, size in sizes.items()
            for index in range(size)
        ][-1]

    return many
