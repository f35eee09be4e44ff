"""Measures a HeadBench table: many heads, alone with a base and in joint screenings, under several
seeds, with the tool's own worker.

    python -m benchmarks.headbench --data cifar10/train --probe-data cifar10 --image-size 24 \\
        --batch-size 48 --minutes 45 --out measured

Works seed after seed, so that a run cut short by --minutes has every head under fewer seeds;
started again with the same --out it continues. With --publish FOLDER it then writes the table of
what has been measured (docs/headbench.md). Trains on one core.
"""

from __future__ import annotations

import argparse
import platform
import random
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.recording import Deadline, at_rungs, ended, execute, step_s
from benchmarks.simulation.headbench import OF_BASE, OF_HEAD, HeadBench
from hssl_search.backbones import Base
from hssl_search.cli import key_value
from hssl_search.data.splits import load_data
from hssl_search.engine.execution.jobs import Job, Outcome, Plain, Report, Setting, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases import screen
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.planning.cost_model import Measurement
from hssl_search.engine.records.state import Contender, TrialState
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import head_cost
from hssl_search.heads.same_architecture import same_architecture_head
from hssl_search.spaces.space import Space
from hssl_search.training.recipe import Recipe

WORKER = "benchmarks.recording:run_timed"
CORE = Machine("cpu", cpus=1, gpus=0)
GROUP_SIZE = 8
TOOLS = ("hssl-search", "torch", "timm")


def chosen_heads(space: Space, count: int) -> list[HeadConfig]:
    """Return that many different heads of the space, drawn at random, as many of each family as of
    any other."""
    heads = list(space.enumerate())
    random.Random(0).shuffle(heads)
    of_family: dict[str, list[HeadConfig]] = {}
    for head in heads:
        of_family.setdefault(head.family, []).append(head)
    dealt = [
        head
        for place in range(len(heads))
        for its in of_family.values()
        for head in its[place : place + 1]
    ]
    return dealt[:count]


def contenders(heads: list[HeadConfig], same: HeadConfig) -> list[Contender]:
    """Return the controls, then the candidates; the trial of each is its place."""
    controls: list[tuple[str, HeadConfig | None]] = [
        ("none", None),
        ("identity", HeadConfig(family="identity")),
        ("noise", HeadConfig(family="noise")),
        ("same_architecture", same),
    ]
    rows = [*controls, *((None, head) for head in heads if head != same)]
    return [
        Contender(
            place,
            TrialState(
                name=head.label() if head else "no head",
                head=head,
                family=head.family if head else "none",
                control=control,
            ),
        )
        for place, (control, head) in enumerate(rows)
    ]


def jobs_of_seed(
    given: argparse.Namespace, maker: JobMaker, rows: list[Contender], seed: int
) -> Iterator[Job]:
    """Return joint screenings, whose groups differ from seed to seed, then each contender alone."""
    candidates = [one for one in rows if one.control is None]
    random.Random(seed).shuffle(candidates)
    for number, group in enumerate(screen.deal(candidates, GROUP_SIZE)):
        yield maker.group(
            1000 * seed + number, screen.heads_of(group), given.screen_steps, seed, 0.0, 1
        )
    for one in rows:
        yield maker.training("proxy", one, seed, given.rungs[-1], given.rungs, 0.0, 1)


def setting_of(given: argparse.Namespace) -> Setting:
    recipe = Recipe.read(given.trainer).as_plain()
    recipe["proxy"]["batch_size"] = given.batch_size
    return Setting(
        base=given.base,
        base_args=dict(map(key_value, given.base_arg)),
        image_size=given.image_size,
        data=str(Path(given.data).resolve()),
        probe_data=str(Path(given.probe_data).resolve()),
        data_seed=0,
        recipe=recipe,
        device="cpu",
    )


def measured(
    space: Space, setting: Setting, path: Path, deadline: Deadline
) -> tuple[Setting, Plain]:
    """Time the base and the families of the space: the setting with the precision that was faster,
    and what was found.
    """
    families = list(space.families)
    [job] = [
        JobMaker(setting, path.parent, CORE).measure(
            [HeadConfig(family=family) for family in families], 0
        )
    ]
    source = execute(WORKER, [job], path, deadline, deadline)
    record = source.known[job.key]
    report = Report(1, record["reports"][-1]["metrics"])
    settled = Measurement.of(Outcome(State.DONE, reports=[report]), families, CORE).settle(setting)
    return settled, {"metrics": report.metrics, "heads": record["heads"]}


def about(setting: Setting, space: Space, found: Plain) -> Plain:
    """Return the table's sidecar."""
    data = load_data(setting.data, setting.probe_data, setting.image_size, setting.data_seed)
    named = {"data": Path(setting.data).name, "probe_data": Path(setting.probe_data or "").name}
    return {
        "command": shlex.join(["python", "-m", "benchmarks.headbench", *sys.argv[1:]]),
        "setting": {**setting.model_dump(mode="json"), **named},
        "images": {
            "training": len(data.train),
            "bank": len(data.bank or ()),
            "queries": len(data.queries),
            "classes": list(data.queries.classes),
            "fingerprint": data.train.fingerprint,
        },
        "space": {"name": space.name, "hash": space.hash()},
        "versions": {tool: version(tool) for tool in TOOLS} | {"python": platform.python_version()},
        "measured": {key: value for key, value in found["metrics"].items() if key != "skipped"}
        | {"families": [head["family"] for head in found["heads"]]},
    }


def rows_of(
    record: Plain,
    roles: dict[HeadConfig | None, str],
    costs: dict[HeadConfig | None, tuple[int, int]],
) -> Iterator[Plain]:
    """Return a job's reports as rows of the table: one of the base trained alone, or one for each
    head of a screening."""
    joint = record["key"].startswith("screen/")
    heads: list[HeadConfig | None] = [HeadConfig.model_validate(head) for head in record["heads"]]
    for step, metrics in at_rungs(record):
        cost = {"step_s": step_s(record), "core_s": metrics["core_s"]}
        for place, head in enumerate(heads or [None]):
            of_head = metrics["heads"][place] if head else {}
            yield {
                "training": "joint" if joint else "alone",
                "group": _group(record["key"]) if joint else None,
                "role": roles[head],
                "head": head,
                "seed": record["seed"],
                "steps": record["steps"],
                "step": step,
                **cost,
                **{key: metrics.get(key) for key in OF_BASE},
                **{key: of_head.get(key) for key in OF_HEAD},
                "parameters": costs[head][0],
                "macs": costs[head][1],
            }


def _group(key: str) -> int:
    return int(key.removeprefix("screen/group"))


def publish(
    records: dict[str, Plain], rows: list[Contender], sidecar: Plain, folder: Path
) -> HeadBench:
    """Write the table of the records. ValueError when a training failed: what was not measured is
    no row, and not to be passed over.
    """
    if failed := [
        f"{key}: {record['cause']}" for key, record in records.items() if record["state"] != "done"
    ]:
        raise ValueError(f"not every training came to its end: {'; '.join(failed)}")
    heads = {one.trial: one.head for one in rows}
    roles: dict[HeadConfig | None, str] = {
        heads[one.trial]: one.control or "candidate" for one in reversed(rows)
    }
    shape = tuple(sidecar["measured"]["map_shape"])
    costs = {head: head_cost(head, shape) if head else (0, 0) for head in roles}
    table = [
        row
        for record in records.values()
        if record["kind"] == "train"
        for row in rows_of(record, roles, costs)
    ]
    table.sort(
        key=lambda row: (
            row["training"],
            row["seed"],
            row["group"] or 0,
            row["role"] == "candidate",
        )
    )
    setup = HeadBench(table, sidecar)
    setup.write(folder)
    return setup


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="test_resnet")
    parser.add_argument(
        "--base-arg", action="append", default=["output_stride=8"], metavar="KEY=VALUE"
    )
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--data", required=True)
    parser.add_argument("--probe-data", required=True)
    parser.add_argument("--trainer", default="simclr")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--space", default="default")
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rungs", type=int, nargs="+", default=[15, 30, 60, 120])
    parser.add_argument("--screen-steps", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--publish", type=Path, help="folder for the table of all that --out holds")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path, deadline = given.out / "jobs.jsonl", Deadline(given.minutes)
    space, setting = Space.read(given.space), setting_of(given)
    rows = contenders(
        chosen_heads(space, given.heads),
        same_architecture_head(Base(setting.base, setting.image_size, setting.base_args).model),
    )
    setting, found = measured(space, setting, path, deadline)
    maker = JobMaker(setting, given.out.resolve(), CORE)
    jobs = [job for seed in range(given.seeds) for job in jobs_of_seed(given, maker, rows, seed)]
    source = execute(WORKER, jobs, path, deadline, deadline)
    records = ended(source.known)
    print(f"{len(records)} of {1 + len(jobs)} jobs are measured.")
    if given.publish:
        table = publish(records, rows, about(setting, space, found), given.publish)
        print(
            f"{given.publish}: {len(table.rows)} rows of {len(table.candidates)} heads under seeds "
            f"{table.seeds()}"
        )


if __name__ == "__main__":
    main()
