"""One small model of every timm family as a base: two SimCLR steps with a convolution head and an
attention head, and what else it can do.

    OMP_NUM_THREADS=1 python -m benchmarks.backbones --minutes 60 --out backbones.jsonl \\
        --page docs/backbones.md

A family is a module of timm.models; of each a model with few parameters is taken, with random
weights, at the first of a few image sizes that it takes. Every family has a process of its own,
with a limit of time and of memory. Started again with the same --out, this continues with the
families that did not work or were not reached. Ends with the page, a table in Markdown.
"""

from __future__ import annotations

import argparse
import math
import platform
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from benchmarks.recording import Deadline, execute
from hssl_search.backbones import Base, Masking, default_image_size, residual_blocks
from hssl_search.data.views import Views, ViewsConfig
from hssl_search.engine.execution.jobs import Job, Plain, Send, State, Task
from hssl_search.errors import UserError
from hssl_search.heads.head import build_head
from hssl_search.methods.simclr import SimCLR, SimCLRConfig
from hssl_search.training.pair import Pair

MODELS = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "mobileone_s1",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_zepto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "mobilenetv2_035",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "maxvit_pico_rw_256",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet10t",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window16_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "vit_tiny_patch16_224",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}
"""By family: a model with few parameters, and none of those that timm has for its own tests."""
SIDES = (64, 56, 96, 128, 224)
"""Image sizes to try, in this order, and at last the model's own; 56 is for patches of 7 and 14
pixels."""
LOCAL = (1 / 2, 3 / 4, 3 / 2)
"""Sizes of local crops to try, as shares of the image size; the largest for a model that is at its
smallest size already."""
IMAGES = 2
"""In a batch, each with two views."""
HEADS: list[dict[str, Any]] = [
    {"family": family, "depth": 1, "width_ratio": 0.25} for family in ("convnext", "transformer")
]
PRELOAD = [
    "timm",
    "hssl_search.data.views",
    "hssl_search.heads.head",
    "hssl_search.heads.families",
    "hssl_search.methods.simclr",
    "hssl_search.training.pair",
]
"""Imported once, for the processes of all families."""

Row = dict[str, Any]


class Fault(Exception):
    """Why a model does not work as a base, in one sentence."""


def examine(family: str) -> Row:
    """Return what the family's model does as a base.

    Raises:
        Fault: when it does not work; or UserError.
    """
    if family not in MODELS:
        raise Fault("no model of this family is chosen in MODELS")
    torch.manual_seed(0)
    base = smallest_base(MODELS[family])
    row = {
        "parameters": sum(weight.numel() for weight in base.parameters()),
        "side": base.image_size,
        "maps": base.tap_shapes,
        "embedding": base.embedding_width,
        "silent": train(base),
    }
    check_features(base)
    return {**row, "masks": hides(base), "local": local_crop(base), "blocks": blocks(base)}


def smallest_base(model: str) -> Base:
    """Return the base at the first image size that the model takes with a map of more than one
    position, and with two taps or else one."""
    for side in (*SIDES, default_image_size(model)):
        for taps in (2, 1):
            with suppress(UserError):
                base = Base(model, side, taps=taps)
                if min(base.map_shape[1:]) > 1:
                    return base
    return Base(model, default_image_size(model))  # says why not


def train(base: Base) -> list[str]:
    """Train two steps of SimCLR with both heads, and return the names of the base's parameters
    whose gradient is none or zero in the second.

    In the first, every parameter behind a gate that starts at zero has a gradient of zero.
    """
    pair = Pair(
        base,
        [build_head(head, base.map_shape[0]) for head in HEADS],
        SimCLR(SimCLRConfig(projector_hidden=64, projector_out=32)),
    )
    generator, views = (
        torch.Generator().manual_seed(0),
        Views(ViewsConfig(), base.image_size, *base.mean_std),
    )
    images = torch.randint(
        0,
        256,
        (IMAGES, 3, base.image_size, base.image_size),
        dtype=torch.uint8,
        generator=generator,
    )
    optimizer = torch.optim.SGD(pair.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        loss = pair.losses(views.batch(images, generator), progress=0.0).total
        loss.backward()
        check_step(pair, loss)
        optimizer.step()
    return [
        name
        for name, weight in base.model.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]


def check_step(pair: Pair, loss: Tensor) -> None:
    if not loss.isfinite():
        raise Fault(f"the loss is {loss.item()}")
    for name, weight in pair.named_parameters():
        if weight.grad is None and not name.startswith("student.base."):
            raise Fault(f"{name} gets no gradient")
        if weight.grad is not None and not weight.grad.isfinite().all():
            raise Fault(f"the gradient of {name} is not finite")


@torch.no_grad()
def check_features(base: Base) -> None:
    """Check that a pass gives maps of the promised shapes, and the embedding that timm gives."""
    base.eval()
    features, expected = base(noise(base.image_size)), base.model(noise(base.image_size))
    shapes = [tuple(tapped.shape[1:]) for tapped in features.tapped]
    if shapes != base.tap_shapes or shapes[0] != tuple(features.map.shape[1:]):
        raise Fault(f"the maps have shapes {shapes}, not {base.tap_shapes}")
    if features.embedding.shape != (IMAGES, base.embedding_width) or not torch.allclose(
        features.embedding, expected, atol=1e-4
    ):
        raise Fault(
            f"the embedding, of shape {tuple(features.embedding.shape)}, is not what timm gives"
        )


def hides(base: Base) -> bool:
    """Return whether tokens can be hidden. Raises Fault when the pixels behind hidden ones still
    change something."""
    if base.mask_grid is None:
        return False
    height, width = base.mask_grid
    mask = torch.zeros(IMAGES, height, width, dtype=torch.bool)
    mask[..., : width // 2] = True
    token, images = (
        torch.zeros(base.token_width, requires_grad=True),
        noise(base.image_size).requires_grad_(),
    )
    features = base.eval()(images, Masking(mask, token))
    sight, shown = torch.autograd.grad(
        features.embedding.square().sum() + features.map.square().sum(), (images, token)
    )
    if sight[..., : base.image_size // width * (width // 2)].any():
        raise Fault("the pixels behind hidden tokens change what it gives")
    if not shown.any():
        raise Fault("what stands for hidden tokens changes nothing")
    return True


def local_crop(base: Base) -> int | None:
    """Return the side of images of another size that go through too; None where there is none.
    Raises Fault when allowing them changes the map."""
    other = Base(base.name, base.image_size, any_size=True).eval()
    other.model.load_state_dict(base.model.state_dict())
    with torch.no_grad():
        found, expected = other(noise(base.image_size)), base.eval()(noise(base.image_size))
    if not torch.allclose(found.map, expected.map, atol=1e-4):
        raise Fault("allowing local crops changes the map")
    for share in LOCAL:
        with suppress(UserError):
            other.require_size(int(share * base.image_size))
            return int(share * base.image_size)
    return None


def blocks(base: Base) -> int | None:
    """Return over how many blocks stochastic depth is spread; None where there is none."""
    with suppress(UserError):
        return residual_blocks(base.name, base.image_size, {})
    return None


def noise(side: int) -> Tensor:
    return torch.randn(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(1))


def send_row(family: str, gigabytes: float, sender: Connection) -> None:
    """Examine a family in this process, with that much memory, and send its row whatever
    comes of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30),) * 2)
    torch.set_num_threads(1)
    try:
        sender.send(examine(family))
    except Exception as error:
        sender.send({"fault": (str(error).strip().splitlines() or [type(error).__name__])[0]})


def row_of(family: str, seconds: float, gigabytes: float) -> Row:
    """Return the row of a family, from a process of its own."""
    context, started = get_context("forkserver"), time.monotonic()
    context.set_forkserver_preload(PRELOAD)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_row, args=(family, gigabytes, sender))
    process.start()
    sender.close()
    try:
        row = (
            receiver.recv()
            if receiver.poll(seconds)
            else {"fault": f"it took more than {seconds:g} s"}
        )
    except EOFError:
        row = {"fault": f"its process ended without a word; it had {gigabytes:g} GB"}
    process.kill()
    process.join()
    return {
        "family": family,
        "model": MODELS.get(family),
        **row,
        "seconds": round(time.monotonic() - started, 1),
    }


def run(job: Job, send: Send, seconds: float, gigabytes: float) -> None:
    """Examine the family that a job is named after."""
    row = row_of(job.key, seconds, gigabytes)
    if "fault" in row:
        raise UserError(row["fault"])
    send(1, row)


def work(given: argparse.Namespace) -> list[Row]:
    """Examine what is missing until the time is over, and return the rows of all families
    reached."""
    families = timm.list_modules()
    jobs = [
        Job(
            family,
            "backbones",
            Task.model_construct(steps=1),
            str(given.out.with_suffix("") / family),
        )
        for family in families
    ]
    worker = partial(run, seconds=given.seconds, gigabytes=given.gigabytes)
    known = execute(worker, jobs, given.out, Deadline(given.minutes), Deadline(math.inf)).known
    return [_row(known[family]) for family in families if known.get(family, {}).get("state")]


def _row(record: Plain) -> Row:
    if record["state"] == State.DONE.value:
        return record["reports"][-1]["metrics"]
    return {"family": record["key"], "model": MODELS.get(record["key"]), "fault": record["cause"]}


COLUMNS: dict[str, Callable[[Row], str]] = {
    "family": lambda row: row["family"],
    "model": lambda row: row["model"],
    "parameters": lambda row: f"{row['parameters'] / 1e6:.1f} M",
    "image": lambda row: f"{row['side']}",
    "map": lambda row: shape(row["maps"][0]),
    "map before it": lambda row: shape(row["maps"][1]) if len(row["maps"]) > 1 else "none",
    "embedding": lambda row: f"{row['embedding']}",
    "masks": lambda row: "yes" if row["masks"] else "no",
    "local crops": lambda row: f"{row['local']}" if row["local"] else "no",
    "stochastic depth": lambda row: f"{row['blocks']}" if row["blocks"] else "no",
    "no gradient": lambda row: names(row["silent"]),
}


def shape(of_map: list[int]) -> str:
    return " x ".join(map(str, of_map))


def names(silent: list[str]) -> str:
    return ", ".join(silent[:2]) + (f" and {len(silent) - 2} more" if len(silent) > 2 else "")


def page(rows: list[Row]) -> str:
    """Return the table in Markdown, with what its columns mean and how it came about."""
    working = [row for row in rows if "fault" not in row]
    can = {name: sum(bool(row[name]) for row in working) for name in ("masks", "local", "blocks")}
    cells = [[column(row) for column in COLUMNS.values()] for row in working]
    lines = [
        "| " + " | ".join(line) + " |" for line in (list(COLUMNS), ["---"] * len(COLUMNS), *cells)
    ]
    failures = [
        f"* {row['family']} ({row['model']}): {row['fault']}." for row in rows if "fault" in row
    ]
    return PAGE.format(
        works=len(working),
        all=len(timm.list_modules()),
        table="\n".join(lines),
        **can,
        sides=", ".join(map(str, SIDES)),
        failures="\n".join(["What does not work:", "", *failures, "", ""]) if failures else "",
        timm=version("timm"),
        torch=version("torch"),
        python=platform.python_version(),
    )


PAGE = """# Every timm family as a base

{works} of the {all} families of timm {timm} work as a base. This page was written by

    OMP_NUM_THREADS=1 python -m benchmarks.backbones --minutes 60 --out backbones.jsonl \\
        --page docs/backbones.md

with torch {torch} and Python {python}, on a CPU. A family is a module of `timm.models`. One small
model of each family was tried, with random weights. It works when

* two steps of SimCLR with a ConvNeXt head and a Transformer head on its map have finite losses and
  gradients,
* its maps have the shapes that `Base` states, and
* its embedding is the one that timm gives.

The columns of the table:

* image: the side in pixels of the square images: the first of {sides}
  and the model's own that gives a map of more than one position. On a single position a head has
  nothing to mix.
* map and map before it: C x h x w of the maps that feed the heads, with tap 0 and tap 1.
* masks ({masks} families): patches can be hidden, as in iBOT; pixels that were hidden then changed
  nothing. The other models have no tokens on the map's grid, embed overlapping patches, or keep
  their patch embedding elsewhere than timm's vision transformers do.
* local crops ({local}): the side of other images that the same model takes, as multi-crop needs.
  The other models have position embeddings or windows that are made for one size.
* stochastic depth ({blocks}): the number of blocks over which timm spreads it, or 2 where all
  blocks have the same rate; "no" where timm has none.
* no gradient: parameters of the base whose gradient was none or zero in the second step.

{failures}{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="no family begins after them")
    parser.add_argument("--seconds", type=float, default=300, help="for one family")
    parser.add_argument("--gigabytes", type=float, default=10, help="of memory, for one family")
    parser.add_argument("--out", type=Path, default=Path("backbones.jsonl"))
    parser.add_argument("--page", default="backbones.md")
    given = parser.parse_args()
    Path(given.page).write_text(page(work(given)), encoding="utf-8")


if __name__ == "__main__":
    main()
