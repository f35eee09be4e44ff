"""Embeddings for evaluation: of whole images, in batches, in evaluation mode, whatever is trained
around them.
"""

from __future__ import annotations

import pytest
import torch

from hssl_search.backbones import Base
from hssl_search.data.views import Views, ViewsConfig
from hssl_search.evaluation import embed
from hssl_search.evaluation.embed import embed_base, embed_heads
from hssl_search.heads.head import build_head

torch.set_num_threads(1)

IMAGES = torch.randint(
    0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture(
    params=[("test_resnet", {"output_stride": 8}), ("test_vit", {"patch_size": 4})],
    ids=["cnn", "vit"],
)
def base(request: pytest.FixtureRequest) -> Base:
    torch.manual_seed(1)
    name, args = request.param
    return Base(name, 32, args)


@pytest.fixture
def views(base: Base) -> Views:
    return Views(ViewsConfig(), 32, *base.mean_std)


def test_embeddings_are_those_of_the_whole_normalised_images(
    base: Base, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BATCH", 3)
    found = embed_base(base, IMAGES, views.plain)
    assert base.training
    base.eval()
    with torch.no_grad():
        expected = base.embeddings((IMAGES.float() / 255 - 0.5) / 0.5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_evaluating_changes_no_weight_and_no_statistic(base: Base, views: Views) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    first, second = embed_base(base, IMAGES, views.plain), embed_base(base, IMAGES, views.plain)
    assert torch.equal(first["embedding"], second["embedding"])
    assert not first["embedding"].requires_grad
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


def test_heads_are_embedded_beside_their_base(
    base: Base, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BATCH", 4)
    heads = [
        build_head({"family": family, "depth": 1}, base.map_shape[0])
        for family in ("convnext", "resnet")
    ]
    heads[1].eval()
    found, of_heads = embed_heads(base, heads, IMAGES, views.plain)
    assert [module.training for module in (base, *heads)] == [True, True, False]
    torch.testing.assert_close(
        found, embed_base(base, IMAGES, views.plain)["embedding"], rtol=1e-4, atol=1e-5
    )
    for module in (base, *heads):
        module.eval()
    with torch.no_grad():
        features = base(views.plain(IMAGES))
        for head, embedding in zip(heads, of_heads, strict=True):
            torch.testing.assert_close(
                embedding, head(features.map).embedding, rtol=1e-4, atol=1e-5
            )
