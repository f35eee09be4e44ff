"""Whole searches on real images, started as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from optuna.trial import FrozenTrial

import hssl_search
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord

RECIPE = """\
description: Small steps, for tests.
method:
  {name: simclr, temperature: 0.2, projector_layers: 2, projector_hidden: 64, projector_out: 32}
views: {scale: [0.3, 1.0]}
proxy: {batch_size: 32, lr: 3.0e-3, precision: fp32}
full: {epochs: 2, batch_size: 32, lr: 3.0e-3, precision: fp32}
"""
SPACE = """\
description: Four small heads, for tests.
parameters:
  family: {choice: [convnext, mlp]}
  depth: 1
  width_ratio: 0.5
  kernel_size: {value: 3, families: [convnext]}
  mlp_ratio: {choice: [1.0, 2.0]}
  first_shortcut: false
"""
POLICY = """\
policy:
  screen_steps: {fewest: 60, wanted: 60, most: 60}
  proxy_steps: {fewest: 60, wanted: 60, most: 60}
  most_confirm_jobs: 6
"""
"""As many steps on every machine."""
BASE = ["--base", "test_resnet", "--base-arg", "output_stride=8", "--image-size", "32"]
ASKED = [*BASE, "--trainer", "recipe.yaml", "--space", "space.yaml"]
BUDGETS = tuple(f"{600 * 2**doubling}cpu-s" for doubling in range(4))
"""The policy lets no search do more than about 100 seconds of work on two idle cores. Where other
programs make even the first budget too small, a search is begun anew with twice as much: no test
depends on how fast the machine is."""
LONGEST_S = 1800


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def too_small(self) -> bool:
        """Tell whether it says that its budget is too small."""
        return self.code == 2 and "budget" in self.err

    def did_all(self, found: Snapshot) -> bool:
        """Tell whether the search did all that it had planned, within its budget."""
        assert self.code == 0 or self.too_small, self.err
        return (
            self.code == 0
            and bool(found.attributes["plan"].get("done"))
            and "The budget did not last for all" not in self.out
        )


class Program:
    """The program while it runs, in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, mark: str, argv: tuple[str, ...]) -> None:
        package = str(Path(hssl_search.__file__).parents[1])
        environment = {
            **os.environ,
            "PYTHONPATH": package,
            "HSSL_SEARCH_CACHE": str(folder / "cache"),
            mark: "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hssl_search", *argv],
            cwd=folder,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait(self) -> Ended:
        out, err = self._process.communicate(timeout=LONGEST_S)
        return Ended(self._process.returncode, out, err)

    def wait_for_phase(self, run: Run, phase: str) -> bool:
        """Wait until time of that phase is charged to the run; False when the program has ended
        before.
        """
        written = f'"phase": "{phase}"'.encode()
        return self.wait_until(lambda: written in _read(run.ledger))

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Wait until that is true; False when the program has ended before."""
        while not happened():
            if self._process.poll() is not None:
                return False
            time.sleep(0.05)
        return True

    def interrupt(self) -> None:
        """Send the Ctrl-C of a terminal: every process of the group gets it."""
        os.killpg(self._process.pid, signal.SIGINT)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal as `timeout` and a terminal that closes do: to the program, and to its
        group once more.
        """
        self._process.send_signal(number)
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Send `kill -9` to the controller alone."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Snapshot:
    """What a run's records hold at one moment."""

    trials: dict[int, FrozenTrial]
    attributes: dict[str, Any]
    jobs: dict[str, Any]
    charges: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Run) -> Snapshot:
        with StudyRecord.open(run.storage_url, run.config()["name"]) as study:
            trials = {trial.number: trial for trial in study.study.get_trials()}
            return cls(
                trials,
                study.study_attributes(),
                study.job_records(),
                list(Ledger(run.ledger).entries()),
            )

    def named(self, name: str) -> FrozenTrial:
        [found] = [trial for trial in self.trials.values() if trial.user_attrs.get("name") == name]
        return found

    def decided(self) -> dict[int, tuple[Any, ...]]:
        """Return every decided trial with all that was decided about it."""
        return {
            number: (
                trial.state,
                trial.value,
                trial.params,
                trial.user_attrs,
                trial.intermediate_values,
            )
            for number, trial in self.trials.items()
            if trial.state.is_finished()
        }

    def spent(self) -> float:
        """Return the device-seconds that were charged."""
        return sum(charge["device_s"] for charge in self.charges)


class Place:
    """A folder to run the program in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = f"HSSL_TEST_{uuid4().hex}"
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "space.yaml").write_text(SPACE)
        (folder / "hssl-search.yaml").write_text(POLICY)

    def start(self, *argv: str) -> Program:
        return Program(self.folder, self._mark, argv)

    def search(self, budget: str) -> tuple[Run, Program]:
        """Start a search; its run is named after the budget."""
        return Run(self.folder / "runs" / budget), self.start(
            *ASKED, "--budget", budget, "--name", budget
        )

    def snapshot(self, run: Run) -> Snapshot:
        return Snapshot.of(run)

    def processes(self) -> list[int]:
        """Return the processes that were started from here, however indirectly, and live."""
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/environ")
            if self._mark.encode() in _read(path)
        ]

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal as systemd and Slurm do: to every process, whatever its group."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait_for_workers(self) -> bool:
        """Wait until no process is left that could train, for a minute at most; Ray's agents look
        for its server about as long.
        """
        until = time.monotonic() + 60.0
        while (left := self._workers()) and time.monotonic() < until:
            time.sleep(0.1)
        return not left

    def _workers(self) -> list[int]:
        return [
            pid for pid in self.processes() if b"Agent" not in _read(Path(f"/proc/{pid}/cmdline"))
        ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it is not there yet, or not any more, or is not ours
        return b""


@pytest.fixture(scope="session")
def new_place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    return lambda: Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def budgets() -> tuple[str, ...]:
    """Return budgets to be tried one after another, from the smallest."""
    return BUDGETS
