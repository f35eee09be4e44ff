"""What is left of pooling without its shortcut."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hssl_search.heads.config import HeadConfig
from hssl_search.heads.head import build_head


def test_without_shortcut_the_mean_of_the_window_is_all_that_is_left() -> None:
    head = build_head(HeadConfig(family="poolformer", depth=1, kernel_size=5), 8)
    x = torch.randn(2, 8, 6, 4)
    inside = F.conv2d(torch.ones(1, 1, 6, 4), torch.ones(1, 1, 5, 5), padding=2)
    normed = F.layer_norm(x.permute(0, 2, 3, 1), (8,), eps=1e-6).permute(0, 3, 1, 2)
    sums = F.conv2d(normed, torch.ones(8, 1, 5, 5), padding=2, groups=8)
    torch.testing.assert_close(head.blocks[0][0](x), sums / inside, atol=1e-5, rtol=1e-5)
