"""What is trained on, and what judges it: the data of one search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hssl_search.data.cachefile import Progress
from hssl_search.data.packed import PackedImages, pack_source, reopen
from hssl_search.data.sources import DIGITS, Contents, Source, folder_of, open_source
from hssl_search.errors import UserError

TRAINING, BANK, QUERIES = "training", "bank", "queries"
"""The parts of the data of a search."""
HELD_OUT_SHARE = 0.2
QUERY_SHARE = 0.25
"""Queries in one folder of probe images; the others are the bank in which k-NN looks for
neighbours."""
MOST_BANK = 5_000
MOST_QUERIES = 2_000


@dataclass(frozen=True, eq=False)
class SearchData:
    """The images of one search; no query is ever trained on."""

    train: PackedImages
    """Pretraining sees these, without their labels."""
    bank: PackedImages | None
    """Labelled images among which a query's neighbours are looked for; None when nothing is
    labelled."""
    queries: PackedImages
    """What is judged: labelled images, or held-out images for label-free measures."""
    source: str
    """As the user named it."""
    contents: Mapping[str, Contents] = field(default_factory=dict)
    """What was packed: `training` and, where they were not held out of it, `bank` and `queries`."""

    @property
    def labelled(self) -> bool:
        return self.bank is not None

    @property
    def query_counts(self) -> list[int]:
        """Number of queries of each class, in the order of their `classes`; empty without labels."""
        labels = self.queries.labels
        if not self.labelled or labels is None:
            return []
        return np.bincount(labels, minlength=len(self.queries.classes)).tolist()

    @property
    def skipped(self) -> dict[str, str]:
        """Path -> reason of every image that could not be read."""
        parts = [part for part in (self.train, self.bank, self.queries) if part is not None]
        return {path: reason for part in parts for path, reason in part.skipped}


def load_data(
    data: str,
    probe_data: str | None,
    image_size: int,
    seed: int,
    progress: Progress | None = None,
    most_bank: int = MOST_BANK,
    most_queries: int = MOST_QUERIES,
) -> SearchData:
    """Pack `data` and decide what judges a model trained on it; the same for the same files and
    seed.

    Without `probe_data`, 20 % of the images (at most 2,000) are held out as queries, of every class
    that has three or more, and the bank is those that are trained on (at most 5,000): training sees
    no label, and k-NN no query before its turn.

    With it, all of `data` is trained on, and `probe_data` is either a folder with `train` (bank, at
    most `most_bank`) and `test` or `val` (queries, at most `most_queries`), both with the same
    class folders, or one folder of classes (or `digits`), split 3 : 1.

    Raises:
        UserError: as `pack`; or too few images or classes to judge by, `probe_data` without
            classes, with different classes in its splits, or with queries that are in `data`.
    """
    random = np.random.default_rng(seed)
    sources = _sources(data, probe_data, random, most_bank, most_queries)
    return _search_data(
        {part: pack_source(source, image_size, progress) for part, source in sources.items()},
        data,
        random,
    )


def reopen_data(
    contents: Mapping[str, Contents], data: str, probe_data: str | None, seed: int
) -> SearchData | None:
    """Return the data that once had these contents, from the image cache; None when that no longer
    holds them all.
    """
    packed = {
        part: reopen(contents[part], data if part == TRAINING else str(probe_data))
        for part in contents
    }
    whole = {part: images for part, images in packed.items() if images is not None}
    return (
        _search_data(whole, data, np.random.default_rng(seed))
        if len(whole) == len(packed)
        else None
    )


def changes(
    contents: Mapping[str, Contents], data: str, probe_data: str | None, seed: int
) -> str | None:
    """Return what has changed since the data had these contents, such as `the images in 'photos'
    have changed ...`; None when nothing has.

    Lists the images and decodes none. UserError as `load_data`.
    """
    sources = _sources(data, probe_data, np.random.default_rng(seed))
    for part, before in contents.items():
        source = sources.get(part)
        if source is None or source.fingerprint(times=False) != before.names:
            place = data if part == TRAINING else probe_data
            return (
                f"the images in {place!r} have changed since the search began "
                f"({_difference(before, source)})"
            )
    return None


def _difference(before: Contents, now: Source | None) -> str:
    if now is None:
        return "no longer divided as before"
    if len(now) != before.images:
        return f"{len(now):,} images, were {before.images:,}"
    if len(now.classes) != before.classes:
        return f"{len(now.classes):,} classes, were {before.classes:,}"
    return f"{len(now):,} images as before, but some with other names or sizes"


def _sources(
    data: str,
    probe_data: str | None,
    random: np.random.Generator,
    most_bank: int = MOST_BANK,
    most_queries: int = MOST_QUERIES,
) -> dict[str, Source]:
    """Return what is to be packed: the data, and with `probe_data` bank and queries."""
    source = open_source(data)
    if probe_data is None:
        return {TRAINING: source}
    bank, queries = _probe_sources(probe_data, data, random, most_bank, most_queries)
    return {TRAINING: source, BANK: bank, QUERIES: queries}


def _search_data(
    packed: Mapping[str, PackedImages], data: str, random: np.random.Generator
) -> SearchData:
    if QUERIES not in packed:
        found = _held_out(packed[TRAINING], data, random)
    else:
        found = SearchData(packed[TRAINING], packed[BANK], packed[QUERIES], data)
    return replace(
        found,
        contents={part: images.contents for part, images in packed.items() if images.contents},
    )


def _held_out(packed: PackedImages, data: str, random: np.random.Generator) -> SearchData:
    total = min(MOST_QUERIES, round(HELD_OUT_SHARE * len(packed)))
    if packed.labels is None:
        order = random.permutation(len(packed))
        return SearchData(
            packed.subset(np.sort(order[max(1, total) :])),
            None,
            packed.subset(np.sort(order[: max(1, total)])),
            data,
        )
    held = quotas(
        _eligible(packed.labels, packed.classes, 3, data, random), total, least=1, spared=2
    )
    query_rows, train_rows = deal(packed.labels, (held,), random)
    seen = packed.subset(train_rows)
    assert seen.labels is not None
    bank = quotas(np.bincount(seen.labels, minlength=len(held)), min(MOST_BANK, len(seen)), least=1)
    return SearchData(
        seen, seen.subset(deal(seen.labels, (bank,), random)[0]), packed.subset(query_rows), data
    )


def _eligible(
    labels: np.ndarray,
    classes: tuple[str, ...],
    least: int,
    source: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Images of each class; 0 for classes too small to judge by, and for those beyond the 2,000
    that an image can be held out of.
    """
    sizes = np.bincount(labels, minlength=len(classes))
    usable = np.flatnonzero(sizes >= least)
    if len(usable) < 2:
        raise UserError(
            f"{source!r} has {len(usable)} of {len(classes)} classes with at least {least} "
            "readable images, and judging "
            "needs two: add images, name labelled ones as probe data, or put all in one folder to "
            "search without labels."
        )
    chosen = random.permutation(usable)[:MOST_QUERIES]
    return np.where(np.isin(np.arange(len(classes)), chosen), sizes, 0)


def quotas(sizes: np.ndarray, total: int, least: int = 0, spared: int = 0) -> np.ndarray:
    """How many of `total` images each class gives: in proportion to its size, at least `least` and
    keeping at least `spared`.

    A class of size 0 gives none. The sum is `total` wherever the bounds allow it, otherwise as near
    as they do.
    """
    lowest, most = np.minimum(sizes, least), np.maximum(sizes - spared, 0)
    want = sizes * (total / max(1, int(sizes.sum())))
    given = np.clip(np.floor(want).astype(np.int64), lowest, most)
    while given.sum() < total and (given < most).any():
        given[int(np.argmax(np.where(given < most, want - given, -np.inf)))] += 1
    while given.sum() > total and (given > lowest).any():
        given[int(np.argmax(np.where(given > lowest, given - want, -np.inf)))] -= 1
    return given


def deal(
    labels: np.ndarray, parts: tuple[np.ndarray, ...], random: np.random.Generator
) -> list[np.ndarray]:
    """Disjoint sorted indices: for each part as many random images of every class as it says, and
    last what is left.
    """
    hands: list[list[np.ndarray]] = [[] for _ in range(len(parts) + 1)]
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels, minlength=len(parts[0]))
    for number, cards in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        cuts = np.cumsum([part[number] for part in parts])
        for hand, dealt in zip(hands, np.split(cards, cuts), strict=True):
            hand.append(dealt)
    return [np.sort(np.concatenate(hand)) for hand in hands]


def _probe_sources(
    probe_data: str, data: str, random: np.random.Generator, most_bank: int, most_queries: int
) -> tuple[Source, Source]:
    """(bank, queries), chosen before anything is decoded."""
    folders = _probe_folders(probe_data)
    _refuse_seen(probe_data, folders[-1], data)
    if len(folders) == 1:
        return _split_probe(_labelled(folders[0]), random)
    bank, queries = (_labelled(folder) for folder in folders)
    _check_same_classes(probe_data, folders, bank, queries)
    return _capped(bank, most_bank, random), _capped(queries, most_queries, random)


def _probe_folders(probe_data: str) -> tuple[str, ...]:
    """The folder itself, or its bank and query folders."""
    root = folder_of(probe_data)
    held = [name for name in ("test", "val") if (root / name).is_dir()]
    if probe_data == DIGITS or not held or not (root / "train").is_dir():
        return (probe_data,)
    return str(Path(probe_data) / "train"), str(Path(probe_data) / held[0])


def _refuse_seen(probe_data: str, queries: str, data: str) -> None:
    same = queries == data
    if not same and DIGITS not in (queries, data):
        judged, trained = (folder_of(name).resolve() for name in (queries, data))
        same = judged.is_relative_to(trained) or trained.is_relative_to(judged)
    if same:
        raise UserError(
            f"the queries in {queries!r} would be trained on, since they share a folder with the "
            f"data {data!r}: leave "
            f"out the probe data {probe_data!r} to have a part of the data held out, or name "
            "images that are not in it."
        )


def _labelled(name: str) -> Source:
    source = open_source(name)
    if source.labels is None:
        raise UserError(
            f"the probe data {name!r} has no classes: put its images in two or more class folders, "
            "or in 'train' and 'test' folders that have them."
        )
    return source


def _check_same_classes(
    probe_data: str, folders: tuple[str, ...], bank: Source, queries: Source
) -> None:
    differing = sorted(set(bank.classes) ^ set(queries.classes))
    if differing:
        has = folders[0] if differing[0] in bank.classes else folders[1]
        raise UserError(
            f"the splits of the probe data {probe_data!r} have different classes ({len(differing)} "
            "in one only, "
            f"e.g. {differing[0]!r} in {has!r}): give both the same class folders."
        )


def _capped(source: Source, most: int, random: np.random.Generator) -> Source:
    """At most `most` images, in proportion to the classes, at least one of each where that fits."""
    if len(source) <= most or source.labels is None:
        return source
    sizes = np.bincount(source.labels, minlength=len(source.classes))
    share = quotas(sizes, most, least=1 if len(sizes) <= most else 0)
    return source.select(deal(source.labels, (share,), random)[0])


def _split_probe(source: Source, random: np.random.Generator) -> tuple[Source, Source]:
    assert source.labels is not None
    sizes = _eligible(source.labels, source.classes, 2, source.name, random)
    queries = quotas(
        sizes, min(MOST_QUERIES, round(QUERY_SHARE * int(sizes.sum()))), least=1, spared=1
    )
    rest = sizes - queries
    bank = quotas(rest, min(MOST_BANK, int(rest.sum())), least=1)
    query_rows, bank_rows, _ = deal(source.labels, (queries, bank), random)
    return source.select(bank_rows), source.select(query_rows)
