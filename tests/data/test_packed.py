from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from hssl_search.data import cachefile, decode
from hssl_search.data.packed import PackedImages, cache_root, pack, storage_side
from hssl_search.data.sources import open_source
from hssl_search.errors import UserError


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Return the names of all files decoded so far."""
    names: list[str] = []
    real = decode.decode

    def counted(path, side):
        names.append(path.name)
        return real(path, side)

    monkeypatch.setattr(decode, "decode", counted)
    return names


@pytest.fixture
def photos(draw_classes):
    return draw_classes({"cat": 3, "dog": 4})


def test_holds_the_decoded_images_and_labels(photos):
    packed = pack(str(photos), 10)
    assert packed.images.shape == (7, 11, 11, 3)
    assert packed.images.dtype == np.uint8
    assert isinstance(packed.images, np.memmap)
    np.testing.assert_array_equal(packed.images[4], decode.decode(photos / "dog" / "001.png", 11))
    assert packed.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert packed.classes == ("cat", "dog")
    assert packed.skipped == []


def test_the_same_images_are_decoded_once(photos, decoded):
    first, second = pack(str(photos), 8), pack(str(photos), 8)
    assert len(decoded) == 7
    np.testing.assert_array_equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint
    assert first.labels.tolist() == second.labels.tolist()


def test_a_changed_file_or_size_is_decoded_again(photos, decoded):
    first = pack(str(photos), 8)
    os.utime(photos / "cat" / "000.png", ns=(1, 1))
    second = pack(str(photos), 8)
    assert len(decoded) == 14
    pack(str(photos), 12)
    assert len(decoded) == 21
    assert first.fingerprint != second.fingerprint


def test_another_decoder_version_is_another_entry(photos, decoded, monkeypatch):
    pack(str(photos), 8)
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    pack(str(photos), 8)
    assert len(decoded) == 14


@pytest.mark.parametrize(
    "damage", ["cut", "grown", "emptied", "no json", "bad json", "json of another"]
)
def test_a_damaged_entry_is_built_again(photos, decoded, cache, damage):
    pack(str(photos), 8)
    images, about = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    good = images.read_bytes()
    if damage == "cut":
        images.write_bytes(good[:-1])
    if damage == "grown":
        images.write_bytes(good + b"x")
    if damage == "emptied":
        images.write_bytes(b"")
    if damage == "no json":
        about.unlink()
    if damage == "bad json":
        about.write_text("{")
    if damage == "json of another":
        about.write_text(json.dumps({**json.loads(about.read_text()), "images": 6}))
    assert len(pack(str(photos), 8)) == 7
    assert len(decoded) == 14
    assert images.read_bytes() == good


def test_two_at_once_decode_once(photos, decoded):
    other: list[PackedImages] = []
    thread = threading.Thread(target=lambda: other.append(pack(str(photos), 8)))
    mine = pack(str(photos), 8, progress=lambda done, total: thread.start())
    thread.join()
    assert len(decoded) == 7
    np.testing.assert_array_equal(mine.images, other[0].images)


def test_progress_counts_to_the_end_and_is_silent_on_reuse(photos, monkeypatch):
    monkeypatch.setattr(cachefile, "CHUNK", 3)
    said: list[tuple[int, int]] = []
    for _ in range(2):
        pack(str(photos), 8, progress=lambda done, total: said.append((done, total)))
    assert said == [(3, 7), (6, 7), (7, 7)]


def test_unreadable_images_are_skipped_and_listed(draw_classes):
    root = draw_classes({"cat": 20, "dog": 20})
    (root / "cat" / "005.png").write_bytes(b"no image")
    (root / "dog" / "000.png").unlink()
    (root / "dog" / "000.png").symlink_to("gone")
    for _ in range(2):  # decoded, then from the cache
        packed = pack(str(root), 8)
        assert [path for path, _ in packed.skipped] == [
            str(root / "cat" / "005.png"),
            str(root / "dog" / "000.png"),
        ]
        assert "UnidentifiedImageError" in packed.skipped[0][1]
        assert len(packed) == 38
        assert np.bincount(packed.labels).tolist() == [19, 19]
        np.testing.assert_array_equal(
            packed.images[5], decode.decode(root / "cat" / "006.png", packed.side)
        )


def test_too_many_unreadable_images_are_refused(photos, cache):
    (photos / "cat" / "001.png").write_bytes(b"no image")
    with pytest.raises(
        UserError,
        match=r"1 of 7 images in '.*photos' are unreadable .*first is '.*cat/001\.png' \(Unid",
    ):
        pack(str(photos), 8)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_a_cache_that_cannot_be_written_names_the_variable(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(
        UserError, match=r"cannot write the image cache in '.*file/below'.*HSSL_SEARCH_CACHE"
    ):
        pack(str(photos), 8)


def test_too_little_room_is_said_before_decoding(photos, decoded, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1000, 900, 100))
    with pytest.raises(UserError, match=r"packing 7 images at 9 px needs .*HSSL_SEARCH_CACHE"):
        pack(str(photos), 8)
    assert decoded == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(photos, cache, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*HSSL_SEARCH_CACHE"):
        pack(str(photos), 8)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_an_interrupted_build_leaves_nothing_half_written(photos, cache):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(str(photos), 8, progress=interrupt)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}
    assert len(pack(str(photos), 8)) == 7


@pytest.mark.parametrize(
    ("short", "image_size", "side"),
    [(300, 224, 256), (300, 32, 37), (34, 32, 34), (32, 32, 32), (20, 32, 32)],
)
def test_storage_side_is_a_little_more_than_a_view_where_the_images_have_it(
    draw, short, image_size, side
):
    draw("1.png", short, short + 5)
    root = draw("2.png", short + 9, short)
    assert storage_side(open_source(str(root)), image_size) == side


def test_cache_root_follows_the_environment(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "image-cache"
    monkeypatch.delenv("HSSL_SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "hssl-search"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "hssl-search"


def test_without_a_home_directory_the_cache_asks_for_a_folder(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HSSL_SEARCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(
        UserError,
        match=r"there is no home directory to keep the image cache in .* set HSSL_SEARCH_CACHE",
    ):
        cache_root()


@pytest.mark.parametrize(
    "indices",
    [
        [4, 1, 1],
        np.array([4, 1, 1]),
        torch.tensor([4, 1, 1]),
        slice(2, 5),
        np.array([True, False, True, False, False, False, True]),
    ],
)
def test_tensor_and_subset_hold_the_images_asked_for(photos, indices):
    packed = pack(str(photos), 8)
    wanted = packed.images[np.asarray(indices) if not isinstance(indices, slice) else indices]
    tensor = packed.tensor(indices)
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), wanted)
    subset = packed.subset(indices)
    np.testing.assert_array_equal(subset.images, wanted)
    assert len(subset) == len(wanted)
    assert subset.nbytes == wanted.nbytes
    assert subset.classes == packed.classes
    assert subset.fingerprint == packed.fingerprint


def test_a_subset_of_a_subset_counts_from_the_subset(photos):
    packed = pack(str(photos), 8)
    inner = packed.subset([6, 2, 0]).subset([1, 2])
    np.testing.assert_array_equal(inner.images, packed.images[[2, 0]])
    np.testing.assert_array_equal(inner.tensor([1]).numpy()[0].transpose(1, 2, 0), packed.images[0])
    assert inner.labels.tolist() == [0, 0]


def test_the_whole_tensor_may_be_changed_without_touching_the_cache(photos):
    packed = pack(str(photos), 8)
    before = packed.images.copy()
    packed.tensor().zero_()
    np.testing.assert_array_equal(packed.images, before)


def test_digits_are_packed():
    packed = pack("digits", 16)
    assert packed.images.shape == (1797, 16, 16, 3)
    assert packed.classes == tuple("0123456789")


def test_webp_and_jpeg_are_packed(tmp_path):
    for name in ("1.webp", "2.JPEG"):
        Image.new("RGB", (20, 20), (10, 200, 30)).save(tmp_path / name)
    np.testing.assert_allclose(
        pack(str(tmp_path), 16).images.mean((1, 2)), [[10, 200, 30]] * 2, atol=3
    )


def test_what_killed_processes_left_unfinished_is_removed_by_the_next_that_packs(photos, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    dead, alive = f"64px-{'0' * 24}", f"64px-{'1' * 24}"
    for name in (
        f"{dead}.part",
        f"{dead}.npy",
        f"{alive}.part",
        f"{alive}.npy",
        "mine.npy",
        "mine.part",
    ):
        (cache / name).touch()
    with cachefile.lock_of(cache / f"{alive}.npy"):
        pack(str(photos), 8, cache=cache)
    left = {path.name for path in cache.iterdir() if path.suffix in (".npy", ".part")}
    assert left - {f"{alive}.npy", f"{alive}.part", "mine.npy", "mine.part"} == {
        path.name for path in cache.glob("9px-*.npy")
    }
    assert {f"{alive}.npy", f"{alive}.part", "mine.npy", "mine.part"} <= left
