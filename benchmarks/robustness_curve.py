"""Robust accuracy over ε against the loops that users of other libraries write: seconds, gradients and the answer.

All sides run in one process on the same net and images, one after the other and again, after a warm-up that also picks
each peer's fastest batch size; medians are compared. Run it with ``make bench``, or while at work on the engine with
``python benchmarks/robustness_curve.py --samples 100 --only engine``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import asgt
from asgt.data import sample, to_unit
from floor import clairvoyant
from nets import NETS, net
from page import replace_section
from peers import PAPER, foolbox_pgd, pyautoattack_curve, torchattacks_curve, torchattacks_pgd
from timing import Timed, in_turn, machine, verdict

__all__ = ["main"]

GRIDS = {count: torch.linspace(0.05, 0.4, count, dtype=torch.float64).tolist() for count in (8, 20)}
FASTER = {("standard", 8): 4.5, ("standard", 20): 10.0, ("adversarial", 8): 3.8, ("adversarial", 20): 9.0}
"""How many times faster the curve has to be, by net and count of ε."""

BATCH_SIZES = (64, 256, 500)
EXCESS, OVER_FLOOR = 1.0, 1.3
AUTOATTACK_FASTER, AUTOATTACK_ALIKE, AUTOATTACK_EXCESS = 4.0, 99.0, 0.5
AUTOATTACK_SAMPLES = 250  # the peer's loop over 8 ε takes twenty minutes for these


@dataclass(frozen=True)
class Subject:
    """A net and the images that it is attacked on."""

    name: str
    model: nn.Module
    images: asgt.Images

    @property
    def x(self) -> Tensor:
        return to_unit(self.images.pixels)

    @property
    def y(self) -> Tensor:
        return self.images.labels

    def clean(self) -> Tensor:
        with torch.no_grad():
            right: Tensor = self.model(self.x).argmax(dim=1) == self.y
        return right


def fastest_batch(loop: Callable[..., Tensor], subject: Subject) -> int:
    """The batch size at which a peer's loop is fastest on one ε; warms it up."""

    sizes = {min(size, len(subject.y)) for size in BATCH_SIZES}
    sides = {
        str(size): partial(loop, subject.model, subject.x, subject.y, [0.2], batch_size=size) for size in sorted(sizes)
    }
    in_turn(sides, 1)
    taken = in_turn(sides, 2)
    return int(min(taken, key=lambda size: min(taken[size].seconds)))


def excess(ours: Tensor, theirs: Sequence[Tensor]) -> float:
    """How far our accuracy lies above theirs, in points, at the worst ε of the worst repetition; curves (E, N)."""

    return max(float(100 * (ours.double().mean(dim=1) - curve.double().mean(dim=1)).max()) for curve in theirs)


def engine(subjects: list[Subject], repetitions: int) -> str:
    """The curve of PGD-40 against the loops of torchattacks and foolbox."""

    rows = []
    loops = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd}
    for subject in subjects:
        noise = 2 * torch.rand(subject.x.shape, generator=torch.Generator().manual_seed(0)) - 1
        sizes = {peer: fastest_batch(loop, subject) for peer, loop in loops.items()}
        clean = subject.clean()

        for count, grid in GRIDS.items():
            curve = partial(asgt.evaluate, subject.model, subject.images, asgt.PGD(steps=40), epsilons=grid)
            curve()
            sides: dict[str, Callable[[], Any]] = {"asgt": curve}
            for peer, loop in loops.items():
                sides[peer] = partial(loop, subject.model, subject.x, subject.y, grid, batch_size=sizes[peer])
            taken = in_turn(sides, repetitions)

            found = taken["asgt"].answers[0]
            # No peer checks what it found: the search alone is compared, and the whole call told beside it.
            ours = Timed([answer.seconds["worst-case"] for answer in taken["asgt"].answers], [])
            cost, outcomes = found.cost("worst-case"), found.outcomes["worst-case"]
            for peer in loops:
                theirs = [right & clean for right in taken[peer].answers]
                ratio, target = taken[peer].median / ours.median, FASTER[subject.name, count]
                above = excess(outcomes, theirs)
                floor = float(clairvoyant(subject.model, subject.x, subject.y, theirs[0], grid, noise).double().mean())
                met = verdict(
                    time=ratio >= target, gradients=cost["gradients"] <= OVER_FLOOR * floor, accuracy=above <= EXCESS
                )
                rows.append(
                    f"| {subject.name} | {count} | {peer}, {sizes[peer]} | {taken[peer]} | {ours} | "
                    f"{taken['asgt'].median:.2f} | "
                    f"**{ratio:.1f}×** | ≥ {target:g}× | {cost['gradients']:.1f} | {cost['audit']:.1f} | {floor:.1f} | "
                    f"{cost['gradients'] / floor:.2f} | {above:+.1f} | {met} |"
                )
    return "\n".join(
        [
            "| net | ε | peer, batch | its seconds | our seconds | with checks | faster | target | our gradients | "
            "audit | floor | over floor | accuracy above | met |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def paper(subjects: list[Subject], repetitions: int) -> str:
    """The attacks of the protocol ``paper`` at 8 ε against torchattacks, final iterates."""

    rows, grid = [], GRIDS[8]
    for subject in subjects:
        size = fastest_batch(partial(torchattacks_curve, PAPER["pgd-constant"]), subject)
        whole = partial(asgt.evaluate, subject.model, subject.images, protocol="paper", epsilons=grid, batch_size=size)
        whole()
        sides: dict[str, Callable[[], Any]] = {"asgt": whole}
        for name, made in PAPER.items():
            sides[name] = partial(torchattacks_curve, made, subject.model, subject.x, subject.y, grid, batch_size=size)
        taken = in_turn(sides, repetitions)

        evaluations = taken["asgt"].answers
        theirs_whole = Timed(
            [sum(seconds) for seconds in zip(*(taken[name].seconds for name in PAPER), strict=True)], []
        )
        ours_whole = Timed([sum(found.seconds.values()) for found in evaluations], [])
        equal = True
        for search in evaluations[0].protocol.searches:
            theirs = taken[search.name]
            ours = Timed([found.seconds[search.name] for found in evaluations], [])
            outcomes, ratio = evaluations[0].outcomes[search.name], theirs.median / ours.median
            apart = max(
                float(100 * (outcomes.double().mean(dim=1) - right.double().mean(dim=1)).abs().max())
                for right in theirs.answers
            )
            equal &= apart == 0 or search.attacks[0].starts_at_random
            rows.append(f"| {subject.name} | {search.title} | {theirs} | {ours} | {ratio:.2f}× | {apart:.1f} | |")
        ratio = theirs_whole.median / ours_whole.median
        met = verdict(time=round(ratio, 2) >= 1, accuracy=equal)
        rows.append(
            f"| {subject.name} | **the whole protocol** | {theirs_whole} | {ours_whole} | **{ratio:.2f}×** | | {met} |"
        )
    return "\n".join(
        [
            "| net | attack | torchattacks' seconds | our seconds | faster | accuracy apart | met |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def autoattack(subjects: list[Subject], repetitions: int) -> str:
    """AutoAttack's curve at 8 ε on the adversarially trained net against a loop of pyautoattack, once: it is long."""

    subject, grid = next(subject for subject in subjects if subject.name == "adversarial"), GRIDS[8]
    sides: dict[str, Callable[[], Any]] = {
        "asgt": partial(asgt.evaluate, subject.model, subject.images, protocol="autoattack", epsilons=grid),
        "pyautoattack": partial(pyautoattack_curve, subject.model, subject.x, subject.y, grid, batch_size=250),
    }
    taken = in_turn(sides, 1)

    found, theirs = taken["asgt"].answers[0].outcomes["autoattack"], taken["pyautoattack"].answers[0]
    ratio, above = taken["pyautoattack"].median / taken["asgt"].median, excess(found, [theirs])
    alike = float(100 * (found == theirs).double().mean())
    met = verdict(
        time=ratio >= AUTOATTACK_FASTER, verdicts=alike >= AUTOATTACK_ALIKE, accuracy=above <= AUTOATTACK_EXCESS
    )
    return "\n".join(
        [
            "| net | ε | its seconds | our seconds | faster | target | verdicts alike | accuracy above | met |",
            "|---|---|---|---|---|---|---|---|---|",
            f"| adversarial | 8 | {taken['pyautoattack']} | {taken['asgt']} | **{ratio:.1f}×** | "
            f"≥ {AUTOATTACK_FASTER:g}× | {alike:.1f} % | {above:+.1f} | {met} |",
        ]
    )


SECTIONS = {"engine": engine, "paper": paper, "autoattack": autoattack}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times robustness curves against torchattacks, foolbox, pyautoattack.")
    parser.add_argument("--samples", type=int, default=500, help="test images (default: 500; AutoAttack: 250 at most)")
    parser.add_argument("--only", choices=tuple(SECTIONS), help="one of the tables (default: all)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each side; AutoAttack runs once (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the comments of a page too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    nets = {name: net(name) for name in NETS}
    for name in [asked.only] if asked.only else SECTIONS:
        samples = min(asked.samples, AUTOATTACK_SAMPLES) if name == "autoattack" else asked.samples
        repetitions = 1 if name == "autoattack" else asked.repetitions
        subjects = [Subject(kind, model, sample(images, samples)) for kind, (model, images) in nets.items()]
        here = machine(("torch", "torchattacks", "foolbox", "pyautoattack"))
        much = f"{samples} MNIST test images, {repetitions} repetition(s)."
        text = f"{here}; {much}\n\n{SECTIONS[name](subjects, repetitions)}"
        print(f"\n## {name}\n\n{text}", flush=True)
        # Each table as soon as it is there: a later one takes long.
        if asked.write is not None:
            replace_section(asked.write, name, text)


if __name__ == "__main__":
    main()
