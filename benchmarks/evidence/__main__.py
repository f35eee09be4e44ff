"""Does a head beat no head, does discrepancy predict it, and how short may a proxy be? Trains what
answers it, piece by piece.

    python -m benchmarks.evidence --scale real --at-once 4 --data cifar10/train \\
        --probe-data cifar10 --out evidence --minutes 9

Each call works for --minutes, or until all is done; called again with the same --out it continues,
long trainings from their checkpoint. --plan says what there is to do; --publish FOLDER writes what
has been measured so far: the table, what it answers (`analysis.answers`), and HeadBench tables.
`--scale toy` is the same protocol with small models on a CPU (`--device cpu`) within hours; its
figures answer nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence import analysis, estimate
from benchmarks.evidence import table as tables
from benchmarks.evidence.protocol import (
    SCALES,
    BaseModel,
    Cell,
    Maker,
    Scale,
    Training,
    cells,
    in_order,
    same_time,
)
from benchmarks.recording import Deadline, ended, execute, read
from hssl_search.data.splits import load_data
from hssl_search.engine.execution.jobs import Job, Meter, Plain, Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.heads.config import HeadConfig
from hssl_search.training.recipe import Recipe

WORKER = "benchmarks.evidence.worker:run"
SIDE = 32
"""Of the images, in pixels."""
PRECISION = "bf16"
"""Named, since what is measured to be faster may differ from piece to piece."""
KEPT_S = 20.0
"""Seconds at the end of a piece for the checkpoint and for what evaluation is going on; no training
begins within twice as many."""


@dataclass(frozen=True)
class Work:
    """One folder of evidence, as far as it has come."""

    scale: Scale
    groups: list[list[Cell]]
    maker: Maker
    path: Path

    @property
    def cells(self) -> list[Cell]:
        return [cell for group in self.groups for cell in group]

    def measurements(self) -> list[Job]:
        return [self.maker.measure(cell) for cell in self.cells]

    def trainings(self, records: Mapping[str, Plain], images: int) -> list[Training]:
        """Return the trainings in the order of work; every cell has been measured."""
        lengths = {
            cell.name: lengths_of(tables.measured_of(records, cell), cell) for cell in self.cells
        }
        return list(in_order(self.groups, self.scale, self.scale.steps(images), lengths))

    def jobs(self, records: Mapping[str, Plain], images: int) -> list[Job]:
        """Return joint screenings, which are short, then the trainings."""
        joint = [
            self.maker.joint(cell, seed) for seed in range(self.scale.seeds) for cell in self.cells
        ]
        return [*joint, *(self.maker.training(one) for one in self.trainings(records, images))]


def lengths_of(measured: Plain, cell: Cell) -> dict[str, float]:
    metrics = tables.found(measured)
    heads = map(HeadConfig.model_validate, measured["heads"])
    seconds: dict[HeadConfig | None, float] = {
        None: 0.0,
        **dict(zip(heads, metrics["head_step_s"], strict=True)),
    }
    return same_time(
        metrics["step_s"], {branch: seconds[head] for branch, head in cell.heads().items()}
    )


def piece(
    work: Work, deadline: Deadline, at_once: int, images: int, meter: Meter | None = None
) -> bool:
    """Work until the deadline; whether all is done."""
    measured = execute(WORKER, work.measurements(), work.path, deadline, meter or deadline)
    ran = {job.key: measured.known.get(job.key, {}) for job in measured.jobs}
    if failed := [
        f"{key}: {record['cause']}"
        for key, record in ran.items()
        if record.get("state") == "failed"
    ]:
        raise SystemExit(
            f"Not everything could be measured ({'; '.join(failed)}). Mend the cause and start "
            "again: it is tried again."
        )
    if not all(tables.is_measured(measured.known, cell) for cell in work.cells):
        return False
    source = execute(
        WORKER, work.jobs(measured.known, images), work.path, deadline, meter or deadline, at_once
    )
    states = [source.known.get(job.key, {}).get("state") for job in source.jobs]
    failed, left = states.count("failed"), sum(state in (None, "failed") for state in states)
    again = f"; {failed} of them failed, and are tried again when you start again" if failed else ""
    print(f"{left} trainings are left{again}.", flush=True)
    return not left


def setting(given: argparse.Namespace, scale: Scale, base: BaseModel, method: str) -> Setting:
    recipe = Recipe.read(method).as_plain()
    recipe[scale.stage]["batch_size"] = scale.batch_size
    for stage in ("proxy", "full"):
        recipe[stage]["precision"] = PRECISION
    return Setting(
        base=base.name,
        base_args=dict(base.args),
        image_size=SIDE,
        data=str(Path(given.data).resolve()),
        probe_data=str(Path(given.probe_data).resolve()),
        data_seed=0,
        recipe=recipe,
        device=given.device,
    )


def work_of(given: argparse.Namespace) -> Work:
    scale = SCALES[given.scale]
    methods = given.methods or [method for group in scale.methods for method in group]
    bases = given.bases or [base.name for base in scale.bases]
    groups = cells(scale, lambda base, method: setting(given, scale, base, method), bases, methods)
    gpus = 1 if given.device == "cuda" else 0
    machine = Machine("gpu" if gpus else "cpu", given.cpus, gpus, 1 / given.at_once)
    given.out.mkdir(parents=True, exist_ok=True)
    return Work(
        scale,
        groups,
        Maker(scale, given.out.resolve(), machine, given.at_once, KEPT_S),
        given.out / "jobs.jsonl",
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", choices=list(SCALES), default="real")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side")
    parser.add_argument(
        "--cpus", type=int, default=os.cpu_count(), help="cores that all of them share"
    )
    parser.add_argument("--data", required=True, help="folder of training images")
    parser.add_argument("--probe-data", required=True, help="folder with train/ and test/")
    parser.add_argument("--methods", nargs="+", help="of the scale's; all by default")
    parser.add_argument("--bases", nargs="+", help="of the scale's; all by default")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", action="store_true", help="say what there is to do, and end")
    parser.add_argument(
        "--publish", type=Path, help="folder for the tables of all that --out holds"
    )
    return parser.parse_args(arguments)


def published(work: Work, folder: Path, command: str) -> None:
    """Write what has been measured: the table, what it answers, and HeadBench tables of cells in
    which a seed has all heads.
    """
    records = read(work.path)
    cells = [cell for cell in work.cells if tables.is_measured(records, cell)]
    done = tables.frame(ended(records), cells, work.scale)
    if analysis.at_the_end(done).empty:
        raise SystemExit("No training has come to its end yet: there is nothing to publish.")
    lengths = {cell.name: lengths_of(tables.measured_of(records, cell), cell) for cell in cells}
    sidecar = {**tables.about(work.scale, records, cells, command), "lengths": lengths}
    tables.write(folder, done, sidecar)
    for name, answer in analysis.answers(done, lengths).items():
        answer.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    for cell in cells:
        if tables.whole(done, cell):
            setup = tables.headbench(done, cell, tables.measured_of(records, cell), sidecar)
            setup.write(folder / "headbench" / f"{cell.base.name}-{cell.method}")


def show_plan(work: Work, images: int) -> None:
    steps = work.scale.steps(images)
    print("| base, method | trainings | device-hours, evaluation left out |\n|---|---|---|")
    found = estimate.seconds(work.groups, work.scale, steps)
    for name, (count, seconds) in found.items():
        print(f"| {name} | {count} | {seconds / 3600:.1f} |")
    total = sum(seconds for _, seconds in found.values())
    print(f"| all | {sum(count for count, _ in found.values())} | {total / 3600:.1f} |")
    print(
        f"\n{steps:,} steps of {work.scale.batch_size} images each; at "
        f"{estimate.ASSUMED_RATE / 1e12:g} TFLOP/s, an assumption."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    work = work_of(given)
    images = len(load_data(str(given.data), str(given.probe_data), SIDE, 0).train)
    if given.plan:
        show_plan(work, images)
        return
    piece(work, Deadline(given.minutes, 2 * KEPT_S), given.at_once, images)
    if given.publish:
        published(
            work,
            given.publish,
            shlex.join(["python", "-m", "benchmarks.evidence", *(arguments or sys.argv[1:])]),
        )


if __name__ == "__main__":
    main()
