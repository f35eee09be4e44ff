from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hssl_search.data.sources import open_source
from hssl_search.errors import UserError


def test_finds_images_at_any_depth_in_sorted_order(draw):
    for name in ("b/deep/er/2.JPG", "b/1.png", "a/3.jpeg", "a/x.WebP"):
        root = draw(name)
    (root / "a" / "notes.txt").write_text("no image")
    assert open_source(str(root)).names == ("a/3.jpeg", "a/x.WebP", "b/1.png", "b/deep/er/2.JPG")


def test_classes_are_the_first_folders(draw):
    for name in ("dog/1.png", "cat/deep/1.png", "cat/2.png"):
        root = draw(name)
    source = open_source(str(root))
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 1]
    assert source.labels.dtype == np.int64


def test_class_folders_called_as_splits_or_numbers_are_classes_sorted_as_text(draw):
    for name in ("bus/1.png", "train/1.png", "10/inside/1.png", "2/inside/1.png"):
        root = draw(name)
    source = open_source(str(root))
    assert source.classes == ("10", "2", "bus", "train")
    assert source.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("names", [("1.png", "cat/2.png", "dog/3.png"), ("cat/1.png", "cat/2.png")])
def test_has_no_labels_without_a_folder_for_every_class(draw, names):
    for name in names:
        root = draw(name)
    source = open_source(str(root))
    assert source.labels is None
    assert source.classes == ()


def test_skips_hidden_files_and_folders(draw):
    for name in ("1.png", "2.png", ".3.png", ".thumbnails/4.png"):
        root = draw(name)
    assert open_source(str(root)).names == ("1.png", "2.png")


def test_follows_links_but_not_in_circles(draw, tmp_path):
    draw("elsewhere/1.png", root="other")
    root = draw("cat/1.png")
    (root / "dog").symlink_to(tmp_path / "other" / "elsewhere")
    (root / "cat" / "loop").symlink_to(root)
    names = open_source(str(root)).names
    assert names == ("cat/1.png", "dog/1.png")


def test_lists_a_dangling_link_as_an_image(draw):
    root = draw("1.png")
    (root / "2.png").symlink_to(root / "gone.png")
    assert open_source(str(root)).names == ("1.png", "2.png")


def test_digits_are_scikit_learns():
    source = open_source("digits")
    oracle = load_digits()
    assert len(source) == 1797
    assert source.labels.tolist() == oracle.target.tolist()
    pixels = source.decode(5, 8)
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[..., 0], oracle.images[5] * 255 / 16, atol=0.5)


def test_digits_are_upsampled_bilinearly():
    torch = pytest.importorskip("torch")
    small = torch.tensor(load_digits().images[7] * 255 / 16).round()
    oracle = torch.nn.functional.interpolate(small[None, None], size=(32, 32), mode="bilinear")[
        0, 0
    ]
    np.testing.assert_allclose(open_source("digits").decode(7, 32)[..., 1], oracle, atol=1)


def test_select_keeps_names_and_labels_together(draw_classes):
    source = open_source(str(draw_classes({"cat": 3, "dog": 3})))
    chosen = source.select([5, 0])
    assert chosen.names == ("cat/000.png", "dog/002.png")
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.fingerprint() != source.fingerprint()


@pytest.mark.parametrize("change", ["touch", "rewrite", "rename", "add"])
def test_fingerprint_changes_with_the_files(draw, change):
    draw("1.png")
    root = draw("2.png")
    before = open_source(str(root)).fingerprint()
    assert open_source(str(root)).fingerprint() == before
    status = (root / "2.png").stat()
    if change == "touch":
        os.utime(root / "2.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    if change == "rewrite":
        (root / "2.png").write_bytes(b"x")
        os.utime(root / "2.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    if change == "rename":
        (root / "2.png").rename(root / "3.png")
    if change == "add":
        draw("3.png")
    assert open_source(str(root)).fingerprint() != before


def test_a_moved_folder_keeps_its_fingerprint(draw):
    draw("1.png")
    root = draw("2.png")
    before = open_source(str(root)).fingerprint()
    assert open_source(str(root.rename(root.with_name("moved")))).fingerprint() == before


def test_missing_folder_offers_the_nearest(draw, tmp_path):
    draw("1.png")
    with pytest.raises(UserError, match=r"no folder '.*photo'.* did you mean '.*photos'\?"):
        open_source(str(tmp_path / "photo"))


def test_missing_folder_with_nothing_near_names_digits():
    with pytest.raises(UserError, match=r"no folder 'qqqq/wwww'.* 'digits'"):
        open_source("qqqq/wwww")


def test_a_file_is_refused(draw):
    root = draw("1.png")
    with pytest.raises(UserError, match=r"1\.png' is a file, not a folder"):
        open_source(str(root / "1.png"))


def test_a_folder_without_images_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"has no images \(looked for \.jpeg, \.jpg, \.png, \.webp"):
        open_source(str(tmp_path))


def test_one_image_only_is_refused(draw):
    with pytest.raises(UserError, match="has only one image"):
        open_source(str(draw("1.png")))


def test_splits_are_not_taken_for_classes(draw_classes):
    draw_classes({"cat": 2}, into="train/")
    root = draw_classes({"cat": 2}, into="test/")
    with pytest.raises(
        UserError, match=r"splits \(test, train\), not classes: give '.*photos/train' as data"
    ):
        open_source(str(root))


def test_class_folders_in_two_unicode_forms_are_one_class(draw):
    composed, apart = "caf\u00e9", "cafe\u0301"
    for name in (f"{composed}/1.png", f"{apart}/2.png", "tea/1.png"):
        root = draw(name)
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system takes the two forms for one name")
    source = open_source(str(root))
    assert source.classes == (composed, "tea")
    assert [(name[:3], label) for name, label in zip(source.names, source.labels, strict=True)] == [
        ("caf", 0),
        ("caf", 0),
        ("tea", 1),
    ]


def test_class_folders_that_are_not_utf8_are_shown_escaped(draw, tmp_path):
    draw("tea/1.png")
    for name in (b"caf\xe9", b"a\nb"):
        folder = os.fsencode(tmp_path / "photos") + b"/" + name
        try:
            os.mkdir(folder)
        except OSError:
            pytest.skip("this file system refuses names that are not UTF-8")
        shutil.copy(tmp_path / "photos" / "tea" / "1.png", os.fsdecode(folder + b"/1.png"))
    source = open_source(str(tmp_path / "photos"))
    assert source.classes == ("a\\nb", "caf\\xe9", "tea")
    assert source.where(source.names[1]) == f"{tmp_path}/photos/caf\\xe9/1.png"
    source.decode(1, 8)
    json.dumps(source.classes, ensure_ascii=False).encode()
