#!/usr/bin/env bash
# timm 1.0.31: reset_classifier(0, "avg") makes another network than
# create_model(global_pool="avg").
#
# Guess: a ViT brought to mean pooling afterwards equals one that was made with it, weights alike.
# Seen:  made with global_pool="avg", it pools and then normalises (`fc_norm`); changed by
#        reset_classifier it normalises and then pools (`norm`). The embeddings of the same weights
#        differ in direction, and their state dicts do not fit: with strict=False the trained norm
#        is dropped and a fresh one used, silently.
# Hurts: whoever pretrains on mean tokens and evaluates, or exports, by the other way. Make it the
#        same way at both ends, or pass the trained `norm.*` as `fc_norm.*` on purpose.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 timm==1.0.31 torch==2.15.0 torchvision==0.29.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import timm
import torch

torch.manual_seed(0)
changed = timm.create_model("test_vit", img_size=64).eval()
made = timm.create_model("test_vit", img_size=64, num_classes=0, global_pool="avg").eval()
changed.reset_classifier(0, "avg")
for parameter in changed.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
result = made.load_state_dict(changed.state_dict(), strict=False)
renamed = {
    key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: value
    for key, value in changed.state_dict().items()
}
made.load_state_dict(renamed)
with torch.no_grad():
    images = torch.randn(8, 3, 64, 64)
    cosine = torch.nn.functional.cosine_similarity(changed(images), made(images))
print(
    f"timm {timm.__version__}: missing {result.missing_keys}, unexpected {result.unexpected_keys}; "
    f"with the norm renamed, cosine of the two embeddings {cosine.min():.3f} to {cosine.max():.3f}"
)
assert result.missing_keys == ["fc_norm.weight", "fc_norm.bias"]
assert result.unexpected_keys == ["norm.weight", "norm.bias"]
assert cosine.max() < 0.999
PY
