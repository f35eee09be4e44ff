"""The database behind the study: SQLite in the run folder, or any that SQLAlchemy reaches by URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hssl_search.errors import UserError

BUSY_S = 120
"""How long a write to SQLite waits for another writer. Jobs train on meanwhile, and their time is charged afterwards."""


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def check_url(url: str) -> None:
    """UserError when no database can be meant by `url` or its driver is missing; nothing is connected to or written."""
    with storage_errors(url):
        engine = sqlalchemy.create_engine(url)
    if engine.dialect.name != "sqlite":
        return
    if engine.url.database in (None, "", ":memory:"):
        raise UserError(f"the storage {url!r} is in memory and would be lost; name a file, for example 'sqlite:////path/study.db'.")
    if not (folder := Path(engine.url.database).parent).is_dir():
        raise UserError(f"the storage {url!r} is in the folder {str(folder)!r}, which does not exist; make it first.")


def may_exist(url: str) -> bool:
    """Whether there may be a database at `url`: False for SQLite without its file."""
    with storage_errors(url):
        parsed = sqlalchemy.engine.make_url(url)
    return not url.startswith("sqlite") or Path(parsed.database or "").is_file()


@contextmanager
def open_storage(url: str) -> Iterator[BaseStorage]:
    """The database at `url`, its tables made when missing; closed on leaving.

    SQLite is switched to its write-ahead log, so that dashboards read while the search writes; on leaving the log is merged back
    and `study.db` is whole by itself. A commit is in the file when it returns, and on the disk soon after or with `flush`: a killed
    process loses none; a power cut may take the last ones, and the search then does again what they told of. UserError when the
    database cannot be reached or was written by another Optuna.
    """
    with storage_errors(url):
        rdb = _opened(url)
    try:
        yield optuna.storages.get_storage(rdb)
    finally:
        _close(rdb)


def flush(url: str) -> None:
    """Have all that was committed to SQLite on the disk when this returns; other databases see to that themselves."""
    if not url.startswith("sqlite"):
        return
    log = Path(f"{sqlalchemy.engine.make_url(url).database}-wal")
    if log.exists():
        with log.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Within: errors of the database become a UserError that names it, without its password."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(
            f"the storage {shown(url)!r} is no database URL that SQLAlchemy knows; write for example 'sqlite:////path/study.db' or "
            "'postgresql://user@host/name'."
        ) from error
    except ImportError as error:
        raise UserError(
            f"the storage {shown(url)!r} needs a database driver that is not installed ({_reason(error)}); install it."
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise UserError(f"the storage {shown(url)!r} failed ({_reason(error)}); {_remedy(error)}") from error
    except RuntimeError as error:
        if "optuna" not in str(error):
            raise
        raise UserError(
            f"the storage {shown(url)!r} was made by another version of Optuna; run `optuna storage upgrade` on it."
        ) from error


def shown(url: str) -> str:
    """The URL as it may be printed."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _opened(url: str) -> RDBStorage:
    if not url.startswith("sqlite"):
        return RDBStorage(url)
    rdb = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_S}})
    sqlalchemy.event.listen(rdb.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
    rdb.engine.dispose()  # connections from before
    with rdb.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return rdb


def _close(rdb: RDBStorage) -> None:
    rdb.remove_session()
    rdb.engine.dispose()


def _reason(error: BaseException) -> str:
    """The deepest cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")


def _remedy(error: BaseException) -> str:
    if "locked" in _reason(error):
        return "another program has been writing to it for too long; end that program, then go on with `hssl-search resume`."
    if "disk is full" in _reason(error):
        return "free some space there, then go on with `hssl-search resume`, or run the command again where it made no run."
    return "check that it exists, answers, may be written, and that its disk is not full."
