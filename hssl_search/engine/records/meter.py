"""The meter: charges the time in which jobs hold devices, and says when the budget is spent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.jobs import Job
from hssl_search.engine.records.ledger import Charge, Clock, Ledger

CONTROLLER = "controller"
OVERHEAD = "overhead"
"""The phase that a CPU budget charges time to in which the controller itself works or waits."""


@dataclass
class _Open:
    """An attempt that still runs, or the controller."""

    attempt: str
    phase: str
    trial: int | None
    begin: float
    """Clock time from which on `unwritten` counts."""
    unwritten: float = 0.0


class DeviceMeter:
    """Charges a ledger while jobs run; implements `hssl_search.engine.execution.jobs.Meter`.

    On a GPU budget each job is charged its GPUs x wall-clock. On a CPU budget each job is charged
    its share of the machine's cores x wall-clock (all shares together at most 1) and the rest goes
    to the controller, so that the ledger's total is wall-clock from the construction of the meter
    to `close`.

    Charges are written when an attempt ends, and every `heartbeat_s` onto the disk, within
    `beating` also while nobody ticks: a killed controller, and a power cut, lose at most one
    heartbeat. Time is the monotonic clock's, so that setting the system's clock changes nothing.

    Args:
        tell: told of the device-seconds spent, and of those of the budget, at every tick.
        reserve_s: device-seconds kept back for what comes after the jobs; `exhausted` and
            `remaining` count without them.
    """

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        total_cpus: float,
        total_gpus: float,
        reserve_s: float = 0.0,
        clock: Clock = time.monotonic,
        heartbeat_s: float = 2.0,
        tell: Callable[[float, float], None] = lambda spent_s, budget_s: None,
    ) -> None:
        self.ledger = ledger
        self.budget = budget
        self.reserve_s = reserve_s
        self._tell = tell
        self._total_cpus = total_cpus
        self._total_gpus = total_gpus
        self.clock = clock
        self._heartbeat_s = heartbeat_s
        self._last_tick = self._last_write = clock()
        self._open: dict[str, _Open] = {}
        self._live: list[Job] = []
        """Those of the last tick."""
        self._skips = False
        """Whether nothing is charged at present."""
        self._lock = threading.RLock()
        # From here on: what a controller does before its first tick is its own time.
        self._controller = self._start(CONTROLLER, OVERHEAD, None, self._last_tick)

    def tick(self, live: list[Job]) -> None:
        """Charge the time since the last tick to these jobs; the others have ended their
        attempts."""
        with self._lock:
            self._live, self._skips = list(live), False
            self._charge()
        self._tell(self.spent(), self.budget.seconds)

    def skip(self) -> None:
        """Charge nothing for the time since the last tick or heartbeat, nor until the next tick."""
        with self._lock:
            self._live, self._skips = [], True
            self._charge()
        self._tell(self.spent(), self.budget.seconds)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Charge and write every heartbeat within, whatever else this process is busy with."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(self._heartbeat_s):
            # What could not be written stays to be written: the next tick raises.
            with suppress(OSError), self._lock:
                self._charge()

    def _charge(self) -> None:
        now, live = self.clock(), self._live
        elapsed, self._last_tick = now - self._last_tick, now
        shares = self._shares(live)
        for job in live:
            if job.key not in self._open:  # it began since the last tick, or is a further attempt
                self._open[job.key] = self._start(job.key, job.phase, job.trial, now - elapsed)
            self._open[job.key].unwritten += elapsed * shares[job.key]
        if self.budget.device == "cpu" and not self._skips:
            self._controller.unwritten += elapsed * max(0.0, 1.0 - sum(shares.values()))
        ended = [self._open[key] for key in self._open.keys() - shares.keys()]
        if now - self._last_write >= self._heartbeat_s:
            self._write([*self._open.values(), self._controller], now)
            self._last_write = now
        elif ended:
            # Without an fsync: the next heartbeat brings it onto the disk.
            self._write(ended, now, durable=False)
        self._open = {key: opened for key, opened in self._open.items() if key in shares}

    def spent(self) -> float:
        """Return the device-seconds of the whole run, those not yet in the ledger included."""
        with self._lock:
            return self.ledger.total() + sum(
                opened.unwritten for opened in (*self._open.values(), self._controller)
            )

    def remaining(self) -> float:
        """Return the device-seconds left, without the reserve; never below zero."""
        return max(0.0, self.budget.seconds - self.reserve_s - self.spent())

    def exhausted(self) -> bool:
        """Return whether nothing may run any longer."""
        return self.remaining() == 0.0

    def close(self) -> None:
        """Charge what is open and close the ledger.

        A meter that is not closed has charged all but its last heartbeat.
        """
        self.tick([])  # ends every attempt; the controller's own time ends only here
        with self._lock:
            self._write([self._controller], self.clock())
            self.ledger.close()

    def _shares(self, live: list[Job]) -> dict[str, float]:
        """Return the devices that each job holds, scaled down where that is more than there are."""
        if self.budget.device == "gpu":
            held, most = {job.key: job.gpus for job in live}, self._total_gpus
        else:
            held, most = {job.key: job.cpus / self._total_cpus for job in live}, 1.0
        # Jobs may ask for more than there is, and cost what there is.
        excess = max(1.0, sum(held.values()) / most) if most else 1.0
        return {key: share / excess for key, share in held.items()}

    def _start(self, key: str, phase: str, trial: int | None, begin: float) -> _Open:
        # Counted on from the ledger, where attempts of earlier controllers stand.
        return _Open(f"{key}#{self.ledger.attempts(key) + 1}", phase, trial, begin)

    def _write(self, attempts: list[_Open], now: float, durable: bool = True) -> None:
        charges = [
            Charge(each.attempt, each.phase, each.unwritten, each.trial, each.begin)
            for each in attempts
            if each.unwritten > 0
        ]
        self.ledger.append(charges, durable)
        for each in attempts:
            each.unwritten, each.begin = 0.0, now
