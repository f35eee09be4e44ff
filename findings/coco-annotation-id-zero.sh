#!/usr/bin/env bash
# pycocotools 2.0.11, faster-coco-eval 1.8.0: an annotation with id 0 counts as not found.
#
# Guess: ids of annotations are names; perfect detections score an AP of 100 whatever they are.
# Seen:  25.2 instead of 100 for two images, when ids start at 0 as enumerate() gives them: the
#        evaluator marks an unmatched box with 0, so a detection matched to annotation 0 is taken
#        for a false positive. With one object in a class, that class scores 0. Both libraries do
#        so; faster-coco-eval says it in a warning, pycocotools does not.
# Hurts: whoever converts boxes or masks of their own to the COCO format and numbers from 0: no
#        error, the score is too low by one object, which shows most for rare classes. Number from
#        1.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    faster-coco-eval==1.8.0 numpy==2.4.6 pycocotools==2.0.11
cd "$work"
"$work/venv/bin/python" - <<'PY'
import contextlib
import io
import json
import warnings
from importlib.metadata import version

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval


def perfect(load, evaluation, first, images):
    """AP of detections that equal the annotations, which are numbered from `first`."""
    box = {"category_id": 1, "bbox": [10, 10, 30, 30]}
    annotations = [
        {"id": first + image, "image_id": image, "area": 900, "iscrowd": 0, **box}
        for image in range(images)
    ]
    with open("truth.json", "w") as file:
        json.dump(
            {
                "info": {},
                "categories": [{"id": 1, "name": "thing"}],
                "annotations": annotations,
                "images": [{"id": image, "width": 100, "height": 100} for image in range(images)],
            },
            file,
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = load("truth.json")
        found = truth.loadRes([{"image_id": image, "score": 0.9, **box} for image in range(images)])
        judge = evaluation(truth, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


libraries = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
for name, library in libraries.items():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        scores = {
            (first, images): perfect(*library, first, images)
            for first in (0, 1)
            for images in (1, 2)
        }
    print(
        f"{name} {version(name)}: AP of perfect detections numbered from 0 and from 1: "
        f"{scores[0, 2]:.3f} and {scores[1, 2]:.3f} in 2 images, "
        f"{scores[0, 1]:.3f} and {scores[1, 1]:.3f} in 1 image; warned: {bool(warned)}"
    )
    assert min(scores[1, 1], scores[1, 2]) > 0.999
    assert scores[0, 1] == 0 and 0.2 < scores[0, 2] < 0.3
PY
