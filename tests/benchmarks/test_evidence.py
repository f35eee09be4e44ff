"""The evidence's protocol: what is trained in which order, and that pieces give what one go
gives."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import table as tables
from benchmarks.evidence.protocol import HEADS, NONE, SAME, SCALES, Training, rungs, same_time
from benchmarks.printing import with_interval
from benchmarks.recording import Deadline, Recorded, at_rungs, ended, execute, read, step_s
from benchmarks.simulation.headbench import HeadBench
from benchmarks.simulation.measured_heads import MeasuredHeads
from hssl_search.engine.execution.jobs import Job, Outcome, Report, Send, State, Task
from hssl_search.heads.config import HeadConfig

torch.set_num_threads(1)
TIMES = ["step_s", "device_s"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return images of two classes, red and blue, in `train` and `test`."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for channel, colour in ((0, "red"), (2, "blue")):
            folder = root / split / colour
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] += 100
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a toy with one base, two heads, two steps."""
    toy = SCALES["toy"]
    monkeypatch.setitem(
        SCALES,
        "toy",
        replace(
            toy,
            bases=toy.bases[:1],
            methods=(("simclr",),),
            batch_size=8,
            epochs=0.4,
            seeds=1,
            decisive_seeds=1,
            joint_rungs=(1, 2),
        ),
    )
    for name in set(HEADS) - {"transformer 3", "mlp 3"}:
        monkeypatch.delitem(HEADS, name)
    monkeypatch.setitem(HEADS, "mlp 3", HeadConfig(family="mlp", depth=1))
    monkeypatch.setattr(
        evidence, "same_time", lambda step_s, heads: {**dict.fromkeys(heads, 1.0), "mlp 3": 1.5}
    )


def given(photos: Path, out: Path, *more: str) -> argparse.Namespace:
    data = ["--data", str(photos / "train"), "--probe-data", str(photos)]
    return evidence.parsed(
        ["--scale", "toy", "--device", "cpu", "--cpus", "1", *data, "--out", str(out), *more]
    )


class After(Deadline):
    """Ends the work after that many reports."""

    def __init__(self, reports: int) -> None:
        super().__init__(minutes=60)
        self.reports = reports

    def exhausted(self) -> bool:
        self.reports -= 1
        return self.reports < 0


def measured(work: evidence.Work) -> pd.DataFrame:
    return tables.frame(ended(read(work.path)), work.cells, work.scale).drop(columns=TIMES)


def test_pieces_give_what_one_go_gives(tiny: None, photos: Path, tmp_path: Path) -> None:
    whole, pieces = (
        evidence.work_of(given(photos, tmp_path / name)) for name in ("whole", "pieces")
    )
    assert evidence.piece(whole, Deadline(60), 1, images=40)
    assert evidence.piece(whole, Deadline(0), 1, images=40)  # nothing is left to do
    calls = 0
    while not evidence.piece(pieces, Deadline(60), 1, images=40, meter=After(9)):
        calls += 1
    assert calls > 1
    one, other = measured(whole), measured(pieces)
    pd.testing.assert_frame_equal(one, other)
    trained = one[one.training == "alone"].groupby("branch").step.max().to_dict()
    assert trained == {
        NONE: 2,
        "identity": 2,
        "transformer 3": 2,
        SAME: 2,
        "mlp 3": 2,
        "noise": 2,
        "none x 1.5": 3,
    }
    assert one[one.training == "alone"][["accuracy", "linear", "rankme"]].notna().all().all()
    with_head = one[one["head"] != ""]
    assert with_head[["cka", "overlap", "output", "head_loss", "gate"]].notna().all().all()
    assert with_head[with_head.training == "alone"].head_accuracy.notna().all()
    assert not (
        tmp_path / "whole" / "checkpoints" / "test_resnet" / "simclr" / NONE / "seed0"
    ).exists()
    published_is_read(whole, tmp_path / "published", one)


def published_is_read(work: evidence.Work, folder: Path, expected: pd.DataFrame) -> None:
    evidence.published(work, folder, "python -m benchmarks.evidence --scale toy")
    table = pd.read_csv(folder / tables.TABLE, keep_default_na=False, na_values=[""]).fillna(
        {"head": ""}
    )
    assert len(table) == len(expected)
    assert table.accuracy.dropna().tolist() == pytest.approx(
        expected.accuracy.dropna().tolist(), rel=1e-5
    )
    assert set(table.scale) == {"toy"}
    gains = pd.read_csv(folder / "gains.csv")
    assert set(gains.against) == {NONE, "identity", "none, same device-time"} and set(
        gains.score
    ) == {"accuracy", "linear"}
    assert {path.stem for path in folder.glob("*.csv")} == {
        "evidence",
        "gains",
        "predicted",
        "settling",
        "effects",
    }
    setup = HeadBench.read(folder / "headbench" / "test_resnet-simclr")
    assert setup.seeds() == [0] and setup.rungs("joint") == [1, 2] and setup.rungs() == [1, 2]
    assert set(setup.candidates) == set(HEADS.values())
    answers = MeasuredHeads(setup)
    assert answers.step_s(setup.candidates) > 0
    assert setup.at("alone", None, 0, 2).values["accuracy"] == pytest.approx(
        of_none(expected), rel=1e-5
    )


def of_none(table: pd.DataFrame) -> float:
    rows = table[(table.branch == NONE) & (table.step == 2)]
    return float(rows.accuracy.iloc[0])


def trainings(scale: str, lengths: dict[str, float]) -> list[Training]:
    given = evidence.parsed(
        [
            "--scale",
            scale,
            "--device",
            "cpu",
            "--data",
            "photos",
            "--probe-data",
            "photos",
            "--out",
            "out",
        ]
    )
    chosen = SCALES[scale]
    groups = evidence.cells(
        chosen,
        lambda base, method: evidence.setting(given, chosen, base, method),
        [chosen.bases[0].name],
        ["simclr", "dino"],
    )
    return list(
        evidence.in_order(
            groups, chosen, 1000, {cell.name: lengths for group in groups for cell in group}
        )
    )


@pytest.fixture(scope="module")
def real() -> list[Training]:
    heads = (
        dict.fromkeys([NONE, "identity", "noise"], 1.0)
        | dict.fromkeys(HEADS, 1.5)
        | {"mixer 3": 2.0}
    )
    return trainings("real", heads)


def test_a_stop_at_any_time_leaves_balanced_seeds(real: list[Training]) -> None:
    seeds: dict[tuple[str, str], list[int]] = {}
    for one in real:
        seeds.setdefault((one.cell.method, one.branch), []).append(one.seed)
    assert all(its == list(range(len(its))) for its in seeds.values())
    assert {len(its) for its in seeds.values()} == {3, 5}
    for stop in range(len(real)):
        done = Counter((one.cell.method, one.branch) for one in real[:stop])
        for tier in (5, 3):
            for method in ("simclr", "dino"):
                counts = [
                    done[key] for key, its in seeds.items() if len(its) == tier and key[0] == method
                ]
                assert max(counts) - min(counts) <= 1


def test_decisive_comparisons_come_first(real: list[Training]) -> None:
    first = [one for one in real if one.cell.method == "simclr"][:25]
    assert {one.branch for one in first} == {
        NONE,
        "identity",
        "transformer 3",
        "convnext 3",
        "none x 1.5",
    }
    # dino after simclr
    assert [one.cell.method for one in real] == sorted(
        (one.cell.method for one in real), reverse=True
    )
    assert {one.branch for one in real} >= {*HEADS, "none x 2", "noise"}
    assert len({one.key for one in real}) == len(real)


def test_heads_are_distinct_and_decisive_ones_are_of_another_architecture() -> None:
    for scale in SCALES.values():
        for base in scale.bases:
            assert base.decisive in HEADS
    assert len(set(HEADS.values())) == len(HEADS)


def test_no_head_is_trained_twice_and_one_is_of_the_bases_own_architecture(
    real: list[Training],
) -> None:
    cell = real[0].cell
    heads = list(cell.heads().values())
    assert len(set(heads)) == len(heads)
    assert cell.heads()[cell.same_branch] == cell.same
    assert [branch for branch in cell.heads() if cell.role(branch) == "same_architecture"] == [
        "transformer 3"
    ]


@pytest.mark.parametrize(
    ("head_s", "length"), [(0.0, 1.0), (0.01, 1.5), (0.5, 1.5), (0.51, 2.0), (1.7, 3.0)]
)
def test_no_head_never_gets_less_time_than_the_head(head_s: float, length: float) -> None:
    assert same_time(1.0, {"mlp 3": head_s}) == {"mlp 3": length}


@pytest.mark.parametrize(
    ("steps", "expected"), [(19_500, [195, 390, 975, 1950, 4875, 9750, 19_500]), (3, [1, 2, 3])]
)
def test_rungs_are_the_fractions_of_the_schedule(steps: int, expected: list[int]) -> None:
    assert rungs(steps) == expected


def job(folder: Path) -> Job:
    task = Task.model_construct(name="one", steps=4, rungs=[2, 4])
    return Job("one", "toy", task, str(folder / "checkpoint"))


def report(step: int, wall_s: float) -> Report:
    return Report(
        step,
        {
            "loss": float(step),
            "train_s": wall_s,
            "train_steps": 1,
            "core_s": wall_s,
            "wall_s": wall_s,
        },
    )


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Path]:
    """Return a file of a training that was cut at step 3, between two rungs, and a line that was
    torn."""
    path = tmp_path / "jobs.jsonl"
    source = Recorded([job(tmp_path)], path, Deadline(1))
    started = source.next_job()
    assert started is not None and started.seconds is not None and 50 < started.seconds <= 60
    for found in (report(2, 1.0), report(3, 2.0)):
        source.on_report(started, found)
    source.on_end(started, Outcome(State.DONE, reports=[report(2, 1.0), report(3, 2.0)]))
    with path.open("a") as file:
        file.write('{"key": "one", "st')
    yield path


def test_a_training_that_a_piece_did_not_end_goes_on(cut: Path, tmp_path: Path) -> None:
    assert ended(read(cut)) == {}
    source = Recorded([job(tmp_path)], cut, Deadline(1))
    again = source.next_job()
    assert again is not None
    for found in (report(2, 9.0), report(4, 4.0)):  # the rung before may be reported again
        source.on_report(again, found)
    source.on_end(again, Outcome(State.DONE, reports=[report(4, 4.0)]))
    record = ended(read(cut))["one"]
    assert [
        (step, metrics["wall_s"], metrics["train_steps"]) for step, metrics in at_rungs(record)
    ] == [(2, 1.0, 1), (4, 6.0, 2)]
    assert step_s(record) == pytest.approx(7 / 3)
    assert Recorded([job(tmp_path)], cut, Deadline(1)).next_job() is None


def test_no_training_begins_at_the_end_of_a_piece(tmp_path: Path) -> None:
    assert (
        Recorded([job(tmp_path)], tmp_path / "jobs.jsonl", Deadline(1, kept_s=61)).next_job()
        is None
    )


def test_a_training_that_failed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    source = Recorded([job(tmp_path)], path, Deadline(1))
    started = source.next_job()
    assert started is not None
    source.on_end(started, Outcome(State.FAILED, "the disk was full"))
    assert ended(read(path))["one"]["cause"] == "the disk was full"
    assert Recorded([job(tmp_path)], path, Deadline(1)).next_job() is not None


def test_nothing_is_published_before_a_training_has_ended(
    tiny: None, photos: Path, tmp_path: Path
) -> None:
    work = evidence.work_of(given(photos, tmp_path / "out"))
    for reports in (0, 1):  # not even measured, and measured
        evidence.piece(work, After(reports), 1, images=40)
        with pytest.raises(SystemExit, match="No training has come to its end yet"):
            evidence.published(work, tmp_path / "published", "command")
    assert not (tmp_path / "published").exists()


def late(job: Job, send: Send) -> None:
    """Return a worker that comes to its end, or fails, whatever the time is."""
    if job.key == "bad":
        raise ValueError("no such family")
    send(1, {"accuracy": 1.0})


def test_what_runs_at_the_deadline_is_kept_where_only_the_beginning_of_jobs_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.recording.resolve", {"tests:late": late}.get)
    path, jobs = (
        tmp_path / "jobs.jsonl",
        [
            Job(key, "toy", Task.model_construct(steps=1), str(tmp_path / key))
            for key in ("bad", "good")
        ],
    )
    execute("tests:late", jobs, path, Deadline(0), Deadline(math.inf))
    assert read(path) == {}, "nothing begins after the deadline"
    known = execute("tests:late", jobs, path, Deadline(1), Deadline(math.inf)).known
    assert {key: (record["state"], record["cause"]) for key, record in known.items()} == {
        "bad": ("failed", "ValueError: no such family"),
        "good": ("done", ""),
    }
    assert [job.key for job in Recorded(jobs, path, Deadline(1)).jobs] == ["bad"], (
        "what failed is tried again"
    )


@pytest.mark.parametrize(
    ("values", "form", "told"),
    [
        ([1.0, 2.0, 3.0], ".2f", "2.00 ± 2.48"),
        ([1.0, 2.0, 3.0], "+.1f", "+2.0 ± 2.5"),
        ([4.0], ".1f", "4.0"),
        ([], ".1f", ""),
    ],
)
def test_a_mean_is_told_with_half_of_its_t_interval(
    values: list[float], form: str, told: str
) -> None:
    assert with_interval(values, form) == told
