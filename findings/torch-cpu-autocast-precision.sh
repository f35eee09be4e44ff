#!/usr/bin/env bash
# torch 2.15.0: autocast on the CPU computes softmax, log_softmax, layer_norm and the norms in
# bf16.
#
# Guess: as on CUDA (whose list of float32 operations has softmax, log_softmax, layer_norm, norm,
#        pow, exp, sum), these are computed and returned in float32.
# Seen:  on the CPU they take and return bfloat16. Only cross_entropy, nll_loss, mse_loss, kl_div
#        and a few others are raised to float32, too late for logits that are rounded already.
#        Log-probabilities over 65,536 prototypes, as DINO's loss takes them, lie near -11.09:
#        there bf16 has steps of 1/16, so 262,144 of them come out as some 20 values.
# Hurts: whoever checks a recipe on a CPU before it goes to a GPU, or trains on one: the same code
#        has another precision. Computing losses in float32, outside of autocast, avoids it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 torch==2.15.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import torch
import torch.nn.functional as F

generator = torch.Generator().manual_seed(0)
hidden = torch.randn(8, 16, generator=generator)
with torch.autocast("cpu", dtype=torch.bfloat16):
    hidden = F.linear(hidden, torch.eye(16))
    results = {
        "softmax": F.softmax(hidden, -1),
        "log_softmax": F.log_softmax(hidden, -1),
        "layer_norm": F.layer_norm(hidden, (16,)),
        "normalize": F.normalize(hidden, dim=-1),
        "logsumexp": torch.logsumexp(hidden, -1),
        "norm": hidden.norm(dim=-1),
        "exp": hidden.exp(),
        "pow": hidden.pow(2),
        "sum": hidden.sum(),
        "cross_entropy": F.cross_entropy(hidden, torch.zeros(8, dtype=torch.long)),
        "mse_loss": F.mse_loss(hidden, hidden / 2),
    }
kept = sorted(name for name, value in results.items() if value.dtype == torch.bfloat16)
raised = sorted(name for name, value in results.items() if value.dtype == torch.float32)
print(f"torch {torch.__version__}, CPU autocast")
print(f"  bf16: {', '.join(kept)}\n  fp32: {', '.join(raised)}")
assert raised == ["cross_entropy", "mse_loss"]

features = torch.randn(4, 64, generator=generator)
prototypes = torch.randn(65536, 64, generator=generator) / 64
exact = F.log_softmax(features @ prototypes.T, -1)
with torch.autocast("cpu", dtype=torch.bfloat16):
    rounded = F.log_softmax(F.linear(features, prototypes), -1)
levels = len(rounded.unique())
print(
    f"  log-probabilities of {exact.numel()} prototypes: {len(exact.unique())} distinct values, "
    f"{levels} under autocast; largest error {(exact - rounded).abs().max():.3f}"
)
assert levels < 100 < len(exact.unique())
assert (exact - rounded).abs().max() > 0.02
PY
