"""Studies on real database servers, started here on the loopback: PostgreSQL and MariaDB, which end
connections and are restarted.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from benchmarks.simulation.search import Simulation
from benchmarks.simulation.synthetic_heads import SyntheticHeads
from hssl_search.engine.budget import Budget
from hssl_search.engine.execution.jobs import Job, Outcome, Report, Setting, State, Task
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.planning.plan import Plan
from hssl_search.engine.records import state as states
from hssl_search.engine.records import storage
from hssl_search.engine.records.results import RunRecord
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage import StorageError
from hssl_search.engine.records.storage_url import absolute, check_storage
from hssl_search.engine.records.study import MissingStudy, StudyRecord
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space

pytestmark = pytest.mark.slow(reason="starts database servers")
PASSWORD = "s3@c:r/e%t"
LARGE = [f"class {number:05d} of a long list of images ü" for number in range(2_500)]


def program(name: str, *folders: str) -> str:
    places = [
        str(path) for folder in folders for path in sorted(Path("/").glob(folder), reverse=True)
    ]
    if (
        found := shutil.which(
            name, path=os.pathsep.join([*places, "/usr/sbin", os.environ.get("PATH", "")])
        )
    ) is None:
        pytest.skip(f"the program {name} is not installed")
    return found


def user(name: str) -> str | None:
    """Whom a server runs as: servers refuse root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return "nobody"


class Server:
    """A database server in a folder of its own, on a port that is free."""

    scheme = account = ""
    stopped_by = signal.SIGTERM
    encodings = {"utf8": "", "latin1": ""}

    def __init__(self, folder: Path) -> None:
        self.folder, self.user = folder, user(self.account)
        if self.user is not None:
            shutil.chown(folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.install()
        self.start()

    def install(self) -> None:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def url(self, database: str) -> str:
        return f"{self.scheme}://optuna:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def run(self, *command: str) -> None:
        ended = subprocess.run(
            command, user=self.user, cwd=self.folder, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), user=self.user, cwd=self.folder, stdout=log, stderr=log
            )
        self.execute("SELECT 1")

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(self.stopped_by)
        self.process.wait()

    def execute(self, statement: str, database: str | None = None) -> list[Any]:
        """Run a statement as the administrator, once the server answers."""
        engine = sqlalchemy.create_engine(
            self.administrator(database), isolation_level="AUTOCOMMIT"
        )
        try:
            for attempt in range(600):
                try:
                    with engine.connect() as connection:
                        found = connection.exec_driver_sql(statement)
                        return list(found) if found.returns_rows else []
                except sqlalchemy.exc.OperationalError:
                    assert self.process is not None and self.process.poll() is None, (
                        self.folder / "log"
                    ).read_text()
                    if attempt == 599:
                        raise
                    time.sleep(0.1)
        finally:
            engine.dispose()
        raise AssertionError("unreachable")

    def administrator(self, database: str | None) -> str:
        raise NotImplementedError

    def new_database(self, encoding: str = "utf8") -> str:
        """Return the URL of an empty database."""
        name = f"made{time.monotonic_ns()}"
        self.execute(f"CREATE DATABASE {name} {self.encodings[encoding]}")
        for statement in self.granted(name):
            self.execute(statement)
        return self.url(name)

    def granted(self, database: str) -> list[str]:
        return []

    def url_without_password(self, database: str) -> str:
        """Return a URL that leaves the password to a file."""
        raise NotImplementedError

    def secret_file(self, text: str) -> Path:
        path = self.folder / "secret"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def end_connections(self) -> int:
        """End all connections but the administrator's; how many there were."""
        raise NotImplementedError


class PostgreSQL(Server):
    scheme, account = "postgresql+psycopg", "postgres"
    stopped_by = signal.SIGINT  # a fast shutdown, which ends connections
    encodings = {
        "utf8": "ENCODING 'UTF8' TEMPLATE template0",
        "latin1": "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    }

    def install(self) -> None:
        initdb = program("initdb", "usr/lib/postgresql/*/bin")
        self.postgres = program("postgres", "usr/lib/postgresql/*/bin")
        self.run(
            initdb,
            "--pgdata",
            "data",
            "--username",
            "admin",
            "--auth-local",
            "trust",
            "--auth-host",
            "scram-sha-256",
            "--no-sync",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        )

    def command(self) -> list[str]:
        return [
            self.postgres,
            "-D",
            "data",
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]

    def start(self) -> None:
        super().start()
        if not self.execute("SELECT 1 FROM pg_roles WHERE rolname = 'optuna'"):
            self.execute(f"CREATE ROLE optuna LOGIN PASSWORD '{PASSWORD}'".replace("%", "%%"))

    def administrator(self, database: str | None) -> str:
        name = database or "postgres"
        return f"postgresql+psycopg://admin@/{name}?host={self.folder}&port={self.port}"

    def granted(self, database: str) -> list[str]:
        return [f"ALTER DATABASE {database} OWNER TO optuna"]

    def url_without_password(self, database: str) -> str:
        escaped = PASSWORD.replace(":", "\\:")
        return f"postgresql+psycopg://optuna@127.0.0.1:{self.port}/{database}?passfile={self.secret_file(f'*:*:*:optuna:{escaped}')}"

    def end_connections(self) -> int:
        return len(
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'optuna'"
            )
        )


class MariaDB(Server):
    scheme, account = "mysql+pymysql", "mysql"
    encodings = {"utf8": "CHARACTER SET utf8mb4", "latin1": "CHARACTER SET latin1"}

    def install(self) -> None:
        self.mariadbd = program("mariadbd")
        install = program("mariadb-install-db")
        self.run(
            install,
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *([f"--user={self.user}"] if self.user else []),
        )

    def command(self) -> list[str]:
        return [
            self.mariadbd,
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--pid-file={self.folder}/pid",
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def start(self) -> None:
        super().start()
        password = PASSWORD.replace("%", "%%")
        self.execute(f"CREATE USER IF NOT EXISTS optuna@'127.0.0.1' IDENTIFIED BY '{password}'")
        self.execute(f"CREATE USER IF NOT EXISTS optuna@localhost IDENTIFIED BY '{password}'")

    def administrator(self, database: str | None) -> str:
        return (
            f"mysql+pymysql://root@localhost/{database or 'mysql'}?unix_socket={self.folder}/socket"
        )

    def granted(self, database: str) -> list[str]:
        return [
            f"GRANT ALL ON {database}.* TO optuna@'{host}'" for host in ("127.0.0.1", "localhost")
        ]

    def url_without_password(self, database: str) -> str:
        options = self.secret_file(f"[client]\nuser = optuna\npassword = {PASSWORD}\n")
        return f"mysql+pymysql://127.0.0.1:{self.port}/{database}?read_default_file={options}"

    def end_connections(self) -> int:
        found = self.execute("SELECT id FROM information_schema.processlist WHERE user = 'optuna'")
        self.execute("KILL USER optuna")  # one by one, some would be gone before
        return len(found)


@pytest.fixture(scope="module", params=[PostgreSQL, MariaDB])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    # a short path, as it holds a socket, that the server's user may enter
    folder = Path(tempfile.mkdtemp(prefix="db-"))
    try:
        made = request.param(folder)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_larger_than_a_text_of_mysql_is_whole_again(server: Server) -> None:
    url, job = (
        server.new_database(),
        Job("proxy/0", "proxy", Task.model_construct(name="".join(LARGE)), "/nowhere", trial=0),
    )
    reports = [Report(step, {"accuracy": 50.0, "heads": LARGE}) for step in (1, 2)]
    with StudyRecord.open(url, "名前𠀀ü", new=True) as record:
        record.write(SearchState(config={"classes": LARGE}))
        record.write(SearchState(config={"classes": LARGE[::-1]}))
        record.add_trial(states.TrialState(role="candidate", head=HeadConfig(family="mlp")))
        record.record_job(job, Outcome(State.CUT, reports=reports[:1]))
        record.record_job(job, Outcome(State.DONE, reports=reports))
        record.finish(0, "FAIL", cause="図" * 100_000)
    with StudyRecord.existing(url, "名前𠀀ü") as record:
        assert record.study_attributes() == {"config": {"classes": LARGE[::-1]}}
        assert record.job_outcomes() == {"proxy/0": Outcome(State.DONE, reports=reports)}
        assert record.frozen(0).user_attrs["cause"].startswith("図図")
        read = RunRecord.of(record.study)
        assert read.config == {"classes": LARGE[::-1]} and [
            len(job.reports) for job in read.jobs
        ] == [2]


def test_a_name_that_the_database_cannot_hold_is_one_sentence(server: Server) -> None:
    url = server.new_database("latin1")
    told = r"cannot hold the name '図𠀀'.*give this run another --name"
    with pytest.raises(UserError, match=told), StudyRecord.open(url, "図𠀀", new=True):
        pass


def test_a_study_that_is_not_there_makes_nothing(server: Server) -> None:
    url = server.new_database()
    with (
        pytest.raises(MissingStudy, match="holds no study 'demo'"),
        StudyRecord.existing(url, "demo"),
    ):
        pass
    database = url.rpartition("/")[2]
    assert (
        server.execute(
            f"SELECT 1 FROM information_schema.tables WHERE '{database}' IN (table_schema, "
            "table_catalog) AND table_name = 'studies'",
            database,
        )
        == []
    )
    with StudyRecord.open(url, "Demo", new=True):
        pass
    with (
        pytest.raises(MissingStudy, match="holds no study 'demo'"),
        StudyRecord.existing(url, "demo"),
    ):
        pass


def test_the_password_may_stand_in_a_file_of_the_drivers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url_without_password(server.new_database().rpartition("/")[2])
    monkeypatch.chdir(server.folder)
    relative = absolute(url.replace(f"{server.folder}/", ""))
    assert unquote(relative) == url
    monkeypatch.chdir("/")
    for storage_url in (url, relative):
        check_storage(storage_url)
        with StudyRecord.open(storage_url, "demo") as record:
            record.write(SearchState(ended="value"))


def test_connections_that_the_server_ends_are_made_again(server: Server) -> None:
    with StudyRecord.open(server.new_database(), "demo", new=True) as record:
        for number in range(5):
            assert record.add_trial(states.TrialState(seed=number)) == number
            assert server.end_connections() >= 1
            record.write_trial(number, states.TrialState(cka=0.5))
            assert server.end_connections() >= 1
            record.report(number, 10, 50.0)
            assert server.end_connections() >= 1
            record.finish(number, "COMPLETE", 50.0)
            assert server.end_connections() >= 1
            record.record_job(
                Job(f"proxy/{number}", "proxy", Task.model_construct(), "/nowhere"),
                Outcome(State.DONE),
            )
        assert [(trial.state, trial.user_attrs) for trial in record.trials()] == [
            (TrialState.COMPLETE, {"seed": number, "cka": 0.5}) for number in range(5)
        ]
        assert len(record.job_outcomes()) == 5


def test_a_restart_in_the_middle_of_a_search_is_waited_for(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with StudyRecord.open(server.new_database(), "demo", new=True) as record:
        record.add_trial(states.TrialState())
        for number in (1, 2):
            server.stop()
            back = threading.Timer(2.0, server.start)
            back.start()
            assert record.add_trial(states.TrialState()) == number
            back.join()
        record.write(SearchState(ended="value"))
        assert len(record.trials()) == 3
    assert all("does not answer" in told and "s3@" not in told for told in caplog.messages)


def disturb(server: Server, opened: BaseStorage) -> list[int]:
    """Let the server end all connections before every tenth attribute of the study, once by a
    restart; how many it ended each time.
    """
    calls, ended, write = itertools.count(1), list[int](), opened.set_study_user_attr

    def disturbed(*values: Any) -> None:
        if (call := next(calls)) == 15:
            server.stop()
            server.start()
        elif call % 10 == 0:
            ended.append(server.end_connections())
        write(*values)

    opened.set_study_user_attr = disturbed  # type: ignore[method-assign,assignment]
    return ended


def test_a_whole_search_finds_the_same_on_a_server_that_ends_connections(
    server: Server, tmp_path: Path, setting: Setting
) -> None:
    def found(name: str, where: BaseStorage) -> list[Any]:
        plan = Plan(
            16,
            8,
            40,
            8,
            80,
            [20, 40, 80],
            38,
            {"screen": 1.0, "proxy": 1.0, "confirm": 1.0, "full": 0.0},
        )
        space = Space.from_plain(
            {"parameters": {"family": {"choice": ["convnext", "mlp"]}, "depth": {"int": [1, 16]}}},
            "wide",
        )
        started = Simulation(
            tmp_path / name / "run",
            space,
            setting,
            SyntheticHeads(),
            Machine("gpu", cpus=4, gpus=4),
            Budget(1_000.0, "gpu", "some"),
            plan=plan,
            cost=lambda head, shape: (10, 10),
        ).start(where)
        verdict = started.search()
        trials = [
            (
                trial.number,
                trial.state,
                trial.value,
                trial.params,
                trial.intermediate_values,
                trial.user_attrs,
            )
            for trial in started.study.trials()
        ]
        return [verdict, trials, started.study.job_records()]

    in_memory = found("memory", InMemoryStorage())
    with storage.open_storage(server.new_database()) as opened:
        ended = disturb(server, opened)
        assert found("server", opened) == in_memory
    assert sum(ended) > 0


def test_a_server_that_stays_away_is_one_sentence_and_is_not_waited_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    with StudyRecord.open(server.new_database(), "demo", new=True) as record:
        record.write(SearchState(ended="before"))
        server.stop()
        try:
            monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
            monkeypatch.setattr(storage.time, "sleep", pauses.append)
            for _ in range(2):
                with pytest.raises(
                    StorageError,
                    match=r"^the storage '[^']*optuna:\*\*\*@127.* failed \(.*\); check that it ",
                ) as error:
                    record.write(SearchState(nothing_runs="during"))
                assert not any(
                    part in str(error.value)
                    for part in (PASSWORD, quote(PASSWORD, safe=""), "s3@", "s3%40")
                )
                assert len(pauses) == 1, "the second was not waited for"
        finally:
            monkeypatch.undo()
            server.start()
        record.write(SearchState(nothing_runs="after"))
        assert record.study_attributes() == {"ended": "before", "nothing_runs": "after"}


@pytest.mark.parametrize("mistake", ["password", "database", "option"])
def test_what_the_server_refuses_is_one_sentence_without_the_password(
    server: Server, mistake: str
) -> None:
    good = server.new_database()
    url = {
        "password": good.replace("s3%40", "wr0ng%40"),
        "database": good + "x",
        "option": good + "?nosuchoption=1",
    }[mistake]
    with (
        pytest.raises(
            UserError, match=r"^the storage '.*' (failed|cannot be opened) \(.*\); "
        ) as error,
        StudyRecord.open(url, "demo"),
    ):
        pass
    told = str(error.value)
    assert "\n" not in told and not any(part in told for part in ("s3", "wr0ng", "c:r", "c%3Ar"))
