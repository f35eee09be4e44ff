"""What a command works with: a configuration that was checked, Ray, the run's study, and a controller over all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hssl_search.engine.budget import parse_budget
from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.execution.ray_tune.executor import RayExecutor
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import CONTROLLER, OVERHEAD, DeviceMeter
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage_url import shown
from hssl_search.engine.records.study import MissingStudy, StudyRecord
from hssl_search.errors import UserError
from hssl_search.interrupts import check as check_interrupts
from hssl_search.interrupts import heeding

if TYPE_CHECKING:
    from hssl_search.engine.candidates.trials import Trials
    from hssl_search.engine.controller import Controller

GPU_RESERVE_S = 2.0
"""Of a GPU budget, for each GPU: what passes between the end of the budget and the end of the jobs."""
CPU_RESERVE_S = 15.0
"""Of a CPU budget, kept for what comes after the last job: export, report, ending Ray."""


@contextmanager
def prepared(
    config: SearchConfig, console: Console, stop: Event | None = None
) -> Iterator[tuple[Plain, RaySession]]:
    """(what search.yaml will hold, a session that is started), after everything was checked. `stop`: see RaySession."""
    from hssl_search.engine.resolve import check, prepare

    budget = check(config)
    with ray_session(config.ray_address, stop) as session:
        machine = _machine(config, budget.device, session)
        with _packing(console) as progress:
            resolved, warnings = prepare(config, machine, progress)
        for warning in warnings:
            console.print(
                f"Note: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True
            )
        session.start()
        resolved["machine"]["cpus"] = _free(
            session, "CPU"
        )  # in a container Ray knows its share of the cores
        if budget.device == "gpu":
            gpus = _free(session, "GPU")
            budget.check_device(gpus, " by Ray")
            if not session.own:
                resolved["machine"]["gpus"] = gpus
        yield resolved, session


def _machine(config: SearchConfig, device: str, session: RaySession) -> Machine:
    if config.ray_address is not None:
        session.start()
        gpus = _free(session, "GPU") if device == "gpu" else int(session.free("GPU"))
        return Machine(device, _free(session, "CPU"), gpus, config.gpus_per_trial or 1.0)
    import torch

    return Machine(
        device, os.cpu_count() or 1, torch.cuda.device_count(), config.gpus_per_trial or 1.0
    )


def _free(session: RaySession, resource: str) -> int:
    """Return how many whole CPUs or GPUs of Ray nothing else holds.

    Raises:
        UserError: where it has some and none is free, and where it has no CPU.
    """
    free, total = int(session.free(resource) + 1e-6), session.total(resource)
    remedy = "search in another process, without --ray-address, which starts a Ray of its own."
    if free == 0 and total >= 1:
        raise UserError(
            f"none of the {total:g} {resource}s of the Ray that runs here is free: something else holds them; end that, or "
            f"{remedy}"
        )
    if free == 0 and resource == "CPU":
        raise UserError(
            f"the Ray that runs here has no CPU, and every training needs one; start it with CPUs, or {remedy}"
        )
    return free


@contextmanager
def _packing(console: Console) -> Iterator[Any]:
    """A progress bar for decoding images, shown when there are images to decode."""
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
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("pack", visible=False)

        def update(done: int, total: int) -> None:
            check_interrupts()
            bar.update(task, completed=done, total=total, visible=True)

        yield update


@contextmanager
def ray_session(address: str | None, stop: Event | None = None) -> Iterator[RaySession]:
    """A session that is started by who needs it first: what can be refused is refused before that.

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
        begins: make the study where it is missing and nothing has been charged yet, as after a crash just when the run was made.

    Raises:
        UserError: where there is no study; nothing is made then.
    """
    resolved = run.config()
    url, name = run.study_url(resolved), resolved["name"]
    began = run.ledger.exists()
    with ExitStack() as stack:
        try:
            study = stack.enter_context(
                StudyRecord.open(url, name)
                if begins and not began
                else StudyRecord.existing(url, name)
            )
        except MissingStudy as error:
            raise UserError(_missing(run, resolved, began)) from error
        if study.state.config is None:
            study.write(SearchState(config=summary(resolved)))
        yield study


def _missing(run: Run, resolved: Plain, began: bool) -> str:
    if not began:
        return f"the run {run.name!r} has no study yet; begin it with: {run.how_to_resume()}"
    if resolved["storage"] is None:
        return f"{run.study_db} is missing, and with it all that was found; put it back, or search under another --name."
    return (
        f"the storage {shown(run.study_url(resolved))!r} holds no study {resolved['name']!r}, in which the run keeps all that was "
        f"found; put it back, or correct `storage` in {run.search_yaml}."
    )


def summary(resolved: Plain) -> Plain:
    """The search as reports show it."""
    setting, asked = resolved["setting"], resolved["asked"]
    shown = {
        "name": resolved["name"],
        "base": setting["base"],
        "base_args": resolved["timm_args"],
        "image_size": setting["image_size"],
        "data": setting["data"],
        "probe_data": setting["probe_data"],
        "trainer": asked.get("trainer", "simclr"),
        "space": resolved["space"]["name"],
    }
    as_resolved = ("budget", "rank_by", "seed", "full_epochs", "machine", "images", "versions")
    return shown | {key: resolved[key] for key in as_resolved}


@contextmanager
def controller_of(
    run: Run,
    resolved: Plain,
    session: RaySession,
    study: StudyRecord,
    console: Console,
    started: float,
) -> Iterator[Controller]:
    """A controller with all that it works with, charged for the time since `started` on a CPU budget."""
    from hssl_search.reporting.progress import Progress

    with Progress(console) as watcher:
        meter = _meter(run, resolved, started, watcher.device_time)
        with closing(meter), meter.beating():
            from hssl_search.engine.controller import Controller
            from hssl_search.engine.phases.runner import Backend
            from hssl_search.engine.policy import Policy
            from hssl_search.engine.records.artifacts import Artifacts
            from hssl_search.reporting.text import verdict_sentence

            trials = _trials(run, resolved, study, meter.ledger)
            if damaged := meter.ledger.damaged:
                watcher.note(
                    f"Damaged lines in {run.ledger.name}: {damaged}; the device-time that they charged is not counted."
                )
            with RayExecutor(meter, session=session, tell=watcher.note) as executor:
                backend = Backend(
                    run=run,
                    study=study,
                    executor=executor,
                    meter=meter,
                    machine=Machine(**resolved["machine"]),
                    watcher=watcher,
                    ended=study.job_outcomes(),
                    policy=Policy.model_validate(resolved["policy"]),
                    attach=Artifacts(run, study, watcher.note).keep,
                )
                yield Controller(backend, resolved, trials, verdict_sentence)


def _trials(run: Run, resolved: Plain, study: StudyRecord, ledger: Ledger) -> Trials:
    from hssl_search.engine.candidates.sampler import CandidateSampler
    from hssl_search.engine.candidates.trials import Trials
    from hssl_search.spaces.space import Space

    space = Space.from_plain(
        {"parameters": resolved["space"]["parameters"]}, resolved["space"]["name"]
    )
    sampler = CandidateSampler(resolved["sampler"], resolved["seed"])
    return Trials(
        study,
        run,
        space,
        [tuple(shape) for shape in resolved["map_shapes"]],
        resolved["seed"],
        ledger.of_trial,
        sampler=sampler,
    )


def _meter(
    run: Run, resolved: Plain, started: float, tell: Callable[[float, float], None]
) -> DeviceMeter:
    """The meter of this run; on a CPU budget the time since the command started is charged first."""
    budget = parse_budget(resolved["budget"])
    machine = Machine(**resolved["machine"])
    ledger = Ledger(run.ledger)
    on_cpu = budget.device == "cpu"
    if on_cpu:
        ledger.charge(
            f"{CONTROLLER}#{ledger.attempts(CONTROLLER) + 1}", OVERHEAD, time.monotonic() - started
        )
    return DeviceMeter(
        ledger,
        budget,
        machine.cpus,
        machine.gpus,
        reserve_s=CPU_RESERVE_S if on_cpu else GPU_RESERVE_S * machine.gpus,
        tell=tell,
    )
