"""The progress of a running search: its lines go to the log, and a terminal has a live display too.

It is told what happens by simple calls, and knows nothing of how jobs are run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hssl_search.reporting.formats import clock, duration, known, number, plural, signed
from hssl_search.reporting.text import plan_sentence, promotion_sentence

if TYPE_CHECKING:
    from hssl_search.engine.candidates.promotion import Promotions
    from hssl_search.engine.planning.plan import Plan

log = logging.getLogger(__name__)

LABEL = 7
BAR = 18
MOST_RUNNING = 6
"""Rows of running jobs that are shown; the others are counted."""
GOOD_ENDS = ("done", "stopped")


@dataclass
class _Running:
    name: str
    step: int = 0
    total_steps: int = 0
    accuracy: float | None = None


@dataclass
class _Phase:
    name: str
    total: int | None
    share: float | None
    began: float
    done: int = 0
    failed: int = 0
    running: dict[str, _Running] = field(default_factory=dict)


class Progress:
    """Shows phase, jobs, the best head beside the control without one, device-time used and left,
    and when the search ends.

    It logs a line for each phase, ended job and note. With a live display, those that the display
    shows anyway are for debugging. Use it as a context manager; calls outside of it are allowed and
    show nothing live.

    Args:
        console: where the live display is shown, if it is a terminal; None: nowhere.
    """

    def __init__(
        self, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._began = now()
        self._phase: _Phase | None = None
        self._best: tuple[str, float | None] | None = None
        self._control: float | None = None
        self._used = 0.0
        self._budget: float | None = None
        self._first_charge: tuple[float, float] | None = None
        self._live: Live | None = None
        if console is not None and console.is_terminal:
            self._live = Live(
                get_renderable=self.render, console=console, refresh_per_second=4, transient=True
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.phase_ended()
        if self._live:
            self._live.stop()

    def phase_started(
        self, name: str, jobs_total: int | None = None, budget_share: float | None = None
    ) -> None:
        """Begin a phase, and end the one before.

        Args:
            jobs_total: None where it is not known.
            budget_share: of the whole budget, 0 to 1.
        """
        self.phase_ended()
        self._phase = _Phase(name, jobs_total, budget_share, self._now())
        jobs = f", {plural(jobs_total, 'job')}" if jobs_total is not None else ""
        self._say(f"{name}: started{jobs}{_share(budget_share)}", live=False)

    def phase_ended(self) -> None:
        """Keep a line about the phase; without one, nothing."""
        phase, self._phase = self._phase, None
        if phase is None:
            return
        failed = f", {phase.failed} failed" if phase.failed else ""
        spent = f", {self._device_time()}" if self._budget else ""
        elapsed = clock(self._now() - phase.began)
        jobs = plural(phase.done, "job")
        self._say(f"{phase.name}: {jobs} ended{failed} in {elapsed}{spent}", "green")

    def job_started(self, name: str) -> None:
        if self._phase:
            # A new dict: the display reads it from another thread while it is drawn.
            self._phase.running = {**self._phase.running, name: _Running(name)}

    def report(self, name: str, step: int, total_steps: int, accuracy: float | None = None) -> None:
        """Note that a job came to a rung; `accuracy` in per cent, None where it is not known."""
        if self._phase and name in self._phase.running:
            # A new dict, as in `job_started`.
            self._phase.running = {
                **self._phase.running,
                name: _Running(name, step, total_steps, accuracy),
            }

    def job_ended(self, name: str, state: str) -> None:
        """End a job; `state` is that of `jobs.State`: done, stopped, failed or cut."""
        if self._phase is None:
            return
        last = self._phase.running.get(name)
        self._phase.running = {key: job for key, job in self._phase.running.items() if key != name}
        self._phase.done += 1
        self._phase.failed += state == "failed"
        of = f"/{self._phase.total}" if self._phase.total is not None else ""
        accuracy = f", {_accuracy(last.accuracy)}" if last and known(last.accuracy) else ""
        bad = state not in GOOD_ENDS
        line = f"{self._phase.name} {self._phase.done}{of}: {name} {state}{accuracy}"
        self._say(line, "yellow" if bad else "", live=bad)

    def device_time(self, used_s: float, budget_s: float) -> None:
        """Take device-seconds charged so far, and those of the budget."""
        # A search that was resumed begins with what was charged before, which took no time now.
        if self._first_charge is None:
            self._first_charge = (self._now(), used_s)
        self._used, self._budget = used_s, budget_s

    def best(self, name: str, accuracy: float | None) -> None:
        self._best = (name, accuracy)

    def control(self, accuracy: float) -> None:
        """Take the accuracy of the control without a head, in per cent."""
        self._control = accuracy

    def planned(
        self, plan: Plan, occasion: Literal["begun", "screened", "extended", "done"]
    ) -> None:
        self._say(plan_sentence(plan, occasion))

    def promoted(self, promotions: Promotions) -> None:
        self._say(promotion_sentence(promotions))

    def note(self, text: str) -> None:
        self._say(text)

    def seconds_left(self) -> float | None:
        """Return wall-clock seconds until the budget is used at the pace so far, one device at
        least; None before anything was charged."""
        if self._first_charge is None or not self._budget:
            return None
        since, before = self._first_charge
        spent, elapsed = self._used - before, self._now() - since
        left = self._budget - self._used
        # One device at least is at work: never more wall-clock than device-time left.
        return min(left, left * elapsed / spent) if spent > 0 and elapsed > 0 else None

    def _say(self, text: str, style: str = "", live: bool = True) -> None:
        """Log a line.

        Args:
            style: in a terminal.
            live: whether to say it above a live display too.
        """
        # What the live display shows anyway is for debugging.
        level = logging.INFO if live or self._live is None else logging.DEBUG
        above = self._live is not None
        log.log(level, "%s", text, extra={"style": style, "above_display": above})

    def _device_time(self) -> str:
        return f"{duration(self._used)} of {duration(self._budget)} device-time used"

    def render(self) -> RenderableType:
        """Return what the live display shows now; 80 columns are enough."""
        bars = Table.grid(padding=(0, 2))
        bars.add_column(style="dim", no_wrap=True, width=LABEL)
        bars.add_column(no_wrap=True, width=BAR)
        bars.add_column(no_wrap=True, overflow="ellipsis")
        if self._phase:
            bars.add_row("phase", *_phase_cells(self._phase))
        if self._budget:
            bars.add_row("budget", *self._budget_cells(self._budget))
        return Group(bars, self._heads())

    def _budget_cells(self, budget: float) -> tuple[RenderableType, RenderableType]:
        left = self.seconds_left()
        ends = f", ends in {clock(left)}" if left is not None else ""
        rest = duration(max(budget - self._used, 0.0))
        text = Text(f"{duration(self._used)} used, {rest} left{ends}")
        # A bar cannot be more than full.
        used = min(self._used, budget)
        return ProgressBar(total=budget, completed=used, width=BAR, complete_style="cyan"), text

    def _heads(self) -> RenderableType:
        """Return the best head, the control below it, and what runs now, with their accuracies in
        one column."""
        jobs = list(self._phase.running.values()) if self._phase else []
        shown = jobs[:MOST_RUNNING]
        steps = [f"step {job.step}/{job.total_steps}" if job.total_steps else "" for job in shown]
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style="dim", no_wrap=True, width=LABEL)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(
            no_wrap=True, justify="right", style="dim", min_width=max(map(len, steps), default=0)
        )
        table.add_column(no_wrap=True, justify="right", min_width=7)
        if self._best:
            name, accuracy = self._best
            lead = ""
            if accuracy is not None and self._control is not None:
                lead = signed(accuracy - self._control)
            reached = Text(_accuracy(accuracy), style="bold green")
            table.add_row("best", Text(name, style="bold"), lead, reached)
        if self._best or self._control is not None:
            table.add_row("no head", "", "", _accuracy(self._control) or "–")
        for index, (job, step) in enumerate(zip(shown, steps, strict=True)):
            table.add_row("" if index else "now", Text(job.name), step, _accuracy(job.accuracy))
        if len(jobs) > MOST_RUNNING:
            table.add_row("", Text(f"and {len(jobs) - MOST_RUNNING} more", style="dim"), "", "")
        return table


class TerminalHandler(logging.Handler):
    """Prints what the package logs: warnings as notes in yellow, all else as it is.

    Args:
        console: may have a live display, above which lines are printed then.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text, terminal = record.getMessage(), self._console.is_terminal
        style = getattr(record, "style", "") if terminal else ""
        # Above a display lines break at words; elsewhere, and in notes, a command stays whole.
        wrapped = getattr(record, "above_display", False)
        if record.levelno >= logging.WARNING:
            text, style, wrapped = f"Note: {text}", "yellow", False
        # As `Text`, since names may look like markup; in a file a line stays one line.
        self._console.print(Text(text, style=style), highlight=False, soft_wrap=not wrapped)


@contextmanager
def log_shown(console: Console) -> Iterator[None]:
    """Print on the console what the package logs within."""
    logger, handler = logging.getLogger("hssl_search"), TerminalHandler(console)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _phase_cells(phase: _Phase) -> tuple[RenderableType, RenderableType]:
    of = f" of {phase.total}" if phase.total is not None else ""
    failed = f", {phase.failed} failed" if phase.failed else ""
    jobs = f"  {phase.done}{of} done, {len(phase.running)} running{failed}"
    bar = ProgressBar(
        total=phase.total,
        completed=phase.done,
        width=BAR,
        pulse=not phase.total,
        complete_style="blue",
    )
    return bar, Text.assemble((phase.name, "bold"), jobs)


def _accuracy(accuracy: float | None) -> str:
    return f"{number(accuracy)} %" if known(accuracy) else ""


def _share(share: float | None) -> str:
    return f", {100 * share:.0f} % of the budget" if share is not None and share >= 0.005 else ""
