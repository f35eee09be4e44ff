#!/usr/bin/env bash
# torchvision 0.29.2: v2 resizes a Mask with a shift of up to half an output pixel against its
# image.
#
# Guess: resize keeps image and mask aligned (sampling at pixel centres, as Pillow's NEAREST does).
# Seen:  a tv_tensors.Mask takes the first pixel of each block (0, 4, 8, 12 of 16 -> 4 columns),
#        Pillow the middle one (2, 6, 10, 14), and the image's own pixel means lie at 1.5, 5.5,
#        9.5, 13.5. So each label is read 1.5 pixels up and left of where it belongs: nearly half a
#        patch when masks are brought to a ViT's grid of patches.
# Hurts: segmentation and dense k-NN on downscaled masks, most for small objects and small grids.
#        NEAREST_EXACT keeps the alignment, but must be asked for, and then images are no longer
#        resized bilinearly: masks need a call of their own. Pillow keeps it by itself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 \
    pillow==13.0.0 \
    torch==2.15.0 \
    torchvision==0.29.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

column = torch.arange(16, dtype=torch.uint8).expand(1, 16, 16).contiguous()
exact = v2.InterpolationMode.NEAREST_EXACT
by_v2 = v2.Resize((4, 4))(tv_tensors.Mask(column))[0, 0].tolist()
asked = v2.Resize((4, 4), interpolation=exact)(tv_tensors.Mask(column))[0, 0].tolist()
by_pillow = np.asarray(Image.fromarray(column[0].numpy()).resize((4, 4), Image.NEAREST))[0].tolist()
by_exact = torch.nn.functional.interpolate(column[None].float(), size=(4, 4), mode="nearest-exact")
image = column[0].float().reshape(4, 4, 4, 4).mean((1, 3))[0].tolist()
print(
    f"torchvision {torchvision.__version__}: columns that 16 -> 4 keeps: v2 mask {by_v2}, "
    f"with NEAREST_EXACT asked for {asked}, Pillow {by_pillow}, "
    f"nearest-exact {by_exact[0, 0, 0].int().tolist()}; centres of the image's pixels {image}"
)
assert by_v2 == [0, 4, 8, 12]
assert asked == by_pillow == by_exact[0, 0, 0].int().tolist() == [2, 6, 10, 14]
assert image == [1.5, 5.5, 9.5, 13.5]
PY
