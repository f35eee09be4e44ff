#!/usr/bin/env bash
# timm 1.0.31, torchvision 0.29.2: one folder of images, two numberings of its classes.
#
# Guess: timm.data.ImageDataset and torchvision.datasets.ImageFolder give an image the same label.
# Seen:  torchvision sorts class names as text (1, 10, 2), timm as people count (1, 2, 10), without
#        regard to case. And timm's class is the folder right above the file, torchvision's the
#        topmost one: in cat/indoor, cat/outdoor, dog/indoor timm sees the classes indoor and
#        outdoor.
# Hurts: whoever trains a classifier or computes features with one and evaluates with the other:
#        numbered classes (0 ... 99) are mixed up silently; with subfolders the task is another
#        one.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 \
    pillow==13.0.0 \
    timm==1.0.31 \
    torch==2.15.0 \
    torchvision==0.29.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
from pathlib import Path

import timm
import torchvision
from PIL import Image
from timm.data import ImageDataset
from torchvision.datasets import ImageFolder


def classes(root, folders):
    for folder in folders:
        Path(root, folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path(root, folder, "image.png"))
    return ImageDataset(root).reader.class_to_idx, ImageFolder(root).class_to_idx


numbered = classes("numbered", ["1", "2", "10"])
nested = classes("nested", ["cat/indoor", "cat/outdoor", "dog/indoor"])
print(f"timm {timm.__version__}: {numbered[0]}, {nested[0]}")
print(f"torchvision {torchvision.__version__}: {numbered[1]}, {nested[1]}")
assert numbered == ({"1": 0, "2": 1, "10": 2}, {"1": 0, "10": 1, "2": 2})
assert nested == ({"indoor": 0, "outdoor": 1}, {"cat": 0, "dog": 1})
PY
