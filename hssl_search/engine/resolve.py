"""Everything that is checked and resolved before a search may leave a trace."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from hssl_search import __version__
from hssl_search.bundled import find
from hssl_search.configfile import read_yaml
from hssl_search.data.sources import DIGITS, folder_of, open_source, shown
from hssl_search.engine.budget import Budget, parse_budget
from hssl_search.engine.candidates.sampler import ENUMERATED
from hssl_search.engine.config import SearchConfig
from hssl_search.engine.execution.jobs import Plain, Setting
from hssl_search.engine.execution.machine import Machine
from hssl_search.engine.records.run import FORMAT, RUNS, Run, require_free
from hssl_search.engine.records.storage_url import absolute, check_storage
from hssl_search.engine.statistics.metrics import LABELFREE, RANK_BY
from hssl_search.errors import UserError
from hssl_search.spaces.space import Space

if TYPE_CHECKING:
    from hssl_search.backbones import Base
    from hssl_search.data.splits import SearchData
from collections.abc import Iterator
from typing import Any

from hssl_search.engine.records.state import SearchState
from hssl_search.engine.records.study import StudyRecord

FEWEST_JUDGED = 12
"""Held-out images: more than the 10 neighbours that the overlap compares."""
DERIVED_BYTES = 100
"""Of a name that is made of base and data, at most, before its number."""
RANDOM = "bases begin from random weights"
THREE = "images are read with three channels, grey ones too"
NOT_GIVEN = {
    "pretrained": RANDOM,
    "checkpoint_path": RANDOM,
    "pretrained_cfg": RANDOM,
    "pretrained_strict": RANDOM,
    "in_chans": THREE,
    "num_classes": "a base has no classifier",
    "features_only": "heads are fed by the whole model",
    "out_indices": "the space's tap says which maps heads are fed with",
}
"""Arguments of timm that no base may be given, and why."""
SHOWN = 5
"""Classes, at most, that are named in a note."""
TOOLS = ("torch", "timm", "optuna", "ray")
Progress = Callable[[int, int], None]


def check(config: SearchConfig) -> Budget:
    """The budget, after all that can be checked in a moment, before torch, timm and Ray are loaded. UserError as in `prepare`."""
    budget = parse_budget(config.budget)
    _require_text(config)
    _require_base(config)
    require_free(RUNS / _name(config))
    if config.storage is not None:
        check_storage(config.storage)
    read_yaml(find("search_spaces", config.space))
    read_yaml(find("trainers", config.trainer))
    require_folders(config.data, config.probe_data)
    return budget


def _require_base(config: SearchConfig) -> None:
    """UserError for weights, which a base cannot have yet, and for arguments of timm that would make it no base."""
    if re.search(r"[:/\\]", config.base):
        raise UserError(
            f"--base {config.base} is no timm model's name, and {RANDOM}; give one such as resnet50."
        )
    architecture, tagged, _ = config.base.partition(".")
    if tagged:
        raise UserError(
            f"--base {config.base} names trained weights, and {RANDOM}; give --base {architecture}."
        )
    for key, value in config.base_arg.items():
        if key in NOT_GIVEN and (key, value) != ("in_chans", 3):
            raise UserError(
                f"--base-arg {key}={value} cannot be given: {NOT_GIVEN[key]}; leave it out."
            )
        if key == "global_pool" and not value:
            raise UserError(
                f"--base-arg global_pool={value!r} cannot be given: a base gives one vector an image; leave it out, or give "
                "global_pool=avg."
            )
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise UserError(
                f"--base-arg {key}={value} cannot be given: search.yaml could not hold it; "
                "give a number, a text, true or false."
            ) from None


def _require_size(config: SearchConfig, image_size: int) -> None:
    """UserError for an `img_size` among the base's arguments that is not the images'."""
    size = config.base_arg.get("img_size", image_size)
    if size != image_size and not (
        isinstance(size, list | tuple) and list(size) == [image_size] * 2
    ):
        raise UserError(
            f"--base-arg img_size={size} is not the size of the images, {image_size} px; leave it out: --image-size sets both."
        )


def require_folders(*sources: str | None) -> None:
    """UserError for data whose folder is not there; what is in it is not looked at, which may take long."""
    for source in filter(None, sources):
        if source != DIGITS and not folder_of(source).is_dir():
            open_source(source)  # says what is wrong


def _require_text(config: SearchConfig) -> None:
    """UserError for a name that no file of a run could hold, because it is not UTF-8."""
    options = [
        option.values()
        if isinstance(option, dict)
        else option
        if isinstance(option, list)
        else [option]
        for _, option in config
    ]
    paths = [_absolute(source) for source in (config.data, config.probe_data) if source] + [
        str(RUNS.absolute())
    ]
    for text in [*(str(value) for values in options for value in values), *paths]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the name '{shown(text)}' is not UTF-8, and no file of a run could hold it; rename it."
            ) from None


def prepare(
    config: SearchConfig, machine: Machine, progress: Progress | None = None
) -> tuple[Plain, list[str]]:
    """(what search.yaml will hold, warnings for the user). UserError for anything that the user has to mend; nothing is written
    but the image cache."""
    from hssl_search.backbones import Base, default_image_size
    from hssl_search.data.splits import load_data
    from hssl_search.training.fit import require_fit
    from hssl_search.training.recipe import Recipe

    budget = check(config)
    budget.check_device(machine.gpus)
    space, recipe = Space.read(config.space), Recipe.read(config.trainer)
    _require_enumerable(config, space)
    image_size = config.image_size or default_image_size(config.base)
    _require_size(config, image_size)
    base = Base(
        config.base, image_size, config.base_arg, space.taps, any_size=recipe.views.local_crops > 0
    )
    require_fit(base, recipe)
    data = load_data(config.data, config.probe_data, image_size, config.seed, progress)
    if len(data.queries) < FEWEST_JUDGED:
        raise UserError(
            f"{config.probe_data or config.data!r} has too few images: {len(data.queries)} to judge by, and discrepancy needs "
            f"{FEWEST_JUDGED}; add images (a fifth is held out), or give --probe-data."
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
        device="cuda" if budget.device == "gpu" else "cpu",
    )
    resolved = {
        "format": FORMAT,
        "name": _name(config),
        "budget": budget.text,
        "rank_by": RANK_BY[rank_by].key,
        **_options(config),
        "full_epochs": config.full_epochs or recipe.full.epochs,
        "machine": asdict(machine),
        "asked": config.model_dump(mode="json", exclude_none=True),
        "setting": setting.model_dump(mode="json"),
        **_of_base(base),
        "space": {
            "name": space.name,
            "hash": space.hash(),
            "size": space.size(),
            **space.as_plain(),
        },
        **_of_data(data),
        "versions": {"hssl-search": __version__}
        | {tool: version(tool) for tool in TOOLS}
        | {"python": platform.python_version()},
    }
    return resolved, [*_warnings(base, data, config, rank_by), *_image_flaw(resolved["images"])]


def _options(config: SearchConfig) -> Plain:
    """What is resolved as it was asked for."""
    as_asked = ("sampler", "promote", "pruner", "seed", "ray_address", "gpus_per_trial")
    most = None if config.max_head_cost == "off" else config.max_head_cost
    return {
        **{name: getattr(config, name) for name in as_asked},
        "max_head_cost": most,
        "policy": config.policy.model_dump(),
        "storage": config.storage and absolute(config.storage),
    }


def _of_base(base: Base) -> Plain:
    from hssl_search.heads.same_architecture import same_architecture_head

    return {
        "timm_args": base.timm_args,
        "map_shapes": [list(shape) for shape in base.tap_shapes],
        "same_architecture": same_architecture_head(base.model).model_dump(exclude_none=True),
    }


def _of_data(data: SearchData) -> Plain:
    from hssl_search.data.look import look

    skipped = _skipped(data)
    return {
        "images": {
            "training": len(data.train),
            "bank": len(data.bank) if data.bank else 0,
            "queries": len(data.queries),
            "classes": list(data.queries.classes),
            "query_counts": _query_counts(data),
            "looked_at": asdict(look(data.train)),
            "fingerprint": data.train.fingerprint,
            "skipped": len(skipped),
        },
        "skipped": [f"{path}: {reason}" for path, reason in skipped.items()],
    }


def _query_counts(data: SearchData) -> list[int]:
    """Return how many queries are of each class, in the order of `classes`; empty where nothing is labelled."""
    labels = data.queries.labels if data.labelled else None
    if labels is None:
        return []
    counts = Counter(labels.tolist())
    return [counts[number] for number in range(len(data.queries.classes))]


def _require_enumerable(config: SearchConfig, space: Space) -> None:
    size = space.size()
    if config.sampler == "exhaustive" and (size is None or size > ENUMERATED):
        held = "continuous ranges" if size is None else f"{size:,} heads"
        raise UserError(
            f"--sampler exhaustive lists spaces of up to {ENUMERATED:,} heads, and {space.name!r} has {held}; "
            "give a smaller --space or another --sampler."
        )


def _rank_by(config: SearchConfig, labelled: bool) -> str:
    if config.rank_by == "accuracy" and not labelled:
        raise UserError(
            "--rank-by accuracy needs labels and the data have none; give --probe-data with class folders, "
            "or --rank-by discrepancy or labelfree."
        )
    return config.rank_by or ("accuracy" if labelled else "discrepancy")


def _absolute(source: str) -> str:
    return source if source == DIGITS else str(folder_of(source).resolve())


def _name(config: SearchConfig) -> str:
    """As asked for, else `resnet50-photos`, cut where that is long, or with the first number that is free behind it."""
    if config.name is not None:
        return config.name
    data = folder_of(config.data).resolve().name or "data"
    stem = (
        re.sub(r"[^\w.-]+", "-", f"{config.base}-{data}")
        .encode()[:DERIVED_BYTES]
        .decode(errors="ignore")
    )
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 100_000))
    return next(name for name in names if not (RUNS / name).exists())


def _skipped(data: SearchData) -> dict[str, str]:
    """path -> reason of every image that could not be read."""
    return dict(
        pair
        for images in (data.train, data.bank, data.queries)
        if images
        for pair in images.skipped
    )


def _warnings(base: Base, data: SearchData, config: SearchConfig, rank_by: str) -> list[str]:
    found = []
    if config.data == "digits":
        found.append(
            "no --data was given: searching on the built-in handwritten digits (scikit-learn, 1,797 real images)."
            if "data" not in config.model_fields_set
            else "searching on the built-in handwritten digits (1,797 real images)."
        )
    if small := base.small_map_warning():
        found.append(small)
    if skipped := _skipped(data):
        path, reason = next(iter(skipped.items()))
        told = (
            "1 image could not be read and is"
            if len(skipped) == 1
            else f"{len(skipped)} images could not be read and are"
        )
        found.append(
            f"{told} left out, the first {path} ({reason}); search.yaml lists them under skipped."
        )
    judged = config.probe_data or config.data
    if not data.labelled:
        found.append(_without_labels(rank_by))
    elif judged != DIGITS:
        found.append(_with_labels(judged, data.queries.classes, rank_by))
    return found


def _with_labels(judged: str, classes: tuple[str, ...], rank_by: str) -> str:
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    taken = (
        f"the {len(classes):,} folders in {judged!r} ({', '.join(classes[:SHOWN])}{more}) are taken for classes, and accuracy is k-NN "
        "accuracy on them"
    )
    return (
        f"{taken}; if they are none, --rank-by labelfree ranks heads without labels."
        if rank_by == "accuracy"
        else f"{taken}."
    )


def _image_flaw(images: Plain) -> list[str]:
    from hssl_search.engine.verdict import image_flaw

    told = image_flaw(images)
    return (
        [f"{told}: heads learn nothing from these; look at them, and mend --data."] if told else []
    )


def _without_labels(rank_by: str) -> str:
    if rank_by == "labelfree":
        return f"there are no labels: heads are ranked by {LABELFREE.score_name} of the base, and no accuracy is measured."
    return (
        "there are no labels: heads are ranked by discrepancy among the healthy ones (the paper's rule), and no accuracy is measured; "
        f"--rank-by labelfree ranks by {LABELFREE.score_name} of the base instead, and compares the best head with no head."
    )


KEYS = (
    "seed",
    "rank_by",
    "sampler",
    "promote",
    "pruner",
    "policy",
    "same_architecture",
    "map_shapes",
    "setting",
)
REMOVED: Mapping[str, Callable[[Any], bool]] = {
    "objective": lambda objective: objective == "accuracy,cost",
    "sampler": lambda sampler: sampler in ("gp", "nsga2"),
    "pruner": lambda pruner: pruner == "hyperband",
    "warm_start": bool,
}
"""What searches of earlier versions could be asked for and no search can be any more: by option, whether a value is of these."""
MOST_TOLD = 3


def fixed(resolved: Plain) -> Plain:
    """Of what search.yaml holds, the part that must stay: space, base, images, recipe, seed, and what ranks, draws, promotes and stops."""
    kept = {key: resolved[key] for key in KEYS}
    return {"space": {"parameters": resolved["space"]["parameters"]}, **kept}


def require_unchanged(run: Run, resolved: Plain, study: StudyRecord) -> None:
    """Raise UserError where search.yaml has an option that was removed since, or, with the differences, old -> new, where it was changed
    against what the study recorded when it began."""
    for key, removed in REMOVED.items():
        if removed(resolved.get(key)):
            raise UserError(
                f"{run.search_yaml} has {key}: {resolved[key]}, which this version no longer offers; continue it with the "
                "version that wrote it, or begin another search."
            )
    recorded = study.state.fixed
    if recorded is None:
        study.write(SearchState(fixed=fixed(resolved)))
        return
    now = fixed(resolved)
    # An earlier version recorded other keys, of the setting too; this one writes those that it has into search.yaml.
    known = {key: value for key, value in recorded.items() if key in now}
    began = {**now, **known, "setting": {**now["setting"], **recorded["setting"]}}
    found = list(differences(began, now))
    if found:
        more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
        raise UserError(
            f"{run.search_yaml} was changed since the search began ({', '.join(found[:MOST_TOLD])}{more}), and its results "
            "would not be comparable; undo that, or search under another --name."
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`key: old -> new` of each leaf that differs. What was left automatic may have been resolved."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else str(key)
            )
    elif old not in (new, "auto"):
        yield f"{path}: {old} -> {new}"
