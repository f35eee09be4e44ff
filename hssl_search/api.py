"""The public API: what the commands do, for Python. It returns data and prints nothing.

What a search has to say on its way goes to the logger `hssl_search`: notes for the user as
warnings, all else as information.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hssl_search.engine.budget import Budget, parse_budget
from hssl_search.engine.config import (
    PromotionRule,
    PrunerName,
    SamplerName,
    SearchConfig,
    gather,
)
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.images import require_images
from hssl_search.engine.planning.preview import Page
from hssl_search.engine.policy import Policy
from hssl_search.engine.records.ledger import Entry, Ledger
from hssl_search.engine.records.run import RUNS, ResolvedSearch, Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage import StorageError
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.resolve import require_unchanged
from hssl_search.errors import REPEATABLE, disk_errors
from hssl_search.output import standard_streams
from hssl_search.scratch import Scratch
from hssl_search.session import controller_of, prepared, ray_session, study_of

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console

    from hssl_search.engine.records.results import RunRecord
    from hssl_search.engine.replay import Replay
    from hssl_search.reporting.dashboard import DashboardServer

log = logging.getLogger(__name__)
RunName = Run | str | Path
"""A run, its folder, or its name under runs/."""

MEASURING_S = 3600.0
"""Device-seconds that measuring may take for a plan: the budget that is planned for may be too
small even for that."""


class Status(NamedTuple):
    """Where a search stands."""

    run: Run
    record: RunRecord
    """What its study holds."""
    charges: list[Entry]
    """Its ledger: device-seconds of every attempt at a job."""


def search(
    *,
    base: str | None = None,
    base_arg: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    data: str | None = None,
    probe_data: str | None = None,
    budget: str | None = None,
    space: str | None = None,
    trainer: str | None = None,
    rank_by: Literal["accuracy", "discrepancy", "labelfree"] | None = None,
    sampler: SamplerName | None = None,
    promote: PromotionRule | None = None,
    pruner: PrunerName | None = None,
    max_head_cost: float | Literal["off"] | None = None,
    warm_start: RunName | Sequence[RunName] | None = None,
    name: str | None = None,
    storage: str | None = None,
    ray_address: str | None = None,
    gpus_per_trial: float | None = None,
    seed: int | None = None,
    full_epochs: int | Literal["off"] | None = None,
    policy: Policy | Mapping[str, Any] | None = None,
    stop: Event | None = None,
) -> Run:
    """Search heads for a base, as the command `hssl-search` does.

    An option that is None is taken from `hssl-search.yaml` in the current folder, where that has
    it, else it has its default.

    Args:
        base: timm model to pretrain, such as `resnet50`. Has no default.
        base_arg: arguments for timm, such as `{"patch_size": 4}`.
        image_size: side of the images in pixels; default: the base's own.
        data: folder of images, with or without class subfolders; default: handwritten digits.
        probe_data: labelled images to judge by: class folders, or train/ and test/ with class
            folders.
        budget: hard cap on device-time, such as `40gpu-h` or `10cpu-min`. Has no default.
        space: search space: a name or a YAML file.
        trainer: training recipe: a name or a YAML file; default: `simclr`.
        rank_by: what ranks heads; default: accuracy where there are labels, else discrepancy.
        sampler: what draws the heads to screen; default: `tpe`.
        promote: which screened heads get a proxy; default: `learned`.
        pruner: which proxies are stopped at a rung; default: `median`.
        max_head_cost: leave out heads with which a training step takes more than this many times
            as long as without a head, while there are others; default: 4.
        warm_start: earlier runs whose results teach promotion from the start.
        name: the run's folder under runs/; default: from base and data.
        storage: URL of the study's database, or `env:NAME`, a variable that holds it; default:
            SQLite in the run's folder.
        ray_address: address of a running Ray cluster; default: this machine.
        gpus_per_trial: GPUs that one training holds, at most 1; default: by measured memory.
        seed: of everything random; default: 0.
        full_epochs: length of the winner's full training, or `off`; default: the recipe's.
        policy: how the budget is divided and how far each phase goes, as far as it is not to be
            the default.
        stop: set by another thread, it stops the search as Ctrl-C does. A search that runs in a
            thread has no other way: signals go to the main thread. It then raises
            KeyboardInterrupt in its own thread, whose target has to catch it.

    Returns:
        The run, which has ended.

    Raises:
        UserError: for a mistake that the user can mend, in one sentence.
        KeyboardInterrupt: after Ctrl-C, from which `resume` continues.
    """
    options = locals()  # the parameters alone, as long as this is the first statement
    del options["stop"]
    return run_search(gather(options), stop)


@standard_streams()
def run_search(
    config: SearchConfig, stop: Event | None = None, console: Console | None = None
) -> Run:
    """Check everything, make the run folder, and search.

    Args:
        stop: see `search`.
        console: where progress is shown live, if it is a terminal; None: nowhere.

    Raises:
        UserError, KeyboardInterrupt: see `search`.
    """
    started = time.monotonic()
    with prepared(config, console, stop) as (search, session):
        run = _create(search)
        with disk_errors(run.folder), run.lock():
            return _work(run, search, session, console, started)


def plan(
    *,
    base: str | None = None,
    base_arg: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    data: str | None = None,
    probe_data: str | None = None,
    budget: str | None = None,
    space: str | None = None,
    trainer: str | None = None,
    rank_by: Literal["accuracy", "discrepancy", "labelfree"] | None = None,
    sampler: SamplerName | None = None,
    promote: PromotionRule | None = None,
    pruner: PrunerName | None = None,
    max_head_cost: float | Literal["off"] | None = None,
    warm_start: RunName | Sequence[RunName] | None = None,
    name: str | None = None,
    storage: str | None = None,
    ray_address: str | None = None,
    gpus_per_trial: float | None = None,
    seed: int | None = None,
    full_epochs: int | Literal["off"] | None = None,
    policy: Policy | Mapping[str, Any] | None = None,
) -> Page:
    """Measure a few real steps, and return what a search with these options would do and cost, as
    the command `hssl-search plan` prints it. Nothing is left behind but the image cache.

    Args: see `search`.

    Returns:
        Plain data (`hssl_search.engine.planning.preview`). Of a budget that is too small for any
        search `enough` is false, and `smallest_s` says what would be needed.

    Raises:
        UserError: for a mistake that the user can mend, in one sentence.
    """
    return plan_search(gather(locals()))


def plan_search(config: SearchConfig, console: Console | None = None) -> Page:
    """Check everything, measure in a folder that is removed, and plan.

    Args:
        console: see `run_search`.
    """
    started = time.monotonic()
    with (
        prepared(config, console) as (search, session),
        Scratch("plan") as folder,
        disk_errors(folder, REPEATABLE),
    ):
        # Measuring has all the time that it needs; the plan is for the budget that was asked for.
        seconds = max(config.budget.seconds, MEASURING_S)
        budget = Budget(seconds, config.budget.device, f"{seconds:.0f}{config.budget.device}-s")
        # In the folder, whichever storage was asked for: nothing is to be left behind.
        search = search.model_copy(update={"storage": None, "budget": budget})
        run = Run.create(folder / search.name, search.as_plain())
        with (
            StudyRecord.open(run.storage_url, search.name, new=True) as study,
            controller_of(run, search, session, study, console, started) as controller,
        ):
            return controller.preview(config.budget)


@standard_streams()
def resume(
    run: Run | str | Path,
    budget: str | None = None,
    stop: Event | None = None,
    console: Console | None = None,
) -> Run:
    """Go on with a search that was stopped. One that has ended is only reported again, or with more
    budget searched further.

    Args:
        run: the run, its folder, or its name under runs/.
        budget: device-time to add to the run's budget, such as `+10gpu-h`.
        stop: see `search`.
        console: see `run_search`.

    Raises:
        UserError, KeyboardInterrupt: see `search`.
    """
    started = time.monotonic()
    opened = open_run(run)
    with (
        disk_errors(opened.folder),
        opened.lock(),
        ray_session(opened.config()["ray_address"], stop) as session,
    ):
        search = opened.resolved() if budget is None else _extended(opened, budget)
        return _work(opened, search, session, console, started)


def _extended(run: Run, more: str) -> ResolvedSearch:
    """Extend the budget in search.yaml and in the study, and return the search with it."""
    search = run.resolved()
    search = search.model_copy(update={"budget": search.budget.plus(parse_budget(more))})
    with study_of(run, begins=True) as study:
        require_unchanged(run, search, study)
        # What is refused must not extend the budget.
        require_images(search.setting, search.images)
        run.update_config(budget=search.budget.text)
        study.write(SearchState(config=search.summary()))
    return search


def replay(run: Run | str | Path, trial: int, seed: int | None = None) -> Replay:
    """Train again what a trial trained alone with the base, from its record, and compare. Nothing
    of the run is changed.

    Args:
        run: see `resume`.
        trial: its number.
        seed: that of one of the trial's confirming runs; None: its proxy.

    Raises:
        UserError: for a trial that there is not, or that was never trained alone; for data or a GPU
            that are not there.
    """
    # Here and below: what loads pandas or torch is imported by whoever needs it, since
    # `import hssl_search` is to take no time.
    from hssl_search.engine.replay import replay as train_again

    opened = open_run(run)
    with study_of(opened) as study:
        return train_again(opened, study, trial, seed)


def status(run: Run | str | Path) -> Status:
    """Return where a search stands, also while it runs; `hssl_search.reporting.terminal` prints it.

    Args:
        run: see `resume`.
    """
    from hssl_search.engine.records.results import RunRecord

    opened = open_run(run)
    with study_of(opened) as study:
        return Status(opened, RunRecord.of(study.study), list(Ledger(opened.ledger).entries()))


def leaderboard(run: Run | str | Path) -> DataFrame:
    """Return every head that trained alone, the controls and the references, best first; see
    `hssl_search.reporting.tables`.

    Args:
        run: see `resume`.
    """
    from hssl_search.reporting import tables

    return tables.leaderboard(status(run).record)


def trials(run: Run | str | Path) -> DataFrame:
    """Return every trial with everything measured of it, as in trials.parquet.

    Args:
        run: see `resume`.
    """
    from hssl_search.reporting import tables

    return tables.trials(status(run).record)


def curves(run: Run | str | Path) -> DataFrame:
    """Return what bases are judged by at each step: a row for each trial, seed and rung.

    Args:
        run: see `resume`.
    """
    from hssl_search.reporting import tables

    return tables.curves(status(run).record)


def device_time(run: Run | str | Path) -> DataFrame:
    """Return the device-seconds of every attempt at a job; see
    `hssl_search.reporting.tables.device_time`.

    Args:
        run: see `resume`.
    """
    from hssl_search.reporting import tables

    return tables.device_time(Ledger(open_run(run).ledger).entries())


def open_run(run: Run | str | Path) -> Run:
    """Return the run itself, or that of this path, or of this name under runs/.

    Raises:
        UserError: where there is none, or another version wrote it.
    """
    return Run.find(run.folder if isinstance(run, Run) else run)


def write_report(run: Run | str | Path) -> list[Path]:
    """Write report.html, leaderboard.csv and trials.parquet of a run, finished or not, and return
    their paths.

    Args:
        run: see `resume`.
    """
    opened = open_run(run)
    with disk_errors(opened.folder, REPEATABLE), study_of(opened) as study:
        return _report(opened, study)


@contextmanager
def dashboard(
    run: Run | str | Path, host: str | None = None, port: int | None = None
) -> Iterator[DashboardServer]:
    """Give a server of the Optuna dashboard of a run, with the artifacts of its trials, which
    listens already; its `serve_forever` answers.

    Args:
        run: see `resume`.
        host: the address to listen at; None: this machine alone.
        port: where to listen; None: the first free one from 8080 on.

    Raises:
        UserError: where the port is taken, or nothing may listen there.
    """
    from hssl_search.reporting.dashboard import HOST, dashboard_server

    opened = open_run(run)
    with (
        study_of(opened) as study,
        dashboard_server(study.storage, opened.artifacts, host or HOST, port) as server,
    ):
        yield server


def _create(search: ResolvedSearch) -> Run:
    """Make the run's folder and its study, both or neither."""
    folder = RUNS / search.name
    with disk_errors(folder, REPEATABLE):
        run = Run.create(folder, search.as_plain())
    try:
        with StudyRecord.open(run.study_url(search.storage), search.name, new=True):
            pass
    except BaseException:
        # Without its study the folder would take the name and be no run.
        shutil.rmtree(run.folder)
        with suppress(OSError):  # other runs are in it
            RUNS.rmdir()
        raise
    log.info("Run folder: %s; watch it with: hssl-search dashboard %s", folder, folder)
    return run


def _work(
    run: Run, search: ResolvedSearch, session: RaySession, console: Console | None, started: float
) -> Run:
    """Search as far as the budget goes, then export and report; report a search that has ended."""
    try:
        with study_of(run, begins=True) as study:
            require_unchanged(run, search, study)
            try:
                # By the budget's text: once it is extended there is more to do.
                if study.state.ended != search.budget.text:
                    study.lift_standstill()
                    if _search(run, search, session, study, console, started):
                        study.write(SearchState(ended=search.budget.text))
            finally:
                # Also after Ctrl-C and errors: what was found until then is worth a report.
                _report(run, study)
                ended = study.state.ended == search.budget.text
                more = search.budget.newest if ended else ""
                study.announce_standstill(run.how_to_resume(more))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; continue with: {run.how_to_resume()}") from None
    except StorageError as error:
        raise error.followed_by(f"continue with: {run.how_to_resume()}") from error
    return run


def _search(
    run: Run,
    search: ResolvedSearch,
    session: RaySession,
    study: StudyRecord,
    console: Console | None,
    started: float,
) -> bool:
    """Run the phases, and export the winner; return whether nothing is left to resume."""
    if note := require_images(search.setting, search.images):
        log.warning(note)
    with controller_of(run, search, session, study, console, started) as controller:
        controller.search()
        # Within, so that a CPU budget pays for the export too.
        from hssl_search.export.native import export_winner

        export_winner(run, study)
        return not controller.backend.late


def _report(run: Run, study: StudyRecord) -> list[Path]:
    from hssl_search.reporting.files import write_report as write

    return write(run.folder, study.study, Ledger(run.ledger).entries())
