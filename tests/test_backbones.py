"""Any timm model as a base: what it gives equals what timm gives, and what it cannot do is said in
one sentence.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from hssl_search.backbones import Base, Features, Masking, default_image_size, residual_blocks
from hssl_search.errors import UserError
from hssl_search.heads.head import build_head

torch.set_num_threads(1)

BASES = [
    ("test_resnet", {"output_stride": 8}, (96, 4, 4)),
    ("test_vit", {"patch_size": 4}, (64, 8, 8)),
    ("test_convnext", {"output_stride": 8}, (64, 4, 4)),
]
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
FAMILIES: list[tuple[str, int, dict[str, Any]]] = [
    ("swin_tiny_patch4_window7_224", 64, {"depths": (1, 1, 2, 1), "embed_dim": 24}),
    ("test_efficientnet", 32, {}),
    ("test_mambaout", 32, {}),
    ("regnetx_002", 64, {}),
    ("mobilenetv3_small_050", 32, {}),
    ("xcit_nano_12_p16_224", 64, {"depth": 2}),
    ("test_nfnet", 32, {}),
    ("coat_lite_tiny", 64, {"serial_depths": (1, 1, 1, 1)}),
    ("coat_tiny", 64, {"parallel_depth": 1}),
    ("crossvit_tiny_240", 120, {"depth": ((1, 1, 0),)}),
    ("efficientvim_m1", 64, {}),
    ("beit_base_patch16_224", 64, SMALL),
    ("cait_xxs24_224", 64, {"depth": 2, "embed_dim": 48}),
    ("levit_128s", 64, {}),
]
OF_THE_CLASSIFIER = {"efficientvim_m1": {"0.weights"}}
"""Parameters that timm keeps in a model without classifier, though nothing else reads them."""
PATCHES: list[tuple[str, int, dict[str, Any], tuple[int, int]]] = [
    ("test_vit", 32, {"patch_size": 4}, (8, 8)),
    ("deit_tiny_distilled_patch16_224", 64, SMALL, (4, 4)),
    ("eva02_tiny_patch14_224", 56, SMALL, (4, 4)),
    ("beit_base_patch16_224", 64, SMALL, (4, 4)),
    ("vit_relpos_small_patch16_224", 64, SMALL, (4, 4)),
]
"""Models whose patches can be hidden, with the grid of their tokens."""


def images(side: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "args", "shape"), BASES)
def test_map_and_embedding_equal_those_of_timm(
    name: str, args: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    base = Base(name, 32, args).eval()
    model = timm.create_model(name, num_classes=0, **base.timm_args).eval()
    model.load_state_dict(base.model.state_dict())
    with torch.no_grad():
        found, expected_map = (
            base(images(32)),
            model.forward_intermediates(images(32), intermediates_only=True, output_fmt="NCHW")[-1],
        )
        assert torch.equal(found.embedding, model(images(32)))
    assert torch.equal(found.map, expected_map)
    assert base.map_shape == shape == found.map.shape[1:]
    assert base.embedding_width == found.embedding.shape[1]


@pytest.mark.parametrize(("name", "side", "args"), FAMILIES)
def test_families_of_many_kinds_are_bases(name: str, side: int, args: dict[str, Any]) -> None:
    base = Base(name, side, args).eval()
    with torch.no_grad():
        found = base(images(side, 2))
        assert torch.equal(found.embedding, base.model(images(side, 2)))
        assert torch.equal(base.embeddings(images(side, 2))["embedding"], found.embedding)
    assert found.map.shape == (2, *base.map_shape)
    assert found.map.shape[2] == found.map.shape[3] < side


@pytest.mark.parametrize(("name", "side", "args"), FAMILIES)
def test_every_part_of_a_family_learns_from_a_convolution_head_and_an_attention_head(
    name: str, side: int, args: dict[str, Any]
) -> None:
    base = Base(name, side, args)
    features = base(images(side))
    heads = [
        build_head({"family": family, "depth": 1, "width_ratio": 0.25}, base.map_shape[0])
        for family in ("convnext", "transformer")
    ]
    embeddings = [features.embedding, *(head(features.map).embedding for head in heads)]
    torch.stack([embedding.square().mean() for embedding in embeddings]).sum().backward()
    gradients = {
        path: parameter.grad
        for path, parameter in nn.ModuleList([base.model, *heads]).named_parameters()
    }
    assert {
        path for path, gradient in gradients.items() if gradient is None
    } == OF_THE_CLASSIFIER.get(name, set())
    assert all(
        bool(gradient.isfinite().all()) for gradient in gradients.values() if gradient is not None
    )


@pytest.mark.parametrize(
    ("name", "args"), [("test_vit", {"patch_size": 4}), ("test_resnet", {}), ("test_convnext", {})]
)
def test_tapped_maps_are_the_last_ones_of_timm_the_last_first(
    name: str, args: dict[str, Any]
) -> None:
    base = Base(name, 32, args, taps=3).eval()
    with torch.no_grad():
        found, maps = (
            base(images(32)),
            base.model.forward_intermediates(
                images(32), intermediates_only=True, output_fmt="NCHW"
            ),
        )
    assert len(maps) > len(found.tapped) == 3
    assert all(torch.equal(*both) for both in zip(found.tapped, reversed(maps), strict=False))
    assert torch.equal(found.tapped[0], found.map)
    assert base.tap_shapes == [tuple(tapped.shape[1:]) for tapped in found.tapped]


def test_too_many_taps_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"base 'test_resnet' has no 20 maps to tap \(.*\); choose a tap below 19\."
    ):
        Base("test_resnet", 32, taps=20)


@pytest.mark.parametrize(("name", "side", "args", "grid"), PATCHES)
def test_tokens_are_the_patch_tokens_after_the_norm_and_the_map_before_it(
    name: str, side: int, args: dict[str, Any], grid: tuple[int, int]
) -> None:
    base = Base(name, side, args).eval()
    norms = [
        norm for norm in (base.model.norm, base.model.fc_norm) if not isinstance(norm, nn.Identity)
    ]
    nn.init.normal_(norms[0].weight)
    with torch.no_grad():
        found = base(images(side))
        rows = found.map.flatten(2).transpose(1, 2)
        torch.testing.assert_close(found.tokens, norms[0](rows))
        if base.model.fc_norm is not norms[0]:  # its features are normed already
            torch.testing.assert_close(
                found.tokens,
                base.model.forward_features(images(side))[:, base.model.num_prefix_tokens :],
            )
    assert len(norms) == 1
    assert base.mask_grid == grid == found.map.shape[2:]


def blockwise(grid: tuple[int, int], count: int = 3) -> Tensor:
    """Return a mask of some tokens of each image, and of none of the first image."""
    mask = torch.rand(count, *grid, generator=torch.Generator().manual_seed(3)) < 0.4
    mask[0] = False
    return mask


def masking(base: Base, seed: int = 4) -> Masking:
    assert base.mask_grid is not None
    return Masking(
        blockwise(base.mask_grid),
        torch.randn(base.token_width, generator=torch.Generator().manual_seed(seed)),
    )


def tensors(features: Features) -> list[Tensor]:
    assert features.tokens is not None
    return [features.map, features.embedding, features.tokens]


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize(("name", "side", "args", "grid"), PATCHES)
def test_what_is_behind_hidden_tokens_changes_nothing_and_the_mask_token_does(
    name: str, side: int, args: dict[str, Any], grid: tuple[int, int], any_size: bool
) -> None:
    base = Base(name, side, args, any_size=any_size).eval()
    hidden = masking(base)
    pixels = hidden.mask.repeat_interleave(side // grid[0], dim=1).repeat_interleave(
        side // grid[1], dim=2
    )[:, None]
    others = torch.where(pixels, images(side).flip(0), images(side))
    with torch.no_grad():
        found, unseen, shown, whole = (
            base(*given)
            for given in ((images(side), hidden), (others, hidden), (others,), (images(side),))
        )
        other_token = base(images(side), masking(base, seed=5))
    for index, (is_same, is_not) in enumerate(zip(tensors(found), tensors(unseen), strict=True)):
        torch.testing.assert_close(is_same, is_not)
        for changed in (tensors(other_token)[index], tensors(whole)[index], tensors(shown)[index]):
            assert not any(
                torch.allclose(*both, rtol=1e-3)
                for both in zip(changed[1:], is_same[1:], strict=True)
            )
        # of the image without hidden tokens
        torch.testing.assert_close(is_same[0], tensors(whole)[index][0])


def test_hidden_tokens_are_replaced_between_patch_embedding_and_position_embedding() -> None:
    base = Base("test_vit", 32, {"patch_size": 4}).eval()
    hidden = masking(base)
    with torch.no_grad():
        found = base(images(32), hidden)
        embedded = base.model.patch_embed(images(32))
        embedded[hidden.mask.reshape(embedded.shape[:-1])] = hidden.token
        base.model.patch_embed.forward = lambda x: embedded
        torch.testing.assert_close(
            found.tokens, base.model.forward_features(images(32))[:, base.model.num_prefix_tokens :]
        )


def test_masked_and_whole_passes_have_one_format_and_follow_each_other() -> None:
    base = Base("test_vit", 32, {"patch_size": 4}).eval()
    hidden = masking(base)
    hidden.token.requires_grad_()
    before, masked, after = base(images(32)), base(images(32), hidden), base(images(32))
    assert all(torch.equal(*both) for both in zip(tensors(before), tensors(after), strict=True))
    assert all(
        one.shape == other.shape and one.dtype == other.dtype
        for one, other in zip(tensors(before), tensors(masked), strict=True)
    )
    with torch.autocast("cpu", torch.bfloat16):
        for exact, rounded in zip(tensors(masked), tensors(base(images(32), hidden)), strict=True):
            torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.1)
    (gradient,) = torch.autograd.grad(masked.embedding.square().sum(), hidden.token)
    assert gradient.any()


def test_pass_that_fails_leaves_no_mask_behind() -> None:
    base = Base("test_vit", 32, {"patch_size": 4}).eval()
    before = base(images(32)).embedding
    with pytest.raises(RuntimeError):
        base(
            images(32),
            Masking(torch.ones(3, 5, 5, dtype=torch.bool), torch.zeros(base.token_width)),
        )
    assert torch.equal(base(images(32)).embedding, before)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24}),
        ("pit_ti_224", {}),
        ("xcit_nano_12_p16_224", {"depth": 2}),
        ("vit_tiny_r_s16_p8_224", SMALL),
    ],
)
def test_patches_that_are_merged_or_overlap_are_not_hidden(name: str, args: dict[str, Any]) -> None:
    assert Base(name, 64, args).mask_grid is None


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_vit", {"patch_size": 4}),
        ("test_resnet", {}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24}),
    ],
)
def test_base_for_any_size_is_the_same_at_its_own_size_and_takes_others(
    name: str, args: dict[str, Any]
) -> None:
    fixed, free = Base(name, 64, args).eval(), Base(name, 64, args, any_size=True).eval()
    free.load_state_dict(fixed.state_dict())
    with torch.no_grad():
        for expected, found in zip(fixed(images(64))[:2], free(images(64))[:2], strict=True):
            torch.testing.assert_close(found, expected)
        local = free(images(32))
    assert local.map.shape[2:] == (fixed.map_shape[1] // 2, fixed.map_shape[2] // 2)
    assert local.embedding.shape == (3, fixed.embedding_width)


@pytest.mark.parametrize("mode", [True, False])
def test_required_size_is_taken_or_refused_in_one_sentence_and_changes_nothing(mode: bool) -> None:
    Base("test_vit", 32, {"patch_size": 4}, any_size=True).require_size(16)
    base = Base("beit_base_patch16_224", 64, SMALL, any_size=True).train(mode)
    with pytest.raises(UserError) as caught:
        base.require_size(32)
    said = str(caught.value)
    assert said.startswith(
        "base 'beit_base_patch16_224' cannot take local crops of 32 x 32 pixels ("
    )
    assert said.endswith(
        "); set views: local_size in the recipe to the image size, or local_crops to 0."
    )
    assert "\n" not in said and "--image-size" not in said
    assert base.training is base.model.training is mode


def test_size_among_the_arguments_stays_and_timm_is_asked_for_other_sizes_where_it_has_them() -> (
    None
):
    args = {"img_size": 64, "depth": 2}
    assert Base("xcit_nano_12_p16_224", 64, args, any_size=True).map_shape == (128, 4, 4)
    assert Base("test_vit", 32, {"img_size": 32}, any_size=True).timm_args == {
        "img_size": 32,
        "dynamic_img_size": True,
    }
    assert Base("test_resnet", 32, any_size=True).timm_args == {}


def test_stochastic_depth_that_timm_lacks_is_told_from_an_argument_it_refuses() -> None:
    with pytest.raises(
        UserError,
        match=r"^base 'vgg11' has no stochastic depth in timm; set drop_path to 0 in the recipe\.$",
    ):
        residual_blocks("vgg11", 32, {})
    with pytest.raises(UserError, match="timm refuses to build base 'test_vit' with depht=3"):
        residual_blocks("test_vit", 32, {"depht": 3})


def test_vit_is_evaluated_by_class_token_and_by_mean_token() -> None:
    base = Base("test_vit", 32, {"patch_size": 4}).eval()
    with torch.no_grad():
        tokens, found = base.model.forward_features(images(32)), base.embeddings(images(32))
    assert list(found) == ["embedding", "mean"]
    assert torch.equal(found["embedding"], tokens[:, 0])
    assert torch.equal(found["mean"], tokens[:, 1:].mean(dim=1))


def test_cnn_is_evaluated_by_its_pooled_features_alone() -> None:
    base = Base("test_resnet", 32, {"output_stride": 8}).eval()
    with torch.no_grad():
        found = base.embeddings(images(32))
        torch.testing.assert_close(found["embedding"], base(images(32)).map.mean(dim=(2, 3)))
    assert list(found) == ["embedding"]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_resnet", {}),
        ("test_vit", {}),
        ("test_convnext", {}),
        ("test_mambaout", {}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24}),
    ],
)
def test_every_remedy_of_the_small_map_warning_helps(name: str, args: dict[str, Any]) -> None:
    warning = Base(name, 32, args).small_map_warning()
    assert warning is not None
    arguments = re.findall(r"--base-arg (\w+)=(\d+)", warning)
    (size,) = re.findall(r"--image-size (\d+)", warning)
    for key, value in arguments:
        assert Base(name, 32, {**args, key: int(value)}).small_map_warning() is None
    assert Base(name, int(size), args).small_map_warning() is None


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("test_resnet", "output_stride=8"),
        ("test_vit", "patch_size=4"),
        ("test_convnext", "output_stride=8"),
    ],
)
def test_small_map_warning_names_the_argument(name: str, argument: str) -> None:
    assert f"--base-arg {argument} or" in str(Base(name, 32).small_map_warning())


def test_large_enough_map_gives_no_warning() -> None:
    assert Base("test_resnet", 32, {"output_stride": 8}).small_map_warning() is None


@pytest.mark.parametrize(
    ("name", "size", "args", "said"),
    [
        ("resnt50", 32, {}, ["'resnt50'", "did you mean", "'resnet50'"]),
        ("zzzzqqq", 32, {}, ["'zzzzqqq'", "timm.list_models()"]),
        (
            "test_resnet.nonsense",
            32,
            {},
            ["'test_resnet'", "no weights 'nonsense'", "'test_resnet.r160_in1k'"],
        ),
        ("test_resnet", 32, {"depht": 3}, ["depht=3", "--base-arg"]),
        ("test_vit", 32, {"depht": 3}, ["depht=3", "--base-arg"]),
        ("test_resnet", 32, {"output_stride": 7}, ["output_stride=7", "--base-arg"]),
        ("test_vit", 30, {}, ["30 x 30", "--image-size"]),
        (
            "test_resnet",
            32,
            {"in_chans": 1},
            ["with in_chans=1 is built, but a pass through it fails (", "; change --base-arg."],
        ),
        (
            "test_resnet",
            32,
            {"features_only": True},
            ["with features_only=True is built, but a pass through it fails", "change --base-arg."],
        ),
        (
            "test_resnet",
            32,
            {"global_pool": ""},
            ["x 1 x 1 numbers an image, not one vector); change --base-arg."],
        ),
        (
            "test_vit",
            32,
            {"global_pool": ""},
            ["numbers an image, not one vector); change --base-arg."],
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(
    name: str, size: int, args: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        Base(name, size, args)
    assert all(words in str(caught.value) for words in said)
    assert "\n" not in str(caught.value)


def test_normalisation_and_image_size_are_those_timm_configures() -> None:
    assert Base("test_resnet", 32).mean_std == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (
        default_image_size("test_resnet") == timm.get_pretrained_cfg("test_resnet").input_size[-1]
    )
    with pytest.raises(UserError, match="'test_resnet'"):
        default_image_size("test_resnt")


def test_building_a_base_is_reproducible_and_leaves_it_in_training() -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(5)
        built.append(Base("test_vit", 32, {"patch_size": 4}))
    assert all(
        torch.equal(*pair)
        for pair in zip(*(base.state_dict().values() for base in built), strict=True)
    )
    assert built[0].training and built[0].model.training
