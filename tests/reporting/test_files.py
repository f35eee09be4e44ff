"""Files of a report: whole or not at all, and one sentence where they may not be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hssl_search.errors import UserError
from hssl_search.reporting.files import write_whole


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            errno.EROFS,
            r"/report\.html cannot be written \(Read-only file system\); make its folder "
            r"writable, or work on a copy of the run\.$",
        ),
        (errno.EACCES, r"/report\.html cannot be written \(Permission denied\); "),
    ],
)
def test_a_folder_that_may_not_be_written_is_one_sentence(
    tmp_path: Path, number: int, told: str
) -> None:
    (tmp_path / "report.html").write_text("before")

    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(UserError, match=told):
        write_whole(tmp_path / "report.html", refuse)
    assert (tmp_path / "report.html").read_text() == "before"


def test_another_error_passes_on(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left"):
        write_whole(tmp_path / "report.html", fail)
