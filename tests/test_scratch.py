from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hssl_search.engine.records.run import Run
from hssl_search.scratch import MARKER, Scratch, remove_abandoned, replacing

OWNER = """\
import sys, time
from pathlib import Path
from hssl_search.scratch import Scratch, replacing

folder = Scratch("plan", Path(sys.argv[1])).path
(folder / "deep").mkdir()
(folder / "deep" / "file").write_text("x")
with replacing(Path(sys.argv[1]) / "table[1].csv") as beside:
    beside.write_text("half")
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def owner(tmp_path: Path) -> subprocess.Popen[str]:
    """Start a process that has a scratch folder, and is writing a file."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_has_is_not(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    target = tmp_path / "table[1].csv"
    with Scratch("plan", tmp_path) as own:
        with replacing(target) as beside:
            beside.write_text("whole")
        theirs = {path for path in tmp_path.iterdir() if path not in (own, target)}
        assert len(theirs) == 2
        owner.kill()
        owner.wait()
        with Scratch("run", tmp_path), replacing(target) as beside:
            beside.write_text("newer")
            assert not any(path.exists() for path in theirs)
            assert own.exists()
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "newer"


def abandoned(path: Path) -> Path:
    """Make a folder as a killed process leaves it."""
    (path / "deep").mkdir(parents=True)
    (path / MARKER).touch()
    return path


def test_only_folders_of_its_own_making_are_removed(tmp_path: Path) -> None:
    marked = (
        "hssl-ray.a1b2c3d4",
        ".hssl-ray-a1b2c3d4",
        ".hssl-ray.short",
        ".hssl-ray.A1B2C3D4",
        ".hssl-photos.a1b2c3d4",
        "other",
    )
    kept = [abandoned(tmp_path / name) for name in marked]
    for name in (".hssl-ray.a1b2c3d4", "hssl-photos.20261128", "hssl-search.worktree"):
        (tmp_path / name).mkdir()
        kept.append(tmp_path / name)
    (tmp_path / ".hssl-tune.a1b2c3d4").symlink_to(tmp_path / "other")
    kept.append(tmp_path / ".hssl-tune.a1b2c3d4")
    ours = abandoned(tmp_path / ".hssl-plan.a1b2c3d4")
    remove_abandoned(tmp_path)
    assert not ours.exists()
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("name", ["hssl-photos.20261128", "hssl-run.a1b2c3d4"])
def test_a_run_is_kept_whatever_its_name(tmp_path: Path, name: str) -> None:
    run = Run.create(tmp_path / name, {"format": "some"})
    Run.create(tmp_path / "other", {})
    assert run.config()["format"] == "some"
    assert [path.name for path in run.folder.iterdir()] == ["search.yaml"], (
        "nothing marks it as a folder to remove"
    )
    assert {path.name for path in tmp_path.iterdir()} == {name, "other"}


def test_a_removal_that_was_cut_short_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = abandoned(tmp_path / ".hssl-plan.a1b2c3d4")
    with monkeypatch.context() as patch:
        # something still writes to it
        patch.setattr("hssl_search.scratch.shutil.rmtree", lambda path, ignore_errors: None)
        remove_abandoned(tmp_path)
    assert (folder / MARKER).exists()
    remove_abandoned(tmp_path)
    assert not folder.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_is_left_alone(tmp_path: Path) -> None:
    theirs = abandoned(tmp_path / ".hssl-plan.a1b2c3d4")
    os.chown(theirs, 12345, 12345)
    remove_abandoned(tmp_path)
    assert theirs.exists()


def test_a_folder_is_removed_with_all_that_is_in_it_and_once(tmp_path: Path) -> None:
    scratch = Scratch("plan", tmp_path)
    (scratch.path / "deep").mkdir()
    scratch.remove()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_two_that_clean_at_once_do_not_take_each_others_new_folders(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys, time; from pathlib import Path; from hssl_search.scratch import Scratch\n"
        "for _ in range(200):\n    with Scratch('plan', Path(sys.argv[1])) as path:\n        "
        "(path / 'file').write_text('x')",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racing = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait() for process in racing] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_could_not_be_written_leaves_what_stood_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    with pytest.raises(ValueError, match="no"), replacing(tmp_path / "file") as beside:
        beside.write_text("half")
        raise ValueError("no")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_a_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
