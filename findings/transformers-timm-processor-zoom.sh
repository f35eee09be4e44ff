#!/usr/bin/env bash
# transformers 5.24.0, timm 1.0.31: a model folder without crop_pct is fed zoomed images.
#
# Guess: with input_size 32 in the folder's config.json, AutoImageProcessor hands a 32 x 32 image
#        on pixel by pixel, only normalised.
# Seen:  it resizes to 36 and crops the middle 32: no `crop_pct` means 0.875. The border of every
#        image is cut and the rest interpolated. With "crop_pct": 1.0 the pixels arrive as they
#        are. timm's save_for_hf writes the architecture's own value (0.95 for test_resnet: 33 or
#        34 to 32) unless told otherwise, whatever the model was trained with.
# Hurts: whoever pretrains on small images and hands the folder on: features are computed from
#        other images than in training, and accuracy is lost without a message.
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
    torchvision==0.29.2 \
    transformers==5.24.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json

import numpy as np
import timm
import transformers
from PIL import Image
from transformers import AutoImageProcessor

transformers.utils.logging.set_verbosity_error()
model = timm.create_model("test_resnet", num_classes=0)
timm.models.save_for_hf(model, "model", safe_serialization=True)
with open("model/config.json") as file:
    config = json.load(file)
written = config["pretrained_cfg"].pop("crop_pct")
config["pretrained_cfg"].update(input_size=[3, 32, 32], mean=[0.0] * 3, std=[1.0] * 3)
image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def error(**more):
    with open("model/config.json", "w") as file:
        json.dump({**config, "pretrained_cfg": {**config["pretrained_cfg"], **more}}, file)
    processor = AutoImageProcessor.from_pretrained("model")
    pixels = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    return float(abs(pixels[0].permute(1, 2, 0).numpy() * 255 - image).max())


found = {"none": error(), "1.0": error(crop_pct=1.0), str(written): error(crop_pct=written)}
print(
    f"transformers {transformers.__version__}, timm {timm.__version__}: "
    "largest change of a pixel (of 255) by crop_pct: "
    + ", ".join(f"{key} {value:.1f}" for key, value in found.items())
)
assert written == 0.95
assert found["1.0"] < 0.01
assert found["none"] > 50 and found["0.95"] > 50
PY
