"""Searches that begin with what earlier ones have found; without training, their truth known."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from hssl_search.configfile import read_yaml, write_yaml
from hssl_search.engine.candidates.prior_runs import lessons, read_prior_runs
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import PriorRun, SearchState
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space

Lab = Any
"""See conftest.py."""
SMALL, LARGE = "3cpu-min", "20cpu-min"


@pytest.fixture
def many(small_space: Space) -> Space:
    return Space.from_plain(
        {
            "parameters": {
                **small_space.as_plain()["parameters"],
                "depth": {"choice": list(range(1, 9))},
            }
        },
        "many",
    )


def misleading(lab: Lab) -> Lab:
    """Make the most discrepant heads the worst: deep ones, and those of the last family."""
    lab.overlap = {head: 0.9 - overlap / 2 for head, overlap in lab.overlap.items()}
    return lab


def published(lab: Lab) -> str:
    """Return the folder of a run that was searched, its study where a command would look for it."""
    optuna.copy_study(
        from_study_name="demo", from_storage=lab.storage, to_storage=lab.run.storage_url
    )
    return str(lab.run.folder)


@pytest.fixture
def earlier(
    make_lab: Callable[..., Lab],
    many: Space,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Return a long search in which every family had several proxies; copied for each test."""
    kept_at = tmp_path_factory.getbasetemp() / "earlier"
    if not kept_at.exists():
        lab = misleading(make_lab(many, budget=LARGE, full_epochs="off"))
        lab.search()
        shutil.copytree(published(lab), kept_at)
    return str(shutil.copytree(kept_at, tmp_path / "runs" / "demo"))


def test_a_search_that_starts_warm_promotes_a_better_head_than_a_cold_one_at_the_same_cost(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    labs, found = [], []
    for runs in ([], [earlier]):
        lab = make_lab(many, budget=SMALL, full_epochs="off", sampler="random", warm_start=runs)
        labs.append(misleading(lab))
        found.append(lab.search())
    promoted = [
        [
            lab.study.frozen(trial).user_attrs["name"]
            for trial in lab.study.study_attributes()["promoted"]
        ]
        for lab in labs
    ]
    assert len(promoted[0]) == len(promoted[1]) < 8, "too few for the cold search to learn from"
    best = [max(labs[0].accuracy[name] for name in names) for names in promoted]
    assert best[1] > best[0]
    assert labs[1].charged() <= labs[1].budget.seconds
    assert "warm_start" not in labs[0].study.study_attributes()


def test_the_heads_of_a_run_whose_proxies_ended_are_kept_with_what_was_measured(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    lab = make_lab(many)
    [run] = read_prior_runs([earlier], "accuracy")
    assert run.name == Run.find(earlier).shown
    gains = {head.head.label(): head.gain for head in run.heads}
    assert len(gains) >= 5
    assert gains == {name: pytest.approx(lab.accuracy[name]) for name in gains}
    measured = run.heads[0].measured
    assert None not in (measured.overlap_excess, measured.macs, measured.head_loss)
    assert measured.promoted is None


def test_a_search_continues_when_the_earlier_run_is_gone(
    make_lab: Callable[..., Lab], many: Space, earlier: str, killed: type[BaseException]
) -> None:
    options = {"budget": SMALL, "full_epochs": "off", "warm_start": [earlier]}
    whole = misleading(make_lab(many, **options))
    verdict = whole.search()
    lab = misleading(make_lab(many, **options))
    lab.storage.dies_at = lab.storage.writes + 60
    with pytest.raises(killed):
        lab.search()
    shutil.rmtree(earlier)
    lab.storage.dies_at = None
    found = lab.search()
    assert (found["name"], found["state"]) == (verdict["name"], verdict["state"])
    assert lab.study.study_attributes()["promoted"] == whole.study.study_attributes()["promoted"]
    assert lab.study.state.warm_start == whole.study.state.warm_start != ()


def test_what_an_earlier_version_kept_is_read(lab: Lab) -> None:
    kept = {
        "name": "runs/a",
        "control": "none",
        "same_space": True,
        "others": {},
        "left_out": {},
        "heads": [
            {"head": {"family": "mlp"}, "gain": 1.5, "measured": {"overlap_excess": 0.2}},
            {"head": {"family": "resnet"}, "gain": None, "measured": {}},
            {"head": {"family": "later"}, "gain": 2.0, "measured": {}},
        ],
    }
    lab.study.write(SearchState(warm_start=(PriorRun.model_validate(kept),)))
    [lesson] = lessons(lab.study, lab.run.resolved())
    assert lesson.scores == (1.5,)
    [mlp] = lesson.candidates
    assert (mlp.family, mlp.state.overlap_excess, lesson.name) == ("mlp", 0.2, "runs/a")
    assert lab.study.state.warm_start[0].note == "warm start from runs/a: 1 head with a score."


def test_a_run_that_taught_the_wrong_order_is_told_and_kept(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    [right] = read_prior_runs([earlier], "accuracy")
    heads = tuple(head.model_copy(update={"gain": -gain}) for head, gain in right.scored)
    wrong = PriorRun(name="runs/wrong", heads=heads)
    lab = misleading(make_lab(many, budget=LARGE, full_epochs="off"))
    lab.study.write(SearchState(warm_start=(right, wrong)))
    lab.search()
    kept = lab.study.state.promotion
    assert kept is not None and kept.left == ("runs/wrong",)
    assert "What runs/wrong taught was left, having" in lab.watcher.notes()


def test_heads_of_a_family_that_is_not_there_are_left_out(earlier: str) -> None:
    [before] = read_prior_runs([earlier], "accuracy")
    with sqlite3.connect(Path(earlier) / "study.db") as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = replace(value_json, ?, ?) "
            "WHERE key = 'head'",
            ('"mlp"', '"later"'),
        )
    [after] = read_prior_runs([earlier], "accuracy")
    assert after.heads == tuple(head for head in before.heads if head.head.family != "mlp")
    assert 0 < len(after.heads) < len(before.heads)


def edited(folder: str, **changes: Any) -> str:
    path = Path(folder) / "search.yaml"
    write_yaml(path, read_yaml(path) | changes)
    return folder


MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "other measure": (
        lambda run: edited(run, rank_by="discrepancy"),
        "the run 'demo' ranked heads by discrepancy and this search ranks by accuracy;",
    ),
    "other version": (
        lambda run: edited(run, format="hssl-search/9"),
        "has the format 'hssl-search/9' and this version reads",
    ),
    "no study": (
        lambda run: (Path(run) / "study.db").unlink() or run,
        "holds no study 'demo'; name a run whose study is there.",
    ),
    "other study": (lambda run: edited(run, name="another"), "holds no study 'another';"),
    "no run": (lambda run: run + "x", "is no run: it has no search.yaml;"),
    "damaged": (
        lambda run: (Path(run) / "study.db").write_bytes(b"x" * 5000) and run,
        "failed (file is not a database);",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), MISTAKES.values(), ids=list(MISTAKES))
def test_what_cannot_be_learned_from_is_refused_and_left_as_it_is(
    earlier: str, change: Callable[[str], str], sentence: str
) -> None:
    run = change(earlier)
    before = sorted(path.name for path in Path(run).glob("*"))
    with pytest.raises(UserError) as told:
        read_prior_runs([run], "accuracy")
    assert sentence in str(told.value) and "\n" not in str(told.value)
    assert sorted(path.name for path in Path(run).glob("*")) == before


def test_a_run_without_results_is_refused(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.controller()
    with pytest.raises(
        UserError,
        match=r"the run 'demo' has too few heads with a score to learn from \(0\); give --warm-"
        r"start a run with at least two proxies that came to their end\.",
    ):
        read_prior_runs([published(lab)], "accuracy")
