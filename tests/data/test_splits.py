from __future__ import annotations

import shutil

import numpy as np
import pytest

from hssl_search.data import splits
from hssl_search.data.packed import PackedImages
from hssl_search.data.splits import changes, deal, load_data, quotas, reopen_data
from hssl_search.errors import UserError


def pictures(packed: PackedImages) -> set[bytes]:
    return {image.tobytes() for image in packed.images}


def counts(packed: PackedImages) -> list[int]:
    return np.bincount(packed.labels, minlength=len(packed.classes)).tolist()


def test_a_fifth_is_held_out_of_every_class(draw_classes):
    data = load_data(str(draw_classes({"cat": 40, "dog": 20, "owl": 40})), None, 8, seed=0)
    assert (counts(data.train), counts(data.bank), counts(data.queries)) == (
        [32, 16, 32],
        [32, 16, 32],
        [8, 4, 8],
    )
    assert data.labelled
    assert data.train.fingerprint == data.bank.fingerprint == data.queries.fingerprint


def test_no_query_is_trained_on_or_in_the_bank(draw_classes):
    data = load_data(str(draw_classes({"cat": 15, "dog": 25})), None, 8, seed=3)
    parts = [pictures(part) for part in (data.train, data.queries)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert pictures(data.bank) == parts[0]


def test_the_bank_is_capped_in_proportion(draw_classes, monkeypatch):
    monkeypatch.setattr(splits, "MOST_BANK", 8)
    data = load_data(str(draw_classes({"cat": 15, "dog": 45})), None, 8, seed=3)
    assert counts(data.bank) == [2, 6]
    assert pictures(data.bank) < pictures(data.train)


def test_the_same_seed_holds_out_the_same(draw_classes):
    root = str(draw_classes({"cat": 15, "dog": 25}))
    first, again, other = (pictures(load_data(root, None, 8, seed).queries) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_unlabelled_images_are_held_out_as_queries(draw):
    for index in range(20):
        root = draw(f"{index}.png")
    data = load_data(str(root), None, 8, seed=0)
    assert (len(data.train), data.bank, len(data.queries)) == (16, None, 4)
    assert not data.labelled
    assert not pictures(data.train) & pictures(data.queries)


def test_tiny_classes_are_judged_as_long_as_they_have_three_images(draw_classes):
    data = load_data(str(draw_classes({"cat": 3, "dog": 4, "owl": 2})), None, 8, seed=0)
    assert counts(data.queries) == [1, 1, 0]
    assert counts(data.bank) == counts(data.train) == [2, 3, 2]


def test_too_few_images_of_every_class_are_refused(draw_classes):
    with pytest.raises(UserError, match="has 1 of 2 classes with at least 3 readable images"):
        load_data(str(draw_classes({"cat": 3, "dog": 2})), None, 8, seed=0)


def test_at_most_so_many_are_held_out(draw_classes, draw, monkeypatch):
    monkeypatch.setattr(splits, "MOST_QUERIES", 8)
    data = load_data(str(draw_classes({"cat": 50, "dog": 50})), None, 8, seed=0)
    assert (len(data.train), len(data.queries)) == (92, 8)
    for index in range(50):
        root = draw(f"{index}.png", root="plain")
    assert len(load_data(str(root), None, 8, seed=0).queries) == 8


def test_more_classes_than_can_be_held_out_leave_some_unjudged(draw_classes, monkeypatch):
    monkeypatch.setattr(splits, "MOST_QUERIES", 2)
    data = load_data(
        str(draw_classes({f"class{number}": 4 for number in range(5)})), None, 8, seed=0
    )
    assert sorted(counts(data.queries)) == [0, 0, 0, 1, 1]


def test_probe_splits_are_bank_and_queries_and_all_data_is_trained_on(draw_classes):
    root = str(draw_classes({"cat": 5, "dog": 5}))
    for name in ("train/", "val/"):
        probe = draw_classes({"x": 4, "y": 6}, root="probe", into=name)
    data = load_data(root, str(probe), 8, seed=0)
    assert (len(data.train), counts(data.bank), counts(data.queries)) == (10, [4, 6], [4, 6])
    assert data.source == root


def test_a_test_split_is_preferred_to_a_val_split(draw_classes):
    root = draw_classes({"cat": 5, "dog": 5})
    for number, name in enumerate(("train/", "val/", "test/")):
        probe = draw_classes({"x": 4, "y": 2 + number}, root="probe", into=name)
    assert counts(load_data(str(root), str(probe), 8, seed=0).queries) == [4, 4]


def test_data_may_be_the_probes_train_split(draw_classes):
    for name in ("train/", "test/"):
        probe = draw_classes({"x": 4, "y": 6}, root="probe", into=name)
    data = load_data(str(probe / "train"), str(probe), 8, seed=0)
    assert pictures(data.train) == pictures(data.bank)
    assert not pictures(data.train) & pictures(data.queries)


def test_probe_splits_are_capped_in_proportion(draw_classes):
    root = draw_classes({"cat": 2, "dog": 2})
    for name in ("train/", "test/"):
        probe = draw_classes({"x": 10, "y": 30, "z": 1}, root="probe", into=name)
    data = load_data(str(root), str(probe), 8, seed=0, most_bank=10, most_queries=4)
    assert (counts(data.bank), counts(data.queries)) == ([2, 7, 1], [1, 2, 1])


def test_one_labelled_probe_folder_is_split_three_to_one(draw_classes):
    root = draw_classes({"cat": 2, "dog": 2})
    probe = draw_classes({"x": 8, "y": 16, "single": 1}, root="probe")
    data = load_data(str(root), str(probe), 8, seed=0)
    assert data.bank.classes == ("single", "x", "y")
    assert (counts(data.bank), counts(data.queries)) == ([0, 6, 12], [0, 2, 4])
    assert not pictures(data.bank) & pictures(data.queries)


def test_digits_can_be_the_probe(draw_classes):
    data = load_data(str(draw_classes({"cat": 2, "dog": 2})), "digits", 8, seed=0)
    assert (len(data.bank), len(data.queries)) == (1348, 449)


def test_a_probe_without_classes_is_refused(draw_classes, draw):
    root = draw_classes({"cat": 2, "dog": 2})
    draw("1.png", root="probe")
    probe = draw("2.png", root="probe")
    with pytest.raises(UserError, match=r"probe data '.*probe' has no classes"):
        load_data(str(root), str(probe), 8, seed=0)


def test_probe_splits_with_different_classes_are_refused(draw_classes):
    root = draw_classes({"cat": 2, "dog": 2})
    draw_classes({"x": 2, "y": 2, "z": 2}, root="probe", into="train/")
    probe = draw_classes({"x": 2, "y": 2}, root="probe", into="test/")
    with pytest.raises(
        UserError, match=r"different classes \(1 in one only, e\.g\. 'z' in '.*probe/train'\)"
    ):
        load_data(str(root), str(probe), 8, seed=0)


def test_probe_splits_whose_names_have_two_unicode_forms_have_the_same_classes(draw_classes):
    root = draw_classes({"cat": 2, "dog": 2})
    draw_classes({"caf\u00e9": 2, "tea": 3}, root="probe", into="train/")
    probe = draw_classes({"cafe\u0301": 2, "tea": 3}, root="probe", into="test/")
    data = load_data(str(root), str(probe), 8, seed=0)
    assert data.bank.classes == data.queries.classes == ("caf\u00e9", "tea")
    assert (counts(data.bank), counts(data.queries)) == ([2, 3], [2, 3])


@pytest.mark.parametrize(("data", "probe"), [("", ""), ("cat", ""), ("", "cat")])
def test_queries_that_are_trained_on_are_refused(draw_classes, data, probe):
    root = draw_classes({"cat/a": 2, "cat/b": 2, "dog": 2})
    with pytest.raises(UserError, match="would be trained on"):
        load_data(str(root / data), str(root / probe), 8, seed=0)


def test_digits_cannot_judge_digits():
    with pytest.raises(UserError, match="would be trained on"):
        load_data("digits", "digits", 8, seed=0)


def test_quotas_are_proportional_and_keep_their_bounds():
    sizes = np.array([100, 50, 25, 3, 0])
    given = quotas(sizes, 35, least=1, spared=1)
    assert given.tolist() == [19, 10, 5, 1, 0]
    assert quotas(sizes, 1, least=2, spared=1).tolist() == [2, 2, 2, 2, 0]
    assert quotas(sizes, 1000, spared=1).tolist() == [99, 49, 24, 2, 0]


def test_quotas_reach_their_total_wherever_they_can():
    random = np.random.default_rng(0)
    for _ in range(50):
        sizes = random.integers(0, 40, 12)
        total = int(random.integers(0, sizes.sum() + 1))
        given = quotas(sizes, total, least=1, spared=1)
        least, most = np.minimum(sizes, 1).sum(), np.maximum(sizes - 1, 0).sum()
        assert given.sum() == np.clip(total, min(least, most), max(least, most)) or least > most


def test_deal_gives_disjoint_parts_of_the_asked_sizes():
    labels = np.random.default_rng(0).integers(0, 3, 60)
    first, second, rest = deal(
        labels, (np.array([2, 0, 5]), np.array([1, 1, 1])), np.random.default_rng(1)
    )
    assert np.bincount(labels[first], minlength=3).tolist() == [2, 0, 5]
    assert np.bincount(labels[second], minlength=3).tolist() == [1, 1, 1]
    assert sorted([*first, *second, *rest]) == list(range(60))


# What a search began with


@pytest.fixture
def folders(draw_classes, draw):
    """Make data without classes, and probe data with `train` and `test`."""
    for name in ("train/", "test/"):
        probe = draw_classes({"x": 4, "y": 6}, root="probe", into=name)
    for index in range(8):
        root = draw(f"{index}.png")
    return root, probe


def test_data_without_probe_data_are_reopened_as_they_were(draw_classes, draw):
    root = draw_classes({"cat": 15, "dog": 25})
    data = load_data(str(root), None, 8, seed=3)
    draw("owl/0.png")
    shutil.rmtree(root / "cat")
    again = reopen_data(data.contents, str(root), None, seed=3)
    assert list(data.contents) == ["training"]
    for one, other in (
        (data.train, again.train),
        (data.bank, again.bank),
        (data.queries, again.queries),
    ):
        np.testing.assert_array_equal(one.images, other.images)
        assert one.labels.tolist() == other.labels.tolist()
        assert (one.classes, one.fingerprint) == (other.classes, other.fingerprint)
    assert again.contents == data.contents


def test_probe_data_are_reopened_as_they_were(folders):
    root, probe = map(str, folders)
    data = load_data(root, probe, 8, seed=0)
    shutil.rmtree(probe)
    again = reopen_data(data.contents, root, probe, seed=0)
    assert list(data.contents) == ["training", "bank", "queries"]
    assert pictures(again.queries) == pictures(data.queries)
    assert (counts(again.bank), again.bank.classes, len(again.train)) == ([4, 6], ("x", "y"), 8)


def test_probe_data_whose_train_split_is_trained_on_are_reopened_as_they_were(folders):
    data, probe = str(folders[1] / "train"), str(folders[1])
    again = reopen_data(load_data(data, probe, 8, seed=0).contents, data, probe, seed=0)
    assert (len(again.train), counts(again.bank), counts(again.queries)) == (10, [4, 6], [4, 6])


@pytest.mark.parametrize("part", ["training", "queries"])
def test_data_are_not_reopened_where_the_cache_lacks_a_part(folders, cache, part):
    root, probe = map(str, folders)
    data = load_data(root, probe, 8, seed=0)
    next(cache.glob(f"*{data.contents[part].key[:24]}.npy")).unlink()
    assert reopen_data(data.contents, root, probe, seed=0) is None


def test_a_copy_of_the_images_has_the_same_contents(draw_classes, tmp_path):
    root = draw_classes({"cat": 5, "dog": 5})
    contents = load_data(str(root), None, 8, seed=0).contents
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    assert changes(contents, str(tmp_path / "copy"), None, seed=0) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda root: shutil.copy(root / "cat" / "000.png", root / "cat" / "new.png"),
            "11 images, were 10",
        ),
        (lambda root: (root / "cat" / "000.png").unlink(), "9 images, were 10"),
        (
            lambda root: (root / "cat").rename(root / "cow"),
            "10 images as before, but some with other names or sizes",
        ),
        (
            lambda root: (root / "cat" / "000.png").write_bytes(b"shorter"),
            "10 images as before, but some with other names or sizes",
        ),
        (
            lambda root: (root / "cat" / "000.png").rename(root / "dog" / "new.png"),
            "10 images as before, but some with other names or sizes",
        ),
        (
            lambda root: (
                [
                    shutil.move(path, root / "dog" / f"c{path.name}")
                    for path in (root / "cat").iterdir()
                ]
                and (root / "cat").rmdir()
            ),
            "0 classes, were 2",
        ),
    ],
    ids=["added", "removed", "class", "size", "moved", "classes"],
)
def test_changed_images_are_told_with_the_difference(draw_classes, change, told):
    root = draw_classes({"cat": 5, "dog": 5})
    contents = load_data(str(root), None, 8, seed=0).contents
    change(root)
    assert (
        changes(contents, str(root), None, seed=0)
        == f"the images in {str(root)!r} have changed since the search began ({told})"
    )


def test_changed_probe_data_are_told(folders):
    root, probe = map(str, folders)
    contents = load_data(root, probe, 8, seed=0).contents
    (folders[1] / "test" / "x" / "000.png").unlink()
    assert (
        changes(contents, root, probe, seed=0)
        == f"the images in {probe!r} have changed since the search began (9 images, were 10)"
    )
