"""The database behind the study: SQLite in the run folder, or any that SQLAlchemy reaches."""

from __future__ import annotations

import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from hssl_search.engine.records.storage_url import (
    immutable_url,
    is_sqlite,
    parse_url,
    require_driver,
    secrets,
    shown,
    sqlite_file,
)
from hssl_search.errors import UserError
from hssl_search.interrupts import pause

BUSY_S = 2.0
"""How long SQLite itself waits for another writer, deaf to signals; then the write is repeated, for
up to `PATIENCE_S`."""
PATIENCE_S = 120
"""How long a server that does not answer is asked again: to restart, or to be replaced by another,
it takes a minute or so. Jobs train on meanwhile, and their time is charged afterwards."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between one question and the next; the last is repeated."""
PASSING = re.compile(r"08...|57P0[1235]|53300|40001|40P01")
"""SQLSTATEs (PostgreSQL) of what passes: a connection that failed, a server that restarts or has
too many connections, a deadlock, which was rolled back."""
PASSING_NUMBERS = frozenset(
    {1040, 1053, 1205, 1213, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 4031}
)
"""The same as numbers of MySQL and MariaDB."""


class StorageError(UserError):
    """The database of a study failed."""

    def __init__(self, what: str, remedy: str, then: str = "run the command again") -> None:
        super().__init__(f"{what}; {remedy}, then {then}.")
        self.what, self.remedy = what, remedy

    def followed_by(self, then: str) -> StorageError:
        """Return the same error with what to do when the database answers again."""
        return StorageError(self.what, self.remedy, then)


def holds_studies(url: str) -> bool:
    """Return whether the database has Optuna's tables; a file that is missing is not made."""
    if (file := sqlite_file(url)) is not None and not file.is_file():
        return False
    require_driver(url)
    with storage_errors(url):
        engine = sqlalchemy.create_engine(
            immutable_url(file) if file is not None and _is_for_reading(file) else url
        )
        try:
            return sqlalchemy.inspect(engine).has_table("studies")
        finally:
            engine.dispose()


@contextmanager
def open_storage(url: str) -> Iterator[BaseStorage]:
    """Open the database at `url`, make its tables when they are missing, and close it on leaving.

    SQLite is switched to its write-ahead log, so that dashboards read while the search writes; on
    leaving the log is merged back and `study.db` is whole by itself. A commit is in the file when
    it returns, and on the disk soon after or with `flush`: a killed process loses none; a power cut
    may take the last ones, and the search then does again what they told of.

    A server may end connections that are idle, and may be restarted, and another program may be
    writing to SQLite: a call is repeated until it answers, for at most `PATIENCE_S`, and not after
    the search was asked to stop.

    Raises:
        UserError: when the database cannot be reached, or was written by another version of Optuna;
            also for an error of the database in the body of the `with`.
    """
    require_driver(url)
    with storage_errors(url):
        rdb = _opened(url)
    try:
        with database_errors(url):
            storage = optuna.storages.get_storage(rdb)
            _Patience(storage, url)
            yield storage
    finally:
        rdb.remove_session()
        rdb.engine.dispose()


def flush(url: str) -> None:
    """Bring all that was committed to SQLite onto the disk; other databases see to that
    themselves."""
    if not is_sqlite(url):
        return
    log = f"{sqlite_file(url)}-wal"
    if os.path.exists(log):
        with open(log, "rb") as file:
            os.fsync(file.fileno())


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn errors of opening the database into a UserError that names it without its password."""
    try:
        with database_errors(url):
            yield
    except RuntimeError as error:
        if "optuna" not in str(error):
            raise
        raise UserError(
            f"the storage {shown(url)!r} was made by another version of Optuna; "
            "run `optuna storage upgrade` on it."
        ) from error


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn errors of the database into a UserError that names it without its password."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = _reason(error, url)
        raise StorageError(
            f"the storage {shown(url)!r} failed ({reason})", _remedy(reason)
        ) from error


class _Patience:
    """Repeats the calls of a storage while its server does not answer or its file is being written.

    A call may have been carried out before the connection broke, so those that cannot simply be
    repeated are looked after: a trial is not added twice, and one that is finished is not finished
    again. That is sound because a study has a single writer.
    """

    def __init__(self, storage: BaseStorage, url: str) -> None:
        self._url = url
        self._silent_since: float | None = None
        self._trials: dict[int, int] = {}
        """Of each study that trials are added to, how many it has."""
        self._get_trials, self._create_trial = storage.get_all_trials, storage.create_new_trial
        for name in BaseStorage.__abstractmethods__:
            setattr(storage, name, self._repeated(getattr(storage, name)))
        storage.create_new_trial = self._create_new_trial  # type: ignore[method-assign]

    def _repeated(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values, **named: self._until_answered(lambda: call(*values, **named))

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if study_id not in self._trials:
            self._trials[study_id] = len(
                self._until_answered(lambda: self._get_trials(study_id, deepcopy=False))
            )
        attempts = iter([False])

        def create() -> int:
            if (
                next(attempts, True)
                and len(trials := self._get_trials(study_id, deepcopy=False))
                > self._trials[study_id]
            ):
                return trials[-1]._trial_id  # the attempt before was carried out
            return self._create_trial(study_id, template_trial)

        created: int = self._until_answered(create)
        self._trials[study_id] += 1
        return created

    def _until_answered(self, call: Callable[[], Any]) -> Any:
        pauses, again = iter(PAUSES_S), False
        while True:
            try:
                answer = call()
            except UpdateFinishedTrialError:
                if not again:
                    raise
                answer = True  # the attempt before has finished it
            except (SQLAlchemyError, StorageInternalError) as error:
                self._check_patience(error)
                # Whoever asked to stop waits for one more answer: an idle connection may just have
                # ended.
                self._wait(pause if again else time.sleep, next(pauses, PAUSES_S[-1]))
                again = True
                continue
            self._silent_since = None
            return answer

    def _wait(self, sleep: Callable[[float], None], seconds: float) -> None:
        try:
            sleep(seconds)
        except KeyboardInterrupt:
            self._silent_since = -math.inf  # nobody wants to wait for the report either
            raise

    def _check_patience(self, error: Exception) -> None:
        """Raise `error` where asking again is of no use: the database refused, or is silent for too
        long."""
        if not _is_of_connection(error):
            raise error
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            logging.getLogger("hssl_search").warning(
                "the storage %r does not answer (%s); asking again for up to %d seconds.",
                shown(self._url),
                _reason(error, self._url),
                PATIENCE_S,
            )
        elif time.monotonic() - self._silent_since > PATIENCE_S:
            raise error


def _is_of_connection(error: BaseException | None) -> bool:
    """Return whether the connection failed or the server was not ready, not what was asked of
    it."""
    while error is not None:
        if isinstance(error, PendingRollbackError):
            return True  # Optuna went on in a transaction whose connection had broken
        if isinstance(error, DBAPIError):
            if error.connection_invalidated or isinstance(error, InterfaceError):
                return True
            return isinstance(error, OperationalError) and _passes(error.orig)
        error = error.__cause__
    return False


def _passes(error: BaseException | None) -> bool:
    """Return whether what a driver tells may pass; of a broken connection it may tell nothing."""
    if (code := getattr(error, "sqlite_errorcode", None)) is not None:
        return bool(code & 0xFF == sqlite3.SQLITE_BUSY)  # the low byte: above it is what kind of it
    number = getattr(error, "errno", None) or next(iter(getattr(error, "args", ())), None)
    if isinstance(number, int):
        return number in PASSING_NUMBERS
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state is None or PASSING.fullmatch(state) is not None


def _opened(url: str) -> RDBStorage:
    if not is_sqlite(url):
        try:
            # Servers end idle connections: one is tried before it is used.
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except (TypeError, ValueError, OSError) as error:
            # Of the driver, for an option that it does not know.
            reason = _reason(error, url)
            raise UserError(
                f"the storage {shown(url)!r} cannot be opened ({reason}); correct its URL."
            ) from error
    if (file := sqlite_file(url)) is not None and _is_for_reading(file):
        return RDBStorage(immutable_url(file))
    rdb = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": PATIENCE_S}})
    with rdb.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    for pragma in ("synchronous=NORMAL", f"busy_timeout={round(BUSY_S * 1000)}"):
        sqlalchemy.event.listen(
            rdb.engine,
            "connect",
            lambda connection, _, pragma=pragma: connection.execute(f"PRAGMA {pragma}"),
        )
    rdb.engine.dispose()  # connections from before
    return rdb


def _is_for_reading(file: Path) -> bool:
    """Return whether the file is whole by itself and in a folder that may not be written, such as
    someone else's run."""
    return (
        file.is_file()
        and not os.access(file.parent, os.W_OK)
        and not file.with_name(f"{file.name}-wal").exists()
    )


def _reason(error: BaseException, url: str) -> str:
    """Return the deepest cause in one line, as far as it does not hold the password."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
    return (
        "its reason holds the password and is not shown"
        if any(secret in reason for secret in secrets(parse_url(url)))
        else reason
    )


def _remedy(reason: str) -> str:
    if "locked" in reason:
        return "another program has been writing to it for too long: end that program"
    if "disk is full" in reason or "No space left" in reason:
        return "free some space there"
    return "check that it exists, answers, may be written and its disk is not full"
