"""What a command works with: a configuration that was checked, Ray, the run's study, and a
controller over all of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.execution.ray_tune.executor import RayExecutor
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import CONTROLLER, OVERHEAD, DeviceMeter
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage_url import shown
from hssl_search.engine.records.study import MissingStudy, StudyRecord
from hssl_search.errors import UserError
from hssl_search.interrupts import check as check_interrupts
from hssl_search.interrupts import heeding

if TYPE_CHECKING:
    from rich.console import Console

    from hssl_search.engine.controller import Controller

log = logging.getLogger(__name__)

GPU_RESERVE_S = 2.0
"""GPU-seconds kept for each GPU of a GPU budget: what passes between the end of the budget and the
end of the jobs."""
CPU_RESERVE_S = 15.0
"""Seconds kept of a CPU budget for what comes after the last job: export, report, ending Ray."""


@contextmanager
def prepared(
    config: SearchConfig, console: Console | None, stop: Event | None = None
) -> Iterator[tuple[ResolvedSearch, RaySession]]:
    """Check everything, and give the search as it will be run and a session that is started.

    Args:
        console: where packed images are counted, if it is a terminal.
        stop: see RaySession.
    """
    from hssl_search.engine.resolve import check, resolve

    check(config)  # before Ray and torch, which take seconds to load
    with ray_session(config.ray_address, stop) as session:
        machine = _machine(config, session)
        with _packing(console) as progress:
            search, notes = resolve(config, machine, progress)
        for note in notes:
            log.warning(note)
        # Nothing that a user can mend is left to be found: only now is a Ray of our own started.
        session.start()
        gpus = machine.gpus
        if config.budget.device == "gpu":
            free = _free(session, "GPU")
            config.budget.check_device(free, " by Ray")
            gpus = gpus if session.own else free
        # In a container Ray knows its share of the cores.
        machine = replace(machine, cpus=_free(session, "CPU"), gpus=gpus)
        yield search.model_copy(update={"machine": machine}), session


def _machine(config: SearchConfig, session: RaySession) -> Machine:
    """Return the machine that the search may use. Ray is started only where it runs elsewhere."""
    device, share = config.budget.device, config.gpus_per_trial or 1.0
    if config.ray_address is not None:
        session.start()
        gpus = _free(session, "GPU") if device == "gpu" else int(session.free("GPU"))
        return Machine(device, _free(session, "CPU"), gpus, share)
    import torch

    return Machine(device, os.cpu_count() or 1, torch.cuda.device_count(), share)


def _free(session: RaySession, resource: str) -> int:
    """Return how many whole CPUs or GPUs of Ray nothing else holds.

    Raises:
        UserError: where it has some and none is free, and where it has no CPU.
    """
    # Ray adds up shares of a GPU as floats, so that a whole one may be a hair less.
    free, total = int(session.free(resource) + 1e-6), session.total(resource)
    remedy = "search in another process, without --ray-address, which starts a Ray of its own."
    if free == 0 and total >= 1:
        raise UserError(
            f"none of the {total:g} {resource}s of the Ray that runs here is free: something else "
            f"holds them; end that, or {remedy}"
        )
    if free == 0 and resource == "CPU":
        raise UserError(
            "the Ray that runs here has no CPU, and every training needs one; start it with CPUs, "
            f"or {remedy}"
        )
    return free


@contextmanager
def _packing(console: Console | None) -> Iterator[Callable[[int, int], None]]:
    """Give what is told how many images are packed, of how many: a bar shows it in a terminal."""
    if console is None or not console.is_terminal:
        yield lambda done, total: check_interrupts()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("Packing images"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pack", visible=False)

        def update(done: int, total: int) -> None:
            check_interrupts()
            bar.update(task, completed=done, total=total, visible=True)

        yield update


@contextmanager
def ray_session(address: str | None, stop: Event | None = None) -> Iterator[RaySession]:
    """Give a session that is started by who needs it first: what can be refused is refused before.

    Within, what waits or packs images in this thread is ended when another sets `stop`.
    """
    session = RaySession(address=address, stop=stop)
    try:
        with heeding(session.stop.is_set):
            yield session
    finally:
        session.shutdown()


@contextmanager
def study_of(run: Run, begins: bool = False) -> Iterator[StudyRecord]:
    """Open the study of the run.

    Args:
        begins: make the study where it is missing and nothing has been charged yet, as after a
            crash just when the run was made.

    Raises:
        UserError: where there is no study; nothing is made then.
    """
    written = run.config()
    url, name = run.study_url(written["storage"]), written["name"]
    began = run.ledger.exists()  # a search charges before its first trial
    with ExitStack() as stack:
        try:
            study = stack.enter_context(
                StudyRecord.open(url, name)
                if begins and not began
                else StudyRecord.existing(url, name)
            )
        except MissingStudy as error:
            raise UserError(_missing(run, url, began)) from error
        if study.state.config is None:  # killed between making the study and writing to it
            study.write(SearchState(config=run.resolved().summary()))
        yield study


def _missing(run: Run, url: str, began: bool) -> str:
    if not began:
        return f"the run {run.name!r} has no study yet; begin it with: {run.how_to_resume()}"
    if url == run.storage_url:
        return (
            f"{run.study_db} is missing, and with it all that was found; put it back, or search "
            "under another --name."
        )
    return (
        f"the storage {shown(url)!r} holds no study {run.config()['name']!r}, in which the run "
        f"keeps all that was found; put it back, or correct `storage` in {run.search_yaml}."
    )


@contextmanager
def controller_of(
    run: Run,
    search: ResolvedSearch,
    session: RaySession,
    study: StudyRecord,
    console: Console | None,
    started: float,
) -> Iterator[Controller]:
    """Give a controller with all that it works with, charged for the time since `started` on a CPU
    budget."""
    from hssl_search.reporting.progress import Progress

    with Progress(console) as watcher:
        meter = _meter(run, search, started, watcher.device_time)
        with closing(meter), meter.beating():
            # They load for seconds, for which a CPU budget pays: so the meter beats already.
            from hssl_search.engine.candidates.sampler import CandidateSampler
            from hssl_search.engine.candidates.trials import Trials
            from hssl_search.engine.controller import Controller
            from hssl_search.engine.phases.runner import Backend
            from hssl_search.engine.records.artifacts import Artifacts
            from hssl_search.reporting.text import verdict_sentence

            trials = Trials(
                study,
                run,
                search.space.read(),
                search.map_shapes,
                search.seed,
                meter.ledger.of_trial,
                sampler=CandidateSampler(search.sampler, search.seed, search.policy),
                policy=search.policy,
            )
            if damaged := meter.ledger.damaged:
                log.warning(
                    f"damaged lines in {run.ledger.name}: {damaged}; the device-time that they "
                    "charged is not counted."
                )
            # A study that begins now holds none: what teaches it was told when that was read.
            for prior in study.state.warm_start:
                log.warning(prior.note)
            with RayExecutor(meter, session=session) as executor:
                backend = Backend(
                    run=run,
                    study=study,
                    executor=executor,
                    meter=meter,
                    machine=search.machine,
                    watcher=watcher,
                    ended=study.job_outcomes(),
                    policy=search.policy,
                    attach=Artifacts(run, study).keep,
                )
                yield Controller(backend, search, trials, verdict_sentence)


def _meter(
    run: Run, search: ResolvedSearch, started: float, tell: Callable[[float, float], None]
) -> DeviceMeter:
    """Return the run's meter. On a CPU budget the time since the command started is charged."""
    ledger, machine = Ledger(run.ledger), search.machine
    on_cpu = search.budget.device == "cpu"
    if on_cpu:
        attempt = ledger.attempts(CONTROLLER) + 1
        ledger.charge(f"{CONTROLLER}#{attempt}", OVERHEAD, time.monotonic() - started)
    return DeviceMeter(
        ledger,
        search.budget,
        machine.cpus,
        machine.gpus,
        reserve_s=CPU_RESERVE_S if on_cpu else GPU_RESERVE_S * machine.gpus,
        tell=tell,
    )
