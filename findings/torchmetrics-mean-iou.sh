#!/usr/bin/env bash
# torchmetrics 1.9.0: segmentation.MeanIoU is not the mIoU of the papers.
#
# Guess: MeanIoU accumulates intersections and unions over the data set, as VOC, Cityscapes and
#        ADE20K do, and equals MulticlassJaccardIndex.
# Seen:  it averages the IoU of every pair of image and class that occurs. On two images of six
#        pixels it gives 56.0 %, the data set's mIoU is 72.2 %: one pixel of a class that an image
#        does not have costs as much as a whole class missed.
# Hurts: whoever compares a segmentation score with published ones, or picks a model by it.
#        MulticlassJaccardIndex is the figure of the papers (arXiv 1411.4038, section 5).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 torch==2.15.0 torchmetrics==1.9.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import torch
import torchmetrics
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

truth = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 2, 2, 2, 2]]).view(2, 1, 6)
guess = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 2, 2, 2, 2]]).view(2, 1, 6)


def iou(guess, truth, label):
    union = ((guess == label) | (truth == label)).sum()
    return float(((guess == label) & (truth == label)).sum() / union) if union else None


whole = [iou(guess, truth, label) for label in range(3)]
pairs = [iou(guess[image], truth[image], label) for image in range(2) for label in range(3)]
pairs = [value for value in pairs if value is not None]
mean_iou, jaccard = MeanIoU(3, input_format="index"), MulticlassJaccardIndex(3)
mean_iou.update(guess, truth)
jaccard.update(guess, truth)
print(f"torchmetrics {torchmetrics.__version__}")
print(f"  MeanIoU {mean_iou.compute():.3f}, mean of all pairs {sum(pairs) / len(pairs):.3f}")
print(f"  MulticlassJaccardIndex {jaccard.compute():.3f}, the data set's mIoU {sum(whole) / 3:.3f}")
assert abs(mean_iou.compute() - sum(pairs) / len(pairs)) < 1e-6
assert abs(jaccard.compute() - sum(whole) / 3) < 1e-6
assert jaccard.compute() - mean_iou.compute() > 0.1
PY
