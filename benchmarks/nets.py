"""The two nets that the benchmarks attack: trained once, then taken up.

Both are those of the preset ``mnist-laptop`` with seed 0: AlexNet at a quarter of its width on MNIST, once by standard
training, once by adversarial training with PGD-7 at ε = 0.3.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

import asgt

__all__ = ["NETS", "net"]

RUNS = Path(__file__).parent / "runs"
NETS = {"standard": ("st", None), "adversarial": ("at", "pgd")}
"""By name, the method of the preset and the attack inside it."""


def net(name: str) -> tuple[nn.Module, asgt.Images]:
    """A net in evaluation mode on the CPU, and all test images; trains it if it is not there yet.

    No weight asks for a gradient: a library that would compute those of the weights too is not slower for it.

    Raises:
        InputError: MNIST is not to be had, or ``benchmarks/runs`` holds something else.
    """

    (config,) = (
        config for config in asgt.load_preset("mnist", "laptop").methods if (config.method, config.attack) == NETS[name]
    )
    asgt.train(config, RUNS / name, resume=True)
    model, splits, *_ = asgt.load_run(RUNS / name)
    return model.requires_grad_(False), splits.test
