#!/usr/bin/env bash
# transformers 5.24.0, timm 1.0.31: one DINOv2's weights, two sets of features away from its own
# size.
#
# Guess: the same weights give the same tokens in both libraries, at any input size both accept.
# Seen:  bit-equal at the size of the position embedding, 0.2 to 1.2 per cent apart elsewhere (here
#        with random weights): timm resamples the embedding with antialiasing, transformers
#        without.
# Hurts: DINOv2 weights are made for 518 pixels and used at 224, so nearly everyone resamples:
#        features, k-NN indices and linear probes of one library do not quite fit the other's
#        backbone.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
"$work/venv/bin/uv" pip install --quiet --python "$work/venv/bin/python" \
    numpy==2.4.6 \
    timm==1.0.31 \
    torch==2.15.0 \
    torchvision==0.29.2 \
    transformers==5.24.0
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import timm
import torch
import transformers
from transformers import Dinov2Config, Dinov2Model

torch.manual_seed(0)
width = 64
ours = timm.models.VisionTransformer(
    img_size=112,
    patch_size=14,
    embed_dim=width,
    depth=2,
    num_heads=2,
    init_values=1.0,
    num_classes=0,
    dynamic_img_size=True,
).eval()
for parameter in ours.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
theirs = Dinov2Model(
    Dinov2Config(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=112,
        patch_size=14,
        layer_norm_eps=1e-6,
    )
).eval()

weights = ours.state_dict()
renamed = {
    "embeddings.cls_token": weights["cls_token"],
    "embeddings.position_embeddings": weights["pos_embed"],
    "embeddings.mask_token": theirs.embeddings.mask_token.detach(),
}
pairs = {"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"}
for block in range(2):
    source, target = f"blocks.{block}", f"encoder.layer.{block}"
    for same in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
        pairs[f"{source}.{same}"] = f"{target}.{same}"
    pairs[f"{source}.attn.proj"] = f"{target}.attention.o_proj"
    for scale in "12":
        renamed[f"{target}.layer_scale{scale}.lambda1"] = weights[f"{source}.ls{scale}.gamma"]
    for kind in ("weight", "bias"):
        for name, part in zip("qkv", weights[f"{source}.attn.qkv.{kind}"].chunk(3), strict=True):
            renamed[f"{target}.attention.{name}_proj.{kind}"] = part
for source, target in pairs.items():
    for kind in ("weight", "bias"):
        renamed[f"{target}.{kind}"] = weights[f"{source}.{kind}"]
theirs.load_state_dict(renamed)

apart = {}
with torch.no_grad():
    for size in (112, 56, 84, 154, 224):
        images = torch.randn(1, 3, size, size)
        tokens = ours.forward_features(images)
        apart[size] = float((theirs(images).last_hidden_state - tokens).norm() / tokens.norm())
print(
    f"timm {timm.__version__}, transformers {transformers.__version__}: "
    "relative difference of the tokens by image size: "
    + ", ".join(f"{size} {value:.1e}" for size, value in apart.items())
)
assert apart.pop(112) < 1e-5
assert min(apart.values()) > 1e-3
PY
