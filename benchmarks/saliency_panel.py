"""Relative max-sensitivity against Quantus, and what the whole panel of five models takes.

Both sides of the first table run in one process on the same model and images, one after the other and again, after a
warm-up. Run it with ``make bench``, or one table with ``python benchmarks/saliency_panel.py --only sensitivity``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import quantus
import torch
from torch import Tensor, nn

import asgt
from asgt.data import sample, to_unit
from asgt.explanation import MEASURES, explain, panel, strokes
from asgt.explanation.measures.sensitivity import DRAWS, RADIUS, max_sensitivity
from asgt.saliency import saliency, to_numpy
from nets import NETS, net
from page import replace_section
from timing import in_turn, machine, verdict

__all__ = ["main", "quantus_max_sensitivity"]

SENSITIVITY_IMAGES, SENSITIVITY_FASTER, SENSITIVITY_APART = 64, 5.0, 1e-4
PANEL_IMAGES, PANEL_MODELS, PANEL_SECONDS = 256, 5, 120.0
THREADS = {"sensitivity": 1, "panel": 2}

Perturbation = Callable[..., "np.ndarray[Any, Any]"]


def quantus_max_sensitivity(
    model: nn.Module, x: Tensor, y: Tensor, radius: float, draws: int, perturbed: Perturbation | None = None
) -> Tensor:
    """Max-sensitivity (N,) as a user of Quantus asks for it: the signed gradient by its ``explain``, all in one batch.

    Args:
        model: the classifier.
        x: images (N, C, H, W).
        y: labels (N,).
        radius: of the uniform noise.
        draws: perturbed copies of each image.
        perturbed: makes a copy of flattened images. Default: Quantus' own uniform noise.
    """

    metric = quantus.MaxSensitivity(
        nr_samples=draws, lower_bound=radius, perturb_func=perturbed, disable_warnings=True, normalise=False, abs=False
    )
    found = metric(
        model=model,
        x_batch=to_numpy(x),
        y_batch=y.numpy(),
        a_batch=None,
        explain_func=quantus.explain,
        explain_func_kwargs={"method": "Gradient"},
        batch_size=len(x),
    )
    return torch.as_tensor(np.asarray(found))


def our_noise(x: Tensor, radius: float) -> Perturbation:
    """Perturbs as ours does, draw by draw, so that both sides measure the same copies."""

    noise = asgt.SampleKeyed(0, torch.arange(len(x)))

    def perturbed(arr: np.ndarray[Any, Any], **_: Any) -> np.ndarray[Any, Any]:
        delta = radius * (2 * noise.uniform_like(x) - 1)
        moved: np.ndarray[Any, Any] = arr + delta.flatten(1).numpy()
        return moved

    return perturbed


def sensitivity(repetitions: int) -> str:
    """Relative max-sensitivity of the small CNN's gradients."""

    images = sample(net("standard")[1], SENSITIVITY_IMAGES)
    x, y = to_unit(images.pixels), images.labels
    torch.manual_seed(0)
    model = asgt.build_model("small_cnn", images.shape, len(images.classes)).eval().requires_grad_(False)

    ours, theirs = (
        partial(side, model, x, y, radius=RADIUS, draws=DRAWS) for side in (max_sensitivity, quantus_max_sensitivity)
    )
    found, peer = ours(batch_size=len(x)), theirs(perturbed=our_noise(x, RADIUS))
    apart = float(((found - peer).abs() / peer).max())

    sides: dict[str, Callable[[], Any]] = {"quantus": theirs, "asgt": partial(ours, batch_size=len(x))}
    sides["gradients"] = partial(gradients_alone, model, x, y)
    taken = in_turn(sides, repetitions)
    ratio = taken["quantus"].median / taken["asgt"].median
    met = verdict(time=ratio >= SENSITIVITY_FASTER, values=apart <= SENSITIVITY_APART)
    return "\n".join(
        [
            "| model | images | draws | Quantus' seconds | our seconds | gradients alone | faster | target | "
            "values apart | met |",
            "|---|---|---|---|---|---|---|---|---|---|",
            f"| small CNN | {len(x)} | {DRAWS} | {taken['quantus']} | {taken['asgt']} | {taken['gradients']} | "
            f"**{ratio:.1f}×** | ≥ {SENSITIVITY_FASTER:g}× | {apart:.1g} | {met} |",
        ]
    )


def gradients_alone(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """As many gradients as the measure takes, and nothing else: what no implementation gets around."""

    for _ in range(DRAWS + 1):
        saliency(model, x, y)


def whole_panel(repetitions: int) -> str:
    """Every measure of five models on the same images, and the comparison of them."""

    nets = {name: net(name) for name in NETS}
    images = sample(next(iter(nets.values()))[1], PANEL_IMAGES)
    models = [list(nets.values())[number % len(nets)][0] for number in range(PANEL_MODELS)]
    objects = strokes(images)

    def whole() -> tuple[float, float]:
        began = time.process_time()
        named = {
            f"model {number}": [explain(model, images, eps=0.3, objects=objects)]
            for number, model in enumerate(models, start=1)
        }
        explained = time.process_time()
        compared = panel(named)
        for measure in MEASURES:
            compared.differences(measure.name)
        return time.process_time() - began, time.process_time() - explained

    taken = in_turn({"asgt": whole}, repetitions)["asgt"]
    (processor, comparing), met = taken.answers[0], verdict(time=taken.median <= PANEL_SECONDS)
    return "\n".join(
        [
            "| models | images | seconds | target | processor seconds | of them comparing | met |",
            "|---|---|---|---|---|---|---|",
            f"| {PANEL_MODELS} | {PANEL_IMAGES} | **{taken}** | ≤ {PANEL_SECONDS:g} | {processor:.1f} | "
            f"{comparing:.1f} | {met} |",
        ]
    )


SECTIONS = {"sensitivity": sensitivity, "panel": whole_panel}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times max-sensitivity against Quantus, and the whole panel.")
    parser.add_argument("--only", choices=tuple(SECTIONS), help="one of the tables (default: both)")
    parser.add_argument("--repetitions", type=int, default=9, help="of the first; the panel runs once (default: 9)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the comments of a page too")
    asked = parser.parse_args()

    for name in [asked.only] if asked.only else SECTIONS:
        torch.set_num_threads(THREADS[name])
        repetitions = asked.repetitions if name == "sensitivity" else 1
        here = machine(("torch", "captum", "quantus") if name == "sensitivity" else ("torch",))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"quantus\.")
            table = SECTIONS[name](repetitions)
        text = f"{here}; {repetitions} repetition(s).\n\n{table}"
        print(f"\n## {name}\n\n{text}", flush=True)
        if asked.write is not None:
            replace_section(asked.write, name, text)


if __name__ == "__main__":
    main()
