"""What every head family must do, controls included: a new family gets the whole suite by being
registered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from hssl_search.heads.config import HeadConfig
from hssl_search.heads.families import Family, families, reads, register
from hssl_search.heads.files import read_head, write_head
from hssl_search.heads.head import Head, build_head, head_width

torch.set_num_threads(1)

CASES: dict[str, dict[str, Any]] = {name: {"family": name} for name in families()}
CASES["resnet+swin+swin"] = {"family": "hybrid", "blocks": "resnet+swin+swin"}
BLOCKS = [name for name, values in CASES.items() if not families()[values["family"]].control]
ONE_FAMILY = [name for name in BLOCKS if CASES[name]["family"] != "hybrid"]

REACH = {
    "identity": (7, 7),
    "mlp": (7, 7),
    "poolformer": (6, 8),
    "bottleneck": (6, 8),
    "resnet": (5, 9),
    "convnext": (4, 10),
    "sepconv": (4, 10),
    "mambaout": (4, 10),
    "convmixer": (3, 11),
    "swin": (7, 13),
    "mbconv": (0, 14),
    "focal": (0, 14),
    "transformer": (0, 14),
    "mixer": (0, 14),
    "resmlp": (0, 14),
    "gmlp": (0, 14),
    "hybrid": (0, 14),
    "resnet+swin+swin": (0, 14),
}
"""First and last of the 15 rows that the middle one depends on, after one block of the default
kernel or a hybrid's blocks. mbconv squeezes the whole map into its gates, focal averages it."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def config(case: str, **values: Any) -> HeadConfig:
    """Return a head two blocks deep, with those of the values that the family reads."""
    return HeadConfig(
        **CASES[case],
        **{
            key: value for key, value in {"depth": 2, **values}.items() if key in reads(CASES[case])
        },
    )


def head(case: str, channels: int = 24, drop_path: float = 0.0, **values: Any) -> Head:
    torch.manual_seed(3)
    made = config(case, **values)
    return build_head(made, channels, [drop_path] * made.block_count)


def maps(channels: int = 24, height: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(1))


def beside_and_behind(case: str, block: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return (what a block's shortcut leads past, what follows): everything and nothing, but for
    ConvMixer's 1x1 convolution, which follows.
    """
    return (block[0], block[1:]) if case == "convmixer" else (block, nn.Identity())  # type: ignore[index]


def silence(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 9)])
@pytest.mark.parametrize("channels", [24, 30, 25])
def test_takes_maps_of_any_size_and_channels(
    case: str, channels: int, size: tuple[int, int]
) -> None:
    made = head(case, channels)
    found = made(maps(channels, *size))
    assert found.map.shape == (3, made.width, *size)
    assert found.embedding.shape == (3, made.width)
    assert bool(torch.isfinite(found.embedding).all())


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("name", BLOCKS)
def test_width_is_a_share_of_the_channels_in_whole_attention_heads(name: str, ratio: float) -> None:
    made = head(name, 30, width_ratio=ratio)
    in_fours = {0.5: 16, 2.0: 60} if made.config.attention_heads == 4 else {0.5: 15, 2.0: 60}
    assert made.width == head_width(made.config, 30) == in_fours[ratio]
    assert made(maps(30)).embedding.shape == (3, made.width)


@pytest.mark.parametrize("first_shortcut", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_every_parameter_gets_a_gradient(case: str, first_shortcut: bool, ratio: float) -> None:
    made = head(case, first_shortcut=first_shortcut, width_ratio=ratio)
    embedding = made(maps()).embedding
    (embedding * torch.randn_like(embedding)).sum().backward()
    without = [
        name
        for name, parameter in made.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_every_head_but_noise_passes_gradients_to_the_base(case: str) -> None:
    x = maps().requires_grad_()
    embedding = head(case)(x).embedding
    (embedding * torch.randn_like(embedding)).sum().backward()
    assert (x.grad is not None and bool(x.grad.any())) is (case != "noise")


def test_maps_of_one_position_and_three_images_train_it(case: str) -> None:
    made = head(case)
    embedding = made(maps(24, 1, 1)).embedding
    (embedding * torch.randn_like(embedding)).sum().backward()
    gradients = [parameter.grad for parameter in made.parameters() if parameter.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients) and any(
        bool(gradient.any()) for gradient in gradients
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bf16_is_finite_forward_and_backward(case: str, memory_format: torch.memory_format) -> None:
    made = head(case).to(memory_format=memory_format)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        embedding = made(maps().to(memory_format=memory_format)).embedding
    (embedding.float() * torch.randn_like(embedding, dtype=torch.float32)).sum().backward()
    assert bool(torch.isfinite(embedding).all())
    assert all(
        bool(torch.isfinite(parameter.grad).all())
        for parameter in made.parameters()
        if parameter.grad is not None
    )


def test_same_seed_gives_the_same_head(case: str) -> None:
    outputs = []
    for _ in range(2):
        made = head(case)
        outputs.append(made(maps()).embedding)
    assert torch.equal(*outputs)


def test_evaluation_is_repeatable_under_stochastic_depth(case: str) -> None:
    made = head(case, drop_path=0.9).eval()
    outputs = []
    for _ in range(2):
        torch.manual_seed(8)
        outputs.append(made(maps()).embedding)
        torch.manual_seed(9)
    assert torch.equal(*outputs)
    assert torch.equal(made(maps()).embedding, outputs[0]) is (case != "noise")


@pytest.mark.parametrize("name", BLOCKS)
def test_stochastic_depth_drops_blocks_in_training_alone(name: str) -> None:
    made = head(name, drop_path=0.5, first_shortcut=True)
    torch.manual_seed(0)
    assert len({made(maps()).embedding.sum().item() for _ in range(8)}) > 1
    made.eval()
    assert len({made(maps()).embedding.sum().item() for _ in range(8)}) == 1


@pytest.mark.parametrize("name", BLOCKS)
def test_wrong_number_of_stochastic_depth_rates_is_refused(name: str) -> None:
    made = config(name)
    with pytest.raises(ValueError, match=f"5 stochastic-depth rates for {made.block_count} blocks"):
        build_head(made, 24, [0.1] * 5)


def test_embedding_is_the_norm_of_the_mean_over_positions(case: str) -> None:
    made = head(case)
    torch.nn.init.normal_(made.norm.weight)
    torch.nn.init.normal_(made.norm.bias)
    found = made(maps())
    mean = found.map.flatten(2).mean(dim=2)
    torch.testing.assert_close(
        found.embedding,
        F.layer_norm(mean, (made.width,), made.norm.weight, made.norm.bias, made.norm.eps),
    )


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shortcut", [False, True])
def test_without_first_shortcut_the_input_reaches_the_output_through_the_block_alone(
    name: str, shortcut: bool
) -> None:
    made = head(name, first_shortcut=shortcut).eval()
    beside, behind = beside_and_behind(name, made.blocks[0])
    silence(beside)
    x = maps().abs()  # a basic block ends in a ReLU
    assert torch.equal(made.blocks[0](x), behind(x if shortcut else torch.zeros_like(x)))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_after_the_first_keep_their_shortcut(name: str) -> None:
    made = head(name, first_shortcut=False).eval()
    beside, behind = beside_and_behind(name, made.blocks[1])
    silence(beside)
    assert torch.equal(made.blocks[:2](maps()), behind(made.blocks[0](maps())))


@pytest.mark.parametrize(
    "name",
    [
        "convnext",
        "mbconv",
        "sepconv",
        "convmixer",
        "mambaout",
        "focal",
        "swin",
        "mlp",
        "mixer",
        "resmlp",
        "gmlp",
    ],
)
def test_a_missing_shortcut_is_all_that_changes(name: str) -> None:
    kept, removed = (
        head(name, first_shortcut=shortcut).eval().blocks[0] for shortcut in (True, False)
    )
    mixing = [block[0] if isinstance(block, nn.Sequential) else block for block in (kept, removed)]
    assert kept.state_dict().keys() == removed.state_dict().keys()
    torch.testing.assert_close(mixing[0](maps()), maps() + mixing[1](maps()))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_first_block_without_shortcut_is_never_dropped(name: str) -> None:
    block = head(name, drop_path=0.99, first_shortcut=False).blocks[0]
    assert all(bool(block(maps()).flatten(1).any(dim=1).all()) for _ in range(4))


@pytest.mark.parametrize("name", ONE_FAMILY)
def test_number_of_blocks_is_the_depth(name: str) -> None:
    assert [len(head(name, depth=depth).blocks) for depth in (1, 3)] == [1, 3]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_those_of_the_families_named(name: str) -> None:
    def kinds(case: str) -> list[type]:
        return [type(module) for module in head(case).blocks[0].modules()]

    made = head(name)
    assert len(made.blocks) == made.config.block_count
    assert [type(module) for module in made.blocks[0].modules()] == kinds(
        made.config.block_families[0]
    )


def test_config_is_the_same_after_a_round_trip(case: str, tmp_path: Path) -> None:
    given = config(case, width_ratio=0.5, first_shortcut=True, tap=1)
    write_head(tmp_path / "head.yaml", given, base={"name": "test_resnet", "map_shape": [24, 7, 5]})
    found = read_head(tmp_path / "head.yaml")
    assert found.head == given
    assert found.context == {"base": {"name": "test_resnet", "map_shape": [24, 7, 5]}}
    assert HeadConfig.model_validate_json(given.model_dump_json()) == given
    assert HeadConfig.model_validate(given.model_dump(exclude_none=True)) == given
    assert hash(found.head) == hash(given)


def test_weights_load_into_a_new_head_with_equal_outputs(case: str, tmp_path: Path) -> None:
    first, second = head(case).eval(), build_head(config(case), 24).eval()
    save_file(first.state_dict(), tmp_path / "head.safetensors")
    second.load_state_dict(load_file(tmp_path / "head.safetensors"))
    outputs = []
    for made in (first, second):
        torch.manual_seed(2)
        outputs.append(made(maps()).embedding)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", REACH)
def test_positions_are_mixed_as_far_as_the_mechanism_reaches(name: str) -> None:
    made, x = head(name, depth=1).eval(), maps(24, 15, 15).requires_grad_()
    middle = made(x).map[:, :, 7, 7]
    (middle * torch.randn_like(middle)).sum().backward()
    assert x.grad is not None
    first, last = REACH[name]
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[first : last + 1, first : last + 1] = True
    assert torch.equal(x.grad.abs().sum(dim=(0, 1)) > 0, expected)


def test_reach_is_known_of_every_family() -> None:
    assert set(REACH) == set(CASES) - {"noise"}


def test_noise_does_not_depend_on_its_input() -> None:
    made, outputs = head("noise"), []
    for x in (maps(), maps() * 5 + 3):
        torch.manual_seed(6)
        outputs.append(made(x).embedding)
    assert torch.equal(*outputs)
    assert not torch.equal(made(maps()).embedding, outputs[0])


def test_registering_a_taken_name_raises_and_changes_nothing() -> None:
    before = families()
    with pytest.raises(ValueError, match="'convnext' is registered already"):
        register(Family("convnext"))
    assert families() == before
