"""Recipes: those that are bundled read, and a mistake in one is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hssl_search.bundled import names
from hssl_search.errors import UserError
from hssl_search.methods.base import methods
from hssl_search.training.recipe import Recipe, Stage


@pytest.mark.parametrize("name", names("trainers"))
def test_bundled_recipe_reads_and_is_the_same_after_a_round_trip(name: str) -> None:
    recipe = Recipe.read(name)
    assert recipe.method.name == name
    assert recipe.description
    assert Recipe.from_plain(json.loads(json.dumps(recipe.as_plain()))) == recipe
    assert type(recipe.method) is methods()[name].Config


def test_every_method_has_a_recipe_of_its_name() -> None:
    assert set(methods()) <= set(names("trainers"))


def test_stages_are_told_apart() -> None:
    recipe = Recipe.from_plain(
        {"method": {"name": "simclr"}, "proxy": {"lr": 0.1}, "full": {"lr": 0.2, "epochs": 7}}
    )
    assert (recipe.stage("proxy").lr, recipe.stage("full").lr, recipe.full.epochs) == (0.1, 0.2, 7)


def test_weight_decay_is_constant_unless_its_end_is_given() -> None:
    assert Stage(weight_decay=0.3).weight_decay_end == 0.3
    assert Stage(weight_decay=0.3, weight_decay_end=0.0).weight_decay_end == 0.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxi: {lr: 1}\nmethod: {name: simclr}\n", "unknown key 'proxi'; did you mean 'proxy'"),
        (
            "method: {name: simclr}\nproxy: {weight_dcay: 1}\n",
            "unknown key 'weight_dcay' in proxy; did you mean 'weight_decay'",
        ),
        (
            "method: {name: simclr, temprature: 1}\n",
            "method: unknown key 'temprature'; did you mean 'temperature'",
        ),
        ("method: {name: simclr, prototypes: 9}\n", "method: unknown key 'prototypes'"),
        ("method: {name: simcrl}\n", "unknown SSL method 'simcrl'; did you mean 'simclr'"),
        (
            "method: {name: simclr}\nviews: {scal: [0.2, 1]}\n",
            "unknown key 'scal' in views; did you mean 'scale'",
        ),
        ("method: {name: simclr}\nproxy: {epochs: 3}\n", "unknown key 'epochs' in proxy"),
        ("method: {name: simclr}\nproxy: {lr: -1}\n", "proxy.lr is -1"),
        ("method: {name: simclr}\nproxy: {optimizer: adam}\n", "proxy.optimizer is 'adam'"),
        (
            "method: simclr\n",
            "method is 'simclr'; write a section such as `method: {name: simclr}`",
        ),
        ("description: none\n", "method is None"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        Recipe.read(str(tmp_path / "mine.yaml"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(UserError, match="simclr"):
        Recipe.read("simcrl")
