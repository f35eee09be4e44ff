"""The images of a search: those that it began with, whatever has happened to their folder since."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from hssl_search.data.sources import Contents, require_folders
from hssl_search.data.splits import SearchData, changes, load_data, reopen_data
from hssl_search.engine.execution.jobs import Halt, Setting
from hssl_search.errors import UserError

REMEDY = "put them back as they were, or search under another --name"
NOT_KEPT = f"and the image cache does not hold those that it began with; {REMEDY}."


def search_data(setting: Setting) -> SearchData:
    """Return the images that the search began with, packed.

    They come from the image cache. Where that does not hold them, as on another node of a cluster,
    the folder is listed and packed anew. Without a record of what the search began with (an earlier
    version wrote none), they are those that are there.

    Raises:
        Halt: when they cannot be read, or are no longer the same: other images would be split
            another way, and queries trained on.
    """
    images = tuple(setting.images.items())  # what is cached by it must be hashable
    try:
        return _search_data(
            setting.data, setting.probe_data, setting.image_size, setting.data_seed, images
        )
    except UserError as error:
        raise Halt(str(error)) from error


# A worker that is used again for a further job does not open the images again.
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
        if (kept := reopen_data(before, data, probe_data, seed)) is not None:
            return kept
        if changed := changes(before, data, probe_data, seed):
            raise UserError(f"{changed}, {NOT_KEPT}")
    loaded = load_data(data, probe_data, image_size, seed)
    # By name and size they are the same files; what can be decoded of them may depend on the node.
    for part, contents in before.items():
        if (readable := loaded.contents[part].readable) != contents.readable:
            raise UserError(
                f"the images in {probe_data or data!r} have changed since the search began "
                f"({readable:,} can be read, were {contents.readable:,}), {NOT_KEPT}"
            )
    return loaded


def require_images(setting: Setting, counts: Mapping[str, object]) -> str | None:
    """Check that the search can continue with the images that it began with.

    Args:
        counts: what search.yaml says of the images; all that there is to compare in a run of an
            earlier version.

    Returns:
        A note, where the folder has others by now and the image cache has those.

    Raises:
        UserError: when they have changed, or are gone, and the image cache does not hold those that
            the search began with.
    """
    require_folders(setting.data, setting.probe_data)
    where = setting.data, setting.probe_data, setting.data_seed
    if not setting.images:
        _require_counts(setting, counts)
        return None
    if (changed := changes(setting.images, *where)) is None:
        return None
    if reopen_data(setting.images, *where) is None:
        raise UserError(f"{changed}, {NOT_KEPT}")
    return f"{changed}; those that it began with are used, which the image cache still holds."


def _require_counts(setting: Setting, before: Mapping[str, object]) -> None:
    """Raise UserError where there are more or fewer images, or other classes, than before."""
    data = load_data(setting.data, setting.probe_data, setting.image_size, setting.data_seed)
    now = {
        "training": len(data.train),
        "bank": len(data.bank or ()),
        "queries": len(data.queries),
        "classes": list(data.queries.classes),
    }
    for key, count in now.items():
        if (recorded := before.get(key, count)) != count:
            raise UserError(
                f"the images in {setting.data!r} have changed since the search began ({key}: "
                f"{count}, recorded {recorded}); {REMEDY}."
            )
