"""A run folder whose search.yaml was edited by hand."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hssl_search.data.sources import Contents
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.resolve import differences, fixed, require_unchanged
from hssl_search.errors import UserError


@pytest.fixture
def written(resolved: ResolvedSearch) -> dict[str, Any]:
    return {
        **resolved.as_plain(),
        "policy": {"most_proxies": 5},
        "space": {"name": "tiny", "hash": "0", "parameters": {"depth": {"choice": [1, 2]}}},
    }


def go_on(run: Run, study: StudyRecord, written: dict[str, Any]) -> None:
    """Take a search up whose search.yaml holds this."""
    run.update_config(**written)
    require_unchanged(run, run.resolved(), study)


def refused(
    tmp_path: Path, study: StudyRecord, before: dict[str, Any], after: dict[str, Any]
) -> str:
    run = Run.create(tmp_path / "demo", before)
    go_on(run, study, before)
    with pytest.raises(UserError) as told:
        go_on(run, study, after)
    return str(told.value)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (
            ("space", "parameters", "depth", "choice"),
            [1, 2, 3],
            "space.parameters.depth.choice: [1, 2] -> [1, 2, 3]",
        ),
        (("setting", "base"), "test_vit", "setting.base: test_resnet -> test_vit"),
        (("setting", "recipe", "proxy", "lr"), 0.1, "setting.recipe.proxy.lr: 0.002 -> 0.1"),
        (("seed",), 1, "seed: 0 -> 1"),
        (("sampler",), "tpe", "sampler: random -> tpe"),
        (("pruner",), "asha", "pruner: median -> asha"),
        (("policy", "most_proxies"), 6, "policy.most_proxies: 5 -> 6"),
        (("warm_start",), ["/runs/a"], "warm_start: [] -> ['/runs/a']"),
    ],
)
def test_what_was_changed_is_refused_with_the_difference(
    tmp_path: Path,
    study: StudyRecord,
    written: dict[str, Any],
    path: tuple[str, ...],
    value: Any,
    told: str,
) -> None:
    after = deepcopy(written)
    place = after
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    sentence = refused(tmp_path, study, written, after)
    assert (
        f"search.yaml was changed since the search began ({told}), and" in sentence
        and "\n" not in sentence
    )


def test_what_may_change_does_and_what_was_automatic_is_resolved(
    tmp_path: Path, study: StudyRecord, written: dict[str, Any]
) -> None:
    run, after = Run.create(tmp_path / "demo", written), deepcopy(written)
    assert written["setting"]["recipe"]["proxy"]["precision"] == "auto"
    go_on(run, study, written)
    after["setting"]["recipe"]["proxy"]["precision"] = "bf16"
    after |= {"budget": "2cpu-h", "plan": {"candidates": 4}}
    go_on(run, study, after)


def test_what_an_earlier_version_did_not_record_is_not_compared(
    tmp_path: Path, study: StudyRecord, written: dict[str, Any]
) -> None:
    run = Run.create(tmp_path / "demo", written)
    recorded = fixed(run.resolved()) | {"objective": "accuracy"}
    recorded["policy"] = {"most_proxies": 5}
    del recorded["sampler"]
    study.write(SearchState(fixed=recorded))
    go_on(run, study, written)
    go_on(run, study, {**written, "objective": "accuracy"})
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        go_on(run, study, {**written, "seed": 1})


def test_what_an_earlier_version_did_not_record_of_the_setting_is_not_compared(
    tmp_path: Path, study: StudyRecord, written: dict[str, Any]
) -> None:
    earlier = deepcopy(written)
    assert earlier["setting"].pop("images") == {}
    run = Run.create(tmp_path / "demo", earlier)
    go_on(run, study, earlier)
    go_on(run, study, written)  # as measuring has written it since


def test_what_a_search_began_with_cannot_be_edited(
    tmp_path: Path, study: StudyRecord, written: dict[str, Any]
) -> None:
    before, after = deepcopy(written), deepcopy(written)
    began_with = asdict(Contents(120, 120, 2, "0" * 64, 32, "key"))
    before["setting"]["images"] = {"training": began_with}
    after["setting"]["images"] = {"training": {**began_with, "images": 140}}
    assert "(setting.images.training.images: 120 -> 140)" in refused(tmp_path, study, before, after)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", "accuracy,cost"),
        ("sampler", "gp"),
        ("sampler", "nsga2"),
        ("pruner", "hyperband"),
    ],
)
def test_a_run_of_an_earlier_version_with_an_option_that_is_gone_is_refused(
    tmp_path: Path, study: StudyRecord, written: dict[str, Any], key: str, value: Any
) -> None:
    earlier = {**written, key: value}
    run = Run.create(tmp_path / "demo", earlier)
    with pytest.raises(UserError) as told:
        go_on(run, study, earlier)
    assert (
        f"search.yaml has {key}: {value}, which this version no longer offers; continue it with"
        in str(told.value)
    )
    assert str(told.value).endswith(f"begin another search with --warm-start {run.shown}.")
    assert "\n" not in str(told.value) and study.study_attributes() == {}


def test_a_key_that_was_taken_out_or_put_in_differs() -> None:
    assert list(differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}})) == [
        "a: 1 -> None",
        "b.d: None -> 3",
    ]
    assert list(differences({"a": [1]}, {"a": [1]})) == []
