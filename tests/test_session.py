"""What a command works with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hssl_search import session
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import PriorRun, SearchState
from hssl_search.engine.records.study import StudyRecord


@contextmanager
def no_executor(*_: Any, **__: Any) -> Iterator[None]:
    yield None


def test_a_search_that_continues_tells_again_what_it_learns_from(
    tmp_path: Path,
    resolved: ResolvedSearch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "RayExecutor", no_executor)
    run = Run.create(tmp_path / "demo", resolved.as_plain())
    heads = [{"head": {"family": family}, "gain": 1.0} for family in ("mlp", "resnet")]
    prior = PriorRun.model_validate({"name": "runs/a", "heads": heads})
    with StudyRecord.open(run.storage_url, "demo") as study:
        for told in ([], ["warm start from runs/a: 2 heads with a score."]):
            ray: Any = None  # of which nothing is asked before a job runs
            with session.controller_of(run, resolved, ray, study, None, time.monotonic()):
                assert [record.getMessage() for record in caplog.records] == told
            study.write(SearchState(warm_start=(prior,)))
