#!/usr/bin/env bash
# torchmetrics 1.9.0: average precision and AUROC of scores above 17 lose their order.
#
# Guess: both are measures of a ranking, so any monotonic score gives scikit-learn's value.
# Seen:  where a score lies outside of [0, 1], all go through a sigmoid in float32, which is
#        exactly 1 from about 17 on: those scores are tied. A ranking with an AUROC of 0.75 scores
#        0.5.
# Hurts: whoever ranks by a distance, an energy or a sum (anomaly and out-of-distribution detection
#        by k-NN distance, retrieval): scores of 20 to 50 look like chance. Divide them first, or
#        rank.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 \
    scikit-learn==1.9.1 \
    torch==2.15.0 \
    torchmetrics==1.9.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import torch
import torchmetrics
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

truth = torch.tensor([0, 1, 0, 1])
for scale, tied in ((1, False), (10, True)):
    scores = scale * torch.tensor([2.0, 3.0, 4.0, 5.0])
    ours = float(binary_average_precision(scores, truth)), float(binary_auroc(scores, truth))
    theirs = average_precision_score(truth, scores), roc_auc_score(truth, scores)
    print(
        f"torchmetrics {torchmetrics.__version__}, scores {scores.tolist()}: "
        f"average precision {ours[0]:.3f}, AUROC {ours[1]:.3f}; "
        f"scikit-learn {theirs[0]:.3f}, {theirs[1]:.3f}"
    )
    assert abs(theirs[0] - 0.8333) < 1e-3 and theirs[1] == 0.75
    assert ours == (0.5, 0.5) if tied else abs(ours[0] - theirs[0]) < 1e-6 and ours[1] == 0.75
PY
