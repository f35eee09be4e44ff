"""Searches that begin with what earlier ones have found; without training, their truth known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hssl_search.configfile import read_yaml, write_yaml
from hssl_search.engine.candidates.prior_runs import ATTRIBUTE, EarlierSearch, kept
from hssl_search.engine.candidates.sampler import Name
from hssl_search.engine.candidates.warm_start import gather, sentences
from hssl_search.engine.records.run import Run
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
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
    """The most discrepant heads are the worst: deep ones, and those of the last family."""
    lab.overlap = {head: 0.9 - overlap / 2 for head, overlap in lab.overlap.items()}
    return lab


def published(lab: Lab) -> str:
    """The folder of a run that was searched, its study where a command would look for it."""
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
    """A long search in which every family had several proxies; searched once, and copied for each test."""
    kept_at = tmp_path_factory.getbasetemp() / "earlier"
    if not kept_at.exists():
        lab = misleading(make_lab(many, budget=LARGE, full_epochs="off"))
        lab.search()
        shutil.copytree(published(lab), kept_at)
    return str(shutil.copytree(kept_at, tmp_path / "runs" / "demo"))


def taught(lab: Lab) -> EarlierSearch:
    [one] = kept(lab.study.study_attributes())
    return one


def left(lab: Lab) -> list[Any]:
    return [
        (
            trial.number,
            trial.state,
            trial.params,
            trial.values,
            trial.intermediate_values,
            trial.user_attrs,
        )
        for trial in lab.study.trials()
    ]


def test_a_search_that_starts_warm_promotes_the_best_head_where_a_cold_one_at_the_same_cost_misses_it(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    labs, found = [], []
    for runs in ([], [earlier]):
        labs.append(misleading(make_lab(many, budget=SMALL, full_epochs="off", warm_start=runs)))
        found.append(labs[-1].search())
    promoted = [
        [
            lab.study.frozen(trial).user_attrs["name"]
            for trial in lab.study.study_attributes()["promoted"]
        ]
        for lab in labs
    ]
    assert len(promoted[0]) == len(promoted[1]) < 8, "too few for the cold search to learn from"
    best = [max(labs[0].accuracy[name] for name in names) for names in promoted]
    assert best[1] > best[0] + 3.0
    assert found[1]["name"] == max(promoted[1], key=labs[1].accuracy.__getitem__)
    assert labs[1].charged() <= labs[1].budget.seconds


def test_an_earlier_search_that_says_the_opposite_is_left_and_told_of(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    lab = misleading(make_lab(many, budget="12cpu-min", full_epochs="off", warm_start=[earlier]))
    lab.accuracy = {head: 166.0 - accuracy for head, accuracy in lab.accuracy.items()}
    lab.search()
    name = Run.find(earlier).shown
    assert lab.study.study_attributes()["promotion"]["left"] == [name]
    assert f"What {name} taught was left, having given the wrong order." in lab.watcher.notes()


def test_what_is_kept_are_the_gains_over_the_control_at_the_same_step(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    lab = make_lab(many, budget=SMALL, full_epochs="off", warm_start=[earlier])
    lab.controller()
    one = taught(lab)
    gains = {HeadConfig(**head.head).label(): head.gain for head in one.heads}
    whole = {
        name: gain
        for name, gain in gains.items()
        if gain == pytest.approx(lab.accuracy[name] - 70.0)
    }
    stopped = {
        name: gain / (lab.accuracy[name] - 70.0)
        for name, gain in gains.items()
        if name not in whole
    }
    assert len(whole) >= 5 and len(stopped) >= 1
    assert {round(share, 2) for share in stopped.values()} <= {0.25, 0.5}
    assert (one.same_space, one.others, one.left_out) == (True, {}, {})
    assert {"overlap_excess", "macs", "parameters", "head_loss"} <= one.heads[0].measured.keys()


def test_a_search_goes_on_when_the_earlier_run_is_gone(
    make_lab: Callable[..., Lab], many: Space, earlier: str, killed: type[BaseException]
) -> None:
    options = {"budget": SMALL, "full_epochs": "off", "warm_start": [earlier]}
    whole = misleading(make_lab(many, **options))
    verdict = whole.search()
    lab = misleading(make_lab(many, **options))
    lab.controller()
    lab.storage.dies_at = lab.storage.writes + 60
    with pytest.raises(killed):
        lab.search()
    shutil.rmtree(earlier)
    lab.storage.dies_at = None
    found = lab.search()
    assert (found["name"], found["state"]) == (verdict["name"], verdict["state"])
    assert [trial.params for trial in lab.study.trials()] == [
        trial.params for trial in whole.study.trials()
    ]
    assert lab.study.study_attributes()["promoted"] == whole.study.study_attributes()["promoted"]
    assert kept(lab.study.study_attributes()) == kept(whole.study.study_attributes())


@pytest.mark.parametrize("sampler", ["tpe", "random", "exhaustive"])
def test_the_same_seed_and_the_same_start_leave_the_same_study_with_every_sampler(
    make_lab: Callable[..., Lab], many: Space, earlier: str, sampler: Name
) -> None:
    found = []
    for _ in range(2):
        lab = make_lab(many, budget=SMALL, full_epochs="off", sampler=sampler, warm_start=[earlier])
        found.append((lab.search(), left(lab), lab.study.study_attributes()))
    assert found[0] == found[1]
    assert {trial.state for trial in lab.study.trials()} <= {TrialState.COMPLETE, TrialState.PRUNED}


def resolved(lab: Lab, *runs: str, **changes: Any) -> dict[str, Any]:
    return {**lab.run.config(), "warm_start": list(runs), **changes}


def test_heads_outside_the_space_are_left_out_and_counted(
    make_lab: Callable[..., Lab], small_space: Space, earlier: str
) -> None:
    lab = make_lab(small_space)
    [one] = gather(resolved(lab, earlier))
    assert {HeadConfig(**head.head) for head in one.heads} <= set(small_space.enumerate())
    assert one.left_out and all(why.startswith("depth=") for why in one.left_out)
    assert not one.same_space
    words = sentences([one], "tpe", "learned")[0]
    count = len(one.heads) + sum(one.left_out.values())
    assert words.startswith(
        f"Warm start from {Run.find(earlier).shown}: {len(one.heads)} of {count} heads with results fit this space; "
    )


def test_another_base_method_and_data_are_allowed_and_said(
    make_lab: Callable[..., Lab], many: Space, earlier: str
) -> None:
    lab = make_lab(many)
    setting = lab.run.config()["setting"]
    other = {
        **setting,
        "base": "test_vit",
        "data": "/photos",
        "recipe": {**setting["recipe"], "method": {"name": "dino"}},
    }
    [one] = gather(resolved(lab, earlier, setting=other))
    assert one.others == {"base": "test_resnet", "method": "simclr", "data": "digits"}


def test_heads_that_fell_ill_are_avoided_and_have_no_gain(
    make_lab: Callable[..., Lab], many: Space
) -> None:
    lab = make_lab(many, budget=LARGE, full_epochs="off")
    names = list(lab.accuracy)
    lab.gate, lab.gate_alone = {names[0]: "collapsed"}, dict.fromkeys(names[-3:], "not learning")
    lab.search()
    [one] = gather(resolved(make_lab(many), published(lab)))
    ill = {HeadConfig(**head.head).label() for head in one.heads if head.gain is None}
    assert names[0] in ill and ill & set(names[-3:])
    assert ill <= {names[0], *names[-3:]}


def test_heads_may_be_ranked_themselves(make_lab: Callable[..., Lab], many: Space) -> None:
    lab = make_lab(many, budget=LARGE, rank_by="discrepancy", full_epochs="off")
    lab.search()
    warm = make_lab(
        many, budget=SMALL, rank_by="discrepancy", full_epochs="off", warm_start=[published(lab)]
    )
    warm.search()
    assert taught(warm).control == "identity"
    assert all(
        head.gain == pytest.approx(lab.overlap[HeadConfig(**head.head).label()] - 0.3)
        for head in taught(warm).trained
    )


def test_a_search_without_warm_start_keeps_nothing_of_it(lab: Lab) -> None:
    lab.search()
    assert ATTRIBUTE not in lab.study.study_attributes()


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
def test_what_cannot_be_learned_from_is_refused(
    lab: Lab, earlier: str, change: Callable[[str], str], sentence: str
) -> None:
    run = change(earlier)
    before = sorted(path.name for path in Path(run).glob("*"))
    with pytest.raises(UserError) as told:
        gather(resolved(lab, run))
    assert sentence in str(told.value) and "\n" not in str(told.value)
    assert sorted(path.name for path in Path(run).glob("*")) == before


def test_a_run_without_results_or_without_a_head_in_the_space_is_refused(
    make_lab: Callable[..., Lab], earlier: str
) -> None:
    lab, new = make_lab(), make_lab()
    lab.controller()
    with pytest.raises(
        UserError,
        match=r"the run 'demo' has no head with a result to start from; give --warm-start a run that came to",
    ):
        gather(resolved(new, published(lab)))
    foreign = Space.from_plain({"parameters": {"family": "transformer"}}, "foreign")
    with pytest.raises(
        UserError,
        match=r"no head of the run 'demo' is in the space 'foreign' \(it lacks family=.*\); give --warm-start",
    ):
        gather(
            resolved(
                new,
                earlier,
                space={"name": "foreign", "hash": foreign.hash(), **foreign.as_plain()},
            )
        )


@pytest.mark.parametrize(
    ("sampler", "promote", "told"),
    [
        (
            "tpe",
            "learned",
            "From the earlier results the sampler (tpe) and the forecast that promotes heads learn.",
        ),
        (
            "random",
            "learned",
            "From the earlier results the forecast that promotes heads learns; the sampler random draws without learning.",
        ),
        (
            "tpe",
            "discrepancy",
            "From the earlier results the sampler (tpe) learns; promotion by discrepancy does not learn.",
        ),
    ],
)
def test_who_learns_is_said(sampler: Any, promote: Any, told: str) -> None:
    one = EarlierSearch("runs/a", "none", True, {}, [], {})
    assert sentences([one], sampler, promote)[-1] == told
    assert sentences([], sampler, promote) == []
