"""What planting a shortcut costs: a batch gathered with it and without, beside one training step of ST on that batch.

ST takes the fewest passes of all methods, so planting has its largest share of a step there. The sides run in turn::

    python benchmarks/planting.py --write docs/shortcuts.md
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import asgt
from asgt.data import Images, to_unit
from asgt.models import build_model
from page import replace_section
from timing import in_turn, machine

__all__ = ["main"]

NETS = (("mnist", "small_cnn", 0.5), ("cifar10", "resnet18", 0.125))
PLANTS = (
    "patch:0.99",
    "patch:0.99,size=2,code=position",
    "background:0.99",
    "background:0.99,code=texture",
    "disc:0.99",
)
BATCH, IMAGES = 128, 3000


def row(data: str, model: str, width: float, shortcut: str, images: Images, repetitions: int) -> str:
    """A row of the table: median milliseconds of both ways to gather, of the step, and the share of the step."""

    planted = asgt.data.plant(images, shortcut)
    net = build_model(model, images.shape, len(images.classes), width=width).train()
    optimizer, objective = torch.optim.SGD(net.parameters(), lr=0.01), asgt.ST()
    orders = [torch.randperm(len(images))[:BATCH] for _ in range(repetitions)]
    plain_batches, planted_batches = iter(orders), iter(orders)

    def step(x: Tensor, y: Tensor) -> None:
        loss = objective(net, x, y).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    x, y = to_unit(images.pixels[:BATCH]), images.labels[:BATCH]
    step(x, y)
    taken = in_turn(
        {
            "plain": lambda: images.pixels[next(plain_batches)],
            "planted": lambda: planted.pixels[next(planted_batches)],
            "step": partial(step, x, y),
        },
        repetitions,
    )
    plain, with_shortcut, whole = (1000 * median(taken[side].seconds) for side in ("plain", "planted", "step"))
    share = 100 * (with_shortcut - plain) / whole
    cells = [data, f"`{model}`, width {width:g}", f"`{shortcut}`", f"{plain:.2f}", f"{with_shortcut:.2f}"]
    return f"| {' | '.join([*cells, f'{whole:.1f}', f'{share:.2f} %'])} |"


def main() -> None:
    """Runs the command line."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100, help="batches of each case (default: 100)")
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{machine(['torch'])}; batches of {BATCH}, medians of {asked.repetitions}, in milliseconds.",
        "",
        "| data | net | shortcut | gathered without it | with it | step of ST | planting, share of the step |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, model, width in NETS:
        images = asgt.load_data(data, limit=IMAGES).train
        for shortcut in PLANTS:
            lines.append(row(data, model, width, shortcut, images, asked.repetitions))
            print(lines[-1], flush=True)
    if asked.write is not None:
        replace_section(asked.write, "planting", "\n".join(lines))


if __name__ == "__main__":
    main()
