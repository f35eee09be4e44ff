from __future__ import annotations

from pathlib import Path

import pytest

from hssl_search import bundled
from hssl_search.errors import UserError

KINDS: tuple[bundled.Kind, ...] = ("search_spaces", "trainers", "reports")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path, text: str = "a: 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_found(kind: bundled.Kind, here: Path) -> None:
    for name in bundled.names(kind):
        assert bundled.find(kind, name).is_file()


def test_names_are_sorted_and_leave_the_readme_out(here: Path) -> None:
    assert {"default", "tiny"} <= set(bundled.names("search_spaces"))
    assert bundled.names("search_spaces") == sorted(bundled.names("search_spaces"))
    assert all("README" not in name for kind in KINDS for name in bundled.names(kind))


def test_an_explicit_path_comes_first(here: Path) -> None:
    put(here / "search_spaces/tiny.yaml")
    own = put(here / "elsewhere/tiny.yaml")
    assert bundled.find("search_spaces", str(own)) == own
    assert bundled.find("search_spaces", "elsewhere/tiny.yaml").samefile(own)


def test_a_file_in_the_current_folder_is_a_path_when_it_has_its_ending(here: Path) -> None:
    assert bundled.find("trainers", put(here / "mine.yaml").name).samefile(here / "mine.yaml")


def test_the_users_folder_comes_before_the_bundled_one(here: Path) -> None:
    bundled_one = bundled.find("search_spaces", "tiny")
    own = put(here / "search_spaces/tiny.yaml")
    assert bundled.find("search_spaces", "tiny").samefile(own) and not own.samefile(bundled_one)


def test_the_users_names_are_listed_too(here: Path) -> None:
    put(here / "trainers/mine.yaml")
    put(here / "reports/page.html")
    assert "mine" in bundled.names("trainers")
    assert "page.html" in bundled.names("reports") and bundled.find(
        "reports", "page.html"
    ).samefile(here / "reports/page.html")


def test_a_folder_that_happens_to_have_the_name_is_no_file(here: Path) -> None:
    (here / "tiny").mkdir()
    (here / "search_spaces/tiny.yaml").mkdir(parents=True)
    assert bundled.find("search_spaces", "tiny").parent == bundled.bundled_folder("search_spaces")


def test_an_unknown_name_gets_the_nearest(here: Path) -> None:
    with pytest.raises(
        UserError, match=r"^there is no search space 'tinny'; did you mean 'tiny'\?$"
    ):
        bundled.find("search_spaces", "tinny")


def test_a_missing_path_says_so(here: Path) -> None:
    with pytest.raises(
        UserError, match=r"^the search space my/space.yaml does not exist; .*default.*tiny"
    ):
        bundled.find("search_spaces", "my/space.yaml")


def test_inside_a_wheel_the_content_lies_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = put(tmp_path / "site/hssl_search/_bundled/trainers/one.yaml")
    put(tmp_path / "site/trainers/of_another_package.yaml")
    monkeypatch.setattr(bundled, "__file__", str(tmp_path / "site/hssl_search/bundled.py"))
    monkeypatch.chdir(tmp_path)
    assert bundled.names("trainers") == ["one"] and bundled.find("trainers", "one") == inside
