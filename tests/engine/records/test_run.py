from __future__ import annotations

import errno
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from hssl_search.configfile import read_yaml
from hssl_search.engine.config import NAME_BYTES, with_defaults
from hssl_search.engine.policy import DEFAULT
from hssl_search.engine.records.run import ResolvedSearch, Run, require_free
from hssl_search.errors import UserError


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_is_made_whole_and_opened_again(tmp_path: Path) -> None:
    made = Run.create(
        tmp_path / "runs" / "demo", {"base": "test_resnet", "budget": {"text": "10cpu-min"}}
    )
    assert files(tmp_path) == {"runs", "runs/demo", "runs/demo/search.yaml"}
    opened = Run.open(tmp_path / "runs" / "demo")
    assert (
        opened.config()
        == made.config()
        == with_defaults({"base": "test_resnet", "budget": {"text": "10cpu-min"}})
    )
    assert opened.name == "demo"
    assert opened.storage_url == f"sqlite:///{tmp_path}/runs/demo/study.db"


def test_a_taken_name_says_how_to_go_on_and_leaves_the_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Run.create(Path("runs/demo"), {"base": "a"})
    with pytest.raises(UserError, match=r"`hssl-search resume runs/demo` or give another --name"):
        Run.create(Path("runs/demo"), {"base": "b"})
    assert Run.open(Path("runs/demo")).config() == with_defaults({"base": "a"})
    assert files(tmp_path) == {"runs", "runs/demo", "runs/demo/search.yaml"}


@pytest.mark.parametrize(
    ("name", "typed"), [("demo", "runs/demo"), ("it's mine", """'runs/it'"'"'s mine'""")]
)
def test_how_to_resume_can_be_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.create(Path("runs") / name, {})
    assert run.how_to_resume() == f"hssl-search resume {typed}"
    assert run.how_to_resume("2cpu-min") == f"hssl-search resume {typed} --budget +2cpu-min"
    with pytest.raises(UserError) as taken:
        require_free(Path("runs") / name)
    assert f"continue with `{run.how_to_resume()}` or" in str(taken.value)
    monkeypatch.chdir("/")
    assert shlex.split(run.how_to_resume()) == [
        "hssl-search",
        "resume",
        str((tmp_path / "runs" / name).relative_to("/")),
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shlex.split(run.how_to_resume()) == [
        "hssl-search",
        "resume",
        str(tmp_path / "runs" / name),
    ]


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(UserError, match="is no run; give another --name"):
        Run.create(tmp_path / "photos", {})
    assert files(tmp_path) == {"photos", "photos/one.jpg"}


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    Run.create(tmp_path / "demo", {"base": "a"})
    assert files(tmp_path) == {"demo", "demo/search.yaml"}


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        (
            "r" * 250,
            r"cannot be made \(File name too long\); work in another folder, or give a shorter "
            r"--name\.$",
        ),
        ("/".join(["r" * 200] * 21), r"cannot be made \(File name too long\)"),
        (
            os.fsdecode(b"caf\xe9/demo"),
            r"cannot be made: its path is not UTF-8; work in another folder\.$",
        ),
    ],
)
def test_a_path_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, folder: str, told: str
) -> None:
    for refuse in (require_free, lambda path: Run.create(path, {})):
        with pytest.raises(UserError, match=told):
            refuse(tmp_path / folder)
    assert files(tmp_path) == set()


def test_a_storage_that_was_edited_into_no_text_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "demo", {"storage": ["sqlite:////a.db"]})
    with pytest.raises(
        UserError,
        match=(
            r"search\.yaml: storage is \['sqlite:////a\.db'\], but should be a text; correct it\.$"
        ),
    ):
        run.study_url(run.config()["storage"])


def test_the_longest_name_that_a_search_may_have_can_be_made(tmp_path: Path) -> None:
    run = Run.create(tmp_path / ("図" * (NAME_BYTES // 3)), {"base": "a"})
    run.update_config(base="b")
    with run.lock():
        assert run.config()["base"] == "b"


def test_a_config_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="represent"):
        Run.create(tmp_path / "demo", {"base": object()})
    assert files(tmp_path) == set()


def test_what_is_no_run_names_the_nearest_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs in"):
        Run.open(tmp_path / "demo")
    Run.create(tmp_path / "demo", {})
    with pytest.raises(UserError, match=f"did you mean '{tmp_path}/demo'"):
        Run.open(tmp_path / "deno")
    with pytest.raises(UserError, match="runs there: demo"):
        Run.open(tmp_path / "xyz")


def test_heads_and_metrics_land_in_the_trials_folder(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "demo", {})
    head = run.write_head(7, {"format": "hssl-head/1", "family": "convnext", "width_ratio": 1.5})
    run.append_metrics(7, {"step": 40, "accuracy": 41.5})
    run.append_metrics(7, {"step": 80, "accuracy": 42.0})
    assert read_yaml(head) == {"format": "hssl-head/1", "family": "convnext", "width_ratio": 1.5}
    lines = (tmp_path / "demo" / "trials" / "0007" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [40, 80]
    assert run.checkpoint_folder(7) == tmp_path / "demo" / "trials" / "0007" / "checkpoint"


def test_metrics_are_read_without_a_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    run, lines = (
        Run.create(tmp_path / "demo", {}),
        [{"step": 40, "loss": math.inf}, {"step": 80, "loss": 3.0}],
    )
    assert run.metrics(7) == []
    for line in lines:
        run.append_metrics(7, line)
    with (run.trial_folder(7) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 120, "lo')
    assert run.metrics(7) == lines
    run.append_metrics(7, {"step": 120, "loss": 2.5})
    run.append_metrics(7, {"step": 160, "loss": 2.0})
    assert run.metrics(7) == [*lines, {"step": 160, "loss": 2.0}]


def test_a_key_that_was_edited_away_is_told(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "demo", {"name": "demo"})
    assert run.config()["name"] == "demo" and run.config().get("budget") is None
    with pytest.raises(UserError, match=rf"{run.search_yaml} has no 'budget' any more"):
        run.config()["budget"]


def test_a_run_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock, timeout: float) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    run = Run.create(tmp_path / "demo", {})
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with (
        pytest.raises(
            UserError, match=r"the run folder .*demo cannot be written \(Read-only file system\)"
        ),
        run.lock(),
    ):
        pass


HOLDS = """
import sys
from pathlib import Path
from hssl_search.engine.records.run import Run
with Run.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_controller_is_told_who_holds_the_run_and_a_killed_holder_lets_go(
    tmp_path: Path,
) -> None:
    run = Run.create(tmp_path / "demo", {})
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    for _ in range(2):
        with (
            pytest.raises(UserError, match=f"'demo' is being worked on by process {holder.pid} "),
            run.lock(),
        ):
            pass
    holder.kill()
    holder.communicate()
    with run.lock():
        assert (run.folder / "lock.holder").read_text().startswith(f"process {os.getpid()} ")
    assert not (run.folder / "lock.holder").exists()


def test_search_yaml_is_read_as_it_was_written_and_keeps_its_order(
    tmp_path: Path, resolved: ResolvedSearch
) -> None:
    run = Run.create(tmp_path / "demo", resolved.as_plain())
    assert run.resolved() == resolved
    assert run.resolved().ranked_by.key == "accuracy"
    assert run.resolved().space.read().hash() == resolved.space.hash
    written = run.search_yaml.read_text()
    run.update_config(plan={"candidates": 4})
    assert run.search_yaml.read_text() == f"{written}plan:\n  candidates: 4\n"
    run.update_config(budget="1cpu-h+1cpu-h")
    assert run.search_yaml.read_text().startswith(
        written.replace("budget: 1cpu-h", "budget: 1cpu-h+1cpu-h")
    )
    assert run.resolved().budget.seconds == 7200


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budget": "1 day"}, r"the budget '1 day' has the unknown unit 'day'"),
        ({"seed": "x"}, r"search\.yaml: seed is 'x', but should be a valid integer"),
        ({"policy": {"grop_size": 3}}, r"search\.yaml: unknown key 'grop_size' in policy; did you"),
        ({"machine": 3}, r"search\.yaml: machine is 3, but should be a dictionary"),
    ],
)
def test_a_key_that_was_edited_into_nonsense_is_told(
    tmp_path: Path, resolved: ResolvedSearch, changes: dict[str, Any], told: str
) -> None:
    run = Run.create(tmp_path / "demo", resolved.as_plain() | changes)
    with pytest.raises(UserError, match=told) as refused:
        run.resolved()
    assert "\n" not in str(refused.value)


def test_a_run_of_an_earlier_version_has_its_share_of_a_gpu_with_the_machine_alone(
    tmp_path: Path, resolved: ResolvedSearch
) -> None:
    earlier = resolved.as_plain()
    del earlier["gpus_per_trial"], earlier["policy"]
    earlier["machine"]["gpus_per_trial"] = 0.5
    read = Run.create(tmp_path / "demo", earlier).resolved()
    assert (read.gpus_per_trial, read.policy) == (0.5, DEFAULT)


@pytest.mark.parametrize("key", ["timm_args", "images", "map_shapes"])
def test_a_search_that_lacks_what_every_search_writes_is_not_continued(
    tmp_path: Path, resolved: ResolvedSearch, key: str
) -> None:
    written = resolved.as_plain()
    del written[key]
    run = Run.create(tmp_path / "demo", written)
    with pytest.raises(UserError, match=rf"{run.search_yaml} has no '{key}' any more, .* put it b"):
        run.resolved()
