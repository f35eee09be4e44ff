"""Whether a run folder still describes the search that its study holds, and one that this version can continue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hssl_search.errors import UserError
from hssl_search.search.execution.jobs import Plain
from hssl_search.search.records.run import Run
from hssl_search.search.records.study import StudyRecord

ATTRIBUTE = "fixed"
"""Study attribute: what no result of the study would be comparable without."""
KEYS = ("seed", "rank_by", "sampler", "promote", "pruner", "warm_start", "same_architecture", "map_shapes", "setting")
REMOVED = {"objective": ("accuracy,cost",), "sampler": ("gp", "nsga2"), "pruner": ("hyperband",)}
"""What searches of earlier versions could be asked for and no search can be any more."""
MOST_TOLD = 3


def fixed(resolved: Plain) -> Plain:
    """Of what search.yaml holds, the part that must stay: space, base, images, recipe, seed, earlier runs, and what ranks, draws, promotes
    and stops."""
    kept = {key: resolved[key] for key in KEYS}
    return {"space": {"parameters": resolved["space"]["parameters"]}, **kept}


def require_unchanged(run: Run, resolved: Plain, study: StudyRecord) -> None:
    """Raise UserError where search.yaml has an option that was removed since, or, with the differences, old -> new, where it was changed
    against what the study recorded when it began."""
    for key, values in REMOVED.items():
        if resolved.get(key) in values:
            raise UserError(f"{run.search_yaml} has {key}: {resolved[key]}, which this version no longer offers; continue it with the "
                            f"version that wrote it, or begin another search with --warm-start {run.shown}.")
    recorded = study.study_attributes().get(ATTRIBUTE)
    if recorded is None:
        study.set_study(ATTRIBUTE, fixed(resolved))
        return
    now = fixed(resolved)
    # An earlier version recorded other keys, of the setting too; this one writes those that it has into search.yaml.
    known = {key: value for key, value in recorded.items() if key in now}
    began = {**now, **known, "setting": {**now["setting"], **recorded["setting"]}}
    found = list(differences(began, now))
    if found:
        more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise UserError(f"{run.search_yaml} was changed since the search began ({', '.join(found[:MOST_TOLD])}{more}), and its results "
                        "would not be comparable; undo that, or search under another --name.")


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`key: old -> new` of each leaf that differs. What was left automatic may have been resolved."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old not in (new, "auto"):
        yield f"{path}: {old} -> {new}"
