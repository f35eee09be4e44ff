"""The data of one search: the images that are trained on, and those that judge."""

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
"""Names of the parts of a search's data."""
HELD_OUT_SHARE = 0.2
"""Share of the data that is held out as queries where there is no probe data."""
QUERY_SHARE = 0.25
"""Share of queries in one folder of probe images; the others are the bank in which k-NN looks for
neighbours."""
MOST_BANK = 5_000
"""Images of the bank, at most: every evaluation embeds them all."""
MOST_QUERIES = 2_000


@dataclass(frozen=True, eq=False)
class SearchData:
    """The images of one search; no query is ever trained on."""

    train: PackedImages
    """Images for pretraining, which does not see their labels."""
    bank: PackedImages | None
    """Labelled images among which a query's neighbours are looked for; None when nothing is
    labelled."""
    queries: PackedImages
    """Images that judge: labelled ones, or held-out ones for label-free measures."""
    source: str
    """As the user named it."""
    contents: Mapping[str, Contents] = field(default_factory=dict)
    """What was packed: `training` and, where they were not held out of it, `bank` and `queries`."""

    @property
    def labelled(self) -> bool:
        """Tell whether there are labels to judge by."""
        return self.bank is not None

    @property
    def query_counts(self) -> list[int]:
        """Queries of each class, in the order of their `classes`; empty without labels."""
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
    that has three or more. The bank is then taken from those that are trained on (at most 5,000):
    training sees no label, and k-NN no query before its turn.

    With it, all of `data` is trained on, and `probe_data` is either a folder with `train` (bank, at
    most `most_bank`) and `test` or `val` (queries, at most `most_queries`), both with the same
    class folders, or one folder of classes (or `digits`), split 3 : 1.

    Args:
        data: a folder, or `digits`.
        probe_data: the same, of labelled images; or None.
        image_size: side of the views, in pixels.
        seed: of everything that is drawn.
        progress: called while images are decoded.
        most_bank, most_queries: images, at most, of probe data with splits.

    Raises:
        UserError: as `pack`; or too few images or classes to judge by, `probe_data` without
            classes, with different classes in its splits, or with queries that are in `data`.
    """
    random = np.random.default_rng(seed)
    sources = _sources(data, probe_data, random, most_bank, most_queries)
    packed = {part: pack_source(source, image_size, progress) for part, source in sources.items()}
    return _search_data(packed, data, random)


def reopen_data(
    contents: Mapping[str, Contents], data: str, probe_data: str | None, seed: int
) -> SearchData | None:
    """Return the data that once had these contents, from the image cache; None when that no longer
    holds them all.
    """
    packed = {}
    for part in contents:
        images = reopen(contents[part], data if part == TRAINING else str(probe_data))
        if images is None:
            return None
        packed[part] = images
    return _search_data(packed, data, np.random.default_rng(seed))


def changes(
    contents: Mapping[str, Contents], data: str, probe_data: str | None, seed: int
) -> str | None:
    """Say what has changed since the data had these contents, as in `the images in 'photos' have
    changed ...`; None when nothing has.

    The images are listed, and none is decoded.

    Raises:
        UserError: as `load_data`.
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
    if QUERIES in packed:
        search_data = SearchData(packed[TRAINING], packed[BANK], packed[QUERIES], data)
    else:
        search_data = _held_out(packed[TRAINING], data, random)
    contents = {part: images.contents for part, images in packed.items() if images.contents}
    return replace(search_data, contents=contents)


def _held_out(packed: PackedImages, data: str, random: np.random.Generator) -> SearchData:
    total = min(MOST_QUERIES, round(HELD_OUT_SHARE * len(packed)))
    if packed.labels is None:
        order = random.permutation(len(packed))
        # Sorted, as the memory map is then read in one direction.
        query_rows, train_rows = (np.sort(rows) for rows in np.split(order, [max(1, total)]))
        return SearchData(packed.subset(train_rows), None, packed.subset(query_rows), data)
    # Of a class of three, one is judged, and two stay to be trained on and to be its neighbours.
    eligible = _eligible(packed.labels, packed.classes, 3, data, random)
    held_out = quotas(eligible, total, least=1, spared=2)
    query_rows, train_rows = deal(packed.labels, (held_out,), random)
    train = packed.subset(train_rows)
    assert train.labels is not None
    sizes = np.bincount(train.labels, minlength=len(held_out))
    bank = quotas(sizes, min(MOST_BANK, len(train)), least=1)
    bank_rows = deal(train.labels, (bank,), random)[0]
    return SearchData(train, train.subset(bank_rows), packed.subset(query_rows), data)


def _eligible(
    labels: np.ndarray,
    classes: tuple[str, ...],
    least: int,
    source: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the number of images of each class; 0 for classes too small to judge by, and for those
    beyond the 2,000 that an image can be held out of.
    """
    sizes = np.bincount(labels, minlength=len(classes))
    usable = np.flatnonzero(sizes >= least)
    if len(usable) < 2:
        raise UserError(
            f"{source!r} has {len(usable)} of {len(classes)} classes with at least {least} "
            "readable images, and judging needs two: add images, name labelled ones as probe "
            "data, or put all in one folder to search without labels."
        )
    # Every class gives a query, so that there can be no more classes than queries.
    eligible = random.permutation(usable)[:MOST_QUERIES]
    return np.where(np.isin(np.arange(len(classes)), eligible), sizes, 0)


def quotas(sizes: np.ndarray, total: int, least: int = 0, spared: int = 0) -> np.ndarray:
    """Divide `total` images among classes, in proportion to their sizes.

    Args:
        sizes: images of each class; a class of size 0 gives none.
        total: the sum of the result wherever the bounds allow it, otherwise as near as they do.
        least: images that every class gives, at least.
        spared: images that every class keeps, at least.

    Returns:
        the number of images that each class gives.
    """
    lowest, most = np.minimum(sizes, least), np.maximum(sizes - spared, 0)
    want = sizes * (total / max(1, int(sizes.sum())))
    counts = np.clip(np.floor(want).astype(np.int64), lowest, most)
    # The largest remainder first, until the sum is right; the first class of equal ones.
    while counts.sum() < total and (counts < most).any():
        counts[int(np.argmax(np.where(counts < most, want - counts, -np.inf)))] += 1
    while counts.sum() > total and (counts > lowest).any():
        counts[int(np.argmax(np.where(counts > lowest, counts - want, -np.inf)))] -= 1
    return counts


def deal(
    labels: np.ndarray, parts: tuple[np.ndarray, ...], random: np.random.Generator
) -> list[np.ndarray]:
    """Deal the images at random to disjoint parts.

    Args:
        labels: class number of each image.
        parts: for each part, the number of images of every class.
        random: all randomness comes from it.

    Returns:
        sorted indices of the images of each part, and last of what is left.
    """
    hands: list[list[np.ndarray]] = [[] for _ in range(len(parts) + 1)]
    order = random.permutation(len(labels))
    # Shuffled first, then grouped by class: a stable sort keeps the random order within each.
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
    """Return (bank, queries), chosen before anything is decoded."""
    folders = _probe_folders(probe_data)
    _refuse_seen(probe_data, folders[-1], data)
    if len(folders) == 1:
        return _split_probe(_labelled(folders[0]), random)
    bank, queries = (_labelled(folder) for folder in folders)
    _check_same_classes(probe_data, folders, bank, queries)
    return _capped(bank, most_bank, random), _capped(queries, most_queries, random)


def _probe_folders(probe_data: str) -> tuple[str, ...]:
    """Return the folder itself, or its bank and query folders."""
    root = folder_of(probe_data)
    held = [name for name in ("test", "val") if (root / name).is_dir()]
    if probe_data == DIGITS or not held or not (root / "train").is_dir():
        return (probe_data,)
    return str(Path(probe_data) / "train"), str(Path(probe_data) / held[0])


def _refuse_seen(probe_data: str, queries: str, data: str) -> None:
    same = queries == data
    # Links are followed: the same images by another path would be trained on too.
    if not same and DIGITS not in (queries, data):
        judged, trained = (folder_of(name).resolve() for name in (queries, data))
        same = judged.is_relative_to(trained) or trained.is_relative_to(judged)
    if same:
        raise UserError(
            f"the queries in {queries!r} would be trained on, since they share a folder with the "
            f"data {data!r}: leave out the probe data {probe_data!r} to have a part of the data "
            "held out, or name images that are not in it."
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
            f"in one only, e.g. {differing[0]!r} in {has!r}): give both the same class folders."
        )


def _capped(source: Source, most: int, random: np.random.Generator) -> Source:
    """Return at most `most` images, in proportion to the classes, at least one of each where that
    fits.
    """
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
