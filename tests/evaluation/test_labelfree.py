"""The measures together: what each is measured of, and what they say of good and bad
representations.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hssl_search.evaluation.alpha_req import alpha_req
from hssl_search.evaluation.hypersphere import alignment, uniformity
from hssl_search.evaluation.labelfree import labelfree_quality
from hssl_search.evaluation.lidar import lidar
from hssl_search.evaluation.rankme import rankme

torch.set_num_threads(1)

NAMES = {"rankme", "alpha_req", "uniformity", "lidar", "alignment"}


def embeddings(directions: int, noise: float) -> tuple[Tensor, Tensor]:
    """Return (views, plain) of 60 images that differ in the first `directions` of 16 dimensions;
    views differ by the noise in all.
    """
    generator = torch.Generator().manual_seed(0)
    plain = torch.zeros(60, 16)
    plain[:, :directions] = torch.randn(60, directions, generator=generator)
    return plain + noise * torch.randn(4, 60, 16, generator=generator), plain


def test_views_and_plain_images_are_measured_each_by_its_own() -> None:
    views, plain = embeddings(16, 0.3)
    assert labelfree_quality(views, plain) == {
        "rankme": rankme(plain),
        "alpha_req": alpha_req(plain),
        "uniformity": uniformity(plain),
        "lidar": lidar(views),
        "alignment": alignment(views),
    }


def test_noise_between_views_harms_what_is_measured_of_them_and_nothing_else() -> None:
    quiet, loud = (labelfree_quality(*embeddings(16, noise)) for noise in (0.1, 1.0))
    assert quiet["alignment"] < 0.1 < loud["alignment"]
    assert {name for name in NAMES if quiet[name] == loud[name]} == {
        "rankme",
        "alpha_req",
        "uniformity",
    }


def test_fewer_directions_are_worse_in_every_measure_of_spread() -> None:
    wide, narrow = (labelfree_quality(*embeddings(directions, 0.1)) for directions in (16, 3))
    assert wide["rankme"] > narrow["rankme"]
    assert wide["lidar"] > narrow["lidar"]
    assert wide["uniformity"] < narrow["uniformity"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_measured(bad: float) -> None:
    views, plain = embeddings(16, 0.3)
    broken = plain.clone()
    broken[7, 3] = bad
    found = labelfree_quality(views, broken)
    assert {name for name, value in found.items() if math.isnan(value)} == {
        "rankme",
        "alpha_req",
        "uniformity",
    }
    found = labelfree_quality(torch.cat([views, broken[None]]), plain)
    assert {name for name, value in found.items() if math.isnan(value)} == {"lidar", "alignment"}


def test_inputs_are_left_as_they_are_and_any_precision_is_taken() -> None:
    views, plain = embeddings(16, 0.3)
    before = views.clone(), plain.clone()
    found = labelfree_quality(views, plain)
    assert torch.equal(views, before[0]) and torch.equal(plain, before[1])
    assert set(found) == NAMES
    assert labelfree_quality(views.bfloat16(), plain.bfloat16()) == pytest.approx(found, rel=0.05)
