"""head.yaml: what a search writes becomes a module, and what cannot is told in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hssl_search import load_head
from hssl_search.errors import UserError
from hssl_search.heads.config import HeadConfig
from hssl_search.heads.files import write_head


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "head.yaml"


def test_head_of_a_search_is_built_for_the_base_it_was_found_with(path: Path) -> None:
    write_head(
        path,
        HeadConfig(family="mlp", depth=1),
        base={"name": "test_resnet", "map_shape": [24, 4, 4]},
        recipe={"method": {"name": "simclr"}},
        provenance={"trial": 7},
    )
    head = load_head(path)
    assert (head.channels, head.config) == (24, HeadConfig(family="mlp", depth=1))
    assert head(torch.zeros(2, 24, 3, 3)).embedding.shape == (2, 24)
    assert load_head(path, channels=16).channels == 16


def test_file_with_a_config_alone_needs_the_channels(path: Path) -> None:
    path.write_text("family: convnext\n")
    assert load_head(str(path), channels=8).config == HeadConfig(family="convnext")
    with pytest.raises(
        UserError,
        match=r"head\.yaml does not say how many channels .* load_head\(path, channels=C\)",
    ):
        load_head(path)


@pytest.mark.parametrize(
    ("text", "head"),
    [
        (
            "format: hssl-head/1\nfamily: transformer\ndepth: 2\nwidth_ratio: 0.5\n"
            "attention_heads: 4\nmlp_ratio: 4.0\nfirst_shortcut: false\n",
            HeadConfig(family="transformer", depth=2, width_ratio=0.5, positions=False, tap=0),
        ),
        (
            "format: hssl-head/1\nfamily: resnet\ndepth: 3\nwidth_ratio: 1.0\n"
            "kernel_size: 3\nfirst_shortcut: true\n",
            HeadConfig(family="resnet", first_shortcut=True, tap=0),
        ),
        ("format: hssl-head/1\nfamily: identity\n", HeadConfig(family="identity")),
    ],
)
def test_files_written_before_there_were_taps_and_positions_mean_the_same(
    path: Path, text: str, head: HeadConfig
) -> None:
    path.write_text(text)
    assert load_head(path, channels=8).config == head


def test_blocks_of_a_hybrid_may_be_a_list(path: Path) -> None:
    path.write_text("family: hybrid\nblocks: [convnext, transformer, convnext]\nkernel_size: 5\n")
    assert load_head(path, channels=8).config == HeadConfig(
        family="hybrid", blocks="convnext+transformer+convnext", kernel_size=5
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("family: [", "is not valid YAML"),
        ("- convnext\n", "holds a list"),
        ("family: convnxt\n", "did you mean 'convnext'"),
        ("family: convnext\ndepht: 3\n", "unknown key 'depht'; did you mean 'depth'?"),
        ("family: convnext\nkernel_size: 4\n", "kernel_size 4 is even"),
        ("family: mlp\nbase: resnet50\n", "does not say how many channels"),
        ("family: mlp\nbase: {name: resnet50}\n", "does not say how many channels"),
    ],
)
def test_file_that_describes_no_head_is_told_in_one_sentence(
    path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_head(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sections_that_head_files_do_not_have_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="scores"):
        write_head(path, HeadConfig(family="mlp"), scores={})
    assert not path.exists()
