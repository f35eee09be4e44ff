"""A few SimCLR steps with a winning head in a plain PyTorch loop, without the search.

python examples/train_with_head.py runs/demo/winner/head.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
import yaml

from hssl_search import load_head


def nt_xent(anchors: torch.Tensor, keys: torch.Tensor, temperature: float = 0.2) -> torch.Tensor:
    """Return the NT-Xent loss: each anchor finds the key of its image among all keys; B x D
    each.
    """
    similarities = F.normalize(anchors, dim=1) @ F.normalize(keys, dim=1).T / temperature
    return F.cross_entropy(similarities, torch.arange(len(anchors)))


def main(path: str) -> None:
    found = yaml.safe_load(Path(path).read_text())["base"]
    base = timm.create_model(found["name"], num_classes=0, **found["args"])
    head = load_head(path)
    base_projector, head_projector = torch.nn.LazyLinear(128), torch.nn.LazyLinear(128)
    # your two augmented views
    first, second = torch.rand(2, 16, 3, found["image_size"], found["image_size"]).unbind(0)

    def outputs(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        final, maps = base.forward_intermediates(images, indices=1, output_fmt="NCHW")
        return base_projector(base.forward_head(final, pre_logits=True)), head_projector(
            head(maps[-1]).embedding
        )

    outputs(first)  # shapes the lazy layers
    optimizer = torch.optim.AdamW(
        [p for module in (base, head, base_projector, head_projector) for p in module.parameters()],
        lr=1e-3,
    )
    for step in range(5):
        (b, a), (_, a_other) = outputs(first), outputs(second)
        # HSSL: the base learns from the head
        loss = 0.5 * nt_xent(b, a_other.detach()) + 0.5 * nt_xent(a, a_other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
