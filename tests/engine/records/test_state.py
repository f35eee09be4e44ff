"""What a study and its trials hold: declared once, read whole, of any size."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial

import hssl_search.errors
from hssl_search.engine.execution.jobs import Outcome, Report, State
from hssl_search.engine.records.state import (
    LARGEST,
    ConfirmingState,
    FullState,
    HeadMeasures,
    JobRecord,
    PlanState,
    PromotionState,
    SearchState,
    TrialState,
    ended_jobs,
    joined,
    spelled,
    split,
)
from hssl_search.engine.statistics.correlation import RankCorrelation
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig

PACKAGE = Path(hssl_search.errors.__file__).parent
STATES = (
    HeadMeasures,
    TrialState,
    PlanState,
    PromotionState,
    ConfirmingState,
    FullState,
    JobRecord,
    SearchState,
)
READERS = {"engine/records/state.py", "engine/records/study.py", "engine/records/results.py"}
TABLES = "reporting/tables.py"
"""Writes every attribute that there is into the files of tables."""
OTHER_MEANINGS = {
    *("name", "seed", "parameters", "config", "plan", "warm_start"),  # of search.yaml
    *("head", "family"),  # of heads
    *("full", "control", "reference", "cause", "discrepancy"),  # phases, roles, rules
    *("step_s", "device_s", "cka", "overlap"),  # of measuring, of the ledger, of the surrogate
}
"""Names that are words of something else too."""
TEXT_OF_MYSQL = 65_535
"""Bytes."""


def trees(folder: str) -> Iterator[tuple[str, ast.Module]]:
    """Each module below a folder of the package, by its path there."""
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_but_the_records_touches_attributes_of_a_study() -> None:
    touching = {
        name
        for name, tree in trees("")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and "user_attr" in node.attr
    }
    assert touching <= READERS | {TABLES}


def test_no_name_of_an_attribute_is_written_elsewhere_in_the_search() -> None:
    names = {*TrialState.model_fields, *SearchState.model_fields} - OTHER_MEANINGS
    found = [
        f"{module}:{node.lineno} {node.value!r}"
        for module, tree in trees("engine")
        # A worker reports metrics, and a measure says which of them it is.
        if module not in (*READERS, "engine/statistics/metrics.py")
        and not module.startswith("engine/worker/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_field_says_what_it_is(state: type) -> None:
    [tree] = [tree for name, tree in trees("engine/records") if name.endswith("/state.py")]
    [body] = [
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == state.__name__
    ]
    for field, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) not in ALIKE:
            assert isinstance(following, ast.Expr), ast.unparse(field.target)


ALIKE = ("phase", "state", "trial", "seed", "name", "cpus", "gpus")
"""Of a job record: those of the job."""


def test_a_state_is_written_and_read_whole() -> None:
    trial = TrialState(
        role="candidate", head=HeadConfig(family="mlp"), cka=0.5, gate="healthy", promoted=True
    )
    assert TrialState.model_validate(json.loads(json.dumps(trial.attributes()))) == trial
    correlation = RankCorrelation(0.5, None, None, 3)
    search = SearchState(
        reference={"raw pixels": 40.0},
        plan=PlanState(numbers={"proxies": 3}, done=False),
        promotion=PromotionState(rule="learned", forecast=correlation),
        confirming=ConfirmingState(trials=(0, 4), jobs=3),
        full=FullState(winner=4, steps=10, rungs=(5, 10), heads=(HeadConfig(family="mlp"),)),
    )
    assert SearchState.model_validate(json.loads(json.dumps(search.attributes()))) == search


def test_only_what_was_set_is_written() -> None:
    assert TrialState().attributes() == SearchState().attributes() == {}
    assert TrialState(gate=None).attributes() == {"gate": None}
    assert SearchState(plan=PlanState(done=True)).attributes() == {"plan": {"done": True}}
    both = TrialState(cka=0.5, seed=3).with_set(TrialState(cka=None, group=2))
    assert both.attributes() == {"cka": None, "seed": 3, "group": 2}
    assert both.only({"seed"}).attributes() == {"seed": 3}


def test_a_study_of_an_earlier_version_is_read() -> None:
    trial = TrialState.model_validate({"role": "candidate", "again": {"group": 1}, "macs": 12})
    assert (trial.macs, trial.promoted, trial.attributes().keys()) == (12, None, {"role", "macs"})
    search = SearchState.model_validate(
        {
            "warm_start": [],
            "plan": {"numbers": {}, "phases": {"screen": {"device_s": 20.0}}},
            "full": {"steps": 30, "rungs": [30], "heads": [], "name": "full training"},
            "confirming": {"trials": [1, 2]},
            "promotion": {"rule": "learned", "left": ["runs/a"]},
        }
    )
    assert search.full is not None and (search.full.number, search.full.winner) == (1, None)
    assert search.confirming is not None and search.confirming.trials == (1, 2)
    [job] = ended_jobs({"job/full": {"key": "full", "state": "done", "reports": []}, "plan": {}})
    assert (job.outcome(), job.task, job.steps) == (Outcome(State.DONE), None, 0)


def test_a_value_that_cannot_be_read_and_is_made_again_counts_as_not_there() -> None:
    held: dict[str, Any] = {
        "verdict": {"state": "another"},
        "warm_start": [{"heads": []}],
        "promoted": [1, 2],
        "job/full": 3,
    }
    search = SearchState.of(held)
    assert (search.verdict, search.warm_start, search.promoted) == (None, (), (1, 2))
    assert search.attributes().keys() == {"promoted"}


def test_any_other_value_that_cannot_be_read_is_told_in_a_sentence() -> None:
    refused = r"^the study holds values for {} of {} that this version cannot read; use the v"
    with pytest.raises(UserError, match=refused.format("plan, promoted", "the search")):
        SearchState.of({"plan": 3, "promoted": "x", "verdict": 4})
    with pytest.raises(UserError, match=refused.format("state", "job proxy/0001")):
        ended_jobs({"job/proxy/0001": {"key": "proxy/0001", "state": "lost"}})
    trial = create_trial(value=1.0, user_attrs={"head": {"family": "later"}})
    with pytest.raises(UserError, match=refused.format("head", "trial -1")):
        TrialState.of(trial)


def test_a_record_of_a_job_keeps_numbers_that_json_cannot_hold() -> None:
    metrics = {"loss": math.nan, "per": [1.0, -math.inf], "of": {"deep": math.inf}}
    record = {"key": "a", "state": "failed", "reports": [{"step": 3, "metrics": spelled(metrics)}]}
    [job] = ended_jobs({"job/a": json.loads(json.dumps(record))})
    [report] = job.reports
    assert math.isnan(report.metrics.pop("loss"))
    assert report == Report(3, {"per": [1.0, -math.inf], "of": {"deep": math.inf}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "x" * 59_998,
        "x" * 59_999,
        ['class 𠀀 ü "quoted" \\ back'] * 20_000,
        '\\"' * 100_000,
        {"classes": [f"class {number}" for number in range(2_500)], "nested": [1.5, None, True]},
    ],
    ids=lambda value: f"{len(json.dumps(value))} bytes",
)
def test_any_value_is_whole_again_and_no_part_is_too_large(value: Any) -> None:
    written = dict(split("job/proxy/0001", value))
    assert joined(written) == {"job/proxy/0001": value}
    assert all(
        len(json.dumps(part)) < TEXT_OF_MYSQL and len(key) < 512 for key, part in written.items()
    )
    assert (len(written) == 1) is (len(json.dumps(value)) <= LARGEST)


def test_a_value_is_the_old_or_the_new_one_after_every_write() -> None:
    old, new = ["old"] * 20_000, ["new"] * 30_000
    held = {"plan": 1, **dict(split("verdict", old))}
    seen = []
    for key, part in split("verdict", new):
        seen.append(joined(held)["verdict"])
        held[key] = part
    assert len(seen) > 5 and all(value == old for value in seen)
    assert joined(held) == {"plan": 1, "verdict": new}
    before = dict(held)
    held.update(split("verdict", new))
    assert held == before, "a write that is repeated changes nothing"
    held.update(split("verdict", "small"))
    assert joined(held) == {"plan": 1, "verdict": "small"}
