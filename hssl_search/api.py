"""The public API: what the commands do, for Python."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.config import SearchConfig, gather
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.planning.plan import BudgetTooSmall
from hssl_search.engine.records.disk import AGAIN, disk_errors
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.run import RUNS, Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage import StorageError
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.resolve import require_unchanged
from hssl_search.output import standard_streams
from hssl_search.reporting.dashboard import HOST, PORT, dashboard_server
from hssl_search.scratch import Scratch
from hssl_search.session import controller_of, prepared, ray_session, study_of, summary

if TYPE_CHECKING:
    from optuna import Study
    from pandas import DataFrame

    from hssl_search.engine.replay import Replay

MEASURING_S = 3600.0
"""Device-seconds that measuring may take for a plan; the budget that is planned for may be too small even for that."""


def search(*, stop: Event | None = None, **options: Any) -> Run:
    """Search heads for a base: the same as the command `hssl-search`, with its flags as arguments (`base_arg` is a dict).

    Returns the finished run. Raises UserError for a mistake that the user can mend, and KeyboardInterrupt after Ctrl-C, from which
    `resume` goes on.

    Args:
        stop: set by another thread, it stops the search as Ctrl-C does. A search that runs in a thread has no other way: signals
            go to the main thread. It then raises KeyboardInterrupt in its own thread, whose target has to catch it.
    """
    return run_search(gather(options), stop)


@standard_streams()
def run_search(config: SearchConfig, stop: Event | None = None) -> Run:
    """Check everything, make the run folder, and search."""
    started = time.monotonic()
    console = Console(markup=False)
    with prepared(config, console, stop) as (resolved, session):
        run = _create(resolved, console)
        with disk_errors(run.folder), run.lock():
            return _work(run, resolved, session, console, started)


def plan(**options: Any) -> Plain:
    """What a search with these options would do and cost, from real measurements: the same as the command `hssl-search plan`.

    Nothing is left behind but the image cache. Returns plain data (`hssl_search.engine.planning.preview`); a budget that is too
    small for any search has `enough` false and says what would be needed. Raises UserError as `search` does.
    """
    return plan_search(gather(options), Console(markup=False))


def print_plan(config: SearchConfig, as_json: bool = False) -> None:
    """Print what a search would do and cost; as JSON, that alone goes to stdout. Then BudgetTooSmall where the budget buys no search."""
    from hssl_search.reporting.terminal import print_plan as write
    from hssl_search.reporting.terminal import too_small

    page = plan_search(config, Console(stderr=True, markup=False))
    if as_json:
        print(json.dumps(page, indent=2))
    else:
        write(Console(markup=False), page)
    if not page["enough"]:
        raise BudgetTooSmall(too_small(page))


def plan_search(config: SearchConfig, console: Console) -> Plain:
    """Check everything, measure in a folder that is removed, and plan. Notes go to the console."""
    started = time.monotonic()
    with (
        prepared(config, console) as (resolved, session),
        Scratch("plan") as folder,
        disk_errors(folder, AGAIN),
    ):
        budget = parse_budget(resolved["budget"])
        measuring = f"{max(budget.seconds, MEASURING_S):.0f}{budget.device}-s"
        resolved |= {"storage": None, "budget": measuring}
        run = Run.create(folder / resolved["name"], resolved)
        with (
            StudyRecord.open(run.storage_url, resolved["name"], new=True) as study,
            controller_of(run, resolved, session, study, console, started) as controller,
        ):
            return controller.preview(budget)


@standard_streams()
def resume(run: Run | str | Path, budget: str | None = None, stop: Event | None = None) -> Run:
    """Go on with a search that was stopped; one that is finished is only reported again, or with more budget searched further.

    Args:
        budget: device-time to add to the run's budget, such as `+10gpu-h`.
        stop: see `search`.
    """
    started = time.monotonic()
    opened = open_run(run)
    with (
        disk_errors(opened.folder),
        opened.lock(),
        ray_session(opened.config()["ray_address"], stop) as session,
    ):
        resolved = _extended(opened, budget) if budget is not None else opened.config()
        return _work(opened, resolved, session, Console(markup=False), started)


def _extended(run: Run, more: str) -> Plain:
    """What search.yaml holds, with the budget extended there and in the study."""
    resolved = run.config()
    resolved["budget"] = parse_budget(resolved["budget"]).plus(parse_budget(more)).text
    with study_of(run, begins=True) as study:
        require_unchanged(run, resolved, study)
        _same_images(
            resolved
        )  # before anything is written: what is refused must not extend the budget
        run.write_config(resolved)
        study.write(SearchState(config=summary(resolved)))
    return resolved


def replay(run: Run | str | Path, trial: int, seed: int | None = None) -> Replay:
    """Train again what a trial trained alone with the base, from its record, and compare; nothing of the run is changed.

    Args:
        seed: of one of the trial's confirming runs; None: its proxy.

    Raises:
        UserError: for a trial that there is not, or that was never trained alone; for data or a GPU that is not there.
    """
    from hssl_search.engine.replay import replay as again

    opened = open_run(run)
    with study_of(opened) as study:
        return again(opened, study, trial, seed)


def print_replay(run: Run | str | Path, trial: int, seed: int | None = None) -> None:
    """Replay a trial and print how it compares; raise `Differs` where a number is another one."""
    from hssl_search.engine.replay import Differs
    from hssl_search.reporting import terminal
    from hssl_search.reporting.text import replay_sentence

    console = Console(markup=False)
    with console.status(f"Replaying trial {trial}"):
        found = replay(run, trial, seed)
    terminal.print_replay(console, found)
    if not found.equal:
        raise Differs(replay_sentence(found))
    console.print(replay_sentence(found), highlight=False, markup=False, soft_wrap=True)


def leaderboard(run: Run | str | Path) -> DataFrame:
    """Every head that trained alone, the controls and the references, best first; see `hssl_search.reporting.tables`."""
    from hssl_search.reporting.tables import leaderboard as table

    return _frame(run, table)


def trials(run: Run | str | Path) -> DataFrame:
    """Every trial with everything measured of it, as in trials.parquet."""
    from hssl_search.reporting.tables import trials as table

    return _frame(run, table)


def curves(run: Run | str | Path) -> DataFrame:
    """What bases are judged by, by step: a row for each trial, seed and rung."""
    from hssl_search.reporting.tables import curves as table

    return _frame(run, table)


def device_time(run: Run | str | Path) -> DataFrame:
    """Device-seconds of every attempt at a job; see `hssl_search.reporting.tables.device_time`."""
    from hssl_search.reporting.tables import device_time as table

    return table(Ledger(open_run(run).ledger).entries())


def _frame(run: Run | str | Path, table: Callable[[Study], DataFrame]) -> DataFrame:
    opened = open_run(run)
    with study_of(opened) as study:
        return table(study.study)


def open_run(run: Run | str | Path) -> Run:
    """The run itself, or that of this path, or of this name under runs/. UserError when there is none, or when another version wrote it."""
    return Run.find(run.folder if isinstance(run, Run) else run)


def write_report(run: str | Path) -> list[Path]:
    """Write report.html, leaderboard.csv and trials.parquet of a run, finished or not."""
    opened = open_run(run)
    with disk_errors(opened.folder, AGAIN), study_of(opened) as study:
        return _report(opened, study)


def print_status(run: str | Path) -> None:
    """Print where a search stands."""
    opened = open_run(run)
    with study_of(opened) as study:
        _print_verdict(opened, study, Console(markup=False))


def open_dashboard(run: str | Path, host: str = HOST, port: int | None = None) -> None:
    """Serve the Optuna dashboard of a run, with the artifacts of its trials, until Ctrl-C.

    Args:
        port: where to listen; None: the first free one from 8080 on.

    Raises:
        UserError: where the port is taken, or nothing may listen there.
    """
    opened = open_run(run)
    with (
        study_of(opened) as study,
        dashboard_server(study.storage, opened.artifacts, host, port) as server,
    ):
        address = f"[{host}]" if ":" in host else host
        taken = f"Port {PORT} is taken. " if port is None and server.server_port != PORT else ""
        print(
            f"{taken}Listening on http://{address}:{server.server_port}/",
            "Hit Ctrl-C to quit.",
            sep="\n",
            file=sys.stderr,
            flush=True,
        )
        server.serve_forever()


def _create(resolved: Plain, console: Console) -> Run:
    folder = RUNS / resolved["name"]
    with disk_errors(folder, AGAIN):
        run = Run.create(folder, resolved)
    try:
        with StudyRecord.open(run.study_url(resolved), resolved["name"], new=True):
            pass
    except BaseException:
        shutil.rmtree(run.folder)
        with suppress(OSError):  # other runs are in it
            RUNS.rmdir()
        raise
    console.print(
        f"Run folder: {folder}; watch it with: hssl-search dashboard {folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return run


def _work(run: Run, resolved: Plain, session: RaySession, console: Console, started: float) -> Run:
    """Search as far as the budget goes, then export and report; for a search that has ended, only report."""
    try:
        with study_of(run, begins=True) as study:
            require_unchanged(run, resolved, study)
            try:
                if study.state.ended != resolved["budget"]:
                    study.lift_standstill()
                    _search(run, resolved, session, study, console, started)
                    study.write(SearchState(ended=resolved["budget"]))
            finally:
                _report(run, study)
                ended = study.state.ended == resolved["budget"]
                study.announce_standstill(
                    run.how_to_resume(parse_budget(resolved["budget"]).newest if ended else ""),
                )
            _print_verdict(run, study, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; go on with: {run.how_to_resume()}") from None
    except StorageError as error:
        raise error.followed_by(f"continue with: {run.how_to_resume()}") from error
    return run


def _report(run: Run, study: StudyRecord) -> list[Path]:
    from hssl_search.reporting.files import write_report as write

    return write(run.folder, study.study, Ledger(run.ledger).entries())


def _print_verdict(run: Run, study: StudyRecord, console: Console) -> None:
    from hssl_search.reporting.terminal import print_verdict

    print_verdict(console, study.study, Ledger(run.ledger).entries(), run.folder)


def _same_images(resolved: Plain) -> str | None:
    """Return a note when the images have changed and those that the search began with are still there; UserError when they are not."""
    from hssl_search.engine.execution.jobs import Setting
    from hssl_search.engine.images import require_images
    from hssl_search.engine.resolve import require_folders

    setting = Setting.model_validate(resolved["setting"])
    require_folders(setting.data, setting.probe_data)
    return require_images(setting, resolved["images"])


def _search(
    run: Run,
    resolved: Plain,
    session: RaySession,
    study: StudyRecord,
    console: Console,
    started: float,
) -> None:
    if note := _same_images(resolved):
        console.print(
            f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )
    with controller_of(run, resolved, session, study, console, started) as controller:
        controller.search()
        from hssl_search.export.native import export_winner

        export_winner(run, study)
