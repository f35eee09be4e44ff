from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from hssl_search.configfile import read_yaml, validate, write_yaml
from hssl_search.errors import UserError


class Proxy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lr: float = Field(1e-3, gt=0)
    family: str = "convnext"


class Rung(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = 10

    @field_validator("steps")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd numbers of steps cannot be halved")
        return value


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    method: str
    proxy: Proxy | None = None
    rungs: list[Rung] = []


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_yaml(path)
    return str(error.value)


def test_a_mapping_is_read_with_its_types(tmp_path: Path) -> None:
    values = read_yaml(write(tmp_path, "a: 1\nb: [x, 2.5, true]\nc: {d: é}\n"))
    assert values == {"a": 1, "b": ["x", 2.5, True], "c": {"d": "é"}}


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.0e-3", "0.001"])
def test_every_way_to_write_a_number_is_a_number(tmp_path: Path, number: str) -> None:
    assert read_yaml(write(tmp_path, f"lr: {number}\n")) == {"lr": 0.001}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "none.yaml")
        == f"{tmp_path / 'none.yaml'} does not exist; check the path."
    )


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in refused(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    assert "cannot be read" in refused(path)


def test_corrupt_yaml_names_line_and_column(tmp_path: Path) -> None:
    said = refused(write(tmp_path, "a: 1\nb: [1, 2\nc: 3\n"))
    assert said.startswith(f"{tmp_path / 'x.yaml'} is not valid YAML: ")
    assert "(line 3, column " in said and "\n" not in said


def test_control_characters_are_refused_in_one_line(tmp_path: Path) -> None:
    said = refused(write(tmp_path, "a: \x07\n"))
    assert "is not valid YAML" in said and "\n" not in said


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "nothing"), ("# only a comment\n", "nothing"), ("- 1\n", "a list"), ("word\n", "a str")],
)
def test_anything_but_a_mapping_is_refused(tmp_path: Path, text: str, found: str) -> None:
    assert f"holds {found}; it must hold `key: value` lines" in refused(write(tmp_path, text))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "the key 'lr' is given twice (line 3, column 3)" in refused(
        write(tmp_path, "proxy:\n  lr: 1\n  lr: 2\n")
    )


def test_python_objects_are_not_made(tmp_path: Path) -> None:
    assert "is not valid YAML" in refused(
        write(tmp_path, "a: !!python/object/apply:os.getcwd []\n")
    )


@pytest.mark.parametrize(
    "values",
    [
        {"b": 1, "a": {"z": [1, 2.5, None, True], "y": "text"}, "empty": {}, "none": []},
        {
            "number": 1e-05,
            "text that looks like one": "1e-05",
            "also": "1e5",
            "yes": "yes",
            "date": "2026-01-01",
            "0": "key",
        },
        {"lines": "one\ntwo\n", "unicode": "naïve 图", "long": "word " * 100, "pair": [0.1, 1 / 3]},
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, values: dict[str, Any]) -> None:
    write_yaml(tmp_path / "y.yaml", values)
    again = read_yaml(tmp_path / "y.yaml")
    assert again == values and list(again) == list(values)


def test_other_readers_see_the_same(tmp_path: Path) -> None:
    values = {"lr": 1e-05, "text": "1e-05", "shared": [[1], [1]]}
    write_yaml(tmp_path / "y.yaml", values)
    assert yaml.safe_load((tmp_path / "y.yaml").read_text()) == values


def test_shared_values_are_repeated_not_referred_to(tmp_path: Path) -> None:
    shared = [1, 2]
    write_yaml(tmp_path / "y.yaml", {"a": shared, "b": shared})
    assert "&" not in (tmp_path / "y.yaml").read_text()


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a: 1\n")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_yaml(path, {"a": 2})
    assert read_yaml(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.yaml"]


def test_what_yaml_cannot_hold_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        write_yaml(tmp_path / "y.yaml", {"a": object()})
    assert not list(tmp_path.iterdir())


def test_valid_values_become_the_model() -> None:
    recipe = validate(
        Recipe, {"method": "simclr", "proxy": {"lr": 0.1}, "rungs": [{"steps": 4}]}, "r.yaml"
    )
    assert (
        isinstance(recipe, Recipe) and recipe.proxy == Proxy(lr=0.1) and recipe.rungs[0].steps == 4
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"methd": "simclr"}, "r.yaml: unknown key 'methd'; did you mean 'method'?"),
        (
            {"method": "simclr", "proxy": {"famly": "mlp"}},
            "r.yaml: unknown key 'famly' in proxy; did you mean 'family'?",
        ),
        (
            {"method": "simclr", "proxy": {"zzz": 1}},
            "r.yaml: unknown key 'zzz' in proxy; choose one of family, lr.",
        ),
        (
            {"method": "simclr", "rungs": [{"steps": 2}, {"step": 3}]},
            "r.yaml: unknown key 'step' in rungs.1; did you mean 'steps'?",
        ),
        ({"proxy": {}}, "r.yaml: method is missing; add it."),
        (
            {"method": "a", "proxy": {"lr": -1}},
            "r.yaml: proxy.lr is -1, but should be greater than 0.",
        ),
        (
            {"method": "a", "proxy": {"lr": "fast"}},
            "r.yaml: proxy.lr is 'fast', but should be a valid number, unable to parse string as "
            "a number.",
        ),
        (
            {"method": "a", "rungs": [{"steps": 3}]},
            "r.yaml: rungs.0.steps is 3: odd numbers of steps cannot be halved.",
        ),
    ],
)
def test_the_first_bad_key_is_said_in_one_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        validate(Recipe, values, "r.yaml")
    assert str(error.value) == said


def test_a_mistake_of_a_whole_section_does_not_echo_it() -> None:
    from hssl_search.heads.config import HeadConfig

    with pytest.raises(UserError) as error:
        validate(HeadConfig, {"family": "convnxt"}, "head.yaml")
    assert str(error.value) == "head.yaml: unknown head family 'convnxt'; did you mean 'convnext'?"
