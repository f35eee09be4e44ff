"""What is checked and resolved before a search leaves a trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hssl_search.configfile import read_yaml, write_yaml
from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.resolve import check, resolve
from hssl_search.engine.statistics.metrics import LABELFREE
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space
from hssl_search.training.recipe import Recipe

CPU = Machine("cpu", cpus=2, gpus=0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "work"


def config(**changes: Any) -> SearchConfig:
    asked = {
        "base": "test_resnet",
        "base_arg": {"output_stride": 8},
        "image_size": 32,
        "budget": "5cpu-min",
        "space": "tiny",
    }
    return SearchConfig.model_validate(asked | changes)


def prepare(config: SearchConfig, machine: Machine) -> tuple[dict[str, Any], list[str]]:
    """Check and resolve a configuration as a search does; what search.yaml will hold, and notes."""
    check(config)
    search, notes = resolve(config, machine)
    return search.as_plain(), notes


def photos(folder: Path, classes: dict[str, int]) -> Path:
    """Random images, `classes` says how many in each class folder; "" is the folder itself."""
    draws = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                folder / name / f"{index}.png"
            )
    return folder


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path, values


def test_everything_is_resolved(here: Path) -> None:
    resolved, _ = prepare(config(), CPU)
    # the last is settled by what is measured
    optional = {
        "storage",
        "ray_address",
        "setting.probe_data",
        "gpus_per_trial",
    }
    recipe = {
        path
        for path, value in leaves(Recipe.read("simclr").as_plain(), "setting.recipe")
        if value is None
    }
    assert {path for path, value in leaves(resolved) if value is None} == optional | recipe
    expected = {
        "rank_by": "accuracy",
        "seed": 0,
        "full_epochs": 200,
        "budget": "5cpu-min",
        "name": "test_resnet-digits",
    }
    assert {key: resolved[key] for key in expected} == expected
    assert [shape[1:] for shape in resolved["map_shapes"]] == [[4, 4]]
    assert resolved["machine"] == {"device": "cpu", "cpus": 2, "gpus": 0, "gpus_per_trial": 1.0}
    assert resolved["same_architecture"]["family"] == "resnet"
    assert resolved["images"]["training"] + resolved["images"]["queries"] == 1_797
    assert resolved["versions"].keys() >= {
        "hssl-search",
        "torch",
        "timm",
        "optuna",
        "ray",
        "python",
    }


def test_what_is_resolved_is_plain_and_reads_back(here: Path) -> None:
    resolved, _ = prepare(config(seed=3), CPU)
    again = yaml.safe_load(yaml.safe_dump(resolved))
    assert again == resolved
    setting = Setting.model_validate(again["setting"])
    assert (
        setting.base,
        setting.base_args,
        setting.image_size,
        setting.data_seed,
        setting.device,
    ) == (
        "test_resnet",
        {"output_stride": 8},
        32,
        3,
        "cpu",
    )
    assert (
        Space.from_plain(
            {"parameters": again["space"]["parameters"]}, again["space"]["name"]
        ).hash()
        == Space.read("tiny").hash()
    )
    assert Recipe.from_plain(setting.recipe) == Recipe.read("simclr")
    assert again["asked"] == config(seed=3).model_dump(mode="json", exclude_none=True)


def test_nothing_is_written_but_the_cache(here: Path) -> None:
    prepare(config(), CPU)
    assert list(here.iterdir()) == []
    assert (here.parent / "cache").exists()


def test_the_images_size_is_the_bases_own_where_none_is_given(here: Path) -> None:
    resolved, warnings = prepare(config(image_size=None, base_arg={}), CPU)
    assert resolved["setting"]["image_size"] == 160
    assert "only" not in " ".join(warnings)


def test_the_digits_are_named_and_more_loudly_where_no_data_were_given(here: Path) -> None:
    assert prepare(config(), CPU)[1] == [
        "no --data was given: searching on the built-in handwritten digits (scikit-learn, 1,797 "
        "real images)."
    ]
    assert prepare(config(data="digits"), CPU)[1] == [
        "searching on the built-in handwritten digits (1,797 real images)."
    ]


def test_a_folder_called_digits_is_not_taken_for_the_digits_by_workers(here: Path) -> None:
    (here / "digits").mkdir()
    assert prepare(config(), CPU)[0]["setting"]["data"] == "digits"


def test_a_small_map_is_warned_of_with_what_enlarges_it(here: Path) -> None:
    [_, warning] = prepare(config(base_arg={}), CPU)[1]
    assert "the last feature map of test_resnet at 32 px is only" in warning
    assert "--base-arg output_stride=8" in warning


def test_a_storage_is_found_from_any_folder_later(here: Path) -> None:
    resolved, _ = prepare(config(storage="sqlite:///mine.db"), CPU)
    assert resolved["storage"] == f"sqlite:///{here}/mine.db"
    assert not (here / "mine.db").exists(), "nothing is written"


def test_data_are_found_from_any_folder_later(here: Path) -> None:
    photos(here / "photos", {"cat": 30, "dog": 30})
    resolved, warnings = prepare(config(data="photos"), CPU)
    assert resolved["setting"]["data"] == os.path.realpath(here / "photos")
    assert (resolved["name"], resolved["rank_by"], resolved["images"]["classes"], warnings) == (
        "test_resnet-photos",
        "accuracy",
        ["cat", "dog"],
        [
            "the 2 folders in 'photos' (cat, dog) are taken for classes, and accuracy is k-NN "
            "accuracy on them; if they are none, --rank-by labelfree ranks heads without labels."
        ],
    )


def test_folders_that_are_taken_for_classes_are_named(here: Path) -> None:
    shards = [f"{number:03d}" for number in range(7)]
    photos(here / "shards", dict.fromkeys(shards, 10))
    photos(here / "plain", {"": 60})
    [note] = prepare(config(data="plain", probe_data="shards", rank_by="labelfree"), CPU)[1]
    assert note == (
        "the 7 folders in 'shards' (000, 001, 002, 003, 004 and 2 more) are taken for classes, and "
        "accuracy is k-NN accuracy on them."
    )


@pytest.mark.parametrize(
    "options",
    [{"data": "{}"}, {"probe_data": "{}"}, {"space": "{}.yaml"}, {"base_arg": {"act_layer": "{}"}}],
)
def test_a_name_that_is_not_utf8_is_refused_before_anything_is_read(
    here: Path, options: dict[str, Any]
) -> None:
    strange = os.fsdecode(b"caf\xe9")
    [(option, value)] = options.items()
    with pytest.raises(
        UserError,
        match=(
            r"^the name 'caf\\xe9(\.yaml)?' is not UTF-8, and no file of a run could hold it; "
            r"rename it\.$"
        ),
    ):
        prepare(
            config(
                **{
                    option: {"act_layer": strange}
                    if isinstance(value, dict)
                    else value.format(strange)
                }
            ),
            CPU,
        )


def test_data_below_a_folder_that_is_not_utf8_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.mkdir(b"caf\xe9")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    monkeypatch.chdir(os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"caf\\xe9/photos' is not UTF-8"):
        prepare(config(data="photos"), CPU)
    with pytest.raises(UserError, match=r"caf\\xe9/runs' is not UTF-8"):
        prepare(config(), CPU)


def test_class_folders_that_are_not_utf8_are_written_escaped(here: Path) -> None:
    photos(here / "photos", {"tea": 30})
    try:
        shutil.copytree(
            here / "photos" / "tea", os.fsdecode(os.fsencode(here / "photos") + b"/caf\xe9")
        )
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (Path(os.fsdecode(os.fsencode(here / "photos") + b"/caf\xe9")) / "broken.png").write_bytes(
        b"no image"
    )
    resolved, notes = prepare(config(data="photos"), CPU)
    assert resolved["images"]["classes"] == ["caf\\xe9", "tea"]
    write_yaml(here / "search.yaml", resolved)
    assert read_yaml(here / "search.yaml") == resolved
    "".join(notes).encode()


def test_images_without_labels_are_ranked_by_discrepancy_and_it_is_said(here: Path) -> None:
    photos(here / "photos", {"": 60})
    resolved, warnings = prepare(config(data="photos"), CPU)
    assert (resolved["rank_by"], resolved["images"]["bank"], resolved["images"]["classes"]) == (
        "discrepancy",
        0,
        [],
    )
    [warning] = warnings
    assert warning.startswith("there are no labels: heads are ranked by discrepancy")
    assert f"--rank-by labelfree ranks by {LABELFREE.score_name} of the base instead" in warning


def test_labelfree_becomes_the_measure_that_it_stands_for_with_labels_and_without(
    here: Path,
) -> None:
    photos(here / "photos", {"": 60})
    assert prepare(config(rank_by="labelfree"), CPU)[0]["rank_by"] == LABELFREE.key
    resolved, warnings = prepare(config(data="photos", rank_by="labelfree"), CPU)
    assert (resolved["rank_by"], resolved["asked"]["rank_by"]) == (LABELFREE.key, "labelfree")
    assert warnings == [
        f"there are no labels: heads are ranked by {LABELFREE.score_name} of the base, and no "
        "accuracy is measured."
    ]


def test_ranking_by_accuracy_without_labels_is_refused(here: Path) -> None:
    photos(here / "photos", {"": 60})
    with pytest.raises(
        UserError, match="--rank-by accuracy needs labels and the data have none; give --probe-data"
    ):
        prepare(config(data="photos", rank_by="accuracy"), CPU)


def test_labelled_data_may_be_ranked_by_discrepancy(here: Path) -> None:
    assert prepare(config(rank_by="discrepancy"), CPU)[0]["rank_by"] == "discrepancy"


def test_unreadable_images_are_counted_and_the_first_is_named(here: Path) -> None:
    photos(here / "photos", {"cat": 30, "dog": 30})
    (here / "photos" / "cat" / "broken.png").write_bytes(b"no image")
    resolved, [warning, _] = prepare(config(data="photos"), CPU)
    assert resolved["images"]["skipped"] == 1
    assert warning.startswith("1 image could not be read and is left out, the first ")
    assert "broken.png" in warning


def test_unreadable_probe_images_are_told_too(here: Path) -> None:
    photos(here / "photos", {"": 60})
    photos(here / "judged", {"cat": 30, "dog": 30})
    (here / "judged" / "cat" / "broken.png").write_bytes(b"no image")
    resolved, [warning, _] = prepare(config(data="photos", probe_data="judged"), CPU)
    assert "broken.png" in warning
    assert resolved["setting"]["probe_data"] == os.path.realpath(here / "judged")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"full_epochs": 7}, 7), ({"full_epochs": "off"}, "off"), ({"trainer": "dino"}, None)],
)
def test_the_full_trainings_length_is_what_was_asked_for_or_the_recipes(
    here: Path, changes: dict[str, Any], expected: Any
) -> None:
    assert prepare(config(**changes), CPU)[0]["full_epochs"] == (
        expected or Recipe.read("dino").full.epochs
    )


LATIN = os.fsdecode(b"caf\xe9")


def test_an_unreadable_image_may_have_any_name(here: Path) -> None:
    photos(here / "photos", {"": 100})
    (here / "photos" / f"{LATIN}.png").write_bytes(b"no image")
    resolved, warnings = prepare(config(data="photos"), CPU)
    [skipped] = resolved["skipped"]
    assert "caf\\xe9.png" in skipped and any("caf\\xe9.png" in warning for warning in warnings)
    skipped.encode()


@pytest.mark.parametrize("folder", ["図" * 80, "ü𠀀" * 30, "a" * 250])
def test_the_name_of_a_long_folder_is_cut(here: Path, folder: str) -> None:
    photos(here / folder, {"": 60})
    name = prepare(config(data=folder), CPU)[0]["name"]
    assert name.startswith(f"test_resnet-{folder[:20]}") and f"test_resnet-{folder}".startswith(
        name
    )
    assert len(name.encode()) in (97, 98, 99, 100), (
        "no letter is cut in two, and no more is cut than need be"
    )


def test_data_named_by_a_dot_give_the_folders_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(here / "photos", {"": 60})
    monkeypatch.chdir(here / "photos")
    assert prepare(config(data="."), CPU)[0]["name"] == "test_resnet-photos"


def test_a_name_that_is_free_is_found(here: Path) -> None:
    for taken in ("test_resnet-digits", "test_resnet-digits-2"):
        (here / "runs" / taken).mkdir(parents=True)
    assert prepare(config(), CPU)[0]["name"] == "test_resnet-digits-3"
    assert prepare(config(name="mine"), CPU)[0]["name"] == "mine"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"base": "resnet5"}, r"unknown base 'resnet5'; did you mean '"),
    ({"data": "nowhere"}, r"'nowhere'"),
    ({"space": "tinny"}, r"'tinny'.*'tiny'"),
    ({"trainer": "simcrl"}, r"'simcrl'.*'simclr'"),
    (
        {"budget": "5gpu-min"},
        r"'5gpu-min' is in GPU time and no GPU was found; type '5cpu-min' instead",
    ),
    ({"base_arg": {"nonsense": 1}}, r"nonsense"),
    (
        {
            "base_arg": {"patch_size": 4, "drop_path_rate": 0.3},
            "base": "test_vit",
            "trainer": "ibot",
        },
        r"drop_path_rate=0\.3 would not",
    ),
    *(
        (
            {"base_arg": {"img_size": size}},
            r"img_size=.+ is not the size of the images, 32 px; leave it out: --image-size sets "
            r"both\.$",
        )
        for size in (None, 60.5, "32", [32], {"32": 32})
    ),
    *(
        (
            {"base_arg": {"act_layer": value}},
            r"act_layer=.+ cannot be given: search\.yaml could not hold it",
        )
        for value in (Image.Image, [Image.Image], b"relu", date(2026, 1, 1))
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"), MISTAKES, ids=[next(iter(changes)) for changes, _ in MISTAKES]
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    here: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as told:
        prepare(config(**changes), CPU)
    assert "\n" not in str(told.value)
    assert list(here.iterdir()) == []


def test_queries_are_counted_by_class_so_that_chance_is_known(tmp_path: Path) -> None:
    resolved, _ = prepare(
        config(data=str(photos(tmp_path / "photos", {"cat": 60, "dog": 30}))), CPU
    )
    assert resolved["images"]["query_counts"] == [12, 6]
    unlabelled, _ = prepare(config(data=str(photos(tmp_path / "flat", {"": 70}))), CPU)
    assert unlabelled["images"]["query_counts"] == []


def test_images_of_one_colour_are_told_when_the_search_begins(tmp_path: Path) -> None:
    _, warnings = prepare(
        config(data=str(photos(tmp_path / "photos", {"cat": 40, "dog": 40}))), CPU
    )
    assert not [warning for warning in warnings if "of one colour" in warning]
    for kind in ("circle", "square"):
        (tmp_path / "icons" / kind).mkdir(parents=True)
        for index in range(40):
            pixels = np.zeros((32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "icons" / kind / f"{index}.png")
    resolved, warnings = prepare(config(data=str(tmp_path / "icons")), CPU)
    assert resolved["images"]["looked_at"] == {"images": 64, "one_colour": 64, "same": 64}
    assert (
        "64 of 64 images are of one colour: heads learn nothing from these; look at them, and mend "
        "--data." in warnings
    )
