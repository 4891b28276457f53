"""What a robustness claim costs: ``standard`` v2, ``standard@1`` and AutoAttack on the same nets and images.

The cost is counted in passes: a gradient is three forward passes. Every measurement is saved as soon as it is there, so
a run that was stopped goes on where it stood:

    python benchmarks/claim_cost.py --nets mnist-at-0 mnist-asgt-0 --samples 500
    python benchmarks/claim_cost.py --tables --write docs/performance.md

The nets are those of the presets ``mnist-laptop`` and ``cifar10-laptop``, trained once with each seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

import asgt
from asgt.data import sample, to_unit
from asgt.evaluation.phased import Phase
from asgt.evaluation.protocols import PhasedSearch, Protocol
from asgt.statistics import clopper_pearson
from nets import RUNS
from page import replace_section
from timing import machine

__all__ = ["main"]

SAVED = Path(__file__).parent / "claims"
MNIST_GRID = tuple(round(0.05 * step, 2) for step in range(1, 9))
CIFAR_GRID = tuple(step / 255 for step in (1, 2, 3, 4, 6, 8, 10, 12))
L2_GRID = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
CIFAR_L2_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2)


@dataclass(frozen=True)
class Subject:
    """A net, how it is trained, and the ε that it is judged at."""

    preset: str
    method: str
    seed: int
    eps: tuple[float, ...]
    grid: tuple[float, ...]
    norm: Any = "linf"
    changes: tuple[tuple[str, Any], ...] = ()
    tuned: str = "no"

    def net(self, name: str) -> tuple[nn.Module, asgt.Images]:
        """The net in evaluation mode and all test images; trains it if it is not there yet."""

        (config,) = (
            config
            for config in asgt.load_preset(self.preset, "laptop").methods
            if (config.method, config.attack) == (self.method, "pgd")
        )
        asgt.train(replace(config, seed=self.seed, **dict(self.changes)), RUNS / name, resume=True)
        model, splits, *_ = asgt.load_run(RUNS / name)
        return model.requires_grad_(False), splits.test


def _subjects() -> dict[str, Subject]:
    subjects = {}
    for seed in range(3):
        for method in ("at", "asgt"):
            subjects[f"mnist-{method}-{seed}"] = Subject("mnist", method, seed, (0.3,), MNIST_GRID)
            subjects[f"cifar-{method}-{seed}"] = Subject("cifar10", method, seed, (8 / 255,), CIFAR_GRID)
    other = (("model", "small_cnn"), ("width", None), ("dropout", None))
    subjects["mnist-small-at-0"] = Subject("mnist", "at", 0, (0.3,), MNIST_GRID, changes=other)
    l2 = (("norm", "l2"), ("eps", 2.0))
    subjects["mnist-l2-at-0"] = Subject("mnist", "at", 0, (2.0,), L2_GRID, norm="l2", changes=l2)
    l2 = (("norm", "l2"), ("eps", 0.5))
    subjects["cifar-l2-at-0"] = Subject("cifar10", "at", 0, (0.5,), CIFAR_L2_GRID, norm="l2", changes=l2)
    return subjects


SUBJECTS = _subjects()
DRAWN = ("mnist-at-0", "cifar-at-0")
"""The nets of the figure."""


@dataclass(frozen=True)
class Side:
    """What one protocol found on some images: at how many ε each of them did not break, and what it took."""

    levels: Tensor
    gradients: int
    forwards: int
    seconds: float
    discarded: Tensor
    phases: list[list[Any]] = field(default_factory=list)
    told: str = ""

    @property
    def cost(self) -> float:
        """Passes an image; a gradient counts as three."""

        return (3 * self.gradients + self.forwards) / len(self.levels)

    def accuracy(self, level: int) -> float:
        return 100 * float((self.levels > level).double().mean())


def by_protocol(
    model: nn.Module, images: asgt.Images, grid: tuple[float, ...], norm: Any, protocol: str | Protocol
) -> Side:
    """A protocol of asgt; without its checks' passes, which are not counted."""

    found = asgt.evaluate(model, images, protocol, epsilons=grid, norm=norm)
    (name,) = found.outcomes
    details = found.details[name]
    discarded = details.get("discarded", torch.full((len(images),), -1))
    gradients, forwards = (int(details[kind].sum()) for kind in ("gradients", "forwards"))
    phases = [list(astuple(phase)) for each in found.discards.values() for phase in each.phases]
    told = "; ".join(each.told(len(images)) for each in found.discards.values())
    return Side(
        found.outcomes[name].sum(dim=0), gradients, forwards, found.seconds[name], discarded, phases=phases, told=told
    )


def by_autoattack(model: nn.Module, images: asgt.Images, grid: tuple[float, ...], norm: Any) -> Side:
    """The authors' package, its standard version, at the only ε of a grid; its calls are counted."""

    from pyautoattack import AutoAttack

    (eps,) = grid
    passes = {True: 0, False: 0}

    def counted(x: Tensor) -> Tensor:
        passes[torch.is_grad_enabled() and x.requires_grad] += len(x)
        logits: Tensor = model(x)
        return logits

    x, y = to_unit(images.pixels), images.labels
    attack = AutoAttack(counted, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0, version="standard")
    began = time.perf_counter()
    right = attack.run_standard_evaluation(x, y, batch_size=250)[1] == y
    seconds = time.perf_counter() - began
    return Side(right.long(), passes[True], passes[False], seconds, torch.full((len(y),), -1))


def quick_search(norm: Any) -> PhasedSearch:
    """The search alone of ``standard`` v2 in a norm."""

    (search,) = asgt.PROTOCOLS["standard-quick"].in_norm(norm).searches
    assert isinstance(search, PhasedSearch)
    return search


def without_phase(model: nn.Module, images: asgt.Images, grid: tuple[float, ...], norm: Any, place: int) -> Side:
    """The search alone without one of its phases."""

    search = quick_search(norm)
    phases: tuple[Phase, ...] = (*search.phases[:place], *search.phases[place + 1 :])
    protocol = Protocol("ablation", 1, (replace(search, phases=phases),), True, "not a claim")
    return by_protocol(model, images, grid, norm, protocol)


SIDES: dict[str, Callable[..., Side]] = {
    "v2": partial(by_protocol, protocol="standard-quick"),
    "v1": partial(by_protocol, protocol="standard@1"),
    "autoattack": by_autoattack,
    "v2-audited": partial(by_protocol, protocol="standard"),
    **{f"without-{place}": partial(without_phase, place=place) for place in range(1, len(quick_search("linf").phases))},
}
"""By name; the search alone is ``v2``."""


def measured(name: str, side: str, grid: str, samples: int, train: bool = True) -> Side | None:
    """A measurement, from its file where there is one; ``None`` if there is none and none is to be made."""

    file = SAVED / f"{name}-{grid}-{samples}-{side}.json"
    if not file.exists():
        if not train:
            return None
        subject = SUBJECTS[name]
        model, images = subject.net(name)
        radii = subject.eps if grid == "single" else subject.grid
        found = SIDES[side](model, sample(images, samples), radii, subject.norm)
        SAVED.mkdir(parents=True, exist_ok=True)
        values = vars(found) | {"levels": found.levels.tolist(), "discarded": found.discarded.tolist()}
        file.write_text(json.dumps(values), encoding="utf-8")
        print(f"{file.stem}: cost {found.cost:.0f}, {found.seconds:.0f} s", flush=True)
    values = json.loads(file.read_text(encoding="utf-8"))
    return Side(**(values | {name: torch.tensor(values[name]) for name in ("levels", "discarded")}))


SINGLE_HEAD = (
    *("net", "seeds", "accuracy, v2", "cost, v2", "cost, v1", "cost, AutoAttack", "v1 / v2", "AutoAttack / v2"),
    *("above v1", "above AutoAttack", "seconds, v2 / v1 / AutoAttack"),
)


def _apart(found: Mapping[str, list[Side]], side: str, level: int) -> list[float]:
    """How far the search alone lies above another side, in points, seed by seed."""

    return [ours.accuracy(level) - each.accuracy(level) for ours, each in zip(found["v2"], found[side], strict=True)]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(list(head))}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def _over_seeds(names: list[str], grid: str, samples: int) -> dict[str, list[Side]]:
    """What v2, v1 and AutoAttack found, on the nets with the first two; no AutoAttack if a net lacks it."""

    sides = {
        side: {name: found for name in names if (found := measured(name, side, grid, samples, train=False))}
        for side in ("v2", "v1", "autoattack")
    }
    there = [name for name in names if name in sides["v2"] and name in sides["v1"]]
    return {
        side: [found[name] for name in there]
        for side, found in sides.items()
        if there and all(n in found for n in there)
    }


def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in SUBJECTS:
        groups.setdefault(name.rsplit("-", 1)[0], []).append(name)
    return groups


def _single_row(group: str, found: Mapping[str, list[Side]]) -> tuple[object, ...]:
    """A row of the table at a single ε; AutoAttack is not in it where it was not run on all of the nets."""

    costs, seconds, ratios, apart = {}, {}, {}, {}
    for side in ("v2", "v1", "autoattack"):
        if side not in found:
            costs[side] = seconds[side] = ratios[side] = apart[side] = "–"
            continue
        cost, points = mean(each.cost for each in found[side]), _apart(found, side, 0)
        costs[side], seconds[side] = f"{cost:,.0f}", f"{mean(each.seconds for each in found[side]):.0f}"
        ratios[side] = f"**{cost / mean(each.cost for each in found['v2']):.1f}×**"
        apart[side] = f"{mean(points):+.1f}" + (f" ± {stdev(points):.1f}" if len(points) > 1 else "")
    return (
        *(group, len(found["v2"]), f"{mean(each.accuracy(0) for each in found['v2']):.1f}", *costs.values()),
        *(ratios["v1"], ratios["autoattack"], apart["v1"], apart["autoattack"], " / ".join(seconds.values())),
    )


def tables(samples: int) -> Mapping[str, str]:
    """The tables of what has been measured, by the section of the page."""

    single, grids = [], []
    discarded = broken = 0
    for group, names in _groups().items():
        if found := _over_seeds(names, "single", samples):
            single.append(_single_row(group, found))
            others = [found[side] for side in found if side != "v2"]
            for ours, *theirs in zip(found["v2"], *others, strict=True):
                left = ours.discarded >= 0
                discarded += int(left.sum())
                broken += int((left & torch.stack([each.levels == 0 for each in theirs]).any(dim=0)).sum())
        if found := _over_seeds(names, "grid", samples):
            costs = {side: mean(each.cost for each in found[side]) for side in found}
            levels = range(len(SUBJECTS[names[0]].grid))
            apart_by = [mean(_apart(found, "v1", level)) for level in levels]
            grids.append(
                (
                    group,
                    len(found["v2"]),
                    *(f"{costs[side]:,.0f}" for side in ("v2", "v1")),
                    f"**{costs['v1'] / costs['v2']:.1f}×**",
                    " ".join(f"{value:+.1f}" for value in apart_by),
                )
            )
    told = {
        "claim-single": _table(
            SINGLE_HEAD,
            single,
        ),
        "claim-grid": _table(["net", "seeds", "cost, v2", "cost, v1", "v1 / v2", "above v1, by ε"], grids),
    }
    told |= {"claim-ablation": _ablation(samples), "claim-audit": _audits()}
    if discarded:
        high = clopper_pearson(broken, discarded, 0.9)[1]
        told["claim-single"] += (
            f"\n\nOf {discarded:,} discarded images, all runs together, v1 or AutoAttack breaks {broken}: "
            f"{broken / discarded:.2%}, at most {high:.2%} (one-sided 95 %, Clopper–Pearson)."
        )
    return told


def _ablation(samples: int) -> str:
    """What each phase is worth at a single ε."""

    rows = []
    for name, subject in SUBJECTS.items():
        search = quick_search(subject.norm)
        whole = measured(name, "v2", "single", samples, train=False)
        for place in range(1, len(search.phases)):
            found = measured(name, f"without-{place}", "single", samples, train=False)
            if whole is not None and found is not None:
                fewer = int((found.levels > whole.levels).sum()) - int((found.levels < whole.levels).sum())
                rows.append((name, search.phases[place].name, f"{found.cost:.0f} of {whole.cost:.0f}", fewer))
    return _table(["net", "phase left out", "cost", "images fewer"], rows)


AUDIT_SAMPLES = (500, 1000, 2000, 5000)


def _audits() -> str:
    """What the whole protocol takes, by the number of images."""

    rows, results = [], []
    for name in SUBJECTS:
        full = measured(name, "v1", "single", 500, train=False)
        for samples in AUDIT_SAMPLES:
            found = measured(name, "v2-audited", "single", samples, train=False)
            if full is not None and found is not None:
                rows.append(
                    (
                        *(name, f"{samples:,}", f"{found.accuracy(0):.1f}", f"{found.cost:,.0f}", f"{full.cost:,.0f}"),
                        f"**{full.cost / found.cost:.1f}×**",
                    )
                )
                results.append(f"- `{name}`, n = {samples:,}: {found.told}.")
    # In a column of the table, the sentences would be a word wide on a narrow page.
    table = _table(["net", "n", "accuracy", "cost", "cost, v1", "v1 / v2"], rows)
    return "\n".join([table, "", "The results of the audits:", "", *results])


def figure(file: Path, samples: int) -> None:
    """Draws which images each phase attacks, and where the passes go, of the search alone on single ε."""

    from matplotlib.figure import Figure

    found = {name: side for name in DRAWN if (side := measured(name, "v2", "single", samples, train=False))}
    drawn = {name: side for name, side in found.items() if side.phases}
    canvas = Figure(figsize=(7.2, 0.9 + 1.5 * len(drawn)), layout="constrained")
    for axes, (name, side) in zip(canvas.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn.items(), strict=True):
        names = [phase[0] for phase in side.phases if phase[1]]
        images = [100 * phase[1] / samples for phase in side.phases if phase[1]]
        costs = [(3 * phase[3] + phase[4]) / samples / side.cost * 100 for phase in side.phases if phase[1]]
        places = torch.arange(len(names)).double()
        axes.barh((places - 0.2).tolist(), images, 0.38, color="#4477aa", label="% of the images attacked")
        axes.barh((places + 0.2).tolist(), costs, 0.38, color="#ee6677", label="% of the passes")
        axes.set_yticks(places.tolist(), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        eps = SUBJECTS[name].eps[0]
        title = f"{name}: standard v2 without audit, ε = {eps:.2g}, n = {samples}, {side.cost:.0f} passes an image"
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.axes[0].legend(fontsize=8, loc="lower right", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a robustness claim costs by standard v2, v1 and AutoAttack.")
    parser.add_argument("--nets", nargs="*", choices=tuple(SUBJECTS), default=[], help="which nets to measure")
    parser.add_argument("--sides", nargs="*", choices=tuple(SIDES), default=["v2", "v1", "autoattack"])
    parser.add_argument("--grids", nargs="*", choices=("single", "grid"), default=["single"])
    parser.add_argument("--samples", type=int, default=500, help="test images (default: 500)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--tables", action="store_true", help="print the tables of what has been measured")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the comments of a page too")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw where the passes go, too")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    for name in asked.nets:
        for grid in asked.grids:
            for side in asked.sides:
                if grid == "single" or side != "autoattack":
                    measured(name, side, grid, asked.samples)
    if asked.figure is not None:
        figure(asked.figure, asked.samples)
    if asked.tables or asked.write is not None:
        here = machine(("torch", "pyautoattack"))
        for section, table in tables(asked.samples).items():
            images = (
                "the number of test images is n" if section == "claim-audit" else f"n = {asked.samples} test images"
            )
            text = f"{here}; {images}.\n\n{table}"
            print(f"\n## {section}\n\n{text}", flush=True)
            if asked.write is not None:
                replace_section(asked.write, section, text)


if __name__ == "__main__":
    main()
