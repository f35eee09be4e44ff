#!/usr/bin/env bash
# datasets 5.2.0: `imagefolder` takes a class folder called `train` for a split, and drops the
# rest.
#
# Guess: nine images in the class folders bus, car and train are three classes of three.
# Seen:  three images and no labels, without a warning: the folder `train` counts as the split of
#        that name, and everything beside it is ignored. A folder `freight-train` does the same,
#        and so does a file name: of test_0.png, img_1.png, img_2.png in two classes, only the two
#        test_0.png are loaded.
# Hurts: whoever loads vehicles, railways, test images or laboratory pictures (CIFAR-100 has a
#        class called `train`) and pretrains or evaluates on a fraction of the data.
#        `data_files={"train": "**"}` with drop_labels=False loads all of it, with labels.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    datasets==5.2.0 numpy==2.4.6 pillow==13.0.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
cd "$work"
"$work/venv/bin/python" - <<'PY'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()


def load(root, files, **how):
    for name in files:
        Path(root, name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(Path(root, name))
    splits = datasets.load_dataset("imagefolder", data_dir=root, **how)
    return {name: (len(split), sorted(split.features)) for name, split in splits.items()}


def three(*classes):
    return [f"{folder}/{index}.png" for folder in classes for index in range(3)]


found = {
    "bus, car, tram": load("a", three("bus", "car", "tram")),
    "bus, car, train": load("b", three("bus", "car", "train")),
    "bus, car, freight-train": load("c", three("bus", "car", "freight-train")),
    "good, bad with test_0.png": load(
        "d",
        [
            f"{folder}/{file}.png"
            for folder in ("good", "bad")
            for file in ("test_0", "img_1", "img_2")
        ],
    ),
    "bus, car, train with data_files": load(
        "e", three("bus", "car", "train"), data_files={"train": "**"}, drop_labels=False
    ),
}
print(f"datasets {datasets.__version__}")
for name, splits in found.items():
    print(f"  {name}: {splits}")
everything = {"train": (9, ["image", "label"])}
assert found["bus, car, tram"] == found["bus, car, train with data_files"] == everything
assert found["bus, car, train"] == found["bus, car, freight-train"] == {"train": (3, ["image"])}
assert found["good, bad with test_0.png"]["test"][0] == 2
PY
