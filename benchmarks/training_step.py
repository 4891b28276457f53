"""A training step against its bare passes, and against the steps that one writes without a thought of passes.

All sides of a comparison run one after the other and then in reverse; medians are compared. A step and the bare passes
beside it make a pair, and their ratio is the median over the pairs. A plain step is taken in a process of its own, as
by a script, and in this one too, whose memory is kept. Run it with ``make bench``, or while at work on a step with
``python benchmarks/training_step.py --net alexnet --only methods``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import asgt
from asgt.data import Augmentation, crop_flip, to_unit, training_batch, training_order
from asgt.devices import place
from asgt.memory import keeps_memory, prepare
from asgt.models.layers import BatchNorm2d, Conv2d
from asgt.passes import input_gradient
from asgt.randomness import Generators, seeded
from asgt.training.augmentation_registry import AUGMENTATIONS, augmentation_named
from asgt.training.timing import in_turn, profile_step
from page import replace_section
from timing import machine

__all__ = ["main"]

NETS = {"resnet18": ((3, 32, 32), 64), "alexnet": ((1, 28, 28), 128)}
"""By name, the shape of the images and the batch size."""

REPETITIONS = {"resnet18": 9, "alexnet": 31}
OVER_BARE, OVER_PLAIN, OVER_LOOP, MASK_OVER_LOOP, DATA_SHARE, MASK_SHARE = 1.05, 1.4, 1.3, 8.0, 0.01, 0.02
EPS, K, LARGE = 8 / 255, 0.1, 224
CPU = torch.device("cpu")

FGSM, PGD, MASK = asgt.FGSM(EPS), asgt.PGD(EPS, steps=2), asgt.SaliencyMask(K)
METHODS: dict[str, asgt.Objective] = {
    "ST": asgt.ST(),
    "AT-FGSM": asgt.AT(FGSM),
    "TRADES-2": asgt.TRADES(PGD),
    "SGT": asgt.SGT(mask=MASK),
    "SGA-FGSM": asgt.SGA(attack=FGSM, mask=MASK),
    "ASGT-FGSM": asgt.ASGT(attack=FGSM, mask=MASK),
    "ASGT-PGD-2": asgt.ASGT(attack=PGD, mask=MASK),
}


class Subject:
    """A net as :func:`asgt.train` has it, the same as one builds it, and a batch."""

    def __init__(self, name: str, repetitions: int | None) -> None:
        self.name = name
        self.repetitions = repetitions or REPETITIONS[name]
        self.shape, self.batch = NETS[name]
        generator = torch.Generator().manual_seed(0)
        self.x = torch.rand(self.batch, *self.shape, generator=generator)
        self.y = torch.randint(10, (self.batch,), generator=generator)
        torch.manual_seed(0)
        self.plain = usual_layers(asgt.build_model(name, self.shape, 10)).train()
        self.net = place(asgt.build_model(name, self.shape, 10), CPU).train()
        self.net.load_state_dict(self.plain.state_dict())
        sgd = partial(torch.optim.SGD, lr=1e-6, momentum=0.9, weight_decay=5e-4)
        self.optimizer = sgd(self.net.parameters(), fused=True)
        self.usual = sgd(self.plain.parameters())

    def ours(self, objective: asgt.Objective) -> None:
        """A step of :func:`asgt.train`."""

        self.optimizer.zero_grad(set_to_none=True)
        objective(self.net, self.x, self.y, generator=streams()).loss.backward()
        self.optimizer.step()

    def theirs(self, loss: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        """A step as one writes it."""

        value = loss(self.plain, self.x, self.y)
        self.usual.zero_grad()
        value.backward()
        self.usual.step()


def usual_layers(net: nn.Module) -> nn.Module:
    """The same net of PyTorch's own layers."""

    usual: dict[type[nn.Module], type[nn.Module]] = {Conv2d: nn.Conv2d, BatchNorm2d: nn.BatchNorm2d}
    for module in net.modules():
        module.__class__ = usual.get(type(module), type(module))
    return net


@contextmanager
def script(net: str, step: str, threads: int) -> Iterator[Callable[[], None]]:
    """A plain step as a script takes it, in a process of its own, whose memory nobody has prepared."""

    # fork would hand on the memory that is kept here.
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    process = spawned.Process(target=follow, args=(there, net, step, threads), daemon=True)
    process.start()

    def ask() -> None:
        here.send(True)
        here.recv()

    ask()
    yield ask
    here.send(False)
    process.join()


def follow(connection: Connection, net: str, step: str, threads: int) -> None:
    """Takes a plain step whenever it is asked for one."""

    torch.set_num_threads(threads)
    subject = Subject(net, None)
    while connection.recv():
        subject.theirs(PLAIN[step])
        connection.send(True)


def streams() -> Generators:
    return Generators(attack=seeded("benchmark", "attack"), mask=seeded("benchmark", "mask"))


def whole_gradient(model: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of the images by a whole backward pass, whose other gradients nobody needs."""

    model.eval()
    model.zero_grad()
    x = x.clone().requires_grad_()
    score(model(x)).backward()
    model.train()
    assert x.grad is not None
    return x.grad


def label_score(y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: logits.gather(1, y[:, None]).sum()


def divergence(masked: Tensor, clean: Tensor) -> Tensor:
    return F.kl_div(clean.log_softmax(1), masked.softmax(1), reduction="batchmean")


def plain_asgt(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """ASGT-FGSM in 15 passes: three views, and a whole backward pass in attack and saliency."""

    slope = whole_gradient(model, x, lambda logits: F.cross_entropy(logits, y))
    x_adv = (x + EPS * slope.sign()).clamp(0, 1)
    scores = MASK.scores_of(whole_gradient(model, x_adv, label_score(y)))
    masked = MASK.apply(x_adv, scores, generator=seeded("benchmark", "mask"))
    clean = model(x)
    return F.cross_entropy(clean, y) + F.cross_entropy(model(x_adv), y) + divergence(model(masked), clean)


def loop_mask(x: Tensor, gradient: Tensor) -> Tensor:
    """The mask sample by sample: the order by PyTorch, the sample's range asked of it, the fill by numpy."""

    masked = x.clone()
    random = np.random.default_rng(0)
    for number in range(len(x)):
        order = gradient[number].abs().mean(dim=0).flatten().argsort()
        hidden = order[: int(K * len(order))]
        for channel in range(x.shape[1]):
            low, high = x[number, channel].min().item(), x[number, channel].max().item()
            values = torch.from_numpy(random.uniform(low, high, size=len(hidden))).to(x)
            masked[number, channel].view(-1)[hidden] = values
    return masked


def loop_sgt(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """SGT with that mask."""

    masked = loop_mask(x, whole_gradient(model, x, label_score(y)))
    clean = model(x)
    return F.cross_entropy(clean, y) + divergence(model(masked), clean)


PLAIN = {"ASGT-FGSM over 15 passes": plain_asgt, "SGT over a loop of samples": loop_sgt}


def methods(subject: Subject) -> list[str]:
    """Each method's step over its bare passes."""

    rows = []
    for name, objective in METHODS.items():
        found = profile_step(
            objective, subject.net, subject.x, subject.y, subject.optimizer, repetitions=subject.repetitions
        )
        low, high = found.interval
        rows.append(
            f"| {subject.name} | {name} | {found.passes} | {1e3 * found.step:.1f} | {1e3 * found.bare:.1f} | "
            f"**{found.ratio:.3f}** [{low:.3f}, {high:.3f}] | ≤ {OVER_BARE:g} | {met(found.ratio <= OVER_BARE)} |"
        )
    return rows


def peers(subject: Subject) -> list[str]:
    """Steps and masks over those that one writes without a thought of passes."""

    gradient = input_gradient(subject.net.eval(), subject.x, label_score(subject.y))[0].contiguous()
    subject.net.train()
    compared = {
        "ASGT-FGSM over 15 passes": ("ASGT-FGSM", OVER_PLAIN),
        "SGT over a loop of samples": ("SGT", OVER_LOOP),
    }
    rows = []
    for what, (name, target) in compared.items():
        with script(subject.name, what, torch.get_num_threads()) as theirs:
            sides: dict[str, Callable[[], object]] = {
                "theirs": theirs,
                "theirs, here": partial(subject.theirs, PLAIN[what]),
                "ours": partial(subject.ours, METHODS[name]),
            }
            taken = in_turn(sides, subject.repetitions, CPU)
        rows.append(compared_row(subject.name, what, taken, target))
    masks: dict[str, Callable[[], object]] = {
        "theirs, here": partial(loop_mask, subject.x, gradient),
        "ours": lambda: MASK.apply(subject.x, MASK.scores_of(gradient), generator=seeded("benchmark", "mask")),
    }
    rows.append(compared_row(subject.name, "its masking alone", in_turn(masks, 51, CPU), MASK_OVER_LOOP))
    return rows


def compared_row(net: str, what: str, taken: dict[str, list[float]], target: float) -> str:
    """A row of medians. Where there is no script of theirs, their step here is compared with ours."""

    here, ours = median(taken["theirs, here"]), median(taken["ours"])
    theirs = median(taken.get("theirs", taken["theirs, here"]))
    told = f"{1e3 * theirs:.2f}" if "theirs" in taken else "as here"
    return (
        f"| {net} | {what} | {told} | {1e3 * here:.2f} | {1e3 * ours:.2f} | {here / ours:.2f}× | "
        f"**{theirs / ours:.2f}×** | ≥ {target:g}× | {met(theirs / ours >= target)} |"
    )


def shares(subject: Subject) -> list[str]:
    """What lies around the passes, as a share of the shortest step that has it."""

    gradient = input_gradient(subject.net.eval(), subject.x, label_score(subject.y))[0]
    subject.net.train()
    pixels = torch.randint(256, (4 * subject.batch, *subject.shape), dtype=torch.uint8)
    images = asgt.Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), ("0", "1"))
    order, generator = training_order(images, 0, 0), seeded("benchmark", "augmentation")
    sides: dict[str, Callable[[], object]] = {
        "ST": partial(subject.ours, METHODS["ST"]),
        "data": lambda: training_batch(images, order, 1, subject.batch, crop_flip, generator),
        "SGT": partial(subject.ours, METHODS["SGT"]),
        "mask": lambda: MASK.apply(subject.x, MASK.scores_of(gradient), generator=seeded("benchmark", "mask")),
    }
    taken = {name: median(seconds) for name, seconds in in_turn(sides, subject.repetitions, CPU).items()}
    rows = []
    for what, part, step, target in (
        ("data, crops and flips", "data", "ST", DATA_SHARE),
        ("mask, its gradient apart", "mask", "SGT", MASK_SHARE),
    ):
        share = taken[part] / taken[step]
        rows.append(
            f"| {subject.name} | {what} | {1e3 * taken[part]:.2f} | {step}: {1e3 * taken[step]:.1f} | "
            f"**{share:.2%}** | ≤ {target:.0%} | {met(share <= target)} |"
        )
    return rows


def augmentations(subject: Subject) -> list[str]:
    """What each augmentation takes of a batch, beside a step of ST, and at the size of ImageNet's images.

    In processor time: an augmentation is so short that it falls between what else the machine does, and a step is not.
    """

    generator = seeded("benchmark", "augmentation")
    sides: dict[str, Callable[[], object]] = {"ST": partial(subject.ours, METHODS["ST"])}
    names = [name for name in AUGMENTATIONS if name != "none"]
    for size in (subject.shape[-1], LARGE):
        pixels = torch.randint(256, (subject.batch, subject.shape[0], size, size), dtype=torch.uint8)
        for name in names:
            sides[f"{name} {size}"] = partial(augmented, augmentation_named(name), pixels, generator)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(subject.repetitions + 1):
        for name, side in sides.items():
            began = time.process_time()
            side()
            seconds[name].append(time.process_time() - began)
    # The first of each warms up.
    taken = {name: median(each[1:]) for name, each in seconds.items()}
    rows = []
    for name in names:
        own, large = (taken[f"{name} {size}"] for size in (subject.shape[-1], LARGE))
        rows.append(
            f"| {subject.name} | `{name}` | {1e3 * own:.2f} | {1e3 * large:.1f} | {1e3 * taken['ST']:.1f} | "
            f"**{own / taken['ST']:.2%}** |"
        )
    return rows


def augmented(augmentation: Augmentation, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A batch as the step wants it: crops and flips give 8-bit images, the others floats."""

    return to_unit(augmentation(pixels, generator))


def met(holds: bool) -> str:
    return "yes" if holds else "no"


TABLES: dict[str, tuple[Callable[[Subject], list[str]], str]] = {
    "methods": (methods, "| net | method | passes | step, ms | bare passes, ms | ratio [95 %] | target | met |"),
    "peers": (
        peers,
        "| net | what | theirs, ms | the same in our process, ms | ours, ms | over that | faster | target | met |",
    ),
    "shares": (shares, "| net | what | ms | of a step, ms | share | target | met |"),
    "augmentations": (
        augmentations,
        f"| net | augmentation | of its batch, ms | of as many images of {LARGE} px, ms | a step of ST, ms | share |",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times training steps against their bare passes and plain versions.")
    parser.add_argument("--net", choices=tuple(NETS), help="one of the nets (default: both)")
    parser.add_argument("--only", choices=tuple(TABLES), help="one of the tables (default: all)")
    parser.add_argument("--repetitions", type=int, help=f"of each side (default: {REPETITIONS})")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the comments of a page too")
    asked = parser.parse_args()
    prepare()
    torch.set_num_threads(asked.threads)

    subjects = [Subject(name, asked.repetitions) for name in ([asked.net] if asked.net else NETS)]
    told = ", ".join(
        f"{subject.name} {subject.batch} × {'×'.join(map(str, subject.shape))}, {subject.repetitions} repetition(s)"
        for subject in subjects
    )
    memory = "freed memory kept" if keeps_memory() else "freed memory handed back"
    for name in [asked.only] if asked.only else TABLES:
        made, head = TABLES[name]
        rows = [row for subject in subjects for row in made(subject)]
        rule = "|" + "---|" * (head.count("|") - 1)
        text = "\n".join([f"{machine(['torch'])}; {memory}; {told}.", "", head, rule, *rows])
        print(f"\n## {name}\n\n{text}", flush=True)
        if asked.write is not None:
            replace_section(asked.write, name, text)


if __name__ == "__main__":
    main()
