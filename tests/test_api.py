"""The Python API: what is public, and what surrounds a search: its folder, its study, its lock, its
end.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy
from PIL import Image
from rich.console import Console

import hssl_search
from hssl_search import UserError, api, cli, session
from hssl_search.configfile import read_yaml
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import SearchState, TrialState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.interrupts import check, heeding, pause
from hssl_search.reporting.dashboard import DashboardServer

ASKED = {
    "base": "test_resnet",
    "base_arg": {"output_stride": 8},
    "image_size": 32,
    "budget": "10cpu-min",
    "name": "demo",
}
FLAGS = [
    *("--base", "test_resnet", "--base-arg", "output_stride=8", "--image-size", "32"),
    *("--budget", "10cpu-min", "--name", "demo"),
]
"""The same on the command line."""
SENTENCE = "No head was healthy."
VERDICT: dict[str, Any] = {
    "winner": None,
    "name": None,
    "state": "unranked",
    "sentence": SENTENCE,
    "rows": [],
    "comparison": None,
}

Work = Callable[..., None]


@pytest.fixture(autouse=True)
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make an empty current folder, and a Ray that is never started but has two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(RaySession, "start", lambda self: self)
    monkeypatch.setattr(
        RaySession, "total", lambda self, resource: 2.0 if resource == "CPU" else 0.0
    )
    monkeypatch.setattr(RaySession, "free", RaySession.total)
    return tmp_path


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], list[Run]]:
    """Put a function of (run, study) in the place of the search itself; returns the runs that it
    was called for.
    """

    def instead(work: Work) -> list[Run]:
        called: list[Run] = []

        def search(run: Run, resolved: Any, session: Any, study: StudyRecord, *_: Any) -> bool:
            called.append(run)
            work(run, study)
            return True

        monkeypatch.setattr(api, "_search", search)
        return called

    return instead


def write_classes(folder: Path) -> Path:
    """Write 60 images in 2 classes."""
    random = np.random.default_rng(0)
    for number in range(60):
        (folder / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            folder / f"class{number % 2}" / f"{number}.png"
        )
    return folder


def finish(run: Run, study: StudyRecord) -> None:
    study.write(SearchState(verdict=VERDICT))


def interrupt(run: Run, study: StudyRecord) -> None:
    raise KeyboardInterrupt


def interrupt_anywhere(*_: Any) -> None:
    raise KeyboardInterrupt


def test_the_public_names_are_these_and_all_resolve() -> None:
    assert hssl_search.__all__ == [
        "HeadConfig",
        "Run",
        "Space",
        "UserError",
        "curves",
        "device_time",
        "leaderboard",
        "load_head",
        "plan",
        "replay",
        "resume",
        "search",
        "status",
        "trials",
    ]
    assert all(inspect.getdoc(getattr(hssl_search, name)) for name in hssl_search.__all__)
    with pytest.raises(AttributeError, match="module 'hssl_search' has no attribute 'serach'"):
        getattr(hssl_search, "serach")  # noqa: B009


def test_the_functions_take_each_option_of_a_search_by_its_name_and_type() -> None:
    for function, more in ((hssl_search.search, {"stop"}), (hssl_search.plan, set())):
        parameters = dict(inspect.signature(function, eval_str=True).parameters)
        assert {name for name in parameters if name in more} == more
        options = {key: value for key, value in parameters.items() if key not in more}
        assert list(options) == list(SearchConfig.model_fields)
        for name, option in options.items():
            asked = str if name == "budget" else SearchConfig.model_fields[name].annotation
            if name == "base_arg":
                asked = Mapping[str, Any]
            if name == "warm_start":
                asked = api.RunName | Sequence[api.RunName]
            if name == "policy":
                asked = asked | Mapping[str, Any]
            assert option.annotation == asked | None, name
            assert option.kind is option.KEYWORD_ONLY and option.default is None
    told = inspect.getdoc(hssl_search.search) or ""
    assert [name for name in SearchConfig.model_fields if f"\n    {name}: " not in told] == []
    with pytest.raises(TypeError, match="bugdet"):
        hssl_search.search(**ASKED, bugdet="1cpu-h")  # type: ignore[call-arg]


def test_the_functions_print_nothing_and_log_what_happens(
    searching: Callable[[Work], list[Run]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="hssl_search")
    searching(finish)
    hssl_search.search(**ASKED)
    hssl_search.resume("demo")
    api.status("demo")
    assert capsys.readouterr() == ("", "")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "no --data was given: searching on the built-in handwritten digits (scikit-learn, "
            "1,797 real images).",
        ),
        ("INFO", "Run folder: runs/demo; watch it with: hssl-search dashboard runs/demo"),
    ]


def test_search_and_its_folder_share_a_name() -> None:
    assert callable(hssl_search.search)
    assert (
        importlib.import_module("hssl_search.engine.budget").parse_budget("2cpu-min").seconds == 120
    )
    assert callable(hssl_search.search), "still, after something below the folder was imported"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, r"^search\(\): seed is -1, but should be greater than or equal to 0\.$"),
        (
            {"base_arg": "patch_size=4"},
            r"^search\(\): base_arg is 'patch_size=4', but should be a valid dictionary\.$",
        ),
        ({"data": "nowhere"}, r"^there is no folder 'nowhere' to read images from"),
    ],
)
def test_a_mistake_in_an_option_is_told(here: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        hssl_search.search(**{**ASKED, **options})
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("budget", ["10cpu-min", "1cpu-s"])
def test_a_plan_measures_whatever_the_budget_and_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    measured: list[Run] = []

    @contextmanager
    def controller(run: Run, resolved: Any, *_: Any) -> Iterator[Any]:
        measured.append(run)
        assert (
            run.search_yaml.is_file()
            and resolved.budget == parse_budget("3600cpu-s")
            and resolved.storage is None
        )
        yield SimpleNamespace(preview=lambda asked: {"budget": asked.text})

    monkeypatch.setattr(api, "controller_of", controller)
    assert hssl_search.plan(**{**ASKED, "budget": budget}, storage="sqlite:///here.db") == {
        "budget": budget
    }
    assert list(here.iterdir()) == [] and not measured[0].folder.parent.exists()


def test_a_search_leaves_a_run_that_says_everything(
    here: Path, searching: Callable[[Work], list[Run]]
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED)
    assert run.folder == here / "runs" / "demo"
    resolved = run.config()
    assert resolved["format"] == "hssl-search/1"
    assert (
        resolved["asked"].items()
        >= {
            **{"data": "digits", "space": "default", "trainer": "simclr", "seed": 0},
            **ASKED,
        }.items()
    )
    assert resolved["machine"] == {
        "device": "cpu",
        "cpus": 2,
        "gpus": resolved["machine"]["gpus"],
        "gpus_per_trial": 1.0,
    }
    assert (resolved["budget"], resolved["rank_by"], resolved["map_shapes"]) == (
        "10cpu-min",
        "accuracy",
        [[96, 4, 4]],
    )
    assert resolved["images"] | {"fingerprint": ""} == {
        "training": 1438,
        "bank": 1438,
        "queries": 359,
        "classes": list("0123456789"),
        "fingerprint": "",
        "skipped": 0,
        "query_counts": [36, 36, 35, 37, 36, 36, 36, 36, 35, 36],
        "looked_at": {"images": 512, "one_colour": 0, "same": 1},
    }
    assert set(resolved["versions"]) == {"hssl-search", "torch", "timm", "optuna", "ray", "python"}
    assert "auto" not in {resolved[key] for key in ("name", "budget", "rank_by", "full_epochs")}
    assert {path.name for path in run.folder.iterdir()} == {
        "search.yaml",
        "study.db",
        "lock",
        "report.html",
        "leaderboard.csv",
        "trials.parquet",
    }


def test_the_study_says_what_was_searched(searching: Callable[[Work], list[Run]]) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED)
    with StudyRecord.open(run.storage_url, "demo") as study:
        config = study.study_attributes()["config"]
    assert (
        config.items()
        >= {
            "name": "demo",
            "base": "test_resnet",
            "base_args": {"output_stride": 8},
            "image_size": 32,
            "data": "digits",
            "probe_data": None,
            "trainer": "simclr",
            "space": "default",
            "budget": "10cpu-min",
        }.items()
    )


def test_without_a_name_the_run_is_called_after_base_and_data(
    searching: Callable[[Work], list[Run]],
) -> None:
    searching(finish)
    unnamed = {key: value for key, value in ASKED.items() if key != "name"}
    assert [hssl_search.search(**unnamed).name for _ in range(2)] == [
        "test_resnet-digits",
        "test_resnet-digits-2",
    ]


def test_the_built_in_digits_are_searched_though_a_folder_has_their_name(
    here: Path, searching: Callable[[Work], list[Run]]
) -> None:
    searching(finish)
    (here / "digits").mkdir()
    assert hssl_search.search(**ASKED).config()["setting"]["data"] == "digits"


def test_the_run_is_locked_while_it_is_searched(searching: Callable[[Work], list[Run]]) -> None:
    def other(run: Run, study: StudyRecord) -> None:
        with pytest.raises(UserError, match="the run 'demo' is being worked on by process "):
            hssl_search.resume("demo")
        finish(run, study)

    called = searching(other)
    with hssl_search.search(**ASKED).lock():
        assert len(called) == 1


def test_another_thread_may_stop_a_search_and_its_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, heard = Event(), []

    def search(run: Run, resolved: Any, session: RaySession, *_: Any) -> None:
        heard.append(session.stop)
        check()
        stop.set()
        pause(5.0)  # as for a database that does not answer
        pytest.fail("nothing ended the waiting")

    monkeypatch.setattr(api, "_search", search)
    with pytest.raises(KeyboardInterrupt):
        hssl_search.search(**ASKED, stop=stop)
    stop.clear()
    with pytest.raises(KeyboardInterrupt):
        hssl_search.resume("demo", stop=stop)
    assert heard == [stop, stop]


def test_a_search_that_still_packs_images_can_be_stopped() -> None:
    with (
        heeding(lambda: True),
        session._packing(Console()) as progress,
        pytest.raises(KeyboardInterrupt),
    ):
        progress(256, 100_000)


def test_a_search_plans_with_what_is_free_of_a_ray_that_runs_already(
    monkeypatch: pytest.MonkeyPatch, searching: Callable[[Work], list[Run]]
) -> None:
    searching(finish)
    monkeypatch.setattr(RaySession, "free", lambda self, resource: 0.5)
    with pytest.raises(
        UserError,
        match=(
            r"^none of the 2 CPUs of the Ray that runs here is free: something else holds them; "
            r"end that, or"
        ),
    ):
        hssl_search.search(**ASKED)
    monkeypatch.setattr(RaySession, "free", lambda self, resource: 1.5)
    assert hssl_search.search(**ASKED).config()["machine"]["cpus"] == 1


@pytest.mark.parametrize(
    ("budget", "has", "message"),
    [
        (
            "5gpu-min",
            {"CPU": 2.0},
            r"^the budget '5gpu-min' is in GPU time and no GPU was found by Ray; type '5cpu-min' "
            r"instead",
        ),
        (
            "5cpu-min",
            {},
            r"^the Ray that runs here has no CPU, and every training needs one; start it with "
            r"CPUs, or search in another process",
        ),
    ],
)
def test_a_ray_that_has_not_what_a_search_needs_is_told_before_the_run_is_made(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    searching: Callable[[Work], list[Run]],
    budget: str,
    has: dict[str, float],
    message: str,
) -> None:
    searching(finish)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for ask in ("total", "free"):
        monkeypatch.setattr(RaySession, ask, lambda self, resource: has.get(resource, 0.0))
    with pytest.raises(UserError, match=message):
        hssl_search.search(**{**ASKED, "budget": budget})
    assert list(here.iterdir()) == []


def test_what_is_to_be_typed_after_a_stop_is_quoted_for_a_shell(
    searching: Callable[[Work], list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    searching(interrupt)
    above = Path.cwd()
    Path("my work").mkdir()
    monkeypatch.chdir("my work")
    with pytest.raises(KeyboardInterrupt):
        hssl_search.search(**ASKED)
    monkeypatch.chdir(above)
    with pytest.raises(
        KeyboardInterrupt, match=r"^stopped; continue with: hssl-search resume 'my work/runs/demo'$"
    ):
        hssl_search.resume("my work/runs/demo")


def test_an_interrupted_search_says_how_to_go_on_and_is_reported(
    searching: Callable[[Work], list[Run]],
) -> None:
    searching(interrupt)
    with pytest.raises(
        KeyboardInterrupt, match=r"^stopped; continue with: hssl-search resume runs/demo$"
    ):
        hssl_search.search(**ASKED)
    assert "No verdict yet" in Path("runs/demo/report.html").read_text()
    called = searching(finish)
    assert hssl_search.resume("runs/demo").name == "demo"
    assert len(called) == 1
    assert SENTENCE in Path("runs/demo/report.html").read_text()


def test_a_search_whose_images_are_gone_does_not_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_classes(here / "photos")
    with monkeypatch.context() as patched:
        patched.setattr(api, "_search", interrupt_anywhere)
        with pytest.raises(KeyboardInterrupt):
            hssl_search.search(**ASKED, data="photos")
    folder.rename(here / "moved")
    with pytest.raises(UserError, match=f"^there is no folder '{folder}' to read images from"):
        hssl_search.resume("demo")
    assert not Path("runs/demo/ledger.jsonl").exists()


def test_brackets_in_a_folders_name_are_printed(
    here: Path, searching: Callable[[Work], list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(here / "[raw] photos")
    searching(finish)
    cli.main([*FLAGS, "--data", "[raw] photos"])
    assert capsys.readouterr().out.startswith(
        "Note: the 2 folders in '[raw] photos' (class0, class1) are taken for classes, "
    )


def test_a_script_whose_output_nobody_reads_keeps_its_search(
    here: Path, searching: Callable[[Work], list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    searching(finish)
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert hssl_search.search(**ASKED).report_html.exists()
        assert hssl_search.resume("demo").report_html.exists()


@pytest.fixture
def stopped(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the images of a search that was stopped before its first job."""
    folder = write_classes(here / "photos")
    with monkeypatch.context() as patched:
        patched.setattr(api, "_search", interrupt_anywhere)
        with pytest.raises(KeyboardInterrupt):
            hssl_search.search(**ASKED, data="photos")
    return folder


def test_a_search_whose_images_have_changed_continues_with_those_that_it_began_with(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(next(stopped.rglob("*.png")), stopped / "new.png")
    count = len(list(stopped.rglob("*.png")))
    monkeypatch.setattr(api, "controller_of", interrupt_anywhere)
    with pytest.raises(KeyboardInterrupt):
        hssl_search.resume("demo")
    assert caplog.messages[0] == (
        f"the images in '{stopped}' have changed since the search began ({count} images, "
        f"were {count - 1}); those that it began with "
        "are used, which the image cache still holds."
    )


@pytest.mark.parametrize("budget", [None, "+1cpu-h"])
def test_a_search_whose_images_have_changed_is_refused_without_the_cache(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: str | None
) -> None:
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path / "another cache"))
    next(stopped.rglob("*.png")).unlink()
    before = api.open_run("demo").config()
    with pytest.raises(
        UserError,
        match=(
            r"images, were \d+\), and the image cache does not hold those that it began with; put "
            r"them back"
        ),
    ):
        hssl_search.resume("demo", budget)
    assert api.open_run("demo").config() == before


def test_an_error_in_a_search_passes_on_and_the_run_can_go_on(
    searching: Callable[[Work], list[Run]],
) -> None:
    def fail(run: Run, study: StudyRecord) -> None:
        raise UserError("the budget is too small.")

    searching(fail)
    with pytest.raises(UserError, match="too small"):
        hssl_search.search(**ASKED)
    called = searching(finish)
    hssl_search.resume("demo")
    assert len(called) == 1


def test_the_dashboards_note_says_that_nothing_runs_and_how_to_go_on(
    searching: Callable[[Work], list[Run]],
) -> None:
    notes: list[str] = []

    def work(run: Run, study: StudyRecord) -> None:
        notes.append(study.note())
        if not study.trials():
            study.add_trial(TrialState(role="control", control="none"))
            raise KeyboardInterrupt
        finish(run, study)

    searching(work)
    with pytest.raises(KeyboardInterrupt):
        hssl_search.search(**ASKED)
    for command in (
        "hssl-search resume runs/demo`",
        "hssl-search resume runs/demo --budget +10cpu-min`",
    ):
        with api.study_of(api.open_run("demo")) as study:
            assert (
                study.note().startswith("**Nothing runs at the moment:** 1 trial")
                and f"{command}." in study.note()
            )
        hssl_search.resume("demo")
    assert notes == ["", ""], "while it is searched there is none"


def test_a_search_that_has_ended_is_only_reported_again(
    searching: Callable[[Work], list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    called = searching(finish)
    run = hssl_search.search(**ASKED)
    run.report_html.unlink()
    cli.main(["resume", str(run.folder)])
    assert len(called) == 1
    assert SENTENCE in capsys.readouterr().out
    assert run.report_html.exists()
    assert not run.ledger.exists()


def test_a_search_that_cannot_have_its_study_leaves_no_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **options: Any) -> Any:
        raise UserError("the storage failed.")

    monkeypatch.setattr(StudyRecord, "open", unreachable)
    with pytest.raises(UserError, match="the storage failed"):
        hssl_search.search(**ASKED)
    assert list(here.iterdir()) == []


def test_a_run_is_found_by_path_and_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(Path("runs/demo"), {"format": "hssl-search/1"})
    (here / "demo").mkdir()
    for given in ("demo", "runs/demo", Path("runs/demo"), run.folder):
        assert api.open_run(given).folder == run.folder
    monkeypatch.chdir(run.folder)
    assert api.open_run(".").folder == run.folder
    with pytest.raises(UserError, match="runs/demo is no run"):
        api.open_run("demo")


@pytest.mark.parametrize("command", [api.status, api.write_report, hssl_search.resume])
def test_a_run_that_lost_its_study_is_refused_and_no_other_is_made(
    searching: Callable[[Work], list[Run]], command: Any
) -> None:
    searching(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hssl_search.search(**ASKED)
    run, called = api.open_run("demo"), searching(finish)
    run.ledger.touch()
    run.study_db.unlink()
    with pytest.raises(
        UserError, match=r"runs/demo/study\.db is missing, and with it all that was found"
    ):
        command("demo")
    assert called == [] and not run.study_db.exists()


def test_status_and_report_read_a_run_that_another_controller_holds(
    searching: Callable[[Work], list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED)
    before = read_yaml(run.search_yaml)
    with run.lock():
        cli.main(["status", "demo"])
        assert api.write_report("demo") == [
            run.report_html,
            run.leaderboard_csv,
            run.trials_parquet,
        ]
    assert SENTENCE in capsys.readouterr().out
    assert read_yaml(run.search_yaml) == before


def test_the_dashboard_says_where_it_listens_and_that_it_cannot(
    searching: Callable[[Work], list[Run]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searching(finish)
    hssl_search.search(**ASKED)
    monkeypatch.setattr(DashboardServer, "serve_forever", lambda server: None)
    cli.main(["dashboard", "demo"])
    assert re.fullmatch(
        r"(Port 8080 is taken\. )?Listening on http://127\.0\.0\.1:\d+/\nHit Ctrl-C to quit\.\n",
        capsys.readouterr().err,
    )
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError,
            match=(
                rf"^port {port} of 127\.0\.0\.1 is taken by another program; give another --port, "
            ),
        ):
            dashboard("demo", port=port)


def held(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dashboard(run: Path | str, port: int | None = None) -> None:
    with api.dashboard(run, port=port):
        pass


def commands(run: Path) -> list[Callable[[], Any]]:
    """Return everything that opens the study of a run."""
    return [
        lambda: api.status(run),
        lambda: api.write_report(run),
        lambda: dashboard(run),
        lambda: hssl_search.leaderboard(run),
        lambda: hssl_search.replay(run, 0),
        lambda: hssl_search.resume(run),
        lambda: hssl_search.resume(run, budget="+1cpu-h"),
    ]


def test_a_relative_storage_is_the_same_from_every_folder(
    here: Path,
    searching: Callable[[Work], list[Run]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED, storage="sqlite:///mine.db")
    assert run.config()["storage"] == f"sqlite:///{here}/mine.db" and (here / "mine.db").exists()
    (here / "there").mkdir()
    monkeypatch.chdir(here / "there")
    called = searching(finish)
    for command in (
        lambda: api.write_report(run.folder),
        lambda: hssl_search.resume(run.folder),
        lambda: cli.main(["status", str(run.folder)]),
    ):
        command()
    assert SENTENCE in capsys.readouterr().out and called == []
    assert list((here / "there").iterdir()) == []


@pytest.mark.parametrize("gone", ["file", "study", "relative"])
def test_a_study_that_is_not_there_is_said_and_nothing_is_written(
    here: Path, searching: Callable[[Work], list[Run]], gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED, storage="sqlite:///mine.db")
    Ledger(run.ledger).charge("proxy/0#1", "proxy", 1.0)
    if gone == "relative":  # as earlier versions kept it
        run.update_config(storage="sqlite:///mine.db")
    else:
        (here / "mine.db").unlink()
    if gone == "study":
        with StudyRecord.open(f"sqlite:///{here}/mine.db", "another"):
            pass
    (here / "there").mkdir()
    monkeypatch.chdir(here / "there")
    before = held(here)
    for command in commands(run.folder):
        with pytest.raises(
            UserError,
            match=(
                r"holds no study 'demo', in which the run keeps .*; put it back, or correct "
                r"`storage` in "
            ),
        ):
            command()
        assert held(here) == before


def test_a_run_that_was_made_just_before_a_crash_is_begun_by_resume_alone(
    searching: Callable[[Work], list[Run]],
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED)
    run.study_db.unlink()
    with pytest.raises(
        UserError,
        match=r"^the run 'demo' has no study yet; begin it with: hssl-search resume runs/demo$",
    ):
        api.status("demo")
    assert not run.study_db.exists()
    called = searching(finish)
    hssl_search.resume("demo")
    assert len(called) == 1 and run.study_db.exists()


def test_the_storages_password_is_nowhere_but_in_the_variable(
    here: Path,
    searching: Callable[[Work], list[Run]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    searching(finish)
    # a URL as secret as one with a password
    monkeypatch.setenv("STUDIES", f"sqlite:///{here}/s3cret.db")
    run = hssl_search.search(**ASKED, storage="env:STUDIES")
    cli.main(["status", str(run.folder)])
    api.write_report(run)
    assert run.config()["storage"] == run.config()["asked"]["storage"] == "env:STUDIES"
    with pytest.raises(UserError, match="has its password in the URL"):
        hssl_search.search(**{**ASKED, "name": "other"}, storage="postgresql://o:s3cret@h/d")
    texts = b"".join(content for path, content in held(here).items() if path.name != "s3cret.db")
    assert b"s3cret" not in texts and "s3cret" not in "".join(capsys.readouterr())
    monkeypatch.delenv("STUDIES")
    for command in commands(run.folder):
        with pytest.raises(
            UserError, match="is the environment variable STUDIES, which is not set; "
        ):
            command()


@pytest.mark.parametrize("folder", ["what is it?", "50% done #2 [x]"])
def test_the_study_is_in_the_run_whatever_the_projects_folder_is_called(
    here: Path, folder: str, monkeypatch: pytest.MonkeyPatch, searching: Callable[[Work], list[Run]]
) -> None:
    (here / folder).mkdir()
    monkeypatch.chdir(here / folder)
    searching(finish)
    run = hssl_search.search(**ASKED)
    assert run.study_db.is_file() and [path.name for path in here.iterdir()] == [folder]
    hssl_search.resume("demo")
    api.status("demo")


def test_brackets_in_names_are_shown_as_they_are(
    here: Path, searching: Callable[[Work], list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    searching(finish)
    folder = write_classes(here / "[raw] photos")
    (folder / "[").mkdir()
    (folder / "[" / "b].png").write_bytes(b"no image")
    cli.main([*FLAGS, "--data", "[raw] photos"])
    assert "[raw] photos/[/b].png" in capsys.readouterr().out


def test_a_search_whose_database_fails_says_how_to_continue(
    searching: Callable[[Work], list[Run]],
) -> None:
    def fail(run: Run, study: StudyRecord) -> None:
        raise sqlalchemy.exc.OperationalError(
            "INSERT", {}, Exception("terminating connection due to administrator command")
        )

    searching(fail)
    with pytest.raises(
        UserError,
        match=r"failed \(terminating connection due to administrator command\); check that .*, "
        r"then continue with: hssl-search resume runs/demo\.$",
    ):
        hssl_search.search(**ASKED)


def test_a_run_is_extended_in_its_file_and_its_study_and_searched_again(
    searching: Callable[[Work], list[Run]],
) -> None:
    searching(finish)
    run = hssl_search.search(**ASKED)
    called = searching(finish)
    hssl_search.resume("demo", budget="+0.1cpu-h")
    assert len(called) == 1
    assert run.config()["budget"] == "10cpu-min+0.1cpu-h"
    with StudyRecord.open(run.storage_url, "demo") as study:
        assert study.study_attributes()["config"]["budget"] == "10cpu-min+0.1cpu-h"
    with pytest.raises(
        UserError, match=r"is in CPU time \(10cpu-min\+0\.1cpu-h\) and '\+1gpu-h' is not"
    ):
        hssl_search.resume("demo", budget="+1gpu-h")


def test_a_run_that_was_edited_by_hand_is_refused_and_not_touched(
    searching: Callable[[Work], list[Run]],
) -> None:
    searching(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hssl_search.search(**ASKED)
    run, called = api.open_run("demo"), searching(finish)
    edited = run.config()
    edited["setting"]["base"] = "test_vit"
    run.update_config(setting=edited["setting"])
    with pytest.raises(UserError, match=r"setting\.base: test_resnet -> test_vit"):
        hssl_search.resume("demo", budget="+1cpu-h")
    assert called == [] and run.config() == edited
