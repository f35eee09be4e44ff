"""A cluster of two nodes on this machine, started as docs/cluster.md says; one is killed in the
middle.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

import hssl_search
from hssl_search.engine.execution.jobs import (
    Decision,
    Job,
    Outcome,
    Report,
    Send,
    Setting,
    State,
    Task,
)
from hssl_search.engine.execution.ray_tune.executor import RayExecutor
from hssl_search.engine.execution.ray_tune.session import RaySession

STEPS, JOBS = 6, 6
SETTING = Setting(
    base="",
    base_args={},
    image_size=1,
    data="",
    probe_data=None,
    data_seed=0,
    recipe={},
    device="cpu",
)
DOCUMENTED = Path(hssl_search.__file__).parents[1] / "docs" / "cluster.md"

pytestmark = pytest.mark.slow(
    reason=(
        "starts two nodes of Ray; pytest --run-slow tests/engine/execution/test_cluster.py runs it"
    )
)


def work(job: Job, send: Send) -> None:
    """Makes steps from its newest checkpoint on, with a checkpoint and a report after each; runs on
    a node of the cluster.
    """
    import os
    import time
    from pathlib import Path

    begin = job.step_reached()
    for step in range(begin + 1, job.task.steps + 1):
        time.sleep(0.5)  # longer than a report takes, so that both nodes have work at the same time
        (Path(job.folder) / f"step-{step:08d}").mkdir(parents=True)
        send(step, {"node": os.environ["HSSL_TEST_NODE"], "begin": begin})


@dataclass
class Node:
    """One `ray start`, in a process group and with a mark of its own."""

    command: list[str]
    environment: dict[str, str]
    mark: str = field(default_factory=lambda: f"HSSL_TEST_{uuid4().hex}")

    def start(self) -> None:
        environment = {**self.environment, self.mark: "1"}
        self.process = subprocess.Popen(
            self.command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        pytest.fail(f"{shlex.join(self.command)} ended: {''.join(said)}")

    def kill(self) -> None:
        """`kill -9` of everything on the node, as when its power fails."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:  # it has ended, or is not ours
                continue
        self.process.wait()


@dataclass
class Cluster:
    address: str
    head: Node
    other: Node


def free_port() -> int:
    """Outside 10002-19999, which Ray's workers use."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            if (port := free.getsockname()[1]) >= 20_000:
                return int(port)


def documented(first: str) -> list[str]:
    """The command in the documentation that begins so."""
    [line] = re.findall(
        rf"^    ({re.escape(first)} .*)$", DOCUMENTED.read_text(encoding="utf-8"), re.MULTILINE
    )
    return shlex.split(line)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    port, folder = free_port(), tempfile.mkdtemp(prefix="hssl-ray-", dir="/tmp")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    address = f"127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": str(Path(hssl_search.__file__).parents[1])}
    program = str(Path(sys.executable).parent / "ray")
    # nothing happens where there is one
    subprocess.run([program, "get-auth-token", "--generate"], check=True, capture_output=True)
    here = {
        "ray": program,
        "--port=6379": f"--port={port}",
        "--address=HEAD:6379": f"--address={address}",
    }
    # two nodes on one machine: addresses, files and ports of their own, and one core each
    small = [
        "--num-cpus=1",
        "--num-gpus=0",
        "--object-store-memory=100000000",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    nodes = []
    for number, first in enumerate(("ray start --head", "ray start --address=HEAD:6379"), start=1):
        place = [
            f"--node-ip-address=127.0.0.{number}",
            *([f"--temp-dir={folder}"] if number == 1 else []),
        ]
        command = [here.get(word, word) for word in documented(first)]
        nodes.append(
            Node([*command, *small, *place], {**environment, "HSSL_TEST_NODE": str(number)})
        )
    try:
        for node in nodes:
            node.start()
        yield Cluster(address, *nodes)
    finally:
        for node in reversed(nodes):
            if hasattr(node, "process"):
                node.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Source:
    """Jobs of a few steps; kills the other node when it has made two steps of one of them while the
    head works too.
    """

    def __init__(self, folder: Path, other: Node) -> None:
        self.jobs = [
            Job(
                f"job{number}",
                "proxy",
                Task(setting=SETTING, steps=STEPS),
                str(folder / f"job{number}"),
            )
            for number in range(JOBS)
        ]
        self.other: Node | None = other
        self.worked: set[str] = set()
        self.lost: list[str] = []
        self.outcomes: dict[str, Outcome] = {}

    def next_job(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def on_report(self, job: Job, report: Report) -> Decision:
        self.worked.add(report.metrics["node"])
        if (
            self.other
            and report.metrics["node"] == "2"
            and 2 <= report.step < STEPS
            and len(self.worked) == 2
        ):
            self.other.kill()
            self.other = None
            self.lost.append(job.key)
        return Decision.CONTINUE

    def again(self, job: Job) -> Job:
        return job

    def on_end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.key] = outcome


class Meter:
    def tick(self, live: list[Job]) -> None: ...
    def skip(self) -> None: ...

    def exhausted(self) -> bool:
        return False


def test_a_node_that_is_lost_costs_one_checkpoint_interval_and_no_job(
    cluster: Cluster, tmp_path: Path
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    source = Source(tmp_path, cluster.other)
    (tmp_path / "tune").mkdir()
    with RaySession(address=cluster.address) as session:
        assert session.total("CPU") == 2
        RayExecutor(Meter(), work, session, storage=tmp_path / "tune").run(source, concurrency=2)
    assert source.worked == {"1", "2"} and len(source.lost) == 1
    assert {outcome.state for outcome in source.outcomes.values()} == {State.DONE} and len(
        source.outcomes
    ) == JOBS
    for key, outcome in source.outcomes.items():
        assert [report.step for report in outcome.reports][-1] == STEPS
        lives = {report.metrics["begin"]: report.metrics["node"] for report in outcome.reports}
        if key in source.lost:
            (first, _), (again, node) = lives.items()
            assert (first, node) == (0, "1") and again >= 2, (
                "it went on from its newest checkpoint, on the node that is left"
            )
        else:
            assert list(lives) == [0]
            assert [report.step for report in outcome.reports] == list(range(1, STEPS + 1))
