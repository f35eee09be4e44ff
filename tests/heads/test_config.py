"""HeadConfig: complete and checked when it is made, and every mistake is told in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hssl_search.configfile import validate
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import families, reads


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"family": "convnxt"},
            "head.yaml: unknown head family 'convnxt'; did you mean 'convnext'",
        ),
        (
            {"family": "mlp", "kernel_size": 3},
            "'mlp' has no parameter 'kernel_size'; it reads depth, width_ratio, first_shortcut, "
            "tap, mlp_ratio",
        ),
        (
            {"family": "identity", "depth": 1},
            "'identity' has no parameter 'depth'; it reads no parameters",
        ),
        (
            {"family": "identity", "tap": 1},
            "'identity' has no parameter 'tap'; it reads no parameters",
        ),
        (
            {"family": "mlp", "blocks": ["mlp"]},
            "'mlp' has no parameter 'blocks'; it reads depth, width_ratio",
        ),
        (
            {"family": "hybrid", "depth": 3},
            "'hybrid' of convnext+transformer+convnext has no parameter 'depth'; it reads blocks, "
            "width_ratio",
        ),
        (
            {"family": "hybrid", "blocks": "mlp+swin", "kernel_size": 3},
            "'hybrid' of mlp+swin has no parameter 'kernel_size'; it reads blocks, width_ratio, "
            "first_shortcut, tap, mlp_ratio, attention_heads",
        ),
        (
            {"family": "hybrid", "blocks": "convnxt+mlp"},
            "head.yaml: unknown block 'convnxt' in blocks; did you mean 'convnext'",
        ),
        (
            {"family": "hybrid", "blocks": ["convnext", "identity"]},
            "head.yaml: control 'identity' in blocks; choose one of ",
        ),
        (
            {"family": "hybrid", "blocks": ["convnext", "hybrid"]},
            "head.yaml: unknown block 'hybrid' in blocks; choose one of ",
        ),
        (
            {"family": "hybrid", "blocks": [["mlp"]]},
            "head.yaml: unknown block \"['mlp']\" in blocks; did you mean 'mlp'",
        ),
        (
            {"family": "hybrid", "blocks": 3},
            "head.yaml: blocks is 3; write names of families, joined by + or as a list",
        ),
        ({"family": "hybrid", "blocks": []}, "head.yaml: blocks is []; write names of families"),
        ({"family": "hybrid", "blocks": ["mlp"] * 65}, "blocks is ('mlp', 'mlp', "),
        ({"family": "convnext", "tap": 4}, "tap is 4"),
        ({"family": "swin", "window_size": 1}, "window_size is 1"),
        ({"family": "mixer", "grid_size": 33}, "grid_size is 33"),
        ({"family": "transformer", "positions": "where"}, "positions is 'where'"),
        (
            {"family": "convnext", "kernel_siz": 3},
            "head.yaml: unknown key 'kernel_siz'; did you mean 'kernel_size'",
        ),
        ({"family": "convnext", "kernel_size": 4}, "kernel_size 4 is even; use 3 or 5"),
        ({"family": "resnet", "depth": 0}, "depth is 0"),
        ({"family": "resnet", "width_ratio": -1.0}, "width_ratio is -1.0"),
        ({"family": "transformer", "attention_heads": "many"}, "attention_heads is 'many'"),
        ({"depth": 3}, "family is missing"),
        ({"family": "mlp", "format": "hssl-head/9"}, "format is 'hssl-head/9'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(HeadConfig, values, "head.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", families())
def test_what_is_left_out_takes_the_default_of_the_family(name: str) -> None:
    found = HeadConfig(family=name)
    assert found.parameters() == reads({"family": name})
    assert found == HeadConfig(family=name, **found.parameters())
    assert found == HeadConfig(
        family=name, **dict.fromkeys(("depth", "kernel_size", "attention_heads"))
    )


@pytest.mark.parametrize("name", families())
def test_what_the_family_does_not_read_is_none(name: str) -> None:
    unread = set(HeadConfig.model_fields) - {"format", "family"} - set(reads({"family": name}))
    assert not [key for key in unread if getattr(HeadConfig(family=name), key) is not None]


def test_candidates_read_where_they_are_fed_from_and_controls_do_not() -> None:
    assert {name: HeadConfig(family=name).tap for name in families()} == {
        name: None if family.control else 0 for name, family in families().items()
    }


def test_hybrids_read_what_their_blocks_read_with_the_first_ones_defaults() -> None:
    assert HeadConfig(family="hybrid", blocks="resnet+swin+convnext").parameters() == {
        "blocks": "resnet+swin+convnext",
        "width_ratio": 1.0,
        "kernel_size": 3,
        "attention_heads": 4,
        "window_size": 7,
        "mlp_ratio": 4.0,
        "first_shortcut": False,
        "tap": 0,
    }
    assert HeadConfig(family="hybrid", blocks="convnext+resnet").kernel_size == 7


def test_blocks_are_the_same_however_they_are_written() -> None:
    written = ["convnext+mlp", " convnext + mlp ", ["convnext", "mlp"], ("convnext", "mlp")]
    assert {
        HeadConfig.model_validate({"family": "hybrid", "blocks": each}) for each in written
    } == {HeadConfig(family="hybrid", blocks=("convnext", "mlp"))}
    assert HeadConfig.model_validate_json(
        '{"family": "hybrid", "blocks": ["convnext", "mlp"]}'
    ).blocks == ("convnext", "mlp")


def test_blocks_are_counted() -> None:
    assert {name: HeadConfig(family=name).block_count for name in families()} == {
        name: 0 if family.control else 3 for name, family in families().items()
    }
    assert HeadConfig(family="hybrid", blocks="mlp+swin").block_families == ("mlp", "swin")
    assert HeadConfig(family="mlp", depth=2).block_families == ("mlp", "mlp")


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        HeadConfig(family="mlp").depth = 4


def test_paper_head_is_the_default_convnext() -> None:
    assert HeadConfig(family="convnext").parameters() == {
        "depth": 3,
        "width_ratio": 1.0,
        "first_shortcut": False,
        "tap": 0,
        "kernel_size": 7,
        "mlp_ratio": 4.0,
    }


def test_label_tells_what_the_family_reads() -> None:
    assert (
        HeadConfig(family="convnext").label()
        == "convnext depth 3 width 1 kernel 7 mlp 4 no-first-shortcut"
    )
    assert (
        HeadConfig(family="transformer", depth=2, first_shortcut=True).label()
        == "transformer depth 2 width 1 heads 4 mlp 4"
    )
    assert HeadConfig(family="identity").label() == "identity"
    assert (
        HeadConfig(family="swin", tap=2).label()
        == "swin depth 3 width 1 heads 4 mlp 4 window 7 tap 2 no-first-shortcut"
    )
    assert (
        HeadConfig(family="mixer").label() == "mixer depth 3 width 1 mlp 4 grid 7 no-first-shortcut"
    )
    assert HeadConfig(
        family="hybrid", blocks="mlp+transformer", positions=True, first_shortcut=True
    ).label() == ("mlp+transformer width 1 heads 4 mlp 4 positions")
