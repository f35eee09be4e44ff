"""What a search does when the images in its folder are no longer those that it began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hssl_search.data.splits import load_data
from hssl_search.engine import images
from hssl_search.engine.execution.jobs import Halt, Job, Setting, Task
from hssl_search.engine.images import require_images, search_data
from hssl_search.engine.worker.run_job import run_job
from hssl_search.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path, cache: Path) -> Path:
    """120 images of two classes."""
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(60):
            Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                tmp_path / "photos" / name / f"{index}.png"
            )
    return tmp_path / "photos"


@pytest.fixture
def began(setting: Setting, photos: Path) -> Setting:
    """A search that began with those images."""
    contents = load_data(str(photos), None, 32, 0).contents
    return setting.model_copy(update={"data": str(photos), "images": contents})


def write_more(photos: Path) -> None:
    """What a camera does that writes on."""
    for index in range(20):
        shutil.copy(photos / "cat" / f"{index}.png", photos / "cat" / f"new{index}.png")


def test_a_new_worker_has_the_images_that_the_search_began_with(
    began: Setting, photos: Path
) -> None:
    before = load_data(str(photos), None, 32, 0)
    write_more(photos)
    now = search_data(began)
    assert (len(now.train), len(now.queries)) == (96, 24)
    np.testing.assert_array_equal(now.queries.images, before.queries.images)
    np.testing.assert_array_equal(now.train.images, before.train.images)


def test_a_new_worker_without_the_cache_packs_the_same_images_anew(
    began: Setting, cache: Path
) -> None:
    before = search_data(began)
    images._search_data.cache_clear()
    shutil.rmtree(cache)
    np.testing.assert_array_equal(search_data(began).queries.images, before.queries.images)


def test_a_worker_without_the_cache_stops_the_search_when_the_images_have_changed(
    began: Setting, photos: Path, cache: Path
) -> None:
    shutil.rmtree(cache)
    write_more(photos)
    job = Job(
        "proxy/0000/seed0",
        "proxy",
        Task(setting=began),
        str(cache / "checkpoint"),
    )
    with pytest.raises(Halt) as told:
        run_job(job, lambda step, metrics: pytest.fail("it trained"))
    assert str(told.value) == (
        f"the images in '{photos}' have changed since the search began (140 images, were 120), and "
        "the image cache does not hold those that it began with; put them back as they were, or "
        "search under another --name."
    )


def test_an_image_that_can_no_longer_be_read_is_a_change(
    began: Setting, photos: Path, cache: Path
) -> None:
    shutil.rmtree(cache)
    path = photos / "cat" / "0.png"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(Halt, match=r"\(119 can be read, were 120\)"):
        search_data(began)


def test_a_worker_whose_images_are_gone_stops_the_search(setting: Setting) -> None:
    with pytest.raises(Halt, match="there is no folder '/gone'"):
        search_data(setting.model_copy(update={"data": "/gone"}))


def test_a_resumed_search_is_told_of_changed_images_or_refused(
    began: Setting, photos: Path, cache: Path
) -> None:
    assert require_images(began, {}) is None
    write_more(photos)
    assert require_images(began, {}) == (
        f"the images in '{photos}' have changed since the search began (140 images, were 120); "
        "those that it began with are used, which the image cache still holds."
    )
    shutil.rmtree(cache)
    with pytest.raises(
        UserError, match=r"\(140 images, were 120\), and the image cache does not hold"
    ):
        require_images(began, {})


def test_a_run_of_an_earlier_version_is_compared_by_its_counts(
    began: Setting, photos: Path
) -> None:
    earlier = began.model_copy(update={"images": {}})
    counts = {
        "training": 96,
        "bank": 96,
        "queries": 24,
        "classes": ["cat", "dog"],
        "fingerprint": "of another version",
    }
    assert require_images(earlier, counts) is None
    write_more(photos)
    with pytest.raises(
        UserError,
        match=r"have changed since the search began \(training: 112, recorded 96\); put them back",
    ):
        require_images(earlier, counts)


def test_what_a_search_began_with_survives_as_plain_data(began: Setting) -> None:
    assert Setting.model_validate(began.model_dump(mode="json")) == began
