"""Warm start: reads earlier searches, and keeps in the study what a search uses of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from hssl_search.engine.candidates.prior_runs import ATTRIBUTE, EarlierHead, EarlierSearch, kept
from hssl_search.engine.candidates.promotion import Rule
from hssl_search.engine.candidates.sampler import LEARNING, Name
from hssl_search.engine.candidates.surrogate import NEEDED
from hssl_search.engine.execution.jobs import Plain
from hssl_search.engine.records.run import Run
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import RANKINGS
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.spaces.space import Space


def warm_start(study: StudyRecord, resolved: Plain) -> list[EarlierSearch]:
    """The earlier searches that a search learns from: those that its study keeps, at first gathered and put there."""
    if resolved["warm_start"] and ATTRIBUTE not in study.study_attributes():
        study.set_study(ATTRIBUTE, [one.as_plain() for one in gather(resolved)])
    return kept(study.study_attributes())


def gather(resolved: Plain) -> list[EarlierSearch]:
    """What the runs in `warm_start` teach a search of which search.yaml holds this.

    Raises:
        UserError: for a run without results, one that is ranked by another measure, or one that has no head in this space; for a study
            that is not there or cannot be read.
    """
    space = Space.from_plain(
        {"parameters": resolved["space"]["parameters"]}, resolved["space"]["name"]
    )
    return [_read(Run.find(folder), resolved, space) for folder in resolved["warm_start"]]


def sentences(earlier: Sequence[EarlierSearch], sampler: Name, promote: Rule) -> list[str]:
    """What is used of earlier searches, and by what."""
    if not earlier:
        return []
    users = [f"the sampler ({sampler})"] * (sampler in LEARNING) + [
        "the forecast that promotes heads"
    ] * (promote == "learned")
    idle = [f"the sampler {sampler} draws without learning"] * (sampler not in LEARNING)
    idle += [f"promotion by {promote} does not learn"] * (promote != "learned")
    told = (
        f"From the earlier results {' and '.join(users)} {'learn' if len(users) > 1 else 'learns'}"
    )
    return [
        *(f"Warm start from {one.words()}." for one in earlier),
        f"{told}{''.join(f'; {one}' for one in idle)}.",
    ]


def _read(run: Run, resolved: Plain, space: Space) -> EarlierSearch:
    config = run.config()
    measure = RANKINGS[resolved["rank_by"]]
    if (theirs := RANKINGS[config["rank_by"]]) != measure:
        raise UserError(
            f"the run {run.name!r} ranked heads by {theirs.name} and this search ranks by {measure.name}; give "
            "--warm-start a run of the same --rank-by."
        )
    control = "identity" if measure.of_head else "none"
    with StudyRecord.existing(run.study_url(config), config["name"]) as study:
        found = _results(study, control)
    if not found:
        raise UserError(
            f"the run {run.name!r} has no head with a result to start from; give --warm-start a run that came to its proxies."
        )
    heads, left_out = _within(space, found)
    if not heads:
        raise UserError(
            f"no head of the run {run.name!r} is in the space {space.name!r} (it lacks {', '.join(left_out)}); give "
            "--warm-start a run whose space overlaps."
        )
    return EarlierSearch(
        run.shown,
        control,
        config["space"]["hash"] == resolved["space"]["hash"],
        _others(config, resolved),
        heads,
        left_out,
    )


def _others(config: Plain, resolved: Plain) -> dict[str, str]:
    """What an earlier search had another of."""
    theirs, ours = (_surroundings(one["setting"]) for one in (config, resolved))
    return {what: which for what, which in theirs.items() if which != ours[what]}


def _surroundings(setting: Plain) -> dict[str, str]:
    return {
        "base": setting["base"],
        "method": setting["recipe"]["method"]["name"],
        "data": Path(setting["data"]).name,
    }


def _results(study: StudyRecord, control: str) -> list[EarlierHead]:
    """The heads that were trained alone, and those that fell ill."""
    trials = study.trials()
    compared = next((trial for trial in trials if trial.user_attrs.get("control") == control), None)
    steps = (study.study_attributes().get("plan") or {}).get("numbers", {}).get("proxy_steps", 0)
    candidates = [trial for trial in trials if trial.user_attrs.get("role") == "candidate"]
    return [one for trial in candidates if (one := _result(trial, compared, steps)) is not None]


def _result(trial: FrozenTrial, control: FrozenTrial | None, steps: int) -> EarlierHead | None:
    """What a candidate came to; None for one that was not promoted, was not decided, or cannot be compared with the control.

    One that was stopped at a rung has there the gain that it is taken to have at the end.
    """
    attributes, reached = trial.user_attrs, trial.intermediate_values
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    ill = attributes.get("gate", "healthy") != "healthy" or (
        trial.state is TrialState.PRUNED and max(reached, default=0) >= steps > 0
    )
    compared = {} if control is None else control.intermediate_values
    step = max(reached.keys() & compared.keys(), default=None)
    if step is None and not ill:
        return None
    gain = None if ill or step is None else reached[step] - compared[step]
    measured = {name: attributes[name] for name in NEEDED if name in attributes}
    return EarlierHead(attributes["head"], gain, measured)


def _within(space: Space, found: Sequence[EarlierHead]) -> tuple[list[EarlierHead], dict[str, int]]:
    """(the heads that are in the space, what it lacks -> how many others)."""
    lacks = [_lacks(space, one.head) for one in found]
    heads = [one for one, why in zip(found, lacks, strict=True) if why is None]
    return heads, dict(Counter(why for why in lacks if why is not None).most_common())


def _lacks(space: Space, head: dict[str, Any]) -> str | None:
    try:
        return space.lacks(HeadConfig(**head))
    except ValidationError:  # of a version that knows other heads
        return f"family={head.get('family')}"
