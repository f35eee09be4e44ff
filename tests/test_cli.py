"""The command line as people meet it: what it offers, what it refuses, and that a refusal leaves
nothing behind.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hssl_search import __version__, api, cli
from hssl_search.bundled import bundled_folder, names
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.config import NO_FLAG, SearchConfig
from hssl_search.engine.execution.ray_tune.session import RaySession
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import LABELFREE
from hssl_search.reporting.progress import Progress

FLAGS = {
    "-h",
    "--help",
    "--version",
    "--config",
    "--base",
    "--base-arg",
    "--image-size",
    "--data",
    "--probe-data",
    "--budget",
    "--space",
    "--trainer",
    "--rank-by",
    "--sampler",
    "--promote",
    "--pruner",
    "--max-head-cost",
    "--warm-start",
    "--name",
    "--storage",
    "--ray-address",
    "--gpus-per-trial",
    "--seed",
    "--full-epochs",
}
COMMANDS = {
    "plan",
    "resume",
    "status",
    "report",
    "dashboard",
    "replay",
    "spaces",
    "trainers",
    "families",
}
HEAVY = {"torch", "torchvision", "timm", "ray", "optuna", "pandas", "plotly", "sklearn", "pyarrow"}
BASE = ["--base", "test_resnet", "--base-arg", "output_stride=8", "--image-size", "32"]
ASKED = [*BASE, "--budget", "10cpu-min"]

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make an empty current folder, with the image cache elsewhere; Ray is not to be started."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HSSL_SEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must end with exit code 2, one sentence on stderr and nothing changed on
    disk; return the sentence.
    """

    def run(*argv: str) -> str:
        before = contents(here)
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        told = capsys.readouterr().err
        assert ended.value.code == 2
        assert (
            told.startswith("hssl-search: ")
            and told.endswith((".\n", "?\n"))
            and told.count("\n") == 1
        )
        assert contents(here) == before
        return told.removeprefix("hssl-search: ").rstrip("\n")

    return run


def write_images(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def edited(kind: Any, name: str, old: str, new: str) -> Path:
    """Write a bundled file with one change into the current folder."""
    text = (bundled_folder(kind) / f"{name}.yaml").read_text()
    assert old in text
    path = Path("mine.yaml")
    path.write_text(text.replace(old, new, 1))
    return path


# What is offered


def test_the_flags_are_these_and_grow_on_purpose() -> None:
    assert {
        flag for action in cli.search_parser()._actions for flag in action.option_strings
    } == FLAGS


def test_every_option_of_a_search_is_a_flag_with_a_help_text() -> None:
    described = {action.dest: action.help for action in cli.search_parser()._actions}
    assert all(
        described[name] == field.description
        for name, field in SearchConfig.model_fields.items()
        if name not in NO_FLAG
    )
    assert all(described.values())


def test_the_commands_are_these_and_the_help_names_each() -> None:
    assert set(cli.COMMANDS) == COMMANDS
    told = cli.search_parser().format_help()
    assert all(re.search(rf"\b{command}\b", told) for command in COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["-h"], *([command, "--help"] for command in sorted(COMMANDS))],
    ids=" ".join,
)
def test_help_says_how_it_is_called(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: {' '.join(['hssl-search', *argv[:-1]])} ")


def test_help_tells_choices_apart_from_what_is_in_them() -> None:
    assert "--rank-by accuracy|discrepancy|labelfree" in " ".join(
        cli.search_parser().format_help().split()
    )


def test_without_arguments_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    assert capsys.readouterr().out == cli.search_parser().format_help()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"hssl-search {__version__}\n"


@pytest.mark.parametrize(
    ("command", "kind"), [("spaces", "search_spaces"), ("trainers", "trainers")]
)
def test_spaces_and_trainers_are_listed_with_the_users_own(
    command: str, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(kind).mkdir()
    (Path(kind) / "mine.yaml").write_text("description: My own.\n")
    cli.main([command])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names(kind)
    assert "mine             My own." in lines
    assert all(len(line.split()) > 1 for line in lines)


def test_families_are_listed_with_what_they_read(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["families"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"convnext", "resnet", "transformer", "mlp", "identity", "noise"} <= set(lines)
    assert "kernel_size=7" in lines["convnext"]
    assert "control: " in lines["noise"] and "(no parameters)" in lines["noise"]


def test_flags_reach_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SearchConfig] = []
    monkeypatch.setattr(api, "run_search", lambda config, console: asked.append(config))
    monkeypatch.setattr(cli, "_print_status", lambda run, console: None)
    Path("some.yaml").write_text("seed: 5\ntrainer: dino\n")
    cli.main(
        [
            *ASKED,
            "--base-arg",
            "drop_rate=0.5",
            "--base-arg",
            "act_layer=gelu",
            "--trainer",
            "simclr",
            "--config",
            "some.yaml",
            "--warm-start",
            "runs/a",
            "b",
            "--warm-start",
            "c",
        ]
    )
    assert asked == [
        SearchConfig(
            base="test_resnet",
            base_arg={"output_stride": 8, "drop_rate": 0.5, "act_layer": "gelu"},
            image_size=32,
            budget=parse_budget("10cpu-min"),
            trainer="simclr",
            seed=5,
            warm_start=["runs/a", "b", "c"],
        )
    ]


def test_a_plan_takes_the_flags_of_a_search_and_prints_one_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[SearchConfig] = []

    def plan(config: SearchConfig, console: Console) -> dict[str, Any]:
        asked.append(config)
        logging.getLogger("hssl_search.session").warning("on the way.")
        return {"eta_s": 12.5, "enough": True}

    monkeypatch.setattr(api, "plan_search", plan)
    cli.main(["plan", *ASKED, "--seed", "5", "--json"])
    assert asked == [
        SearchConfig(
            base="test_resnet",
            base_arg={"output_stride": 8},
            image_size=32,
            budget=parse_budget("10cpu-min"),
            seed=5,
        )
    ]
    told = capsys.readouterr()
    assert json.loads(told.out) == {"eta_s": 12.5, "enough": True}
    assert told.err == "Note: on the way.\n"


def test_a_plan_whose_budget_buys_no_search_is_printed_and_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = {
        "enough": False,
        "budget": "10cpu-min",
        "device": "cpu",
        "smallest_s": 1200.0,
        "fits": ["--image-size 32"],
    }
    monkeypatch.setattr(api, "plan_search", lambda config, console: page)
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", *ASKED, "--json"])
    told = capsys.readouterr()
    assert (ended.value.code, json.loads(told.out)) == (2, page)
    assert told.err == (
        "hssl-search: the budget '10cpu-min' is too small for a search; give --budget 20cpu-min, "
        "or --image-size 32 "
        "within 10cpu-min.\n"
    )


# What is refused at once


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--bsae", "x"], r"unknown argument '--bsae'; did you mean '--base' or .*\?"),
        (["--budgt=3gpu-h"], r"unknown argument '--budgt=3gpu-h'; did you mean '--budget'.*\?"),
        (
            [*ASKED, "photos"],
            r"unknown argument 'photos'; remove it, or write the flag that it belongs to before "
            r"it\.",
        ),
        (["--base"], r"argument --base: expected one argument; see hssl-search --help\."),
        (["serach"], r"unknown command 'serach'; did you mean '.*'\?"),
        (["statsu", "demo"], r"unknown command 'statsu'; did you mean 'status'.*\?"),
        (
            ["families", "convnext"],
            r"unknown argument 'convnext'; remove it; see hssl-search families --help\.",
        ),
        (["resume"], r"the following arguments are required: RUN; see hssl-search resume --help\."),
        (
            ["status", "demo", "--sed"],
            r"unknown argument '--sed'; remove it; see hssl-search status --help\.",
        ),
        (["--budget", "1cpu-h"], r"no base is given; add it, for example --base resnet50\."),
        (BASE, r"no budget is given; add it, for example --budget 40gpu-h\."),
        ([*BASE, "--budget", "10"], r"the budget '10' has no unit; type '10gpu-h' .*\."),
        (
            [*BASE, "--budget", "10cpu-mn"],
            r"the budget '10cpu-mn' has the unknown unit 'cpu-mn'; did you mean 'cpu-min'.*\?",
        ),
        ([*BASE, "--budget", "much"], r"the budget 'much' does not begin with a number; .*\."),
        (
            [*ASKED, "--base-arg", "patch_size"],
            r"--base-arg 'patch_size' is not KEY=VALUE; write for example --base-arg "
            r"patch_size=4\.",
        ),
        (
            [*ASKED, "--base-arg", "sizes={a"],
            r"--base-arg 'sizes=\{a' has a value that is neither number nor text; .*\.",
        ),
        (
            [*ASKED, "--base-arg", "output_stride=16"],
            r"--base-arg output_stride is given twice, as 8 and as 16; give it once\.",
        ),
        (
            ["--budget", "1cpu-h", "--base", "resnet50.a1_in1k"],
            r"--base resnet50\.a1_in1k names trained weights, and bases begin from random "
            r"weights; give --base resnet50\.",
        ),
        (
            ["--budget", "1cpu-h", "--base", "local-dir:./mine"],
            r"--base local-dir:\./mine is no timm model's name, and bases begin from random "
            r"weights; give one such as resnet50\.",
        ),
        (
            [*ASKED, "--base-arg", "checkpoint_path=w.pt"],
            r"--base-arg checkpoint_path=w\.pt cannot be given: bases begin from random weights; "
            r"leave it out\.",
        ),
        (
            [*ASKED, "--base-arg", "pretrained=true"],
            r"--base-arg pretrained=True cannot be given: bases begin from .*",
        ),
        (
            [*ASKED, "--base-arg", "in_chans=1"],
            r"--base-arg in_chans=1 cannot be given: images are read with three channels, grey "
            r"ones too; .*",
        ),
        (
            [*ASKED, "--base-arg", "num_classes=10"],
            r"--base-arg num_classes=10 cannot be given: a base has no classifier; leave it out\.",
        ),
        (
            [*ASKED, "--base-arg", "features_only=true"],
            r"--base-arg features_only=True cannot be given: heads are fed by .*",
        ),
        (
            [*ASKED, "--base-arg", "global_pool=''"],
            r"--base-arg global_pool='' cannot be given: a base gives one vector an image; .*avg\.",
        ),
        (
            [*ASKED, "--seed", "-1"],
            r"command line: --seed is '-1', but should be greater than or equal to 0\.",
        ),
        (
            [*ASKED, "--image-size", "4"],
            r"command line: --image-size is '4', but should be greater than or equal to 8\.",
        ),
        (
            [*ASKED, "--full-epochs", "foo"],
            r"command line: --full-epochs is 'foo': must be a whole number of at least 1, or off\.",
        ),
        (
            [*ASKED, "--gpus-per-trial", "1.5"],
            r"command line: --gpus-per-trial is '1.5', but should be less than or equal to 1\.",
        ),
        (
            [*ASKED, "--name", "my/run"],
            r"command line: --name is 'my/run': must be at most 100 letters, .*\.",
        ),
        (
            [*ASKED, "--rank-by", "acuracy"],
            r"argument --rank-by: invalid choice: 'acuracy' \(choose from .*accuracy.*\); see .*\.",
        ),
        (
            [*ASKED, "--warm-start"],
            r"argument --warm-start: expected at least one argument; see hssl-search --help\.",
        ),
        (
            [*ASKED, "--warm-start", "demo"],
            r"runs/demo is no run: it has no search\.yaml; there are no runs in .*/runs\.",
        ),
        ([*ASKED, "--config", "none.yaml"], r"none\.yaml does not exist; check the path\."),
        (
            [*ASKED, "--space", "defalt"],
            r"there is no search space 'defalt'; did you mean 'default'\?",
        ),
        (
            [*ASKED, "--space", "my/space.yaml"],
            r"the search space my/space\.yaml does not exist; give the path of a file, or .*tiny\.",
        ),
        ([*ASKED, "--trainer", "simcrl"], r"there is no trainer 'simcrl'; did you mean 'simclr'\?"),
        (
            [*ASKED, "--data", "nowhere"],
            r"there is no folder 'nowhere' to read images from: give an existing one, or the name "
            r"'digits'\.",
        ),
        (
            [*ASKED, "--probe-data", "nowhere"],
            r"there is no folder 'nowhere' to read images from: .*\.",
        ),
        (
            [*ASKED, "--storage", "nonsense"],
            r"the storage 'nonsense' is no database URL that SQLAlchemy knows; .*\.",
        ),
        (
            [*ASKED, "--storage", "sqlite://"],
            r"the storage 'sqlite://' is in memory and would be lost; .*\.",
        ),
        (
            [*ASKED, "--storage", "sqlite:///no/x.db"],
            r"the storage 'sqlite:///no/x\.db' is in the folder 'no', which does not exist; .*\.",
        ),
        (
            [*ASKED, "--storage", "postgresql://o:s3cret@db:$PGPORT/d"],
            r"the storage 'postgresql://\.\.\.' has a port that is no number; .*\.",
        ),
        (
            [*ASKED, "--storage", "postgresql://o:s3@cret@h/d"],
            r"the storage 'postgresql://\.\.\.' has more than one '@'; .*\.",
        ),
        (
            [*ASKED, "--storage", "postgresql://o:s3cret@h/d"],
            r"the storage 'postgresql://o:\*\*\*@h/d' has its password in the URL, .*\.",
        ),
        (
            [*ASKED, "--storge=postgresql://o:s3@cret@h/d"],
            r"unknown argument '--storge=postgresql://o:\*\*\*@h/d'; did you mean .*\?",
        ),
        (["postgresql://o:s3cret@h/d"], r"unknown command 'postgresql://o:\*\*\*@h/d'; .*\."),
        (
            [*ASKED, "--name", "図" * 67],
            r"command line: --name is '図.*': must be at most 200 bytes long, .*\.",
        ),
        (
            ["dashboard", "demo", "--port", "http"],
            r"argument --port: 'http' is no port: give a number from 1 to 65535; see .*\.",
        ),
        (
            ["dashboard", "demo", "--port", "65536"],
            r"argument --port: '65536' is no port: give a number from 1 to 65535; see .*\.",
        ),
        (
            ["resume", "nothing"],
            r"runs/nothing is no run: it has no search\.yaml; there are no runs in .*/runs\.",
        ),
        (["plan", *BASE], r"no budget is given; add it, for example --budget 40gpu-h\."),
        (["plan", *ASKED, "--jsn"], r"unknown argument '--jsn'; did you mean '--json'.*\?"),
        (
            ["replay", "demo"],
            r"the following arguments are required: TRIAL; see hssl-search replay --help\.",
        ),
        (
            ["replay", "demo", "seven"],
            r"argument TRIAL: invalid int value: 'seven'; see hssl-search replay --help\.",
        ),
        (
            ["replay", "nothing", "7"],
            r"runs/nothing is no run: it has no search\.yaml; there are no runs in .*/runs\.",
        ),
        (
            ["status", "some/where"],
            r"some/where is no run: it has no search\.yaml; there are no runs in .*\.",
        ),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence(
    refused: Refused, argv: list[str], sentence: str
) -> None:
    assert re.fullmatch(sentence, refused(*argv))


@pytest.mark.parametrize("place", ["hssl-search.yaml", "mine.yaml"])
def test_a_mistake_in_a_config_file_names_the_file(refused: Refused, place: str) -> None:
    argv = ASKED if place == "hssl-search.yaml" else [*ASKED, "--config", place]
    Path(place).write_text("base: [test_resnet\nbudget: 3gpu-h\n")
    assert re.fullmatch(rf"{place} is not valid YAML: .* \(line 2, column 7\)\.", refused(*argv))
    Path(place).write_text("bas: test_resnet\n")
    assert refused(*argv).startswith(f"{place}: unknown key 'bas'; did you mean 'base'")


@pytest.mark.parametrize(("flag", "kind"), [("--space", "search space"), ("--trainer", "trainer")])
def test_a_file_that_is_not_yaml_is_refused(refused: Refused, flag: str, kind: str) -> None:
    Path("mine.yaml").write_text("description: x\nparameters: {family: [convnext\ndepth: 3\n")
    assert re.fullmatch(
        r"mine\.yaml is not valid YAML: .* \(line 3, column \d+\)\.",
        refused(*ASKED, flag, "mine.yaml"),
    )


def test_data_that_are_a_file_are_refused(refused: Refused, here: Path) -> None:
    picture = write_images(here / "photos", 1) / "0.png"
    assert (
        refused(*ASKED, "--data", str(picture))
        == f"'{picture}' is a file, not a folder of images: give the folder that it is in."
    )
    assert (
        refused(*ASKED, "--data", "photo")
        == "there is no folder 'photo' to read images from: did you mean 'photos'?"
    )


def test_a_taken_name_says_how_to_go_on(refused: Refused) -> None:
    Run.create(Path("runs/demo"), {"format": "hssl-search/1"})
    sentence = (
        "the run 'demo' exists already; continue with `hssl-search resume runs/demo` or give "
        "another --name."
    )
    assert refused(*ASKED, "--name", "demo") == sentence


def test_a_folder_that_is_no_run_is_not_taken_for_one(refused: Refused) -> None:
    write_images(Path("runs/photos"), 2)
    assert (
        refused(*ASKED, "--name", "photos")
        == "runs/photos exists already and is no run; give another --name."
    )
    assert "runs/photos is no run: it has no search.yaml" in refused("resume", "photos")


def test_a_place_where_no_run_folder_can_be_made_is_refused(refused: Refused) -> None:
    Path("runs").write_text("")
    assert (
        refused(*ASKED)
        == "the run folder runs/test_resnet-digits cannot be made: runs is a file; work in "
        "another folder."
    )


def test_a_run_that_another_version_wrote_is_refused(refused: Refused) -> None:
    Run.create(Path("runs/demo"), {"format": "hssl-search/9"})
    for command in ("resume", "status", "report", "dashboard"):
        assert re.search(
            r"search.yaml has the format 'hssl-search/9' and this version reads 'hssl-search/1'; ",
            refused(command, "demo"),
        )


def test_a_run_cannot_be_started_warm_from_where_nothing_learns(refused: Refused) -> None:
    Run.create(Path("runs/old"), {"format": "hssl-search/1"})
    told = refused(*ASKED, "--warm-start", "old", "--promote", "random")
    assert told.startswith("--warm-start has no use with --promote random, which does not learn ")


def test_a_second_controller_is_refused(refused: Refused) -> None:
    run = Run.create(Path("runs/demo"), {"format": "hssl-search/1", "ray_address": None})
    with run.lock():
        assert refused("resume", "demo").startswith("the run 'demo' is being worked on by process ")


# What is refused after torch is loaded, and before Ray is


def test_an_unknown_base_is_refused_with_the_nearest_names(refused: Refused) -> None:
    assert refused("--base", "test_resnett", "--budget", "1cpu-h").startswith(
        "unknown base 'test_resnett'; did you mean 'test_resnet'"
    )
    assert refused("--base", "qqqqqqqqqq", "--budget", "1cpu-h").startswith(
        "unknown base 'qqqqqqqqqq'; timm.list_models() gives the "
    )


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--base", "test_resnet", "--base-arg", "outputstride=8"],
            r"timm refuses to build base 'test_resnet' with outputstride=8 \(.*\); .*",
        ),
        (
            ["--base", "test_vit", "--base-arg", "img_size=[32, 64]", "--image-size", "32"],
            r"--base-arg img_size=\[32, 64\] is not the size of the images, 32 px; leave it out: "
            r"--image-size sets both\.",
        ),
        (
            ["--base", "test_vit", "--image-size", "35"],
            r"base 'test_vit' cannot take images of 35 x 35 pixels \(.*\); .* --image-size\.",
        ),
    ],
    ids=["base-arg", "img_size", "image-size"],
)
def test_what_a_base_cannot_take_is_refused(
    refused: Refused, argv: list[str], sentence: str
) -> None:
    assert re.fullmatch(sentence, refused(*argv, "--budget", "1cpu-h"))


def test_a_gpu_budget_without_a_gpu_says_what_to_type(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    sentence = (
        r"the budget '2gpu-h' is in GPU time and no GPU was found; type '2cpu-h' instead .*\."
    )
    assert re.fullmatch(sentence, refused(*BASE, "--budget", "2gpu-h"))


@pytest.mark.parametrize(("count", "sentence"), [(0, "has no images"), (1, "has only one image")])
def test_a_folder_with_less_than_two_images_is_refused(
    refused: Refused, here: Path, count: int, sentence: str
) -> None:
    write_images(here / "photos", count)
    assert refused(*ASKED, "--data", "photos").startswith(
        f"'photos' {sentence} (looked for .jpeg, .jpg, .png, .webp at any depth): give "
    )


def test_ranking_by_accuracy_needs_labels(refused: Refused, here: Path) -> None:
    write_images(here / "photos", 80)
    told = refused(*ASKED, "--data", "photos", "--rank-by", "accuracy")
    assert told.startswith(
        "--rank-by accuracy needs labels and the data have none; give --probe-data "
    )


def test_help_tells_what_labelfree_ranks_by() -> None:
    told = " ".join(cli.search_parser().format_help().split())
    assert "accuracy|discrepancy|labelfree" in told
    assert f"labelfree is {LABELFREE.name} of the base" in told


def test_an_unknown_key_in_a_space_is_refused(refused: Refused) -> None:
    path = edited("search_spaces", "tiny", "family:", "famly:")
    assert (
        refused(*ASKED, "--space", str(path))
        == "mine.yaml: unknown key 'famly' in parameters; did you mean 'family'?"
    )
    path = edited("search_spaces", "tiny", "depth:", "dpeth:")
    assert (
        refused(*ASKED, "--space", str(path))
        == "mine.yaml: unknown key 'dpeth' in parameters; did you mean 'depth'?"
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("views:", "veiws:", "mine.yaml: unknown key 'veiws'; did you mean 'views'?"),
        ("  lr:", "  lrr:", "mine.yaml: unknown key 'lrr' in proxy; did you mean 'lr'?"),
        (
            "temperature:",
            "temprature:",
            "mine.yaml: method: unknown key 'temprature'; did you mean 'temperature'?",
        ),
        (
            "name: simclr",
            "name: simclrr",
            "mine.yaml: unknown SSL method 'simclrr'; did you mean 'simclr'?",
        ),
    ],
    ids=["top", "stage", "method", "name"],
)
def test_an_unknown_key_in_a_recipe_is_refused(
    refused: Refused, old: str, new: str, sentence: str
) -> None:
    assert refused(*ASKED, "--trainer", str(edited("trainers", "simclr", old, new))) == sentence


def test_a_home_directory_that_there_is_not_is_told(refused: Refused) -> None:
    told = refused(*ASKED, "--data", "~nobody-of-this-name/photos")
    assert (
        told
        == "'~nobody-of-this-name/photos' begins with a home directory that there is not; give "
        "the full path of the folder."
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_a_signal_stops_ends_with_130(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setitem(cli.COMMANDS, "status", lambda arguments: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as ended:
        cli.main(["status"])
    assert (ended.value.code, capsys.readouterr().err) == (
        cli.INTERRUPTED,
        "\nhssl-search: stopped.\n",
    )
    assert signal.getsignal(number) is before


@pytest.fixture
def free_port() -> Iterator[int]:
    """Return a port that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_ray_address_where_nothing_listens_is_refused(refused: Refused, free_port: int) -> None:
    told = refused(*ASKED, "--ray-address", f"127.0.0.1:{free_port}")
    assert re.fullmatch(
        rf"nothing answers at '127\.0\.0\.1:{free_port}' \(.*\); check the address of the Ray "
        r"cluster\.",
        told,
    )


def test_a_study_that_the_storage_holds_already_is_left_alone(
    here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RaySession, "start", lambda self: self)
    monkeypatch.setattr(RaySession, "total", lambda self, resource: 2.0)
    monkeypatch.setattr(RaySession, "free", lambda self, resource: 2.0)
    url = f"sqlite:///{here}/studies.db"
    with StudyRecord.open(url, "demo") as study:
        study.write(SearchState(config={"base": "of another run"}))
    told = refused(*ASKED, "--storage", "sqlite:///studies.db", "--name", "demo")
    assert (
        told == f"the storage '{url}' holds a study 'demo' already; give this run another --name."
    )
    with StudyRecord.open(url, "demo") as study:
        assert study.study_attributes() == {"config": {"base": "of another run"}}


# As a program


def program(*argv: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    package = str(Path(cli.__file__).parents[1])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); sys.argv = ['hssl-search', *sys.argv[1:]]; "
        "import runpy; runpy.run_module('hssl_search', run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, *options, "-c", code, *argv], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["spaces"], 0),
        (["--bsae", "x"], 2),
        ([*BASE, "--budget", "10"], 2),
    ],
    ids=["help", "version", "spaces", "flag", "budget"],
)
def test_what_needs_no_training_loads_nothing_heavy(argv: list[str], code: int) -> None:
    ended = program(*argv, options=("-X", "importtime"))
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in ended.stderr.splitlines()
        if line.startswith("import time:")
    }
    told = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert ended.returncode == code
    assert "hssl_search" in loaded and not loaded & HEAVY
    assert len(told) == (1 if code else 0)


def test_the_installed_program_is_the_same() -> None:
    installed = shutil.which("hssl-search", path=str(Path(sys.executable).parent))
    if installed is None:
        pytest.skip("hssl-search is not installed beside this Python")
    ended = subprocess.run([installed, "--bsae", "x"], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", program("--bsae", "x").stderr)
    assert "Traceback" not in ended.stderr


# As a program whose output nobody reads, or has room for


COMMAND = [sys.executable, "-m", "hssl_search"]
PRINTING = [
    ["families"],
    ["spaces"],
    ["trainers"],
    ["--help"],
    ["plan", "--help"],
    ["--version"],
    [],
]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **changes}


@pytest.mark.parametrize(
    "buffering", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"]
)
@pytest.mark.parametrize("argv", PRINTING, ids=" ".join)
def test_a_pipe_that_its_reader_has_closed_ends_a_command_silently(
    argv: list[str], buffering: dict[str, str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [*COMMAND, *argv],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment(**buffering),
            timeout=120,
        )
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full"
)
@pytest.mark.parametrize(
    "buffering", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"]
)
@pytest.mark.parametrize("argv", PRINTING, ids=" ".join)
def test_a_full_disk_under_the_output_is_told(argv: list[str], buffering: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**buffering),
            timeout=120,
        )
    assert ended.returncode == 2
    assert ended.stderr == (
        "hssl-search: standard output cannot be written (No space left on device): send it "
        "elsewhere; what the command "
        "wrote to files is complete.\n"
    )


@pytest.mark.parametrize(("argv", "code"), [(["families"], 0), (["--bsae", "x"], 2)])
def test_streams_that_the_shell_has_closed_leave_the_exit_code(argv: list[str], code: int) -> None:
    command = shlex.join([*COMMAND, *argv])
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        ended = subprocess.run(
            f"{command} {closed}", shell=True, capture_output=True, env=environment(), timeout=120
        )
        assert (closed, ended.returncode) == (closed, code)
        assert b"Traceback" not in ended.stderr


def test_letters_that_the_terminal_lacks_are_escaped() -> None:
    Path("search_spaces").mkdir()
    Path("search_spaces/mine.yaml").write_text("description: caf\u00e9\n", encoding="utf-8")
    ended = subprocess.run(
        [*COMMAND, "spaces"],
        capture_output=True,
        text=True,
        env=environment(PYTHONIOENCODING="ascii"),
        timeout=120,
    )
    assert ended.returncode == 0
    assert "caf\\xe9" in ended.stdout


@pytest.mark.parametrize("failing", ["pipe", "/dev/full"])
def test_a_search_whose_output_is_lost_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str
) -> None:
    ended: list[bool] = []

    def search(config: SearchConfig, console: Console) -> None:
        with Progress(console) as progress:
            for number in range(1000):
                console.print(f"line {number}")
                progress.note("a note")
        ended.append(True)

    monkeypatch.setattr(api, "run_search", search)
    monkeypatch.setattr(cli, "_print_status", lambda run, console: None)
    with broken(failing) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        if failing == "pipe":
            cli.main(ASKED)
        else:
            with pytest.raises(SystemExit, match="2"):
                cli.main(ASKED)
        assert sys.stdout is stream
    assert ended == [True]
    assert ("cannot be written" in capsys.readouterr().err) is (failing != "pipe")


@contextmanager
def broken(kind: str) -> Iterator[TextIO]:
    """Return a stream that cannot be written."""
    if kind != "pipe" and not os.path.exists(kind):
        pytest.skip("needs /dev/full, a disk that is always full")
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, open(os.devnull if kind == "pipe" else kind, "w") as file:
        yield pipe if kind == "pipe" else file
