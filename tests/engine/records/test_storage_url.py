"""URLs of databases: read, refused, made absolute, and shown without any part of a password."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage_url import (
    absolute,
    check_storage,
    database_url,
    shown,
    sqlite_file,
    sqlite_url,
)
from hssl_search.engine.records.study import StudyRecord
from hssl_search.errors import UserError, without_passwords

PARTS = ("s3cret", "cret", "s3c", "p%4")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "postgresql://optuna:s3cret@db:$PGPORT/optuna",
            "the storage 'postgresql://...' has a port that is no number; ",
        ),
        (
            "mysql://root:s3cret@tcp(localhost:3306)/db",
            "the storage 'mysql://...' has a port that is no number; ",
        ),
        (
            "postgresql://o:s3@cret@h/d",
            "the storage 'postgresql://...' has more than one '@'; write '%40' ",
        ),
        (
            "postgresql://o:s3@cret/x?y@h/d",
            "the storage 'postgresql://...' has more than one '@'; ",
        ),
        (
            "postgresql:/o:s3cret@h/d",
            "the storage '...' is no database URL that SQLAlchemy knows; ",
        ),
        (
            "postgres://o:s3cret@h/d",
            "the storage 'postgres://o:\\*\\*\\*@h/d' has its password in the URL, ",
        ),
        (
            "nosuchdatabase://h/d",
            "the storage 'nosuchdatabase://...' is no database URL that SQLAlchemy knows; ",
        ),
        (
            "postgresql://o:s3cret@h/d",
            "the storage 'postgresql://o:\\*\\*\\*@h/d' has its password in the URL, ",
        ),
        (
            "postgresql://o@h/d?password=s3cret",
            "the storage 'postgresql://o@h/d' has its password in the URL, ",
        ),
        (
            "mysql://o@h/d?passwd=s3cret",
            "the storage 'mysql://o@h/d' has its password in the URL, ",
        ),
        (
            "mssql+pyodbc://?odbc_connect=UID%3Do%3BPWD%3Ds3cret",
            "the storage 'mssql\\+pyodbc://' has its password in the URL, ",
        ),
        (
            "env:postgresql://o:s3cret@h/d",
            "the storage 'env:...' does not name an environment variable; ",
        ),
        ("env:", "the storage 'env:...' does not name an environment variable; "),
        (
            "env:NOT_SET",
            "the storage 'env:NOT_SET' is the environment variable NOT_SET, which is not set; ",
        ),
        ("env:RELATIVE", "the storage 'sqlite:///mine.db' is a relative path, "),
        ("env:MISTAKE", "the storage 'postgresql://...' has a port that is no number; "),
        ("mssql://h/d", "the storage 'mssql://h/d' needs a database driver that is not installed "),
        (
            "sqlite+aiosqlite:///a.db",
            "the storage 'sqlite\\+aiosqlite:///a.db' (needs a database driver|has an "
            "asynchronous driver)",
        ),
        (
            "sqlite:///a.db?mode=ro",
            "the storage 'sqlite:///a.db' has the option 'mode', which has no effect here; ",
        ),
        (
            "sqlite:///what is it?.db",
            "the storage 'sqlite:///what is it' has the option '.db', which has no effect here; ",
        ),
        (
            "sqlite:///a.db?mode=memory&uri=true",
            "the storage 'sqlite:///a.db' has the option 'mode', ",
        ),
        ("sqlite:///folder", "the storage 'sqlite:///folder' is a folder; name a file in it"),
    ],
)
def test_a_mistake_is_one_sentence_without_any_part_of_a_password(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("RELATIVE", "sqlite:///mine.db")
    monkeypatch.setenv("MISTAKE", "postgresql://optuna:s3cret@db:$PGPORT/optuna")
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(UserError, match=f"^{told}") as error:
        check_storage(url)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    assert not any(part in str(error.value) for part in PARTS)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        (
            "postgresql://o:s3cret@h:5432/d?sslmode=require&password=s3cret",
            "postgresql://o:***@h:5432/d",
        ),
        ("postgresql+psycopg://o:p%40ss%2Fw@h/d", "postgresql+psycopg://o:***@h/d"),
        ("postgresql://o@h/d", "postgresql://o@h/d"),
        ("sqlite:////tmp/a b@c.db", "sqlite:////tmp/a b@c.db"),
        ("sqlite+pysqlcipher://:s3cret@/a.db", "sqlite+pysqlcipher://..."),
        ("mysql://o:s3@cret@h/d", "mysql://..."),
        ("o:s3cret@h", "..."),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, is_shown: str) -> None:
    assert shown(url) == is_shown


def test_a_variable_may_hold_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.setenv("OUR_STUDIES", f" {url}\n")
    check_storage("env:OUR_STUDIES")
    assert database_url("env:OUR_STUDIES") == url
    assert absolute("env:OUR_STUDIES") == "env:OUR_STUDIES"


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("sqlite:///mine.db", "sqlite:///{here}/mine.db"),
        ("sqlite:///../mine.db?timeout=5", "sqlite:///{above}/mine.db?timeout=5"),
        ("sqlite:///a@b.db", "sqlite:///{here}/a%40b.db"),
        ("sqlite:////abs/mine.db", "sqlite:////abs/mine.db"),
        (
            "postgresql://o@h/d?passfile=pgpass&sslmode=verify-full&sslrootcert=/ca.pem",
            "postgresql://o@h/d?passfile={here}/pgpass&sslmode=verify-full&sslrootcert=/ca.pem",
        ),
        (
            "mysql+pymysql://o@h/d?read_default_file=my.cnf",
            "mysql+pymysql://o@h/d?read_default_file={here}/my.cnf",
        ),
        (
            "mysql+pymysql://o@h/d?read_default_file=~/my.cnf",
            "mysql+pymysql://o@h/d?read_default_file={home}/my.cnf",
        ),
        ("postgresql://o@h/d", "postgresql://o@h/d"),
    ],
)
def test_every_path_in_a_url_is_made_absolute(
    url: str, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = made.format(here=tmp_path, above=tmp_path.parent, home=Path.home())
    assert absolute(url).replace("%2F", "/").replace("%40", "@") == expected.replace("%40", "@")
    monkeypatch.chdir("/")
    assert absolute(absolute_in(tmp_path, url, monkeypatch)) == absolute_in(
        tmp_path, url, monkeypatch
    ), "it is absolute then"


def absolute_in(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as there:
        there.chdir(folder)
        return absolute(url)


@pytest.mark.parametrize(
    "name", ["what is it?", "50% done #2 [x]", "%41%2F", "a&b=c;d", "ü 図", "quote'\"", "a@b:c"]
)
def test_a_study_is_in_its_run_whatever_characters_are_in_the_path(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "study.db")
    with StudyRecord.open(url, "demo", new=True) as record:
        record.write(SearchState(ended="value"))
    assert sqlite_file(url) == folder / "study.db"
    assert [path.name for path in tmp_path.iterdir()] == [name] and [
        path.name for path in folder.iterdir()
    ] == ["study.db"]
    assert sqlite3.connect(folder / "study.db").execute(
        "SELECT study_name FROM studies"
    ).fetchall() == [("demo",)]
    assert shown(url) == f"sqlite:///{folder}/study.db"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "unknown '--storge=postgresql://o:s3@cret@h/d'; remove it.",
            "unknown '--storge=postgresql://o:***@h/d'; remove it.",
        ),
        (
            "storage is ['postgresql://o:s3cret@h/d?password=s3cret'], but",
            "storage is ['postgresql://o:***@h/d?password=***'], but",
        ),
        (
            "see https://example.org:80/a or 'postgresql://user@host/name'.",
            "see https://example.org:80/a or 'postgresql://user@host/name'.",
        ),
    ],
)
def test_no_sentence_repeats_a_password_that_was_typed(text: str, expected: str) -> None:
    assert without_passwords(text) == str(UserError(text)) == expected
