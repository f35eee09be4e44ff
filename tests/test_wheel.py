"""What is installed is what is in the checkout: the wheel, built from the source distribution, in a
folder of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("search_spaces", "trainers", "reports")

LOOK = """
import json, sys, hssl_search.errors
from hssl_search import bundled
found = {
    kind: {name: str(bundled.find(kind, name)) for name in bundled.names(kind)}
    for kind in sys.argv[1:]
}
print(json.dumps({"package": hssl_search.errors.__file__, "found": found}))
"""


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT], folder
    )
    [wheel] = (folder / "dist").glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--link-mode",
        "copy",
    ]
    run([*install, "--target", folder / "site", wheel], folder)
    return folder / "site"


@pytest.fixture(scope="module")
def seen(target: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the installed package says from a folder that knows nothing of the checkout."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    return json.loads(run([sys.executable, "-c", LOOK, *KINDS], elsewhere, PYTHONPATH=str(target)))


def content(kind: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (ROOT / kind).iterdir() if path.is_file()}


def test_the_installed_package_is_the_one_that_answers(target: Path, seen: dict[str, Any]) -> None:
    assert Path(seen["package"]).is_relative_to(target)


@pytest.mark.parametrize("kind", KINDS)
def test_bundled_names_and_contents_are_those_of_the_folder(
    target: Path, seen: dict[str, Any], kind: str
) -> None:
    found = {name: Path(path) for name, path in seen["found"][kind].items()}
    assert all(path.is_relative_to(target / "hssl_search" / "_bundled") for path in found.values())
    assert {path.name: path.read_bytes() for path in found.values()} == {
        name: text for name, text in content(kind).items() if name != "README.md"
    }


def test_the_wheel_holds_every_module_and_no_other_top_level_package(target: Path) -> None:
    installed = {
        path.relative_to(target / "hssl_search") for path in (target / "hssl_search").rglob("*.py")
    }
    assert installed == {
        path.relative_to(ROOT / "hssl_search") for path in (ROOT / "hssl_search").rglob("*.py")
    }
    top = {entry.name for entry in target.iterdir() if not entry.name.startswith(".")}
    assert {name for name in top if not name.endswith(".dist-info")} == {"hssl_search", "bin"}


def test_measured_tables_are_not_installed(target: Path) -> None:
    assert {
        path.name for path in (target / "hssl_search" / "_bundled" / "reports").iterdir()
    } == set(content("reports"))


def test_the_content_folders_hold_no_python() -> None:
    assert not [path for kind in KINDS for path in (ROOT / kind).rglob("*.py")]
    assert all((ROOT / kind / "README.md").is_file() for kind in KINDS)
