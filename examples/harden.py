"""Harden a classifier that somebody else trained, and see what it gains, what it loses and where it looks.

The classifier is the CIFAR-10 ResNet-18 that the package pyautoattack ships with its examples: its code, its weights,
92 % accuracy, and none at all under an attack of 8/255. It is evaluated as it is, trained on from its weights by AT and
by ASGT with as many passes, evaluated again, explained, and put on one page:

    pip install 'asgt[autoattack]'
    python examples/harden.py                            # on two cores an hour and a half, of which training is a half
    python examples/harden.py --batches 5 --batch-size 16 --samples 16 --epsilons 8/255 --explain 2   # in minutes

Every step is a command of asgt, which is printed before it runs; with --model, --weights and --data of your own they
harden your classifier. Stopped or killed, the same call goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.util import find_spec
from math import ceil
from pathlib import Path

MODEL = "pyautoattack.examples.resnet:ResNet18"
WEIGHTS = "model_test.pt"
EPS = "8/255"

CLASSES, VALIDATION = 10, 0.01
PASSES = {"at": 5, "asgt": 13}
"""Of a step with one step of attack from a random start inside: what `asgt profile --attack fgsm-rs` prints."""


def asgt(*words: object) -> None:
    """Prints a command and runs it; ends this script where it fails."""

    command = [str(word) for word in words]
    print("\n$ asgt " + " ".join(command), flush=True)
    if code := subprocess.call([sys.executable, "-m", "asgt", *command]):  # noqa: S603, the commands below
        sys.exit(code)


def length(batches: int, size: int) -> tuple[int, list[object]]:
    """The epochs and the settings by which a run sees so many batches of a size: two passes, or one if they are odd."""

    epochs = 1 if batches % 2 else 2
    trained = size * batches / epochs
    # A little over, for whole batches are trained on; an image of each class is left for the validation at least.
    images = ceil(max(trained / (1 - VALIDATION), trained + CLASSES)) + size // 4
    return epochs, ["--limit", images, "--validation", VALIDATION, "--batch-size", size]


def train(out: Path, method: str, batches: int, size: int, *more: object) -> None:
    """Trains on from the weights for so many batches of a size."""

    if (out / "training.json").exists():
        return
    epochs, images = length(batches, size)
    attack = ["--method", method, "--attack", "fgsm-rs", "--eps", EPS, "--keep", "last"]
    # Each image is seen twice at most, so shifting and flipping it has no use yet.
    settings = [*attack, "--augment", "none", "--epochs", epochs, *images, *more]
    asgt("train", *settings, "--out", out, *(["--resume"] if (out / "config.yaml").exists() else []))


def evaluate(run: Path, protocol: str, samples: int, epsilons: str) -> None:
    """Attacks the first test images by a protocol."""

    folder = run / "evaluation" / protocol
    if not (folder / "result.json").exists():
        chosen = ["--protocol", protocol, "--samples", samples, "--epsilons", epsilons]
        asgt("evaluate", run, "--model", MODEL, *chosen, *(["--resume"] if folder.exists() else []))


def main() -> None:
    parser = argparse.ArgumentParser(description="Hardens a CIFAR-10 ResNet-18 that somebody else trained.")
    parser.add_argument("--out", type=Path, default=Path("hardened"), help="where runs and page go (default: hardened)")
    parser.add_argument("--batches", type=int, default=1000, help="that AT is trained on (default: 1000)")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch of training (default: 64)")
    parser.add_argument("--samples", type=int, default=500, help="test images of protocol pgd (default: 500)")
    parser.add_argument("--epsilons", default=f"2/255,4/255,{EPS}", help=f"of it (default: 2/255,4/255,{EPS})")
    parser.add_argument("--standard", type=int, default=0, help="test images of protocol standard (default: none)")
    # The measures need 100 images that all three networks classify correctly: of the first 128, these are 97.
    parser.add_argument("--explain", type=int, default=192, help="test images that are explained (default: 192)")
    parser.add_argument("--precision", default="fp32", help="bf16 is faster where the processor has it (default: fp32)")
    asked = parser.parse_args()
    package = find_spec("pyautoattack")
    if package is None or package.origin is None:
        sys.exit("harden.py: the network comes with pyautoattack: pip install 'asgt[autoattack]'")
    weights = Path(package.origin).parent / "examples" / WEIGHTS

    start = ["--data", "cifar10", "--model", MODEL, "--weights", weights, "--precision", asked.precision]
    before, at, saliency = (asked.out / name for name in ("before", "at", "asgt"))
    if not (before / "training.json").exists():
        _, images = length(asked.batches, asked.batch_size)
        asgt("train", *start, "--method", "st", "--epochs", 0, *images, "--out", before)
    train(at, "at", asked.batches, asked.batch_size, *start)
    train(saliency, "asgt", max(1, asked.batches * PASSES["at"] // PASSES["asgt"]), asked.batch_size, *start)

    runs = (before, at, saliency)
    for run in runs:
        evaluate(run, "pgd", asked.samples, asked.epsilons)
        if asked.standard:
            evaluate(run, "standard", asked.standard, EPS)
    if not (asked.out / "page" / "report.html").exists():
        explained = ["--model", MODEL, "--samples", min(asked.explain, asked.samples)]
        asgt("explain", *runs, *explained, "--out", asked.out / "page")

    for run in runs:
        result = json.loads((run / "training.json").read_text(encoding="utf-8"))
        print(f"{run}: trained for {result['seconds'] / 60:.1f} minutes")
    print(f"the page: {asked.out / 'page' / 'report.html'}")


if __name__ == "__main__":
    main()
