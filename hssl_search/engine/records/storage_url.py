"""The URL of the study's database: read, checked, made absolute, and shown without its password."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from hssl_search.errors import UserError

VARIABLE = re.compile(r"env:(\w+)")
"""A storage that names the environment variable in which its URL stands."""
EXAMPLE = "'sqlite:////path/study.db' or 'postgresql://user@host/name'"
SECRET = re.compile(r"passw", re.IGNORECASE)
"""Options of a URL that are passwords: `password`, `passwd`, `sslpassword`."""
FILES = {
    "passfile",
    "servicefile",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "read_default_file",
    "unix_socket",
    "ssl_ca",
    "ssl_capath",
    "ssl_cert",
    "ssl_key",
}
"""Options of a URL that are paths, as the drivers of PostgreSQL and MySQL name them."""
OF_SQLITE = {"timeout", "check_same_thread"}
"""Options of SQLite that are harmless; SQLAlchemy drops others, such as `mode=ro`, silently."""


def database_url(storage: str) -> str:
    """Return the URL that `storage` stands for: itself, or what the variable in `env:NAME`
    holds."""
    if not storage.startswith("env:"):
        return storage
    if (named := VARIABLE.fullmatch(storage)) is None:
        raise UserError(
            "the storage 'env:...' does not name an environment variable; write for example "
            "env:HSSL_SEARCH_STORAGE, and put the database's URL into that variable."
        )
    if not (url := os.environ.get(named[1], "").strip()):
        raise UserError(
            f"the storage {storage!r} is the environment variable {named[1]}, which is not set; "
            "set it to the database's URL and run the command again."
        )
    return url


def check_storage(storage: str) -> None:
    """Raise UserError where `storage` cannot be a database of this search; connect to nothing."""
    url = database_url(storage)
    parsed = parse_url(url)
    if storage == url and secrets(parsed):
        raise UserError(
            f"the storage {shown(url)!r} has its password in the URL, which search.yaml and the "
            "list of processes would show to others; put the URL into an environment variable and "
            "name that, such as --storage env:HSSL_SEARCH_STORAGE, or leave the password to "
            "~/.pgpass or ~/.my.cnf."
        )
    require_driver(url)
    if is_sqlite(url):
        _check_file(url, parsed, named=storage != url)


def require_driver(url: str) -> None:
    """Raise UserError where there is no driver for this URL, or none that Optuna can use."""
    try:
        dialect = parse_url(url).get_dialect()
        dialect.import_dbapi()
    except ArgumentError:
        raise _unknown(url) from None
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the storage {shown(url)!r} needs a database driver that is not installed ({reason}); "
            "install it."
        ) from None
    if dialect.is_async:
        raise UserError(
            f"the storage {shown(url)!r} has an asynchronous driver, which Optuna cannot use; name "
            "another, such as 'postgresql+psycopg://' or 'mysql+pymysql://'."
        )


def _check_file(url: str, parsed: URL, named: bool) -> None:
    if parsed.database in (None, "", ":memory:"):
        raise UserError(
            f"the storage {url!r} is in memory and would be lost; name a file, for example "
            "'sqlite:////path/study.db'."
        )
    options = parsed.query.keys() or url.split("?", 1)[1:]  # SQLAlchemy drops what has no "="
    if strange := sorted(set(options) - OF_SQLITE):
        raise UserError(
            f"the storage {shown(url)!r} has the option {strange[0]!r}, which has no effect here; "
            "leave it out, or write '%3F' for a question mark in a file's name."
        )
    path = Path(parsed.database)
    if named and not path.is_absolute():
        raise UserError(
            f"the storage {shown(url)!r} is a relative path, and a variable must mean the same "
            "file from every folder; write four slashes and the whole path, "
            "'sqlite:////path/study.db'."
        )
    if not path.parent.is_dir():
        raise UserError(
            f"the storage {shown(url)!r} is in the folder {str(path.parent)!r}, which does not "
            "exist; make it first."
        )
    if path.is_dir():
        raise UserError(f"the storage {shown(url)!r} is a folder; name a file in it.")


def absolute(storage: str) -> str:
    """Return `storage` with every path in it absolute: it then means the same from every folder."""
    if storage.startswith("env:"):
        return storage
    parsed = parse_url(storage)
    # An option that is given twice is a tuple.
    files = {
        key: value for key, value in parsed.query.items() if key in FILES and isinstance(value, str)
    }
    changed = parsed.update_query_dict(
        {key: os.path.abspath(os.path.expanduser(value)) for key, value in files.items()}
    )
    if is_sqlite(storage) and parsed.database:
        changed = changed.set(database=os.path.abspath(parsed.database))
    # As typed where nothing changed: rendering may spell it otherwise.
    return storage if changed == parsed else changed.render_as_string(hide_password=False)


def sqlite_url(path: Path) -> str:
    """Return the URL of the SQLite file at `path`, whatever characters are in its name."""
    return URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def immutable_url(path: Path) -> str:
    """Return the URL of an SQLite file that nobody writes to.

    It is read without the files that SQLite otherwise puts beside it.
    """
    return URL.create(
        "sqlite", database=f"file:{quote(str(path))}", query={"uri": "true", "immutable": "1"}
    ).render_as_string()


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for another database."""
    return Path(parse_url(url).database or "") if is_sqlite(url) else None


def is_sqlite(url: str) -> bool:
    """Return whether the URL is of SQLite."""
    # By its beginning alone: `parse_url` asks before it has read the URL.
    return re.match(r"sqlite(\+\w+)?:", url) is not None


def parse_url(url: str) -> URL:
    """Return the parts of a URL.

    Raises:
        UserError: where it cannot be read; it shows nothing that may be of a password.
    """
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except ArgumentError:
        raise _unknown(url) from None
    # The cause quotes what it takes for the port, which may be the end of a password.
    except ValueError:
        raise UserError(
            f"the storage {_scheme(url)!r} has a port that is no number; write for example "
            "'postgresql://user@host:5432/name', and check that the shell has filled in its "
            "variables."
        ) from None
    if not is_sqlite(url) and url.count("@") > 1:
        # SQLAlchemy ends the password at the first "@" and would show the rest of it as the host.
        raise UserError(
            f"the storage {_scheme(url)!r} has more than one '@'; write '%40' for each that "
            "belongs to the user, the password or an option."
        )
    return parsed


def secrets(parsed: URL) -> set[str]:
    """Return all passwords of a URL."""
    # `odbc_connect` is a whole connection string, which may hold one.
    values = {
        value for key, value in parsed.query.items() if SECRET.search(key) or key == "odbc_connect"
    }
    return {str(value) for value in (parsed.password, *values) if value}


def shown(url: str) -> str:
    """Return the URL as it may be printed: without password and options.

    Of one that cannot be read it is only the beginning.
    """
    try:
        parsed = parse_url(url)
    except UserError:
        return _scheme(url)
    if is_sqlite(url):
        return unquote(url.partition("?")[0]) if not parsed.password else _scheme(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def _unknown(url: str) -> UserError:
    return UserError(
        f"the storage {_scheme(url)!r} is no database URL that SQLAlchemy knows; write for example "
        f"{EXAMPLE}."
    )


def _scheme(url: str) -> str:
    """Return what stands before a user and a password."""
    scheme, sign, _ = url.partition("://")
    if sign:
        return f"{scheme}://..."
    return "..." if "@" in url else url
