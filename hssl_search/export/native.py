"""The winner as files: head.yaml for `load_head`, base.safetensors for timm, and how to use
both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hssl_search.engine.phases.jobs import full_folder, full_key
from hssl_search.engine.records.results import finite
from hssl_search.engine.records.run import ResolvedSearch, Run
from hssl_search.engine.records.state import FullState, JobRecord, TrialState, Verdict
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import ACCURACY
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.files import write_head
from hssl_search.scratch import replacing
from hssl_search.training.checkpoint import CheckpointFolder

HOWTO = """\
# The winner of {name}

{sentence}

Head: {head}

## Train with the head in your own code

```python
from hssl_search import load_head

head = load_head({head_path!r})
features = head(feature_map)          # B x {channels} x h x w -> features.map, features.embedding
```

The head takes {fed}. It is thrown away after pretraining.

## Use the pretrained base

{weights}
"""
WEIGHTS = """\
```python
import timm

base = timm.create_model({base!r}, num_classes=0, checkpoint_path={path!r}{arguments})
```

These weights come from {origin}.
"""
NO_WEIGHTS = "No training of the winner has kept its weights."


class Training(NamedTuple):
    """A training that may have left weights of the winner."""

    checkpoints: Path
    name: str
    accuracy: float | None
    """Of its last evaluation, per cent; None where it is not known."""


class Weights(NamedTuple):
    """Where the exported weights of the base come from, as `provenance` in head.yaml holds it."""

    training: str
    step: int
    accuracy: float | None
    checkpoint: str
    """Relative to the run's folder."""


def export_winner(run: Run, study: StudyRecord) -> Path | None:
    """Write winner/head.yaml, winner/base.safetensors and winner/HOWTO.md.

    The base is that of the full training, unless the winner's proxy is known to be more accurate: a
    small budget leaves little for training in full. `provenance` in head.yaml says which it was.

    Returns:
        the folder, or None when the search has no winner.
    """
    verdict = study.state.verdict
    if verdict is None or verdict.winner is None:
        return None
    trial = study.frozen(verdict.winner)
    search = run.resolved()
    # A search that was extended exports again.
    run.winner.mkdir(exist_ok=True)
    state = TrialState.of(trial)
    head = state.head
    assert head is not None
    base = {
        "name": search.setting.base,
        "args": search.timm_args,
        "image_size": search.setting.image_size,
        "map_shape": list(search.map_shapes[head.tap or 0]),
    }
    weights = _copy_base(run, _trainings(run, study, verdict))
    provenance = {
        **_provenance(run, trial.number, state, verdict, search),
        "weights": weights and weights._asdict(),
    }
    write_head(
        run.winner / "head.yaml",
        head,
        base=base,
        recipe=search.setting.recipe,
        provenance=provenance,
    )
    (run.winner / "HOWTO.md").write_text(
        _howto(run, verdict, head, base, weights), encoding="utf-8"
    )
    return run.winner


def _provenance(
    run: Run, number: int, state: TrialState, verdict: Verdict, search: ResolvedSearch
) -> dict[str, Any]:
    measured = {"cka", "overlap", "cka_excess", "overlap_excess", "discrepancy", "gate"}
    return {
        "study": run.name,
        "trial": number,
        "verdict": verdict.sentence,
        "scores": [row.model_dump(mode="json") for row in verdict.rows if row.trial == number],
        "seed": search.seed,
        "discrepancy": state.only(measured & state.model_fields_set).attributes(),
        "data": search.images,
        "versions": search.versions,
    }


def _trainings(run: Run, study: StudyRecord, verdict: Verdict) -> list[Training]:
    """Return the trainings whose weights to take, the best first.

    Where no head is better, the base alone was trained in full, and its proxy counts; in a search
    that was extended, the full training may be of the winner of an earlier verdict.
    """
    records = study.jobs()
    trained = study.state.full or FullState(winner=verdict.winner)
    name, number = trained.name, trained.number
    full = Training(
        run.folder / full_folder(number), name, _accuracy(records.get(full_key(number)))
    )
    trial, whose = _best(study, verdict)
    own = [
        record for record in records.values() if (record.phase, record.trial) == ("proxy", trial)
    ]
    proxy = Training(
        run.checkpoint_folder(trial),
        f"{whose}, which is short",
        _accuracy(own[0] if own else None),
    )
    if trained.winner not in (None, verdict.winner):
        return [proxy]
    if full.accuracy is not None and proxy.accuracy is not None and full.accuracy < proxy.accuracy:
        return [proxy._replace(name=f"{whose}, which was more accurate than the {name}"), full]
    return [full, proxy]


def _best(study: StudyRecord, verdict: Verdict) -> tuple[int, str]:
    """Return the trial whose proxy left the best base, and what to call that training."""
    assert verdict.winner is not None
    if verdict.state == "no head":
        for trial in study.trials():
            if TrialState.of(trial).control == "none":
                return trial.number, "proxy training without a head"
    return verdict.winner, "winner's proxy training"


def _accuracy(record: JobRecord | None) -> float | None:
    if record is None or not record.reports:
        return None
    return finite(ACCURACY.score(record.reports[-1].metrics))


def _copy_base(run: Run, trainings: list[Training]) -> Weights | None:
    """Copy the newest base weights to winner/base.safetensors.

    Returns:
        where they come from, or None when no training has kept any.
    """
    for training in trainings:
        if (newest := CheckpointFolder(training.checkpoints).latest()) is not None:
            with replacing(run.winner / "base.safetensors") as part:
                shutil.copyfile(newest / "base.safetensors", part)
            step = int(newest.name.removeprefix("step-"))
            checkpoint = str(newest.relative_to(run.folder))
            return Weights(training.name, step, training.accuracy, checkpoint)
    return None


def _howto(
    run: Run,
    verdict: Verdict,
    head: HeadConfig,
    base: Mapping[str, Any],
    weights: Weights | None,
) -> str:
    return HOWTO.format(
        name=run.name,
        sentence=verdict.sentence,
        head=head.label(),
        head_path=str(run.winner / "head.yaml"),
        channels=base["map_shape"][0],
        fed=_fed(head.tap or 0),
        weights=_loading(run, base, weights) if weights else NO_WEIGHTS,
    )


def _fed(tap: int) -> str:
    if not tap:
        return "the base's last feature map, before the base's final norm"
    return (
        f"the base's feature map {tap} stage{'s' if tap > 1 else ''} before the last one (`tap: "
        f"{tap}`)"
    )


def _loading(run: Run, base: Mapping[str, Any], weights: Weights) -> str:
    """Return how to load the weights, and where they come from."""
    # Weights that a run of an earlier version began from are not those to load.
    arguments = "".join(
        f", {key}={value!r}" for key, value in base["args"].items() if key != "checkpoint_path"
    )
    accuracy = "" if weights.accuracy is None else f", accuracy {weights.accuracy:.1f} %"
    origin = f"the {weights.training} (step {weights.step:,}{accuracy})"
    return WEIGHTS.format(
        base=base["name"],
        path=str(run.winner / "base.safetensors"),
        arguments=arguments,
        origin=origin,
    )
