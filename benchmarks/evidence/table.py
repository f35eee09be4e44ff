"""The evidence as one table, and in the HeadBench format."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from benchmarks.evidence.protocol import NONE, Cell, Scale
from benchmarks.recording import at_rungs, step_s
from benchmarks.simulation.headbench import COLUMNS as OF_HEADBENCH
from benchmarks.simulation.headbench import HeadBench, spelled
from hssl_search.data.splits import load_data
from hssl_search.engine.execution.jobs import Plain
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import head_cost
from hssl_search.spaces.space import Space

TABLE, ABOUT = "evidence.csv", "evidence.json"
OF_BASE = ("accuracy", "accuracy_mean", "linear", "linear_mean", "rankme", "rankme_mean")
OF_HEAD = (
    "head_accuracy",
    "cka",
    "overlap",
    "output",
    "head_loss",
    "excess_loss",
    "architecture",
    "gate",
    "gate_reason",
)
COLUMNS = (
    "scale",
    "base",
    "method",
    "training",
    "branch",
    "head",
    "seed",
    "steps",
    "step",
    "fraction",
    *OF_BASE,
    "loss",
    *OF_HEAD,
    "step_s",
    "device_s",
    "parameters",
    "macs",
)
TOOLS = ("hssl-search", "torch", "timm", "numpy", "scikit-learn")


def frame(records: Mapping[str, Plain], cells: Sequence[Cell], scale: Scale) -> pd.DataFrame:
    """Return a row for each rung of each training that has ended well, of joint screenings one for
    each head."""
    rows = [
        row
        for cell in cells
        for record in records.values()
        if _of(record, cell) and record["kind"] == "train"
        for row in _rows(record, cell, scale, found(measured_of(records, cell))["map_shape"])
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of(record: Plain, cell: Cell) -> bool:
    return record.get("state") == "done" and record["key"].startswith(
        f"{cell.base.name}/{cell.method}/"
    )


def _rows(
    record: Plain, cell: Cell, scale: Scale, map_shape: tuple[int, int, int]
) -> Iterator[Plain]:
    named = {head: branch for branch, head in cell.heads().items()}
    heads: list[HeadConfig | None] = [
        HeadConfig.model_validate(head) for head in record["heads"]
    ] or [None]
    joint = record["name"] == "joint"
    for step, metrics in at_rungs(record):
        where = {
            "scale": scale.name,
            "base": cell.base.name,
            "method": cell.method,
            "training": "joint" if joint else "alone",
            "seed": record["seed"],
            "steps": record["steps"],
            "step": step,
            "fraction": step / record["steps"],
        }
        took = {
            "loss": metrics["loss"],
            "step_s": step_s(record),
            "device_s": device_s(metrics) / len(heads),
        }
        of_heads = metrics.get("heads") or [{}]
        for head, of_head in zip(heads, of_heads, strict=True):
            parameters, macs = head_cost(head, map_shape) if head else (0, 0)
            yield {
                **where,
                **took,
                **{key: metrics.get(key) for key in OF_BASE},
                **{key: of_head.get(key) for key in OF_HEAD},
                "branch": named[head] if joint else record["name"],
                "head": spelled(head),
                "parameters": parameters,
                "macs": macs,
            }


def device_s(metrics: Plain) -> float:
    """Return the seconds of a whole GPU; on CPU, of a processor core."""
    return metrics["wall_s"] * metrics["gpus"] if metrics.get("gpus") else metrics["core_s"]


def total_device_s(records: Mapping[str, Plain]) -> float:
    """Return the device-seconds of all that was reported, unfinished trainings too."""
    return sum(
        device_s(report["metrics"]) for record in records.values() for report in record["reports"]
    )


def about(scale: Scale, records: Mapping[str, Plain], cells: Sequence[Cell], command: str) -> Plain:
    """Return the table's sidecar."""
    surroundings = [
        report["metrics"]["surroundings"]
        for record in records.values()
        for report in record["reports"]
        if "surroundings" in report["metrics"]
    ]
    return {
        "scale": scale.name,
        "note": "TOY: shows that the protocol runs, and nothing of what a head is worth."
        if scale.name == "toy"
        else "",
        "command": command,
        "device": sorted({f"{one['hardware']}, {one['threads']} threads" for one in surroundings}),
        "device_seconds": round(total_device_s(records)),
        "unit": "seconds of a GPU"
        if any(cell.setting.device == "cuda" for cell in cells)
        else "seconds of a processor core",
        "failed": {
            key: record["cause"]
            for key, record in records.items()
            if record.get("state") == "failed"
        },
        "versions": {tool: version(tool) for tool in TOOLS} | {"python": platform.python_version()},
        "images": images(scale, cells[0]),
        "references": {cell.name: found(measured_of(records, cell))["reference"] for cell in cells},
    }


def images(scale: Scale, cell: Cell) -> Plain:
    setting = cell.setting
    data = load_data(
        setting.data,
        setting.probe_data,
        setting.image_size,
        setting.data_seed,
        most_bank=scale.judged[0],
        most_queries=scale.judged[1],
    )
    return {
        "training": len(data.train),
        "bank": len(data.bank or ()),
        "queries": len(data.queries),
        "classes": list(data.queries.classes),
        "side": setting.image_size,
        "fingerprint": data.train.fingerprint,
    }


def measured_of(records: Mapping[str, Plain], cell: Cell) -> Plain:
    return records[f"{cell.base.name}/{cell.method}/measure"]


def is_measured(records: Mapping[str, Plain], cell: Cell) -> bool:
    return records.get(f"{cell.base.name}/{cell.method}/measure", {}).get("state") == "done"


def found(measured: Plain) -> Plain:
    """Return what was measured."""
    return measured["reports"][-1]["metrics"]


def write(folder: Path, table: pd.DataFrame, sidecar: Plain) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / TABLE, index=False, float_format="%.6g")
    (folder / ABOUT).write_text(json.dumps(sidecar, indent=1) + "\n", encoding="utf-8")


def whole(table: pd.DataFrame, cell: Cell) -> bool:
    """Return whether there is a seed under which every branch of full length was trained alone, and
    every head jointly."""
    its = table[(table.base == cell.base.name) & (table.method == cell.method)]
    of_seeds = its.groupby(["training", "seed"]).branch.agg(set).to_dict()
    heads = set(cell.heads())
    return any(
        heads <= of_seeds.get(("alone", seed), set())
        and heads - {NONE} <= of_seeds.get(("joint", seed), set())
        for seed in its.seed.unique()
    )


def headbench(table: pd.DataFrame, cell: Cell, measured: Plain, sidecar: Plain) -> HeadBench:
    """Return the trainings of a cell as a HeadBench table; longer trainings without a head are not
    of that format."""
    its = table[(table.base == cell.base.name) & (table.method == cell.method)]
    its = its[(its.training == "joint") | its.branch.isin(cell.heads())]
    rows = its.assign(
        role=its.branch.map(cell.role),
        labelfree_rankme=its.rankme,
        core_s=its.device_s,
        group=its.seed.where(its.training == "joint"),
    )
    return HeadBench(
        rows.reindex(columns=list(OF_HEADBENCH)).to_dict("records"),
        _about_headbench(cell, measured, sidecar),
    )


def _about_headbench(cell: Cell, measured: Plain, sidecar: Plain) -> Plain:
    metrics, space = found(measured), Space.read("default")
    first = {head["family"]: place for place, head in reversed(list(enumerate(measured["heads"])))}
    picked = {
        key: [metrics[key][place] for place in first.values()] for key in ("head_step_s", "costs")
    }
    kept = {
        key: value for key, value in metrics.items() if key not in ("skipped", "core_s", "wall_s")
    }
    named = {
        "data": Path(cell.setting.data).name,
        "probe_data": Path(cell.setting.probe_data or "").name,
    }
    return {
        "command": sidecar["command"],
        "scale": sidecar["scale"],
        "note": sidecar["note"],
        "images": sidecar["images"],
        "setting": {**cell.setting.model_dump(mode="json"), **named},
        "space": {"name": space.name, "hash": space.hash()},
        "versions": sidecar["versions"],
        "measured": {**kept, **picked, "families": list(first)},
    }
