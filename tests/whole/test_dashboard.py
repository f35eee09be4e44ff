"""A whole search while the Optuna dashboard is open on it and asks for everything again and
again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

import hssl_search
from hssl_search.engine.records.run import Run

pytestmark = pytest.mark.slow(
    reason="a whole search; pytest --run-slow tests/whole/test_dashboard.py runs it"
)
EVERY_S = 0.2
"""A browser asks every few seconds."""


@dataclass
class Reader:
    """Asks the dashboard for the studies and for all of the first, as its page does, until it is
    told to stop.
    """

    address: str
    trials: list[int] = field(default_factory=list)
    """Trials in each answer."""
    refused: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def read(self) -> dict[str, Any]:
        """Return all that the dashboard tells of the study, no trials while there is none; raise
        URLError while it does not listen yet.
        """
        studies = self._get("studies")["study_summaries"]
        return self._get(f"studies/{studies[0]['study_id']}?after=0") if studies else {"trials": []}

    def comes_to_show(self, trials: dict[int, tuple[str, Any]]) -> bool:
        """Tell whether it shows these states and values within a minute; it may answer from what it
        read a few seconds ago.
        """
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            shown = {
                trial["number"]: (trial["state"].upper(), trial.get("values"))
                for trial in self.read()["trials"]
            }
            if shown == trials:
                return True
            self.over.wait(EVERY_S)
        return False

    def keep_reading(self) -> None:
        while not self.over.wait(EVERY_S):
            try:
                self.trials.append(len(self.read()["trials"]))
            except HTTPError as error:
                self.refused.append(f"{error} {error.read().decode()}")
            except URLError:  # it does not listen yet
                assert not self.trials

    def _get(self, path: str) -> Any:
        with urlopen(f"{self.address}/api/{path}", timeout=60) as answer:
            return json.load(answer)


@contextmanager
def dashboard(run: Run) -> Iterator[Reader]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package = str(Path(hssl_search.__file__).parents[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "hssl_search", "dashboard", str(run.folder), "--port", str(port)],
        env={**os.environ, "PYTHONPATH": package},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    reader = Reader(f"http://127.0.0.1:{port}")
    thread = threading.Thread(target=reader.keep_reading)
    thread.start()
    try:
        yield reader
    finally:
        reader.over.set()
        thread.join()
        server.terminate()
        server.wait()


def test_a_search_ends_as_any_other_while_a_dashboard_reads_all_of_it(
    new_place: Callable[[], Any], budgets: tuple[str, ...]
) -> None:
    place = new_place()
    for budget in budgets[1:]:
        run, program = place.search(budget)
        assert program.wait_until(run.study_db.exists), program.wait()
        with dashboard(run) as reader:
            ended = program.wait()
            if ended.too_small:
                continue
            assert (ended.code, ended.err) == (0, "")
            found = place.snapshot(run)
            assert reader.comes_to_show(
                {number: (trial.state.name, trial.values) for number, trial in found.trials.items()}
            )
        break
    else:
        pytest.fail(f"not even {budgets[-1]} was enough on this machine")
    assert found.attributes["verdict"]["sentence"] in " ".join(ended.out.split())
    assert reader.refused == []
    assert reader.trials == sorted(reader.trials) and len(set(reader.trials)) > 2, (
        "it saw the trials grow"
    )
