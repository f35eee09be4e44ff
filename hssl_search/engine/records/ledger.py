"""The ledger: every device-second a run has cost, in a file that survives a killed controller."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TypedDict

Clock = Callable[[], float]
"""Seconds that only ever grow, e.g. `time.monotonic`."""


@dataclass(frozen=True)
class Charge:
    """Device-seconds of one attempt since it was last charged."""

    attempt: str
    """Job key and number of the attempt, `proxy/0007/seed0#2`."""
    phase: str
    device_s: float
    trial: int | None = None
    begin: float | None = None
    """When the charged time began, on the ledger's clock; None: now."""


Entry = TypedDict(
    "Entry",
    {
        "at": str,
        "attempt": str,
        "phase": str,
        "device_s": float,
        "from": float,
        "to": float,
        "trial": int | None,
    },
)
"""A charge as a line of the ledger holds it; `from` and `to` are seconds since the run began."""


class Ledger:
    """Append-only lines of JSON, one a charge, each with a crc32 of its content.

    A line that is damaged or half-written is counted in `damaged` and never read as a charge; the
    lines after it are. Opening writes nothing, so anyone may read a live ledger; only the holder of
    the run's lock may charge.
    """

    def __init__(self, path: Path, clock: Clock = time.monotonic) -> None:
        self.path = path
        self.damaged = 0
        self._clock = clock
        self._file: FileIO | None = None
        self._by_phase: defaultdict[str, float] = defaultdict(float)
        self._by_attempt: defaultdict[str, float] = defaultdict(float)
        self._by_trial: defaultdict[int, float] = defaultdict(float)
        self._attempts: dict[str, int] = {}
        self._total = 0.0
        end = 0.0
        for entry in self.entries():
            self._count(entry)
            end = max(end, entry["to"])
        # The time between two controllers, in which nothing ran, is left out.
        self._zero = clock() - end

    def entries(self) -> Iterator[Entry]:
        """Yield the valid lines of the file in order; count the others in `damaged`."""
        self.damaged = 0
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            if (entry := _read(line)) is not None:
                yield entry
            elif line.strip():
                self.damaged += 1

    def total(self) -> float:
        """Return the device-seconds charged so far."""
        return self._total

    def by_phase(self) -> dict[str, float]:
        """Return the device-seconds of each phase."""
        return dict(self._by_phase)

    def by_attempt(self) -> dict[str, float]:
        """Return the device-seconds of each attempt at a job."""
        return dict(self._by_attempt)

    def by_trial(self) -> dict[int, float]:
        """Return the device-seconds of each of the study's trials, crashed attempts included."""
        return dict(self._by_trial)

    def of_trial(self, number: int) -> float:
        """Return the device-seconds of one trial."""
        return self._by_trial.get(number, 0.0)

    def attempts(self, key: str) -> int:
        """Return the highest number of an attempt at the job; 0 when it has not run."""
        return self._attempts.get(key, 0)

    def now(self) -> float:
        """Return the seconds since the run began; a later controller continues at its end."""
        return self._clock() - self._zero

    def charge(self, attempt: str, phase: str, device_s: float, trial: int | None = None) -> None:
        """Append one charge; on the disk when this returns."""
        self.append([Charge(attempt, phase, device_s, trial)])

    def append(self, charges: Iterable[Charge], durable: bool = True) -> None:
        """Append charges.

        Args:
            durable: whether they are on the disk when this returns, with one fsync for all. Else a
                killed process loses nothing either, but a power cut may take what was appended
                since the last that was durable.

        Raises:
            ValueError: where one is negative or not finite; then none is written.
        """
        entries = [self._entry(charge) for charge in charges]
        if not entries:
            return
        try:
            lines = (json.dumps({**entry, "crc": _crc(entry)}) + "\n" for entry in entries)
            self._write("".join(lines).encode(), durable)
        except OSError:
            self.close()  # opened anew, a line that is left torn is ended first
            raise
        # Only what is written counts: the meter charges again what a full disk refused.
        for entry in entries:
            self._count(entry)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _entry(self, charge: Charge) -> Entry:
        if not (math.isfinite(charge.device_s) and charge.device_s >= 0):
            raise ValueError(f"cannot charge {charge.device_s} device-seconds to {charge.attempt}")
        now = self.now()
        begin = now if charge.begin is None else charge.begin - self._zero
        return {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "attempt": charge.attempt,
            "phase": charge.phase,
            "device_s": round(charge.device_s, 6),
            "from": round(begin, 3),
            "to": round(now, 3),
            "trial": charge.trial,
        }

    def _count(self, entry: Entry) -> None:
        key, _, number = entry["attempt"].rpartition("#")
        self._attempts[key] = max(self.attempts(key), int(number) if number.isdigit() else 0)
        self._total += entry["device_s"]
        self._by_phase[entry["phase"]] += entry["device_s"]
        self._by_attempt[entry["attempt"]] += entry["device_s"]
        if entry["trial"] is not None:
            self._by_trial[entry["trial"]] += entry["device_s"]

    def _write(self, lines: bytes, durable: bool) -> None:
        file, left = self._opened(), memoryview(lines)
        before = os.fstat(file.fileno()).st_size
        try:
            while left:
                left = left[file.write(left) :]  # without a buffer a write may be a part
            if durable:
                os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)  # what was not counted would be charged again
            raise

    def _opened(self) -> FileIO:
        if self._file is None:
            # Without a buffer: that would be written again when a full disk has space.
            self._file = self.path.open("ab", buffering=0)
            # Behind a half line of a killed process the next charge would be lost with it.
            if _ends_torn(self.path):
                self._file.write(b"\n")
        return self._file


def _crc(entry: Mapping[str, object]) -> str:
    return f"{zlib.crc32(json.dumps(entry, sort_keys=True).encode()):08x}"


def _read(line: bytes) -> Entry | None:
    """Return the charge in a line; None when the line is not whole."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(entry, dict) and entry.pop("crc", None) == _crc(entry)
    return entry if whole else None


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
