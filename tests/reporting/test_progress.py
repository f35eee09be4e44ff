from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from rich.console import Console

from hssl_search.reporting.progress import MOST_RUNNING, Progress, log_shown

LONG = (
    "transformer depth 3 heads 4 width 2 kernel 3 no-first-shortcut and a few words more than fit"
)


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


Display = Callable[[bool], tuple[Progress, io.StringIO, Clock]]


@pytest.fixture
def display() -> Iterator[Display]:
    """Makes a progress display, what it writes, and its clock."""
    with ExitStack() as shown:

        def make(terminal: bool) -> tuple[Progress, io.StringIO, Clock]:
            out, clock = io.StringIO(), Clock()
            console = Console(file=out, force_terminal=terminal, width=80)
            shown.enter_context(log_shown(console))
            return Progress(console, now=clock), out, clock

        yield make


def shown(progress: Progress) -> list[str]:
    """What the live display shows, without colours."""
    out = io.StringIO()
    Console(file=out, width=80).print(progress.render())
    return out.getvalue().splitlines()


def play(progress: Progress, clock: Clock) -> None:
    progress.phase_started("screen", 1, 0.2)
    progress.job_started("screen/0")
    progress.device_time(30, 720)
    clock.time += 60
    progress.device_time(150, 720)
    progress.job_ended("screen/0", "done")
    progress.phase_started("proxy", 12, 0.45)
    progress.job_started(LONG)
    progress.report(LONG, 80, 160, 39.94)
    progress.note("3 images could not be read")


def test_elsewhere_than_in_a_terminal_each_event_is_one_plain_line(display: Display) -> None:
    progress, out, clock = display(False)
    with progress:
        play(progress, clock)
        progress.job_ended(LONG, "failed")
    assert out.getvalue().splitlines() == [
        "screen: started, 1 job, 20 % of the budget",
        "screen 1/1: screen/0 done",
        "screen: 1 job ended in 1:00, 2 min 30 s of 12 min 00 s device-time used",
        "proxy: started, 12 jobs, 45 % of the budget",
        "3 images could not be read",
        f"proxy 1/12: {LONG} failed, 39.9 %",
        "proxy: 1 job ended, 1 failed in 0:00, 2 min 30 s of 12 min 00 s device-time used",
    ]
    assert not re.search(r"[^\n\x20-\uffff]", out.getvalue())


def test_live_display_shows_phase_jobs_best_control_and_device_time(display: Display) -> None:
    progress, _, clock = display(True)
    play(progress, clock)
    progress.best("convnext depth 3", 41.24)
    progress.control(40.1)
    lines = shown(progress)
    assert re.search(r"^phase .* proxy  0 of 12 done, 1 running *$", lines[0])
    assert re.search(r"^budget .* 2 min 30 s used, 9 min 30 s left, ends in 4:45 *$", lines[1])
    assert re.search(r"^best +convnext depth 3 .* \+1\.1 +41\.2 %$", lines[2])
    assert re.search(r"^no head +40\.1 %$", lines[3])
    assert re.search(r"^now +transformer .*… +step 80/160 +39\.9 %$", lines[4])
    assert max(map(len, lines)) <= 80


def test_live_display_counts_the_jobs_that_do_not_fit(display: Display) -> None:
    progress, _, _ = display(True)
    progress.phase_started("proxy", None, None)
    for index in range(MOST_RUNNING + 3):
        progress.job_started(f"job {index}")
    lines = shown(progress)
    assert lines[-1].strip() == "and 3 more"
    assert f"proxy  0 done, {MOST_RUNNING + 3} running" in lines[0]


def test_in_a_terminal_notes_failures_and_ended_phases_stay_and_the_display_goes(
    display: Display,
) -> None:
    progress, out, clock = display(True)
    with progress:
        play(progress, clock)
        progress.job_ended(LONG, "failed")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "3 images could not be read" in text
    assert "screen: 1 job ended in 1:00" in text
    assert "screen/0 done" not in text
    assert "\x1b[?25h" in out.getvalue()  # the cursor is given back


COMMAND = "hssl-search dashboard runs/a-name-that-is-as-long-as-they-are-where-people-name-them"


@pytest.mark.parametrize("level", ["info", "warning"])
def test_a_command_in_a_line_is_never_broken(display: Display, level: str) -> None:
    _, out, _ = display(True)
    getattr(logging.getLogger("hssl_search.api"), level)("Run folder: a; with: %s", COMMAND)
    [line] = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).splitlines()
    assert line.endswith(f"Run folder: a; with: {COMMAND}")


def test_above_the_display_a_long_line_is_broken_at_words_and_a_note_is_not(
    display: Display,
) -> None:
    progress, out, _ = display(True)
    with progress:
        progress.note(f"{LONG} {COMMAND}")
        logging.getLogger("hssl_search.session").warning("with: %s", COMMAND)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).splitlines()
    assert any(line.endswith(f"Note: with: {COMMAND}") for line in lines)
    assert not any(LONG in line for line in lines)


def test_display_ends_when_the_search_raises(display: Display) -> None:
    progress, out, _ = display(True)
    with pytest.raises(KeyboardInterrupt), progress:
        progress.phase_started("proxy", 3, None)
        raise KeyboardInterrupt
    assert "\x1b[?25h" in out.getvalue()
    assert "proxy: 0 jobs ended" in out.getvalue()


def test_time_left_follows_the_pace_since_this_controller_began(display: Display) -> None:
    progress, _, clock = display(True)
    assert progress.seconds_left() is None
    progress.device_time(600, 720)
    assert progress.seconds_left() is None
    clock.time += 10
    progress.device_time(620, 720)
    assert progress.seconds_left() == pytest.approx(50.0)


def test_runs_without_labels_have_no_accuracies(display: Display) -> None:
    progress, _, _ = display(True)
    progress.phase_started("proxy", 3, None)
    progress.best("mlp depth 2", None)
    progress.job_started("mlp depth 3")
    progress.report("mlp depth 3", 40, 160, None)
    assert "%" not in "".join(shown(progress))


def test_names_are_not_read_as_console_markup(display: Display) -> None:
    progress, out, _ = display(False)
    progress.phase_started("proxy", 1, None)
    progress.job_started("[red]x[/red]")
    progress.job_ended("[red]x[/red]", "done")
    assert "[red]x[/red] done" in out.getvalue()


def test_progress_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'pandas', 'plotly', 'optuna', 'timm'}"
    code = f"import sys, hssl_search.reporting.progress; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
