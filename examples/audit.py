"""Audit a classifier that somebody gives you: attack it, look at each class, and check whether to believe the number.

Two classifiers of digits stand in for somebody's. ``sound`` was trained against attacks. ``rounded`` first rounds each
pixel to 8 levels. Rounding has no gradient: attacks that follow gradients stand still, and the number is far too high.

    python examples/audit.py            # audits both
    python examples/audit.py sound      # or one of them

Each takes some seconds on a CPU. The exit status is 1 if a check fails, as it does for ``rounded``.
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import asgt

EPS, SEED = 0.1, 0


class Rounded(nn.Module):
    """A classifier behind rounding: pixels in [0, 1] become multiples of 1/7."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x * 7).round() / 7)
        return logits


def somebodys(name: str, images: asgt.Images) -> nn.Module:
    """Stands in for somebody's classifier: a small network, for ``sound`` trained against PGD by 5 steps.

    Yours may be any module from images (B, C, H, W) in [0, 1] to logits (B, K): make it, then
    ``asgt.load_weights(model, "net.safetensors")``.
    """

    torch.manual_seed(SEED)
    model = asgt.build_model("small_cnn", shape=images.shape, classes=len(images.classes), width=0.5)
    x, y = images.pixels.float() / 255, images.labels
    attack = asgt.PGD(eps=EPS, steps=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(8):
        for rows in torch.randperm(len(x)).split(64):
            is_attacked = name == "sound" and epoch >= 2
            batch = attack(model, x[rows], y[rows]) if is_attacked else x[rows]
            optimizer.zero_grad()
            F.cross_entropy(model(batch), y[rows]).backward()
            optimizer.step()
    return (Rounded(model) if name == "rounded" else model).eval()


def audit(name: str, model: nn.Module, images: asgt.Images) -> bool:
    """Attacks a classifier, prints what was run and what it gave, and says whether no check failed."""

    print(f"\n== {name}: {len(images)} test images of digits, ε up to {EPS}, seed {SEED}")
    evaluation = asgt.evaluate(model, images, "pgd", epsilons=[EPS / 2, EPS], seed=SEED)
    print(f"{evaluation}\n\nat ε = {EPS}: {evaluation.by_class(EPS)}\n\n{evaluation.checks_table()}")

    failed = [check.name for check in evaluation.checks if check.verdict == "FAIL"]
    if failed:
        # What a check suspects can be tried: Square needs no gradients.
        square = asgt.evaluate(model, images, asgt.Square(steps=500), epsilons=EPS, seed=SEED)
        before, after = (each.robust_accuracy(EPS).percent() for each in (evaluation, square))
        print(f"\n{name}: do not believe {before} % at ε = {EPS}. Failed: {', '.join(failed)}.")
        print(f"Square Attack, 500 queries, without gradients, on the same images: {after} %.")
    else:
        print(f"\n{name}: no check fails; robust accuracy at ε = {EPS}: {evaluation.robust_accuracy(EPS).percent()} %")
    return not failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Audits classifiers; the exit status is 1 if a check fails.")
    parser.add_argument("names", nargs="*", default=["sound", "rounded"], help="sound, rounded (default: both)")
    names = parser.parse_args().names
    if unknown := set(names) - {"sound", "rounded"}:
        parser.error(f"{', '.join(sorted(unknown))}: there are sound and rounded")

    digits = asgt.load_data("digits")
    passed = [audit(name, somebodys(name, digits.train), digits.test) for name in names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
