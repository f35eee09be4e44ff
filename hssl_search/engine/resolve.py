"""Resolves what a search is asked for, and checks all of it before the search may leave a trace."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NamedTuple

from hssl_search.bundled import find
from hssl_search.configfile import read_yaml
from hssl_search.data.sources import DIGITS, folder_of, require_folders, shown
from hssl_search.engine.candidates.prior_runs import read_prior_runs
from hssl_search.engine.candidates.sampler import ENUMERATED
from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.jobs import Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.policy import Policy
from hssl_search.engine.records.run import (
    RUNS,
    ResolvedSearch,
    ResolvedSpace,
    Run,
    require_free,
)
from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.storage_url import absolute, check_storage
from hssl_search.engine.records.study import StudyRecord
from hssl_search.engine.statistics.metrics import LABELFREE, RANK_BY
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space
from hssl_search.version import __version__

FEWEST_JUDGED = 12
"""Held-out images: more than the 10 neighbours that the overlap compares."""
DERIVED_BYTES = 100
"""Bytes that a name made of base and data has at most, before its number."""
SHOWN = 5
"""Classes that a note names at most."""
TOOLS = ("torch", "timm", "optuna", "ray")

KEYS = (
    "seed",
    "rank_by",
    "sampler",
    "promote",
    "pruner",
    "policy",
    "warm_start",
    "same_architecture",
    "map_shapes",
    "setting",
)
MOST_TOLD = 3
"""Changes of search.yaml that are named at most."""


class Resolved(NamedTuple):
    """A search that may begin."""

    search: ResolvedSearch
    notes: list[str]
    """For the user."""


def check(config: SearchConfig) -> None:
    """Check what can be checked in a moment, before torch, timm and Ray are loaded.

    Raises:
        UserError: for anything that the user has to mend.
    """
    _require_text(config)
    require_free(RUNS / _name(config))
    if config.storage is not None:
        check_storage(config.storage)
    read_yaml(find("search_spaces", config.space))
    read_yaml(find("trainers", config.trainer))
    _prior_folders(config)
    require_folders(config.data, config.probe_data)


def resolve(
    config: SearchConfig, machine: Machine, progress: Callable[[int, int], None] | None = None
) -> Resolved:
    """Resolve what was left open, and check base, recipe and images. Nothing is written but the
    image cache.

    Args:
        config: as `check` has let it pass.
        progress: called with the images that are packed, and all.

    Raises:
        UserError: for anything that the user has to mend.
    """
    # timm and torch take seconds to load, and most mistakes are found by `check`, without them.
    from hssl_search.backbones import Base, default_image_size
    from hssl_search.data.look import look
    from hssl_search.data.splits import load_data
    from hssl_search.heads.same_architecture import same_architecture_head
    from hssl_search.training.fit import require_fit
    from hssl_search.training.recipe import Recipe

    config.budget.check_device(machine.gpus)
    space, recipe = Space.read(config.space), Recipe.read(config.trainer)
    _require_enumerable(config, space)
    image_size = config.image_size or default_image_size(config.base)
    _require_size(config, image_size)
    # Local crops are smaller than the images.
    base = Base(
        config.base, image_size, config.base_arg, space.taps, any_size=recipe.views.local_crops > 0
    )
    require_fit(base, recipe)
    # Packing images may take minutes, so that what can be refused without them was refused above.
    data = load_data(config.data, config.probe_data, image_size, config.seed, progress)
    if len(data.queries) < FEWEST_JUDGED:
        raise UserError(
            f"{config.probe_data or config.data!r} has too few images: {len(data.queries)} to "
            f"judge by, and discrepancy needs {FEWEST_JUDGED}; add images (a fifth is held out), "
            "or give --probe-data."
        )
    rank_by = _rank_by(config, data.labelled)
    setting = Setting(
        base=config.base,
        base_args=config.base_arg,
        image_size=image_size,
        data=_absolute(config.data),
        probe_data=config.probe_data and _absolute(config.probe_data),
        data_seed=config.seed,
        images=dict(data.contents),
        recipe=recipe.as_plain(),
        device="cuda" if config.budget.device == "gpu" else "cpu",
    )
    pixels, classes = look(data.train), data.queries.classes
    flaw = pixels.words()
    images = {
        "training": len(data.train),
        "bank": len(data.bank) if data.bank else 0,
        "queries": len(data.queries),
        "classes": list(classes),
        "query_counts": data.query_counts,
        "looked_at": asdict(pixels),
        "fingerprint": data.train.fingerprint,
        "skipped": len(data.skipped),
    }
    search = ResolvedSearch(
        name=_name(config),
        budget=config.budget,
        rank_by=RANK_BY[rank_by].key,
        sampler=config.sampler,
        promote=config.promote,
        pruner=config.pruner,
        seed=config.seed,
        ray_address=config.ray_address,
        gpus_per_trial=config.gpus_per_trial,
        max_head_cost=None if config.max_head_cost == "off" else config.max_head_cost,
        warm_start=_prior_folders(config),
        policy=config.policy,
        storage=config.storage and absolute(config.storage),
        full_epochs=config.full_epochs or recipe.full.epochs,
        machine=machine,
        asked=config.model_dump(mode="json", exclude_none=True),
        setting=setting,
        timm_args=base.timm_args,
        map_shapes=base.tap_shapes,
        same_architecture=same_architecture_head(base.model),
        space=ResolvedSpace.of(space),
        images=images,
        skipped=[f"{path}: {reason}" for path, reason in data.skipped.items()],
        versions={"hssl-search": __version__}
        | {tool: version(tool) for tool in TOOLS}
        | {"python": platform.python_version()},
    )
    prior = read_prior_runs(search.warm_start, search.rank_by)  # what teaches nothing is refused
    notes = [
        *(run.note for run in prior),
        _digits_note(config),
        base.small_map_warning(),
        _skipped_note(data.skipped),
        _labels_note(config, data.labelled, classes, rank_by),
        f"{flaw}: heads learn nothing from these; look at them, and mend --data." if flaw else "",
    ]
    return Resolved(search, [note for note in notes if note])


def _require_text(config: SearchConfig) -> None:
    """Raise UserError for a name that no file of a run could hold, because it is not UTF-8."""
    options = [
        value
        for _, option in config
        for value in (option.values() if isinstance(option, dict) else [option])
    ]
    # search.yaml holds paths as absolute ones, so that the folders above count too.
    paths = [_absolute(source) for source in (config.data, config.probe_data) if source]
    for text in map(str, [*options, *paths, RUNS.absolute()]):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the name '{shown(text)}' is not UTF-8, and no file of a run could hold it; "
                "rename it."
            ) from None


def _prior_folders(config: SearchConfig) -> list[str]:
    """Return the folders of the runs to learn from.

    Raises:
        UserError: for one that is no run, and where nothing would learn from them.
    """
    if config.warm_start and config.promote != "learned":
        raise UserError(
            f"--warm-start has no use with --promote {config.promote}, which does not learn from "
            "results; give --promote learned, or leave it out."
        )
    return list(dict.fromkeys(str(Run.find(run).folder) for run in config.warm_start))


def _require_size(config: SearchConfig, image_size: int) -> None:
    """Raise UserError for an `img_size` among the base's arguments that is not the images'."""
    size = config.base_arg.get("img_size", image_size)
    # timm takes one number or two.
    square = isinstance(size, list | tuple) and list(size) == [image_size] * 2
    if size != image_size and not square:
        raise UserError(
            f"--base-arg img_size={size} is not the size of the images, {image_size} px; leave it "
            "out: --image-size sets both."
        )


def _require_enumerable(config: SearchConfig, space: Space) -> None:
    """Raise UserError where the space is too large for the sampler that lists it."""
    size = space.size()
    if config.sampler == "exhaustive" and (size is None or size > ENUMERATED):
        held = "continuous ranges" if size is None else f"{size:,} heads"
        raise UserError(
            f"--sampler exhaustive lists spaces of up to {ENUMERATED:,} heads, and "
            f"{space.name!r} has {held}; give a smaller --space or another --sampler."
        )


def _rank_by(config: SearchConfig, labelled: bool) -> str:
    """Return what ranks heads: by default accuracy where there are labels."""
    if config.rank_by == "accuracy" and not labelled:
        raise UserError(
            "--rank-by accuracy needs labels and the data have none; give --probe-data with class "
            "folders, or --rank-by discrepancy or labelfree."
        )
    return config.rank_by or ("accuracy" if labelled else "discrepancy")


def _absolute(source: str) -> str:
    """Return how data are found from any folder."""
    return source if source == DIGITS else str(folder_of(source).resolve())


def _name(config: SearchConfig) -> str:
    """Return the run's name: as asked for, else `resnet50-photos`, cut where that is long, with the
    first number behind it that is free."""
    if config.name is not None:
        return config.name
    data = folder_of(config.data).resolve().name or "data"
    stem = (
        re.sub(r"[^\w.-]+", "-", f"{config.base}-{data}")
        .encode()[:DERIVED_BYTES]
        .decode(errors="ignore")  # a letter that the cut goes through is left out
    )
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 100_000))
    return next(name for name in names if not (RUNS / name).exists())


def _digits_note(config: SearchConfig) -> str:
    if config.data != DIGITS:
        return ""
    if "data" in config.model_fields_set:
        return "searching on the built-in handwritten digits (1,797 real images)."
    return (
        "no --data was given: searching on the built-in handwritten digits (scikit-learn, 1,797 "
        "real images)."
    )


def _skipped_note(skipped: dict[str, str]) -> str:
    if not skipped:
        return ""
    path, reason = next(iter(skipped.items()))
    subject = (
        "1 image could not be read and is"
        if len(skipped) == 1
        else f"{len(skipped)} images could not be read and are"
    )
    return f"{subject} left out, the first {path} ({reason}); search.yaml lists them under skipped."


def _labels_note(
    config: SearchConfig, labelled: bool, classes: tuple[str, ...], rank_by: str
) -> str:
    """Say what is taken for labels, or what ranks heads without any."""
    score, judged = LABELFREE.score_name, config.probe_data or config.data
    if not labelled and rank_by == "labelfree":
        return (
            f"there are no labels: heads are ranked by {score} of the base, and no accuracy is "
            "measured."
        )
    if not labelled:
        return (
            "there are no labels: heads are ranked by discrepancy among the healthy ones (the "
            "paper's rule), and no accuracy is measured; --rank-by labelfree ranks by "
            f"{score} of the base instead, and compares the best head with no head."
        )
    if judged == DIGITS:
        return ""
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    taken = (
        f"the {len(classes):,} folders in {judged!r} ({', '.join(classes[:SHOWN])}{more}) are "
        "taken for classes, and accuracy is k-NN accuracy on them"
    )
    if rank_by != "accuracy":
        return f"{taken}."
    return f"{taken}; if they are none, --rank-by labelfree ranks heads without labels."


def fixed(search: ResolvedSearch) -> dict[str, Any]:
    """Return what must stay while a search continues: space, base, images, recipe, seed, policy,
    and what ranks, draws, promotes and stops."""
    plain = search.as_plain()
    kept = {key: plain[key] for key in KEYS}
    # Of the space its parameters alone: a name and a description make no head another.
    return {"space": {"parameters": search.space.parameters}, **kept}


def require_unchanged(run: Run, search: ResolvedSearch, study: StudyRecord) -> None:
    """Check that search.yaml is as the study recorded it when the search began, and record it then.

    Raises:
        UserError: with the first differences, old -> new.
    """
    recorded = study.state.fixed
    if recorded is None:
        study.write(SearchState(fixed=fixed(search)))
        return
    now = fixed(search)
    # An earlier version recorded other keys, in the setting and the policy too: those that it lacks
    # are as they are now, or, in the policy, what they were before a user could change them.
    began = {**now, **{key: value for key, value in recorded.items() if key in now}}
    began["setting"] = {**now["setting"], **recorded["setting"]}
    began["policy"] = Policy.model_validate(began["policy"]).model_dump(mode="json")
    changes = list(differences(began, now))
    if changes:
        more = f" and {len(changes) - MOST_TOLD} more" if len(changes) > MOST_TOLD else ""
        raise UserError(
            f"{run.search_yaml} was changed since the search began "
            f"({', '.join(changes[:MOST_TOLD])}{more}), and its results would not be comparable; "
            "undo that, or search under another --name."
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield `key: old -> new` of each leaf that differs. What was automatic may be resolved."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else str(key)
            )
    elif old not in (new, "auto"):
        yield f"{path}: {old} -> {new}"
