"""A run folder whose search.yaml was edited by hand."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.resolve import differences, fixed, require_unchanged
from hssl_search.errors import UserError


@pytest.fixture
def resolved(setting: Setting) -> dict[str, Any]:
    choices = {
        "sampler": "random",
        "promote": "learned",
        "pruner": "median",
        "policy": {"most_proxies": 5},
    }
    return {
        **choices,
        "seed": 0,
        "rank_by": "accuracy",
        "same_architecture": {"family": "resnet"},
        "map_shapes": [[96, 4, 4]],
        "budget": "1cpu-h",
        "setting": setting.model_dump(mode="json"),
        "space": {"name": "tiny", "parameters": {"depth": {"choice": [1, 2]}}},
    }


def refused(
    tmp_path: Path, study: StudyRecord, before: dict[str, Any], after: dict[str, Any]
) -> str:
    run = Run.create(tmp_path / "demo", before)
    require_unchanged(run, before, study)
    with pytest.raises(UserError) as told:
        require_unchanged(run, after, study)
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
    ],
)
def test_what_was_changed_is_refused_with_the_difference(
    tmp_path: Path,
    study: StudyRecord,
    resolved: dict[str, Any],
    path: tuple[str, ...],
    value: Any,
    told: str,
) -> None:
    after = deepcopy(resolved)
    place = after
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    sentence = refused(tmp_path, study, resolved, after)
    assert (
        f"search.yaml was changed since the search began ({told}), and" in sentence
        and "\n" not in sentence
    )


def test_what_may_change_does_and_what_was_automatic_is_resolved(
    tmp_path: Path, study: StudyRecord, resolved: dict[str, Any]
) -> None:
    run, after = Run.create(tmp_path / "demo", resolved), deepcopy(resolved)
    assert resolved["setting"]["recipe"]["proxy"]["precision"] == "auto"
    require_unchanged(run, resolved, study)
    after["setting"]["recipe"]["proxy"]["precision"] = "bf16"
    after |= {"budget": "2cpu-h", "plan": {"candidates": 4}}
    require_unchanged(run, after, study)


def test_what_an_earlier_version_did_not_record_is_not_compared(
    tmp_path: Path, study: StudyRecord, resolved: dict[str, Any]
) -> None:
    recorded = {key: value for key, value in fixed(resolved).items() if key != "sampler"} | {
        "objective": "accuracy",
        "warm_start": [],
    }
    study.write(SearchState(fixed=recorded))
    run = Run.create(tmp_path / "demo", resolved)
    require_unchanged(run, resolved, study)
    require_unchanged(run, {**resolved, "objective": "accuracy", "warm_start": []}, study)
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        require_unchanged(run, {**resolved, "seed": 1}, study)


def test_what_an_earlier_version_did_not_record_of_the_setting_is_not_compared(
    tmp_path: Path, study: StudyRecord, resolved: dict[str, Any]
) -> None:
    earlier = deepcopy(resolved)
    assert earlier["setting"].pop("images") == {}
    run = Run.create(tmp_path / "demo", earlier)
    require_unchanged(run, earlier, study)
    require_unchanged(run, resolved, study)  # as measuring has written it since


def test_what_a_search_began_with_cannot_be_edited(
    tmp_path: Path, study: StudyRecord, resolved: dict[str, Any]
) -> None:
    before, after = deepcopy(resolved), deepcopy(resolved)
    before["setting"]["images"] = {"training": {"images": 120}}
    after["setting"]["images"] = {"training": {"images": 140}}
    assert "(setting.images.training.images: 120 -> 140)" in refused(tmp_path, study, before, after)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", "accuracy,cost"),
        ("sampler", "gp"),
        ("sampler", "nsga2"),
        ("pruner", "hyperband"),
        ("warm_start", ["runs/a"]),
    ],
)
def test_a_run_of_an_earlier_version_with_an_option_that_is_gone_is_refused(
    tmp_path: Path, study: StudyRecord, resolved: dict[str, Any], key: str, value: Any
) -> None:
    earlier = {**resolved, key: value}
    run = Run.create(tmp_path / "demo", earlier)
    with pytest.raises(UserError) as told:
        require_unchanged(run, earlier, study)
    assert (
        f"search.yaml has {key}: {value}, which this version no longer offers; continue it with"
        in str(told.value)
    )
    assert "\n" not in str(told.value) and study.study_attributes() == {}


def test_a_key_that_was_taken_out_or_put_in_differs() -> None:
    assert list(differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": 3}})) == [
        "a: 1 -> None",
        "b.d: None -> 3",
    ]
    assert list(differences({"a": [1]}, {"a": [1]})) == []
