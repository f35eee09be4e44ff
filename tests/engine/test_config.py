"""What is asked for: flags over a file over the folder's file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.config import ADDED, FILE, SearchConfig, gather, with_defaults
from hssl_search.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


ASKED = {"base": "resnet50", "budget": "40gpu-h"}


def test_what_is_not_asked_for_has_its_default() -> None:
    config = gather(ASKED)
    assert config == SearchConfig(base="resnet50", budget=parse_budget("40gpu-h"))
    assert (config.data, config.space, config.trainer, config.seed, config.gpus_per_trial) == (
        "digits",
        "default",
        "simclr",
        0,
        None,
    )
    assert [
        config.image_size,
        config.probe_data,
        config.rank_by,
        config.name,
        config.storage,
        config.ray_address,
        config.full_epochs,
    ] == [None] * 7
    assert config.model_fields_set == {"base", "budget"}


def test_options_go_before_the_given_file_and_that_before_the_folders(here: Path) -> None:
    (here / FILE).write_text(
        "base: resnet10t\nbudget: 1gpu-h\nseed: 1\nspace: tiny\nimage_size: 32\n"
    )
    (here / "mine.yaml").write_text("budget: 2gpu-h\nseed: 2\nspace: paper\n")
    found = [
        (config.base, config.budget.text, config.seed, config.space, config.image_size)
        for config in (
            gather({}),
            gather({}, "mine.yaml"),
            gather({"seed": 3, "space": None}, "mine.yaml"),
        )
    ]
    assert found == [
        ("resnet10t", "1gpu-h", 1, "tiny", 32),
        ("resnet10t", "2gpu-h", 2, "paper", 32),
        ("resnet10t", "2gpu-h", 3, "paper", 32),
    ]


def test_the_folders_file_is_read_from_the_current_folder_only(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / FILE).write_text("seed: 5\n")
    (here / "below").mkdir()
    assert gather(ASKED).seed == 5
    monkeypatch.chdir(here / "below")
    assert gather(ASKED).seed == 0


def test_only_what_was_asked_for_counts_as_asked_for(here: Path) -> None:
    (here / FILE).write_text("data: digits\n")
    assert gather(ASKED).model_fields_set == {"base", "budget", "data"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            {"image_size": "32", "seed": "7", "gpus_per_trial": "0.25", "full_epochs": "12"},
            (32, 7, 0.25, 12),
        ),
        (
            {"image_size": "8", "seed": "0", "gpus_per_trial": "1", "full_epochs": "off"},
            (8, 0, 1.0, "off"),
        ),
    ],
)
def test_flags_come_as_text(options: dict[str, str], found: tuple[Any, ...]) -> None:
    config = gather({**ASKED, **options}, from_flags=True)
    assert (
        config.image_size,
        config.seed,
        config.gpus_per_trial,
        int(config.full_epochs or 0) if found[3] != "off" else config.full_epochs,
    ) == found


def test_a_files_unquoted_off_and_base_arguments_are_understood(here: Path) -> None:
    (here / FILE).write_text("full_epochs: off\nbase_arg: {output_stride: 8}\n")
    config = gather(ASKED)
    assert (config.full_epochs, config.base_arg) == ("off", {"output_stride": 8})


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"spaec": "tiny"}, r"unknown key 'spaec'; did you mean 'space'"),
    ({"image_size": 4}, r"image_size is 4, but should be greater than or equal to 8\."),
    ({"seed": "x"}, r"seed is 'x', but should be a valid integer"),
    (
        {"rank_by": "luck"},
        r"rank_by is 'luck', but should be 'accuracy', 'discrepancy' or 'labelfree'\.",
    ),
    ({"max_head_cost": 1.0}, r"max_head_cost is 1\.0: must be a number above 1, or off\."),
    ({"max_head_cost": "cheap"}, r"max_head_cost is 'cheap': must be a number above 1, or off\."),
    ({"full_epochs": 0}, r"full_epochs is 0: must be a whole number of at least 1, or off\."),
    ({"gpus_per_trial": 0}, r"gpus_per_trial is 0, but should be greater than 0\."),
    ({"name": "../elsewhere"}, r"name is '\.\./elsewhere': must be at most 100 letters"),
    (
        {"name": "図" * 67},
        r"name is '図+.*図+': must be at most 200 bytes long, and its 67 letters are 201\.",
    ),
    ({"data": " "}, r"data is ' ': must not be empty\."),
]


@pytest.mark.parametrize(
    ("values", "message"), MISTAKES, ids=[next(iter(values)) for values, _ in MISTAKES]
)
def test_a_mistake_is_told_with_its_place(here: Path, values: dict[str, Any], message: str) -> None:
    [(key, value)] = values.items()
    (here / "mine.yaml").write_text(f"{key}: {value!r}\n")
    with pytest.raises(UserError, match=f"^mine.yaml: {message}"):
        gather(ASKED, "mine.yaml")
    (here / FILE).write_text(f"{key}: {value!r}\n")
    with pytest.raises(UserError, match=f"^{FILE}: {message}"):
        gather(ASKED)
    (here / FILE).write_text("seed: 1\n")
    with pytest.raises(UserError, match=rf"^search\(\): {message}"):
        gather({**ASKED, **values})


def test_a_flags_mistake_is_spelled_as_the_flag(here: Path) -> None:
    (here / FILE).write_text("seed: 1\n")
    with pytest.raises(
        UserError,
        match=r"^command line: --image-size is '4', but should be greater than or equal to 8\.",
    ):
        gather({**ASKED, "image_size": "4"}, from_flags=True)


def test_a_mistake_that_a_later_place_goes_before_is_no_matter(here: Path) -> None:
    (here / FILE).write_text("seed: -1\nbase: resnet50.a1_in1k\n")
    assert gather({**ASKED, "seed": 3}).seed == 3
    (here / "mine.yaml").write_text("seed: 4\n")
    assert gather(ASKED, "mine.yaml").seed == 4
    with pytest.raises(UserError, match=rf"^{FILE}: seed is -1"):
        gather(ASKED)
    (here / "mine.yaml").write_text("seed: -4\n")
    with pytest.raises(UserError, match=r"^mine\.yaml: seed is -4"):
        gather(ASKED, "mine.yaml")


def test_a_base_that_a_file_cannot_give_is_told_with_the_file(here: Path) -> None:
    (here / FILE).write_text("base: resnet50.a1_in1k\n")
    with pytest.raises(UserError, match=rf"^{FILE}: --base resnet50\.a1_in1k names trained wei"):
        gather({"budget": "1cpu-h"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "1cpu-h"}, "no base is given; add it, for example --base resnet50."),
        ({"base": "resnet50"}, "no budget is given; add it, for example --budget 40gpu-h."),
    ],
)
def test_what_must_be_given_and_is_not_is_told_with_an_example(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError) as told:
        gather(options)
    assert str(told.value) == message


@pytest.mark.parametrize("budget", ["40", "40gpu", "gpu-h", "-1gpu-h", "40 days"])
def test_a_budget_that_cannot_be_read_is_refused_before_anything_is_loaded(budget: str) -> None:
    with pytest.raises(UserError, match="budget"):
        gather({"base": "resnet50", "budget": budget})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: [", r"^mine.yaml is not valid YAML: .*line \d"),
        ("", "^mine.yaml holds nothing"),
        ("seed: 1\nseed: 2\n", "^mine.yaml is not valid YAML: the key 'seed' is given twice"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(here: Path, text: str, message: str) -> None:
    (here / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        gather(ASKED, "mine.yaml")


def test_a_missing_config_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"^nowhere.yaml does not exist"):
        gather(ASKED, "nowhere.yaml")


def test_a_run_of_an_earlier_version_is_read_as_it_went_whatever_the_defaults_are_now() -> None:
    went = with_defaults({"seed": 3, "pruner": "asha"})
    assert went == {
        "seed": 3,
        "sampler": "random",
        "promote": "discrepancy",
        "pruner": "asha",
        "max_head_cost": None,
        "warm_start": [],
        "policy": {},
    }
    assert set(ADDED) < set(SearchConfig.model_fields)
    assert (went["sampler"], went["promote"]) != (
        SearchConfig.model_validate(ASKED).sampler,
        SearchConfig.model_validate(ASKED).promote,
    )


@pytest.mark.parametrize(
    "given",
    ["runs/a", Path("runs/a"), ["runs/a"], SimpleNamespace(folder=Path("runs/a"))],
    ids=["text", "path", "list", "run"],
)
def test_a_warm_start_is_one_run_or_several(given: Any) -> None:
    assert gather({**ASKED, "warm_start": given}).warm_start == ["runs/a"]
    several = given if isinstance(given, list) else [given]
    assert gather({**ASKED, "warm_start": [*several, "b", "b"]}).warm_start == ["runs/a", "b"]
    assert gather(ASKED).warm_start == []


def test_a_warm_start_may_be_none_and_is_no_number(tmp_path: Path) -> None:
    assert gather({**ASKED, "warm_start": None}).warm_start == []
    file = tmp_path / "search.yaml"
    for written, found in (
        ("warm_start:", []),
        ("warm_start: []", []),
        ("warm_start: runs/a", ["runs/a"]),
    ):
        file.write_text(written)
        assert gather(ASKED, str(file)).warm_start == found
    file.write_text("warm_start: [3]")
    with pytest.raises(UserError, match="3 is no run; give its folder or its name"):
        gather(ASKED, str(file))
