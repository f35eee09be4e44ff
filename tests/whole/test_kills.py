"""One search whose controller is killed with SIGKILL at twenty random moments, and resumed after
each.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hssl_search import load_head
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import OVERHEAD
from hssl_search.engine.records.run import Run

pytestmark = pytest.mark.slow(
    reason=(
        "a search that is started more than twenty times; pytest --run-slow "
        "tests/whole/test_kills.py runs it"
    )
)
KILLS, SEED = 20, 4
BUDGET, MORE = "300cpu-s", "+300cpu-s"
"""A small budget makes small jobs. What starting again and again takes of it, the longer the busier
the machine is, is added."""
HEARTBEAT_S, LATE_S = 2.0, 3.0
"""The meter's heartbeat, and by how much a busy machine may be late with one."""


class Moment(NamedTuple):
    """When to kill: after so many marks of progress in this life of the controller, and so many
    lines of its ledger after them.
    """

    marks: int
    lines: int


class Marks:
    """Marks of progress since this was made: phases begun, checkpoints saved, steps reported."""

    def __init__(self, run: Run) -> None:
        self._run, self._before, self._new = run, set(_marks(run)), set[Any]()

    def count(self) -> int:
        self._new |= set(_marks(self._run)) - self._before
        return len(self._new)


def _marks(run: Run) -> Iterator[Any]:
    yield from re.findall(rb'"phase": "\w+"', _content(run.ledger))
    yield from run.folder.rglob("step-*")
    for path in run.trials.glob("*/metrics.jsonl"):
        yield from re.findall(rb'^{"job": [^,]*, "step": \d+', _content(path), re.MULTILINE)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def wait_for(program: Any, run: Run, moment: Moment) -> bool:
    """Wait for that moment of the program's life; False when it ended before."""

    def lines() -> int:
        return _content(run.ledger).count(b"\n")

    marks, begun = Marks(run), lines()
    alive = program.wait_until(lambda: lines() > begun) and program.wait_until(
        lambda: marks.count() >= moment.marks
    )
    reached = lines()
    return alive and program.wait_until(lambda: lines() >= reached + moment.lines)


@dataclass(frozen=True)
class Killed:
    """What was there after one kill."""

    at: datetime
    left_nothing: bool
    """Whether no process of the search lived on that could train."""
    begun: int
    """Charges when the controller that was killed had been started."""
    found: Any
    """A Snapshot."""

    def charges(self) -> list[dict[str, Any]]:
        """Return the charges of the controller that was killed."""
        return list(self.found.charges[self.begun :])


@dataclass(frozen=True)
class Story:
    run: Run
    kills: list[Killed]
    final: Any
    out: str

    def steps(self) -> Iterator[tuple[Any, Any]]:
        """Return (records after a kill, records after the next one or at the end)."""
        return pairwise([*(kill.found for kill in self.kills), self.final])


@pytest.fixture(scope="module")
def story(new_place: Callable[[], Any]) -> Story:
    place, chance = new_place(), random.Random(SEED)
    run, program = place.search(BUDGET)
    kills: list[Killed] = []
    while len(kills) < KILLS:
        begun = len(list(Ledger(run.ledger).entries()))
        moment = Moment(chance.randrange(5), chance.randrange(4))
        if wait_for(program, run, moment):
            at = datetime.now(UTC)
            program.kill()
            kills.append(Killed(at, place.wait_for_workers(), begun, place.snapshot(run)))
            program = place.start("resume", run.name)
        else:
            check_budget_is_spent(program.wait())
            program = place.start("resume", run.name, "--budget", MORE)
    ended = program.wait()
    while ended.too_small or "The budget did not last for all" in ended.out:
        ended = place.start("resume", run.name, "--budget", MORE).wait()
    assert (ended.code, ended.err) == (0, "")
    return Story(run, kills, place.snapshot(run), ended.out)


def check_budget_is_spent(ended: Any) -> None:
    """Check that it ended because starting again and again has used its budget, or because it was
    done.
    """
    assert ended.code == 0 or ended.too_small, ended.err


def ended_jobs(snapshot: Any) -> dict[str, Any]:
    return {key: record for key, record in snapshot.jobs.items() if record["state"] != "cut"}


def test_kills_strike_in_most_phases(story: Story) -> None:
    struck = Counter(
        next(
            (each["phase"] for each in reversed(kill.found.charges) if each["phase"] != OVERHEAD),
            OVERHEAD,
        )
        for kill in story.kills
    )
    print(f"kills by the phase that was charged last: {dict(struck)}")
    assert sum(struck.values()) == KILLS
    assert len(struck.keys() & {"measure", "screen", "proxy", "confirm", "full"}) >= 3, struck


def test_nothing_of_a_killed_search_trains_on(story: Story) -> None:
    assert all(kill.left_nothing for kill in story.kills)


def test_trials_keep_their_heads_and_what_was_decided(story: Story) -> None:
    for before, after in story.steps():
        assert before.trials.keys() <= after.trials.keys()
        assert all(
            after.trials[number].params == trial.params for number, trial in before.trials.items()
        )
        kept = after.decided()
        assert {number: kept[number] for number in before.decided()} == before.decided()
    held = [trial.user_attrs for trial in story.final.trials.values()]
    # an extension gives a head that was pruned another trial
    names = [each["name"] for each in held if "retry_of" not in each]
    assert len(names) == len(set(names))
    assert all(
        story.final.trials[each["retry_of"]].user_attrs["head"] == each["head"]
        for each in held
        if "retry_of" in each
    )


def test_ended_jobs_keep_their_outcomes_and_never_run_again(story: Story) -> None:
    for before, after in story.steps():
        ended = ended_jobs(before)
        assert {key: after.jobs[key] for key in ended} == ended
        later = {
            charge["attempt"].rpartition("#")[0] for charge in after.charges[len(before.charges) :]
        }
        assert not later & ended.keys()


def test_the_ledger_lags_a_heartbeat_behind_the_kill_at_the_most(story: Story) -> None:
    for before, after in story.steps():
        assert after.charges[: len(before.charges)] == before.charges
    for kill in story.kills:
        first, *later = kill.charges()  # the first is for what came before the ledger was opened
        used_s = (kill.at - datetime.fromisoformat(first["at"])).total_seconds()
        assert -LATE_S < used_s - sum(charge["device_s"] for charge in later) < HEARTBEAT_S + LATE_S
    assert Ledger(story.run.ledger).damaged <= KILLS


def test_the_search_ends_within_its_budget_with_everything_decided(story: Story) -> None:
    assert story.final.spent() <= parse_budget(story.run.config()["budget"]).seconds
    assert story.final.attributes["verdict"]["sentence"] in " ".join(story.out.split())
    assert load_head(story.run.winner / "head.yaml")
    assert Path(story.run.winner / "base.safetensors").exists()
