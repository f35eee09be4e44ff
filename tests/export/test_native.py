"""The winner as files, from a run that was written by hand: nothing is trained here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from hssl_search import load_head
from hssl_search.backbones import Base
from hssl_search.engine.execution.jobs import Job, Outcome, Report, Setting, State, Task
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import FullState, SearchState, TrialState
from hssl_search.engine.records.study import StudyRecord
from hssl_search.export.native import export_winner
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.files import read_head
from hssl_search.training.checkpoint import CheckpointFolder
from hssl_search.training.recipe import Recipe

HEAD = HeadConfig(family="convnext", depth=1, kernel_size=3, mlp_ratio=2.0)
DISCREPANCY = {
    "cka": 0.4,
    "overlap": 0.5,
    "cka_excess": 0.3,
    "overlap_excess": 0.25,
    "discrepancy": 0.25,
    "gate": "healthy",
}
VERDICT = {
    "winner": 1,
    "name": "convnext",
    "state": "undecided",
    "sentence": "Undecided: it may be chance.",
    "rows": [
        {
            "name": "no head",
            "role": "control",
            "trial": 0,
            "seeds": 2,
            "mean": 90.0,
            "interval": [89.0, 91.0],
            "best": 0.1,
        },
        {
            "name": "convnext",
            "role": "candidate",
            "trial": 1,
            "seeds": 2,
            "mean": 91.0,
            "interval": [90.0, 92.0],
            "best": 0.9,
        },
    ],
}
BASES: dict[str, dict[str, Any]] = {
    "test_resnet": {"output_stride": 8},
    "test_vit": {"patch_size": 8},
}


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> Base:
    torch.manual_seed(3)
    return Base(request.param, 32, BASES[request.param]).eval()


@pytest.fixture
def run(tmp_path: Path, base: Base, setting: Setting, resolved: ResolvedSearch) -> Run:
    setting = setting.model_copy(update={"base": base.name, "base_args": BASES[base.name]})
    changes = {
        "seed": 4,
        "setting": setting,
        "timm_args": base.timm_args,
        "map_shapes": [base.map_shape],
        "images": {"training": 100, "fingerprint": "ab12"},
        "versions": {"hssl-search": "0.1.0"},
    }
    search = resolved.model_copy(update=changes)
    return Run.create(tmp_path / "demo", search.as_plain())


@pytest.fixture
def study(run: Run) -> Iterator[StudyRecord]:
    """Make a study whose trial 0 is the no-head control, and trial 1 the head."""
    with StudyRecord.open(run.storage_url, "demo") as record:
        record.add_trial(TrialState(role="control", control="none", name="no head", head=None))
        record.add_trial(TrialState(role="candidate", name="convnext", head=HEAD, **DISCREPANCY))
        yield record


def keep(folder: Path, base: Base, step: int) -> dict[str, torch.Tensor]:
    """Save a checkpoint whose base has weights of its own, and return those weights."""
    weights = {
        name: value + 0.01 * step if value.is_floating_point() else value
        for name, value in base.model.state_dict().items()
    }
    CheckpointFolder(folder).save(step, {"projector": torch.ones(2)}, weights, {})
    return weights


def ended(study: StudyRecord, key: str, accuracy: float | None, state: State = State.DONE) -> None:
    """Record that the full training or a proxy, `proxy/TRIAL`, came to that accuracy after 5
    steps."""
    phase, _, trial = key.partition("/")
    job = Job(key, phase, Task.model_construct(), "", int(trial) if trial else None)
    metrics: dict[str, Any] = (
        {"loss": 1.0} if accuracy is None else {"loss": 1.0, "accuracy": accuracy}
    )
    study.record_job(
        job, Outcome(state, reports=[Report(2, {**metrics, "accuracy": 99.0}), Report(5, metrics)])
    )


def exported(run: Run, study: StudyRecord, state: str = "undecided") -> Path:
    study.write(SearchState(verdict={**VERDICT, "state": state}))
    folder = export_winner(run, study)
    assert folder == run.winner
    return folder


def outputs(model: Any, weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    model.load_state_dict(weights)
    return model.eval()(images)


def test_without_a_winner_nothing_is_exported(run: Run, study: StudyRecord) -> None:
    assert export_winner(run, study) is None
    study.write(SearchState(verdict={**VERDICT, "winner": None}))
    assert export_winner(run, study) is None
    assert not run.winner.exists()


def test_the_head_is_written_with_where_it_comes_from(
    run: Run, study: StudyRecord, base: Base
) -> None:
    written = read_head(exported(run, study) / "head.yaml")
    assert written.head == HEAD
    assert written.context["base"] == {
        "name": base.name,
        "args": base.timm_args,
        "image_size": 32,
        "map_shape": list(base.map_shape),
    }
    assert Recipe.from_plain(written.context["recipe"]) == Recipe.read("simclr")
    assert written.context["provenance"] == {
        "study": "demo",
        "trial": 1,
        "verdict": VERDICT["sentence"],
        "scores": VERDICT["rows"][1:],
        "seed": 4,
        "discrepancy": DISCREPANCY,
        "data": {"training": 100, "fingerprint": "ab12"},
        "versions": {"hssl-search": "0.1.0"},
        "weights": None,
    }


def test_the_head_loads_as_a_module_that_fits_the_base(
    run: Run, study: StudyRecord, base: Base
) -> None:
    head = load_head(exported(run, study) / "head.yaml")
    images = torch.rand(2, 3, 32, 32)
    features = head(base(images).map)
    assert features.map.shape == (2, head.width, *base.map_shape[1:])
    features.embedding.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_base_comes_from_the_full_training(run: Run, study: StudyRecord, base: Base) -> None:
    keep(run.checkpoint_folder(1), base, 5)
    weights = keep(run.winner / "checkpoint", base, 1200)
    folder = exported(run, study)
    model = timm.create_model(
        base.name, num_classes=0, checkpoint_path=str(folder / "base.safetensors"), **base.timm_args
    )
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.eval()(images), outputs(base.model, weights, images))
    assert (
        "These weights come from the full training (step 1,200)."
        in (folder / "HOWTO.md").read_text()
    )


def test_the_howto_says_when_the_full_training_was_of_the_base_alone(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.winner / "checkpoint", base, 30)
    study.write(
        SearchState(full=FullState(steps=30, rungs=(30,), name="full training with no head"))
    )
    assert (
        "These weights come from the full training with no head (step 30)."
        in (exported(run, study) / "HOWTO.md").read_text()
    )


def test_without_a_full_training_the_base_comes_from_the_winners_proxy(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.checkpoint_folder(0), base, 7)
    keep(run.checkpoint_folder(1), base, 5)
    folder = exported(run, study)
    newest = run.checkpoint_folder(1) / "step-00000005"
    assert (folder / "base.safetensors").read_bytes() == (newest / "base.safetensors").read_bytes()
    assert (
        "the winner's proxy training, which is short (step 5)" in (folder / "HOWTO.md").read_text()
    )


def test_where_no_head_is_better_the_base_comes_from_the_proxy_without_a_head(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.checkpoint_folder(0), base, 7)
    keep(run.checkpoint_folder(1), base, 5)
    folder = exported(run, study, "no head")
    newest = run.checkpoint_folder(0) / "step-00000007"
    assert (folder / "base.safetensors").read_bytes() == (newest / "base.safetensors").read_bytes()
    howto = (folder / "HOWTO.md").read_text()
    assert "the proxy training without a head, which is short (step 7)" in howto


@pytest.mark.parametrize(
    ("full", "proxy", "expected"),
    [
        (36.0, 35.0, "full"),
        (35.0, 36.0, "proxy"),
        (35.0, 35.0, "full"),
        (None, 36.0, "full"),
        (35.0, None, "full"),
        (None, None, "full"),
        (float("nan"), 36.0, "full"),
    ],
)
def test_the_base_is_that_of_the_full_training_unless_the_proxy_is_known_to_be_better(
    run: Run, study: StudyRecord, base: Base, full: float | None, proxy: float | None, expected: str
) -> None:
    folders = {"full": run.winner / "checkpoint", "proxy": run.checkpoint_folder(1)}
    for name, step in (("full", 30), ("proxy", 5)):
        keep(folders[name], base, step)
    ended(study, "proxy/0", 99.0)
    ended(study, "full", full)
    ended(study, "proxy/1", proxy)
    folder = exported(run, study)
    [newest] = folders[expected].glob("step-*")
    assert (folder / "base.safetensors").read_bytes() == (newest / "base.safetensors").read_bytes()
    weights = read_head(folder / "head.yaml").context["provenance"]["weights"]
    assert run.folder / weights["checkpoint"] == newest
    assert weights["step"] == {"full": 30, "proxy": 5}[expected]


def test_the_howto_says_why_a_longer_training_was_not_taken(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.winner / "checkpoint", base, 30)
    keep(run.checkpoint_folder(1), base, 5)
    study.write(
        SearchState(full=FullState(steps=30, rungs=(30,), name="full training with convnext"))
    )
    ended(study, "full", 35.0)
    ended(study, "proxy/1", 36.24)
    assert (
        "the winner's proxy training, which was more accurate than the full training with convnext "
        "(step 5, accuracy 36.2 %)." in (exported(run, study) / "HOWTO.md").read_text()
    )


def test_a_full_training_that_was_killed_is_taken_as_far_as_it_came(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.winner / "checkpoint", base, 20)
    keep(run.checkpoint_folder(1), base, 5)
    ended(study, "proxy/1", 36.0)
    assert "(step 20)" in (exported(run, study) / "HOWTO.md").read_text()


def test_a_better_proxy_that_has_lost_its_weights_leaves_the_full_training(
    run: Run, study: StudyRecord, base: Base
) -> None:
    keep(run.winner / "checkpoint", base, 30)
    ended(study, "full", 35.0)
    ended(study, "proxy/1", 36.0)
    assert (
        "the full training (step 30, accuracy 35.0 %)."
        in (exported(run, study) / "HOWTO.md").read_text()
    )


def test_a_damaged_checkpoint_is_not_exported(run: Run, study: StudyRecord, base: Base) -> None:
    keep(run.winner / "checkpoint", base, 10)
    keep(run.winner / "checkpoint", base, 20)
    with (run.winner / "checkpoint" / "step-00000020" / "base.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 8)
    folder = exported(run, study)
    assert (folder / "base.safetensors").read_bytes() == (
        run.winner / "checkpoint" / "step-00000010" / "base.safetensors"
    ).read_bytes()
    assert "(step 10)" in (folder / "HOWTO.md").read_text()


def test_the_howto_of_a_base_that_began_from_a_file_loads_the_pretrained_one_alone(
    run: Run, study: StudyRecord, base: Base
) -> None:
    weights = keep(run.winner / "checkpoint", base, 30)
    run.update_config(
        timm_args={**run.resolved().timm_args, "checkpoint_path": "start.safetensors"}
    )
    [_, block] = re.findall(
        r"```python\n(.*?)```", (exported(run, study) / "HOWTO.md").read_text(), flags=re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(block, names)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(names["base"].eval()(images), outputs(base.model, weights, images))


def test_what_the_howto_says_runs(run: Run, study: StudyRecord, base: Base) -> None:
    keep(run.winner / "checkpoint", base, 30)
    text = (exported(run, study) / "HOWTO.md").read_text()
    assert text.startswith(
        f"# The winner of demo\n\n{VERDICT['sentence']}\n\nHead: {HEAD.label()}\n"
    )
    names: dict[str, Any] = {"feature_map": torch.rand(2, *base.map_shape)}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["features"].map.shape[0] == 2
    assert names["base"](torch.rand(2, 3, 32, 32)).shape == (2, base.embedding_width)


def test_without_any_checkpoint_the_howto_names_no_weights(run: Run, study: StudyRecord) -> None:
    folder = exported(run, study)
    assert {path.name for path in folder.iterdir()} == {"head.yaml", "HOWTO.md"}
    text = (folder / "HOWTO.md").read_text()
    assert "No training of the winner has kept its weights." in text
    assert "base.safetensors" not in text


def test_exporting_again_replaces_what_was_there(run: Run, study: StudyRecord, base: Base) -> None:
    keep(run.checkpoint_folder(1), base, 5)
    before = (exported(run, study) / "base.safetensors").read_bytes()
    keep(run.winner / "checkpoint", base, 40)
    folder = exported(run, study)
    assert (folder / "base.safetensors").read_bytes() != before
    assert {path.name for path in folder.iterdir()} == {
        "head.yaml",
        "HOWTO.md",
        "base.safetensors",
        "checkpoint",
    }
