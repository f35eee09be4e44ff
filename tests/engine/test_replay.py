"""Replays of real trainings on the digits, from what a run recorded of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from hssl_search import UserError, api, cli
from hssl_search.data.splits import load_data
from hssl_search.engine.budget import parse_budget
from hssl_search.engine.execution.inline import InlineExecutor
from hssl_search.engine.execution.jobs import Job, Plain, Setting, State
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.phases.jobs import JobMaker
from hssl_search.engine.phases.runner import Backend, Phase, Runner
from hssl_search.engine.records.ledger import Ledger
from hssl_search.engine.records.meter import DeviceMeter
from hssl_search.engine.records.run import FORMAT, Run
from hssl_search.engine.records.state import JOB_PREFIX, Contender, SearchState, TrialState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.worker.environment import processor
from hssl_search.engine.worker.run_job import run_job
from hssl_search.heads.config import HeadConfig
from hssl_search.reporting.text import replay_sentence
from hssl_search.training.recipe import Recipe

MACHINE = Machine("cpu", cpus=1, gpus=0)
RECIPE = {
    "method": {"name": "simclr", "projector_hidden": 32, "projector_out": 16},
    "proxy": {"batch_size": 32, "precision": "fp32"},
}
NO_HEAD = Contender(0, TrialState(name="no head", family="none", control="none"))
CONVNEXT = Contender(
    1, TrialState(name="convnext 1", family="convnext", head=HeadConfig(family="convnext", depth=1))
)
SCREENED = Contender(
    2, TrialState(name="mlp 1", family="mlp", head=HeadConfig(family="mlp", depth=1))
)
STEPS, RUNGS = 6, [2, 4, 6]


class Watcher:
    """Hears nothing, and interrupts the search at the first report of a job whose name it knows."""

    def __init__(self, interrupts: str = "") -> None:
        self.interrupts = interrupts

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None

    def report(self, name: str, *values: Any) -> None:
        if name == self.interrupts:
            raise KeyboardInterrupt


def train(run: Run, study: StudyRecord, job: Job, watcher: Watcher | None = None) -> None:
    meter = DeviceMeter(Ledger(run.ledger), parse_budget("10cpu-min"), 1, 0)
    backend = Backend(
        run=run,
        study=study,
        executor=InlineExecutor(run_job, meter),
        meter=meter,
        machine=MACHINE,
        watcher=watcher or Watcher(),
        ended=study.job_outcomes(),
    )
    Runner(backend, job.phase, Phase([job], backend.ended), {}).run()
    meter.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """No head under one seed, its training interrupted at the first rung and resumed; a head under
    two; and one that was only screened.
    """
    folder = tmp_path_factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSSL_SEARCH_CACHE", str(folder / "cache"))
        setting = Setting(
            base="test_resnet",
            base_args={"output_stride": 8},
            image_size=16,
            data="digits",
            probe_data=None,
            data_seed=0,
            recipe=Recipe.from_plain(RECIPE).as_plain(),
            device="cpu",
        )
        setting = setting.model_copy(update={"images": load_data("digits", None, 16, 0).contents})
        made = Run.create(
            folder / "demo",
            {
                "format": FORMAT,
                "name": "demo",
                "seed": 0,
                "storage": None,
                "setting": setting.model_dump(mode="json"),
            },
        )
        maker = JobMaker(setting, made.folder, MACHINE)
        with StudyRecord.open(made.storage_url, "demo") as study:
            study.write(SearchState(config={}))
            for one in (NO_HEAD, CONVNEXT, SCREENED):
                study.add_trial(one.state)
            no_head = maker.training("proxy", NO_HEAD, 0, STEPS, RUNGS, 0.0, 1)
            with pytest.raises(KeyboardInterrupt):
                train(made, study, no_head, Watcher(interrupts="no head"))
            assert [study.job_outcomes()[no_head.key].state] == [State.CUT]
            train(made, study, no_head)
            train(made, study, maker.training("proxy", CONVNEXT, 0, STEPS, RUNGS, 0.0, 1))
            train(made, study, maker.training("confirm", CONVNEXT, 1, STEPS, [STEPS], 0.0, 1))
        yield made


@pytest.fixture
def changed(run: Run) -> Iterator[Callable[[str, Callable[[Plain], Any]], None]]:
    """Changes a job's record for the length of a test."""
    with StudyRecord.open(run.storage_url, "demo") as study:
        before = study.job_records()

    def write(key: str, record: Plain) -> None:
        with StudyRecord.open(run.storage_url, "demo") as study:
            study.study.set_user_attr(JOB_PREFIX + key, record)

    def change(key: str, edit: Callable[[Plain], Any]) -> None:
        record = json.loads(json.dumps(before[key]))
        edit(record)
        write(key, record)

    yield change
    for key, record in before.items():
        write(key, record)


def contents(run: Run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("trial", "seed", "job", "steps"),
    [
        (0, None, "proxy/0000/seed0", RUNGS),
        (1, None, "proxy/0001/seed0", RUNGS),
        (1, 1, "confirm/0001/seed1", [STEPS]),
    ],
    ids=["resumed", "proxy", "confirming"],
)
def test_every_number_of_a_training_comes_out_again(
    run: Run, trial: int, seed: int | None, job: str, steps: list[int]
) -> None:
    before, threads, random = contents(run), torch.get_num_threads(), torch.get_rng_state()
    found = api.replay(run, trial, seed)
    assert found.equal, found.different
    assert (found.job, found.notes) == (job, [])
    assert list(dict.fromkeys(number.step for number in found.numbers)) == steps
    expected = {"loss", "base_losses.0", "accuracy"} | (
        {"head_losses.0", "heads.0.cka", "heads.0.gate"} if trial else set()
    )
    assert all(
        expected <= {number.name for number in found.numbers if number.step == step}
        for step in steps
    )
    assert "labelfree_rankme" in {number.name for number in found.numbers if number.step == STEPS}
    assert contents(run) == before
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), random)


def test_a_run_that_another_controller_holds_can_be_replayed(run: Run) -> None:
    with run.lock():
        assert api.replay(run, 1, 1).equal


def test_the_command_prints_the_rungs_and_that_all_is_equal(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["replay", str(run.folder), "1", "--seed", "1"])
    told = capsys.readouterr().out
    assert re.search(r"^ *6 .* (\d+) of \1 *$", told, re.MULTILINE)
    assert re.search(
        r"^confirm/0001/seed1 \(convnext 1 \(seed 1\)\) replays: all \d+ numbers are equal\.$",
        told,
        re.MULTILINE,
    )


def test_a_number_that_was_changed_in_the_record_ends_the_command_with_code_1(
    run: Run, changed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    changed(
        "confirm/0001/seed1", lambda record: record["reports"][0]["metrics"].update(accuracy=99.5)
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["replay", str(run.folder), "1", "--seed", "1"])
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert re.fullmatch(
        r"hssl-search: confirm/0001/seed1 \(convnext 1 \(seed 1\)\) does not replay: 1 of \d+ "
        r"numbers differ, "
        r"first accuracy at step 6, 99\.5 recorded and [\d.]+ replayed; its record was changed, "
        r".*\.\n",
        told.err,
    )
    assert re.search(r"^ *6 +99\.5 -> [\d.]+ .* 15 of 16 *$", told.out, re.MULTILINE)


def test_another_seed_or_other_steps_are_not_taken_for_the_same_training(
    run: Run, changed: Callable[..., None]
) -> None:
    for edit in ({"seed": 5}, {"steps": 60}):
        changed("confirm/0001/seed1", lambda record, edit=edit: record["task"].update(edit))
        assert {"loss", "accuracy"} & {number.name for number in api.replay(run, 1, 1).different}


def test_what_is_different_here_is_said(
    run: Run, changed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(record: Plain) -> None:
        record["reports"][0]["metrics"]["surroundings"] |= {
            "hardware": "Another One",
            "torch": "1.0",
        }

    changed("confirm/0001/seed1", elsewhere)
    resolved = run.config()
    began_with = resolved["setting"]["images"]["training"]
    other = {"training": {**began_with, "images": began_with["images"] + 1, "names": "of others"}}
    monkeypatch.setattr(
        Run, "config", lambda run: {**resolved, "setting": {**resolved["setting"], "images": other}}
    )
    found = api.replay(run, 1, 1)
    assert found.equal
    change = (
        "The images in 'digits' have changed since the search began (1,797 images, were 1,798); "
        "those that it began with are used, which the image cache still holds."
    )
    assert found.notes == [
        change,
        f"hardware was Another One and is {processor()} here.",
        f"torch was 1.0 and is {torch.__version__} here.",
    ]
    changed_number = replace(found, numbers=[replace(found.numbers[0], replayed=0.0)])
    assert f"what is different here may be why: {change}" in replay_sentence(changed_number)


def test_a_number_that_is_none_is_equal_to_itself(run: Run) -> None:
    number = replace(api.replay(run, 1, 1).numbers[0], recorded=float("nan"), replayed=float("nan"))
    assert number.equal and not replace(number, replayed=None).equal


def test_a_number_that_the_replay_has_not_got_is_shown_as_none(
    run: Run, changed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    changed(
        "proxy/0000/seed0",
        lambda record: record["reports"][-1]["metrics"].update(head_losses=[1.5]),
    )
    with pytest.raises(SystemExit):
        cli.main(["replay", str(run.folder), "0"])
    told = capsys.readouterr()
    assert re.search(
        r"1 of \d+ numbers differ, first head_losses\.0 at step 6, 1\.5 recorded and None replayed",
        told.err,
    )
    assert re.search(r"^ *6 .* 1\.5 -> none +\d+ of \d+ *$", told.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("trial", "seed", "sentence"),
    [
        (3, None, "the run 'demo' has no trial 3; its trials are 0 to 2."),
        (-1, None, "the run 'demo' has no trial -1; its trials are 0 to 2."),
        (
            2,
            None,
            "trial 2 of the run 'demo' was never trained alone as far as a first rung; choose one "
            "that was: 0, 1.",
        ),
        (1, 7, "trial 1 of the run 'demo' was not trained under seed 7; choose one of 0, 1."),
    ],
)
def test_what_cannot_be_replayed_is_told(
    run: Run, trial: int, seed: int | None, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        api.replay(run, trial, seed)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "/gone"}, "there is no folder '/gone' to read images from"),
        (
            {"device": "cuda"},
            "proxy/0001/seed0 was trained on a GPU and no GPU was found; replay it on a machine "
            "like the one",
        ),
    ],
)
def test_data_and_devices_that_are_gone_are_told(
    run: Run, changes: Plain, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = run.config()
    monkeypatch.setattr(
        Run, "config", lambda run: {**resolved, "setting": {**resolved["setting"], **changes}}
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=f"^{sentence}"):
        api.replay(run, 1)


def test_a_record_of_an_older_version_is_refused(run: Run, changed: Callable[..., None]) -> None:
    changed("proxy/0000/seed0", lambda record: record.pop("task"))
    with pytest.raises(
        UserError, match="the record of proxy/0000/seed0 does not say how it was trained; "
    ):
        api.replay(run, 0)


def test_the_processor_has_a_name() -> None:
    assert processor().strip()
