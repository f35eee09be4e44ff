#!/usr/bin/env bash
# safetensors 0.8.0: a file with two or more metadata entries has other bytes every time it is
# saved.
#
# Guess: the same tensors with the same metadata give the same file.
# Seen:  the tensors are equal, but the header lists the metadata in random order: 30 saves of one
#        dictionary with four entries gave more than 5 different hashes. With one entry there is
#        one.
# Hurts: whoever names checkpoints by their hash, deduplicates them, signs them, or tests that a
#        resumed training ends with the same file. One entry (or one JSON text in it) avoids it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 safetensors==0.8.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import hashlib

import numpy as np
import safetensors
from safetensors.numpy import load, save

tensors = {"weight": np.arange(6, dtype=np.float32), "bias": np.zeros(2, dtype=np.float32)}
several = {"format": "pt", "epoch": "3", "method": "simclr", "backbone": "resnet18"}


def hashes(metadata):
    return {hashlib.sha256(save(tensors, metadata)).hexdigest() for _ in range(30)}


one, four = len(hashes({"format": "pt"})), len(hashes(several))
print(
    f"safetensors {safetensors.__version__}: 30 saves, distinct files: "
    f"{one} with one metadata entry, {four} with four"
)
assert one == 1
assert four > 5
assert all(np.array_equal(load(save(tensors, several))[key], tensors[key]) for key in tensors)
PY
