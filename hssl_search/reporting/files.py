"""The files of a report: the page and the tables beside it, each written whole or not at all."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from optuna import Study

from hssl_search.engine.records.results import RunRecord
from hssl_search.errors import UserError
from hssl_search.reporting.page import build_page
from hssl_search.reporting.tables import leaderboard, trials
from hssl_search.scratch import replacing

TRIALS = "trials.parquet"


def write_report(
    folder: Path, study: Study | RunRecord, ledger: Iterable[Mapping[str, Any]]
) -> list[Path]:
    """Write `report.html`, `leaderboard.csv` and `trials.parquet` into the run folder, each whole
    or not at all.

    Args:
        ledger: the entries of the run's `records.ledger.Ledger`.

    Raises:
        UserError: where the last report has more trials than the study, which then is another one;
            nothing is written.
    """
    record = RunRecord.of(study)
    # A study only grows: with fewer trials than were reported before, it is another one.
    if (before := reported_trials(folder)) > (now := len(record.trials)):
        raise UserError(
            f"the report in {folder} is of {before} trials and the study holds {now}: it is not "
            "the study of this run, or a part of it is lost; put it back, or remove "
            f"{folder / TRIALS} to have a report of what is there."
        )
    # Built before anything is written: a mistake in a user's template leaves the last report.
    page = build_page(record, ledger, folder).encode()

    def write_page(path: Path) -> None:
        path.write_bytes(page)

    return [write_whole(folder / "report.html", write_page), *write_tables(folder, record)]


def reported_trials(run_folder: Path) -> int:
    """Return how many trials the `trials.parquet` in the run folder has; 0 where there is none
    that can be read."""
    try:
        return int(pyarrow.parquet.read_metadata(run_folder / TRIALS).num_rows)
    except (OSError, pyarrow.ArrowException):
        return 0


def write_tables(run_folder: Path, study: Study | RunRecord) -> list[Path]:
    """Write `leaderboard.csv` and `trials.parquet` into the run folder."""
    record = RunRecord.of(study)
    board, every = leaderboard(record), trials(record)
    return [
        write_whole(run_folder / "leaderboard.csv", lambda path: board.to_csv(path, index=False)),
        write_whole(
            run_folder / TRIALS, lambda path: every.to_parquet(path, engine="pyarrow", index=False)
        ),
    ]


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a file beside `path`, then rename it to `path`; what stood there stays when
    `write` raises. A reader never sees half of it.

    Raises:
        UserError: where the folder may not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            write(beside)
    except OSError as error:
        # A full disk, for one, has a message of its own (`errors.disk_errors`).
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"{path} cannot be written ({error.strerror}); make its folder writable, or work on a "
            "copy of the run."
        ) from error
    return path
