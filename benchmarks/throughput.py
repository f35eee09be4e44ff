"""Steps a second of a base without and with each head family.

What the measure phase sees, and what a change to the hot path must not lose.

    python benchmarks/throughput.py --base test_resnet --base-arg output_stride=8 --image-size 32 \\
        --data digits
"""

from __future__ import annotations

import argparse

import torch

from hssl_search.cli import key_value
from hssl_search.engine.execution.jobs import Plain, Setting, Task
from hssl_search.engine.worker.measure import measure
from hssl_search.heads.families import families
from hssl_search.training.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="test_resnet")
    parser.add_argument("--base-arg", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--trainer", default="simclr")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    setting = Setting(
        base=given.base,
        base_args=dict(map(key_value, given.base_arg)),
        image_size=given.image_size,
        data=given.data,
        probe_data=None,
        data_seed=0,
        recipe=Recipe.read(given.trainer).as_plain(),
        device=given.device,
    )
    names = [name for name, family in families().items() if not family.control]
    told: list[Plain] = []
    measure(
        Task(kind="measure", setting=setting, heads=[{"family": name} for name in names]),
        lambda step, known: told.append(known),
    )
    found = told[-1]
    batch = found["batch_size"]
    print(
        f"{given.base}, {given.trainer}, {batch} images a step, {found['precision']}, "
        f"{given.device}, {torch.get_num_threads()} threads"
    )
    print("| head | ms a step | images a second |\n|---|---|---|")
    for name, extra in zip(["none", *names], [0.0, *found["head_step_s"]], strict=True):
        seconds = found["step_s"] + extra
        print(f"| {name} | {1000 * seconds:.1f} | {batch / seconds:,.0f} |")


if __name__ == "__main__":
    main()
