#!/usr/bin/env bash
# scikit-learn 1.9.1: PCA of tall float32 features loses the spectrum below 1/1000 of its largest
# value.
#
# Guess: PCA().fit gives singular values that are right to three digits, in float32 as in float64.
# Seen:  for many samples of few features, svd_solver="auto" means "covariance_eigh": it squares
#        the features, so a float32 spectrum is right down to about 1/1000 of the largest value
#        only. Of 64 values from 1 to 1e-6 the middle ones are off by a factor, the small ones come
#        out as 0. svd_solver="full" on the same float32 array is right to better than 1 per cent.
# Hurts: label-free measures of representations that read the spectrum (RankMe, effective rank,
#        power-law exponents) and whitening: features from a network are float32 and tall, and
#        their dimensions collapse just there. svd_solver="full", or float64, avoids it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 scikit-learn==1.9.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import sklearn
from sklearn.decomposition import PCA

random = np.random.default_rng(0)
left = random.standard_normal((5000, 64))
left = np.linalg.qr(left - left.mean(0))[0]
right = np.linalg.qr(random.standard_normal((64, 64)))[0]
true = 10.0 ** np.linspace(0, -6, 64)
features = (left * true) @ right


def ratios(features, solver):
    fitted = PCA(svd_solver=solver).fit(features)
    return fitted._fit_svd_solver, fitted.singular_values_ / true


print(f"scikit-learn {sklearn.__version__}: singular values found / true, for true values of")
print("  " + ", ".join(f"{true[index]:.0e}" for index in (0, 20, 42, 52, 63)))
found = {}
for kind in (np.float64, np.float32):
    for solver in ("auto", "full"):
        used, found[kind, solver] = ratios(features.astype(kind), solver)
        shown = ", ".join(f"{found[kind, solver][index]:.3g}" for index in (0, 20, 42, 52, 63))
        print(f"  {kind.__name__}, {solver} ({used}): {shown}")
wrong = np.abs(found[np.float32, "auto"] - 1) > 0.1
assert not wrong[:25].any() and wrong[50:].mean() > 0.8
assert np.abs(found[np.float64, "auto"] - 1).max() < 0.01
assert np.abs(found[np.float32, "full"] - 1).max() < 0.05
PY
