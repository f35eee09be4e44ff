"""The images of a search: those that it began with, whatever has happened to their folder since."""

from __future__ import annotations

from functools import lru_cache

from hssl_search.data.sources import Contents
from hssl_search.data.splits import SearchData, changes, load_data, reopen_data
from hssl_search.engine.execution.jobs import Halt, Plain, Setting
from hssl_search.errors import UserError

REMEDY = "put them back as they were, or search under another --name"


def search_data(setting: Setting) -> SearchData:
    """Return the images that the search began with, packed.

    They come from the image cache. Where that does not hold them, as on another node of a cluster, the folder is listed and packed
    anew. Without a record of what the search began with (an earlier version wrote none), they are those that are there.

    Raises:
        Halt: when they cannot be read, or are no longer the same: other images would be split another way, and queries trained on.
    """
    try:
        return _search_data(
            setting.data,
            setting.probe_data,
            setting.image_size,
            setting.data_seed,
            tuple(setting.images.items()),
        )
    except UserError as error:
        raise Halt(str(error)) from error


@lru_cache(maxsize=2)
def _search_data(
    data: str,
    probe_data: str | None,
    image_size: int,
    seed: int,
    images: tuple[tuple[str, Contents], ...],
) -> SearchData:
    before = dict(images)
    if before:
        if (packed := reopen_data(before, data, probe_data, seed)) is not None:
            return packed
        if changed := changes(before, data, probe_data, seed):
            raise UserError(_refusal(changed))
    found = load_data(data, probe_data, image_size, seed)
    for part, contents in before.items():
        if (readable := found.contents[part].readable) != contents.readable:
            raise UserError(
                _refusal(
                    f"the images in {probe_data or data!r} have changed since the search began ({readable:,} can be read, "
                    f"were {contents.readable:,})"
                )
            )
    return found


def require_images(setting: Setting, counts: Plain) -> str | None:
    """Return a note when the images have changed and the search can continue with those that it began with.

    Args:
        counts: what search.yaml says of the images; all that there is to compare in a run of an earlier version.

    Raises:
        UserError: when they have changed, or are gone, and the image cache does not hold those that the search began with.
    """
    where = setting.data, setting.probe_data, setting.data_seed
    if not setting.images:
        _require_counts(setting, counts)
        return None
    if (changed := changes(setting.images, *where)) is None:
        return None
    if reopen_data(setting.images, *where) is None:
        raise UserError(_refusal(changed))
    return f"{changed}; those that it began with are used, which the image cache still holds."


def _refusal(changed: str) -> str:
    return f"{changed}, and the image cache does not hold those that it began with; {REMEDY}."


def _require_counts(setting: Setting, before: Plain) -> None:
    data = load_data(setting.data, setting.probe_data, setting.image_size, setting.data_seed)
    now = {
        "training": len(data.train),
        "bank": len(data.bank or ()),
        "queries": len(data.queries),
        "classes": list(data.queries.classes),
    }
    for key, found in now.items():
        if (recorded := before.get(key, found)) != found:
            raise UserError(
                f"the images in {setting.data!r} have changed since the search began ({key}: {found}, recorded {recorded}); "
                f"{REMEDY}."
            )
