"""The content of search_spaces/, trainers/ and reports/: the user's own, or what is bundled with
the package.

The three folders hold no Python. In a checkout they lie beside the package; in a wheel they lie in
`hssl_search/_bundled/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hssl_search.errors import UserError, advice

Kind = Literal["search_spaces", "trainers", "reports"]

_ENDINGS: dict[str, str] = {"search_spaces": ".yaml", "trainers": ".yaml", "reports": ""}
_WORDS: dict[str, str] = {
    "search_spaces": "search space",
    "trainers": "trainer",
    "reports": "report file",
}


def find(kind: Kind, name: str) -> Path:
    """Return the file of that name: an explicit path, then the user's `./KIND/NAME`, then the
    bundled one.

    A name has no ending (`tiny`), except in reports, where it is the file's name (`page.html`).
    Whatever has a slash or ends in .yaml or .yml is a path.

    Raises:
        UserError: when there is no such file, with the nearest names.
    """
    yaml = _ENDINGS[kind] == ".yaml" and name.endswith((".yaml", ".yml"))
    if yaml or "/" in name or "\\" in name:
        return _explicit(kind, Path(name))
    for folder in (Path(kind), bundled_folder(kind)):
        if (path := folder / f"{name}{_ENDINGS[kind]}").is_file():
            return path
    raise UserError(f"there is no {_WORDS[kind]} {name!r}; {advice(name, names(kind))}")


def names(kind: Kind) -> list[str]:
    """Return every name that `find` knows, the user's own ones included, in alphabetical order."""
    return sorted(_names_in(kind, Path(kind)) | _names_in(kind, bundled_folder(kind)))


def bundled_folder(kind: Kind) -> Path:
    """Return the folder that came with the package."""
    # A wheel holds the content inside the package, a checkout beside it.
    package = Path(__file__).resolve().parent
    inside = package / "_bundled" / kind
    return inside if inside.is_dir() else package.parent / kind


def _explicit(kind: Kind, path: Path) -> Path:
    if path.is_file():
        return path
    raise UserError(
        f"the {_WORDS[kind]} {path} does not exist; give the path of a file, or one of the names "
        f"{', '.join(names(kind))}."
    )


def _names_in(kind: Kind, folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    ending = _ENDINGS[kind]
    files = {
        path.name for path in folder.iterdir() if path.is_file() and path.name.endswith(ending)
    }
    # What describes the folder, and what a system or an editor keeps there, has no name.
    return {
        name.removesuffix(ending)
        for name in files
        if name != "README.md" and not name.startswith(".")
    }
