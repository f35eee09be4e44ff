"""docs/api.md: its blocks run as they stand there, on a search without training."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hssl_search
from hssl_search import api
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.worker import run_job as worker
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.files import write_head
from hssl_search.spaces.space import Space

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def blocks() -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def without_training(
    make_lab: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Searches and replays look results up, and Ray is never started; all else is real."""
    lab = make_lab(space=Space.read("tiny"))
    logger = logging.getLogger("hssl_search")
    handlers, level = list(logger.handlers), logger.level

    def search(
        run: Run, resolved: ResolvedSearch, session: RaySession, study: StudyRecord, *_: Any
    ) -> None:
        if resolved.name == "beside":
            assert session.stop.wait(60)
            raise KeyboardInterrupt
        lab.run, lab.record, lab.budget = run, study, resolved.budget
        run.winner.mkdir(exist_ok=True)
        winner = study.frozen(lab.search()["winner"])
        write_head(
            run.winner / "head.yaml",
            HeadConfig(**winner.user_attrs["head"]),
            base={"map_shape": [96, 4, 4]},
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "_search", search)
    monkeypatch.setattr(worker, "run_job", lab.work)
    monkeypatch.setattr(RaySession, "start", lambda self: self)
    monkeypatch.setattr(
        RaySession, "total", lambda self, resource: 1.0 if resource == "CPU" else 0.0
    )
    monkeypatch.setattr(RaySession, "free", RaySession.total)
    yield
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


@pytest.mark.usefixtures("without_training")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[str, Any] = {}
    told = []
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), known)
        told.append(capsys.readouterr().out)
    assert known["run"].config()["budget"] == "5cpu-min+5cpu-min"
    assert known["best"]["rank"] == 1 and known["best"]["accuracy"] > 70
    assert set(known["curves"]["phase"]) >= {"proxy"} and known["time"]["device_s"].sum() > 0
    assert known["again"].equal and known["again"].numbers and not known["again"].different
    assert known["head"].config.family == known["best"]["family"]
    assert len(known["heads"]) == known["space"].size() == 6
    assert any(
        re.search(r"^stopped; .*: hssl-search resume runs/beside$", one, re.MULTILINE)
        for one in told
    )
    promised = re.findall(r"print\(error\) +# (.*)", PAGE.read_text(encoding="utf-8"))
    assert promised == [told[-1].strip()]


def test_the_page_names_all_that_is_public() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in hssl_search.__all__ if not re.search(rf"\b{name}\b", page)] == []
