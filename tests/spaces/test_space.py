from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from hssl_search import bundled
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import families
from hssl_search.spaces import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

FINITE: dict[str, Any] = {
    "family": {"choice": ["convnext", "resnet", "transformer"]},
    "depth": {"int": [1, 5], "step": 2},
    "width_ratio": 1,
    "kernel_size": [
        {"choice": [5, 7], "families": ["convnext"]},
        {"choice": [3, 5, 7], "families": ["resnet"]},
    ],
    "attention_heads": {"choice": [2, 4]},
    "mlp_ratio": {"value": 2.0, "families": ["convnext"]},
}
HYBRIDS: dict[str, Any] = {
    "family": {"choice": ["hybrid", "swin"]},
    "blocks": {"choice": ["resnet+swin", "mlp+transformer", "mlp+mlp"]},
    "width_ratio": {"choice": [0.5, 1.0]},
    "kernel_size": {"choice": [3, 5]},
    "window_size": {"choice": [4, 7]},
    "positions": {"choice": [False, True]},
    "tap": {"int": [0, 2]},
}
CONTINUOUS: dict[str, Any] = {
    "family": "mlp",
    "width_ratio": {"log": [0.5, 2.0]},
    "mlp_ratio": {"float": [1, 4]},
}


def space(parameters: dict[str, Any], description: str = "", name: str = "test") -> Space:
    return Space.from_plain({"description": description, "parameters": parameters}, name)


def samples(of: Space, count: int, study: optuna.Study | None = None) -> list[HeadConfig]:
    study = study or optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [of.sample(study.ask()) for _ in range(count)]


def test_a_finite_space_enumerates_every_head_once() -> None:
    # By hand: three depths; convnext two kernels, resnet three, transformer two numbers of heads.
    expected = {
        HeadConfig(family="convnext", depth=d, kernel_size=k, mlp_ratio=2.0)
        for d, k in itertools.product((1, 3, 5), (5, 7))
    }
    expected |= {
        HeadConfig(family="resnet", depth=d, kernel_size=k)
        for d, k in itertools.product((1, 3, 5), (3, 5, 7))
    }
    expected |= {
        HeadConfig(family="transformer", depth=d, attention_heads=h)
        for d, h in itertools.product((1, 3, 5), (2, 4))
    }
    heads = list(space(FINITE).enumerate())
    assert len(heads) == len(set(heads)) == space(FINITE).size() == 21
    assert set(heads) == expected


def test_hybrids_vary_what_their_blocks_read() -> None:
    # By hand: two widths and three taps; swin two windows; resnet+swin two kernels and two windows;
    # mlp+transformer two of positions.
    common = [
        {"width_ratio": width, "tap": tap}
        for width, tap in itertools.product((0.5, 1.0), (0, 1, 2))
    ]
    expected = {HeadConfig(family="swin", window_size=w, **each) for w in (4, 7) for each in common}
    expected |= {
        HeadConfig(family="hybrid", blocks="resnet+swin", kernel_size=k, window_size=w, **each)
        for k in (3, 5)
        for w in (4, 7)
        for each in common
    }
    expected |= {
        HeadConfig(family="hybrid", blocks="mlp+transformer", positions=p, **each)
        for p in (False, True)
        for each in common
    }
    expected |= {HeadConfig(family="hybrid", blocks="mlp+mlp", **each) for each in common}
    heads = list(space(HYBRIDS).enumerate())
    assert len(heads) == len(set(heads)) == space(HYBRIDS).size() == 54
    assert set(heads) == expected


@pytest.mark.parametrize("parameters", [FINITE, HYBRIDS, CONTINUOUS])
def test_a_space_lacks_nothing_of_its_own_heads(parameters: dict[str, Any]) -> None:
    assert {space(parameters).lacks(head) for head in samples(space(parameters), 40)} == {None}


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ({"family": "mlp"}, "family=mlp"),
        ({"family": "convnext", "depth": 2, "mlp_ratio": 2.0}, "depth=2"),
        ({"family": "convnext", "depth": 3, "kernel_size": 3, "mlp_ratio": 2.0}, "kernel_size=3"),
        ({"family": "resnet", "depth": 3, "kernel_size": 3}, None),
        ({"family": "resnet", "depth": 3, "width_ratio": 0.5}, "width_ratio=0.5"),
        ({"family": "convnext", "depth": 3, "kernel_size": 7}, "mlp_ratio=4.0"),
        ({"family": "convnext", "depth": 3, "mlp_ratio": 2.0, "tap": 1}, "tap=1"),
    ],
    ids=str,
)
def test_the_first_value_that_a_space_lacks_is_named(head: dict[str, Any], why: str | None) -> None:
    every = set(space(FINITE).enumerate())
    assert space(FINITE).lacks(HeadConfig(**head)) == why
    assert (HeadConfig(**head) in every) is (why is None)


@pytest.mark.parametrize(
    ("width", "mlp", "why"),
    [(0.5, 4.0, None), (2.5, 2.0, "width_ratio=2.5"), (1.0, 4.5, "mlp_ratio=4.5")],
)
def test_continuous_ranges_hold_what_lies_within_their_ends(
    width: float, mlp: float, why: str | None
) -> None:
    assert (
        space(CONTINUOUS).lacks(HeadConfig(family="mlp", width_ratio=width, mlp_ratio=mlp)) == why
    )


def test_what_a_hybrid_does_not_read_is_not_sampled_for_it() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    heads = samples(space(HYBRIDS), 60, study)
    shown = {
        head.blocks or head.family: set(trial.params)
        for head, trial in zip(heads, study.trials, strict=True)
    }
    both = {"family", "width_ratio", "tap"}
    assert shown == {
        "swin": both | {"window_size"},
        ("resnet", "swin"): both | {"blocks", "kernel_size", "window_size"},
        ("mlp", "transformer"): both | {"blocks", "positions"},
        ("mlp", "mlp"): both | {"blocks"},
    }


def test_hybrids_without_blocks_are_the_default_one() -> None:
    of = space({"family": "hybrid", "kernel_size": {"choice": [3, 7]}})
    assert list(of.enumerate()) == [HeadConfig(family="hybrid", kernel_size=k) for k in (3, 7)]


@pytest.mark.parametrize(
    ("tap", "taps"),
    [
        (None, 1),
        (0, 1),
        (2, 3),
        ({"choice": [0, 3, 1]}, 4),
        ({"int": [0, 1]}, 2),
        ([{"value": 2, "families": ["mlp"]}, 1], 3),
    ],
)
def test_as_many_maps_are_tapped_as_the_farthest_head_needs(tap: Any, taps: int) -> None:
    assert (
        space(
            {"family": {"choice": ["mlp", "resnet"]}, **({} if tap is None else {"tap": tap})}
        ).taps
        == taps
    )


@pytest.mark.parametrize("parameters", [FINITE, HYBRIDS])
def test_sampling_reaches_every_head_and_no_other(parameters: dict[str, Any]) -> None:
    of = space(parameters)
    assert set(samples(of, 600)) == set(of.enumerate())


def test_a_parameter_is_sampled_only_for_families_that_read_it() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    heads = samples(space(FINITE), 60, study)
    shown = {
        head.family: set(trial.params) for head, trial in zip(heads, study.trials, strict=True)
    }
    assert shown == {
        "convnext": {"family", "depth", "kernel_size.convnext"},
        "resnet": {"family", "depth", "kernel_size.resnet"},
        "transformer": {"family", "depth", "attention_heads"},
    }


def test_one_study_takes_all_domains_of_a_parameter_with_its_default_sampler() -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    of = space(FINITE)
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, float(of.sample(trial).depth or 0))
    assert len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) == 20


def test_families_narrow_a_parameter_and_the_others_keep_their_default() -> None:
    of = space(
        {
            "family": {"choice": ["convnext", "mlp"]},
            "mlp_ratio": {"choice": [1.0, 2.0], "families": ["convnext"]},
        }
    )
    default = HeadConfig(family="mlp").mlp_ratio
    assert [head.mlp_ratio for head in of.enumerate()] == [1.0, 2.0, default]


def test_an_alternative_without_families_is_for_the_rest() -> None:
    of = space(
        {
            "family": {"choice": ["convnext", "resnet"]},
            "kernel_size": [{"value": 9, "families": ["convnext"]}, {"choice": [3, 5]}],
        }
    )
    assert [(head.family, head.kernel_size) for head in of.enumerate()] == [
        ("convnext", 9),
        ("resnet", 3),
        ("resnet", 5),
    ]


def test_continuous_ranges_are_sampled_within_their_ends() -> None:
    heads = samples(space(CONTINUOUS), 200)
    widths, ratios = (
        [head.width_ratio or 0 for head in heads],
        [head.mlp_ratio or 0 for head in heads],
    )
    assert 0.5 <= min(widths) and max(widths) <= 2 and 1 <= min(ratios) and max(ratios) <= 4
    # A logarithmic range has half its samples below its geometric mean, a uniform one below its
    # arithmetic mean.
    assert abs(sum(width < 1.0 for width in widths) - 100) < 30
    assert abs(sum(ratio < 2.5 for ratio in ratios) - 100) < 30


def test_a_continuous_space_has_no_size_and_cannot_be_enumerated() -> None:
    of = space(CONTINUOUS)
    assert of.size() is None
    with pytest.raises(UserError, match="search space 'test' has continuous ranges"):
        of.enumerate()


def test_a_space_of_nothing_but_a_family_is_one_head() -> None:
    of = space({"family": "convnext"})
    assert of.size() == 1 and list(of.enumerate()) == [HeadConfig(family="convnext")]
    assert of.sample(FixedTrial({})) == HeadConfig(family="convnext")


@pytest.mark.parametrize("parameters", [FINITE, CONTINUOUS, HYBRIDS])
def test_trial_parameters_lead_back_to_the_head(parameters: dict[str, Any]) -> None:
    of = space(parameters)
    for head in samples(of, 30):
        assert of.sample(FixedTrial(of.trial_parameters(head))) == head


@pytest.mark.parametrize("parameters", [FINITE, HYBRIDS])
def test_an_enqueued_head_is_the_next_one_sampled(parameters: dict[str, Any]) -> None:
    of, study = space(parameters), optuna.create_study()
    heads = list(of.enumerate())
    for head in heads:
        study.enqueue_trial(of.trial_parameters(head))
    assert samples(of, len(heads), study) == heads


def test_a_study_keeps_blocks_as_it_was_given_them() -> None:
    of, study = (
        space(HYBRIDS),
        optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5)),
    )
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, float(of.sample(trial).tap or 0))
    assert {trial.params["blocks"] for trial in study.trials if "blocks" in trial.params} <= set(
        HYBRIDS["blocks"]["choice"]
    )


def test_the_order_of_keys_changes_neither_hash_nor_samples() -> None:
    turned = {key: FINITE[key] for key in reversed(FINITE)}
    turned["kernel_size"] = [
        dict(reversed(part.items())) for part in reversed(FINITE["kernel_size"])
    ]
    assert space(turned).hash() == space(FINITE).hash()
    assert samples(space(turned), 20) == samples(space(FINITE), 20)


def test_description_name_and_spelling_do_not_change_the_hash() -> None:
    default = HeadConfig(family="convnext").first_shortcut
    same = [
        space(FINITE, "words", "other"),
        space({**FINITE, "width_ratio": {"value": 1.0}}),
        space({**FINITE, "first_shortcut": default}),
    ]
    assert {each.hash() for each in same} == {space(FINITE).hash()}


@pytest.mark.parametrize(
    "change",
    [
        {"depth": {"int": [1, 5]}},
        {"depth": 3},
        {"width_ratio": 2},
        {"width_ratio": {"log": [1, 2]}},
        {"width_ratio": {"float": [1, 2]}},
        {"first_shortcut": True},
        {"attention_heads": {"choice": [4, 2]}},
        {"family": {"choice": ["resnet", "convnext", "transformer"]}},
        {"kernel_size": {"choice": [5, 7]}},
        {"tap": {"choice": [0, 1]}},
        {"tap": 1},
        {"family": {"choice": ["convnext", "resnet", "transformer", "hybrid"]}},
    ],
)
def test_another_set_of_heads_has_another_hash(change: dict[str, Any]) -> None:
    assert space({**FINITE, **change}).hash() != space(FINITE).hash()


def test_other_hybrids_have_another_hash() -> None:
    options: list[str] = HYBRIDS["blocks"]["choice"]
    others: list[Any] = [
        {"choice": options[:2]},
        {"choice": options[::-1]},
        {"choice": [*options, "mlp+resnet"]},
    ]
    assert space(HYBRIDS).hash() not in {
        space({**HYBRIDS, "blocks": other}).hash() for other in others
    }


def test_the_hash_is_the_same_on_every_machine_and_in_every_version() -> None:
    parameters = {
        "family": "resnet",
        "depth": {"int": [1, 2]},
        "width_ratio": 1,
        "kernel_size": {"choice": [3, 5]},
        "first_shortcut": True,
    }
    meaning = (
        '[{"value": "resnet"}, {"resnet": {"depth": {"as": "depth", "int": [1, 2]}, '
        '"first_shortcut": {"value": true}, '
        '"kernel_size": {"as": "kernel_size", "choice": [3, 5]}}}]'
    )
    assert space(parameters).hash() == hashlib.sha256(meaning.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", bundled.names("search_spaces"))
def test_bundled_spaces_survive_their_plain_form(name: str) -> None:
    of = Space.read(name)
    again = Space.from_plain(of.as_plain(), name)
    assert again == of and again.hash() == of.hash() and again.as_plain() == of.as_plain()
    assert all(head.family in of.families for head in samples(of, 20))


@pytest.mark.parametrize("name", bundled.names("search_spaces"))
def test_heads_of_bundled_spaces_are_no_wider_than_the_base(name: str) -> None:
    assert all((head.width_ratio or 0) <= 1 for head in samples(Space.read(name), 100))


def test_bundled_spaces_are_what_they_are_for() -> None:
    candidates = {name for name, family in families().items() if not family.control}
    assert set(Space.read("default").families) == candidates
    assert set(Space.read("convolutional").families) == {
        "convnext",
        "resnet",
        "bottleneck",
        "mbconv",
        "sepconv",
        "convmixer",
        "mambaout",
        "focal",
    }
    assert set(Space.read("attention").families) == {"transformer", "swin"} and Space.read(
        "paper"
    ).families == ("convnext",)
    assert {name: Space.read(name).taps for name in bundled.names("search_spaces")} == {
        "attention": 1,
        "convolutional": 1,
        "default": 1,
        "paper": 2,
        "tiny": 1,
    }
    assert all(Space.read(name).description for name in bundled.names("search_spaces"))


def test_bundled_spaces_are_as_large_as_their_table_says() -> None:
    # By hand: depth, width and first shortcut make 16 of a family; hybrids have two widths, two
    # shortcuts and no depth.
    families_of_16 = 2 * 3 * 2 + 2 * 3 + 3 * 2 + 2 * 2 * 2 + 2 * 2 * 2 + 2 * 2 + 4 * 2
    assert Space.read("default").size() == 16 * families_of_16 + 4 * 6 * 2
    assert Space.read("paper").size() == 6 * 5 * 2 * 2 and Space.read("tiny").size() == 10
    table = (bundled.find("search_spaces", "default").parent / "README.md").read_text()
    for name in bundled.names("search_spaces"):
        assert f"| `{name}` | {Space.read(name).size() or 'unlimited'} |" in table


def test_the_paper_s_head_is_in_its_space() -> None:
    assert HeadConfig(family="convnext") in set(Space.read("paper").enumerate())


def test_a_space_is_read_from_a_path_and_takes_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("parameters:\n  family: resnet\n  depth: {int: [1, 2]}\n")
    of = Space.read(str(tmp_path / "mine.yaml"))
    assert (of.name, of.size()) == ("mine", 2)
