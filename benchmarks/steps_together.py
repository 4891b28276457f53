"""How many training steps a second some processes take together that share a device: a small net's leave a GPU idle.

ASGT with PGD inside on AlexNet, batches of 128 images of MNIST's shape, at the settings of scale ``paper``. A case is
``PRECISION[+graphs]:PROCESSES``::

    python benchmarks/steps_together.py --device cuda fp32:8 tf32:1 tf32:8 tf32+graphs:1 tf32+graphs:12

Every process warms up, then all begin at one time.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import asgt
from asgt.devices import device_name, place, resolve_device, tensor_cores
from asgt.models import build_model
from asgt.randomness import Generators, seeded
from asgt.training.graphs import GraphedStep
from timing import machine

__all__ = ["main"]

BATCH, SHAPE, EPS, WARM = 128, (1, 28, 28), 0.3, 5
OBJECTIVE = asgt.ASGT(attack=asgt.PGD(EPS, steps=7), mask=asgt.SaliencyMask(0.3))


def stepper(device: torch.device, graphs: bool) -> Callable[[], None]:
    """Takes one training step at each call."""

    model = place(build_model("alexnet", SHAPE, 10, mean=[0.13], std=[0.31]), device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    x, y = torch.rand(BATCH, *SHAPE, device=device), torch.randint(10, (BATCH,), device=device)
    streams = Generators(*(seeded(name, device=device) for name in ("attack", "mask")))

    def gradients(x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators) -> dict[str, Tensor]:
        loss = OBJECTIVE(model, x, y, eps=eps, generator=generators).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return {"loss": loss.detach()}

    compute = GraphedStep(gradients, model) if graphs else gradients

    def step() -> None:
        compute(x, y, EPS, streams)
        optimizer.step()

    return step


def measured(device: torch.device, precision: str, graphs: bool, begin: float, seconds: float) -> float:
    """Steps a second of this process, counted from ``begin`` on."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    torch.set_num_threads(1)
    with tensor_cores(precision == "tf32"):
        step = stepper(device, graphs)
        for _ in range(WARM):
            step()
        wait()
        if (late := time.time() - begin) > 0:
            raise SystemExit(f"set up {late:.1f} s after the others began: a longer --setup")
        time.sleep(-late)
        began, steps = time.time(), 0
        while time.time() - began < seconds:
            step()
            steps += 1
            if steps % 4 == 0:  # or the launches run ahead of the clock
                wait()
        wait()
        return steps / (time.time() - began)


def main() -> None:
    """Runs the command line."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="CASE", help="as tf32+graphs:12")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu (default: auto)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each case (default: 4)")
    parser.add_argument("--setup", type=float, default=15.0, help="seconds that a process has before (default: 15)")
    parser.add_argument("--begin", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = resolve_device(asked.device)
    for case in asked.cases:
        if not re.fullmatch(r"(fp32|tf32)(\+graphs)?(:\d+)?", case):
            parser.error(f"{case!r} is no case: write fp32:8, tf32:8 or tf32+graphs:8")
        if "graphs" in case and device.type != "cuda":
            parser.error(f"{case!r}: a {device.type} device records no graphs")

    if asked.begin is not None:
        precision, _, graphs = asked.cases[0].partition("+")
        print(measured(device, precision, bool(graphs), asked.begin, asked.seconds))
        return
    print(f"{machine(['torch'])}; {device_name(device)}")
    for case in asked.cases:
        how, _, count = case.partition(":")
        own = [sys.executable, __file__, how, "--device", asked.device, "--seconds", str(asked.seconds)]
        own += ["--begin", str(time.time() + asked.setup)]
        team = [subprocess.Popen(own, stdout=subprocess.PIPE, text=True) for _ in range(int(count))]  # noqa: S603
        rates = [float(process.communicate()[0] or "nan") for process in team]
        print(f"{how}, {count} together: {sum(rates):.1f} steps a second", flush=True)


if __name__ == "__main__":
    main()
