"""Draws the README's picture of the committed MNIST runs: robustness curves beside maps, for light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from asgt.comparison.comparing import load_results
from asgt.runs.kept import load_maps

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("ST", "SGT (k = 0.3)", "AT-PGD", "ASGT-PGD")
LABELS = {"ST": (0.025, 50), "SGT (k = 0.3)": (0.075, 50), "AT-PGD": (0.225, 91), "ASGT-PGD": (0.175, 72)}
"""Where the name of a curve stands: its ε and its accuracy."""

PAGES = {
    "light": ("#ffffff", "#1f2328", ("#bb5566", "#997700", "#4477aa", "#228833")),
    "dark": ("#0d1117", "#e6edf3", ("#ee8899", "#ddaa33", "#77aadd", "#55bb66")),
}
"""Of each page its background, its text, and a colour for each method."""

SHOWN = 2
"""Images with maps."""


def draw(file: Path, paper: str, ink: str, colours: Sequence[str]) -> None:
    """Draws one picture in the colours of a page: its background, its text, and one for each method."""

    named = dict(zip(METHODS, colours, strict=True))
    results = ROOT / "results" / "mnist-laptop"
    comparison = load_results(results)
    methods = {method.name: method for method in comparison.methods}
    judge = comparison.judges()[-1]
    figure = Figure(figsize=(8.8, 3.6), facecolor=paper)
    curves = figure.add_axes((0.065, 0.215, 0.42, 0.675), facecolor=paper)
    for name, colour in named.items():
        points = comparison.curve(methods[name], judge)
        eps, values = [each for each, _ in points], [100 * value.value for _, value in points]
        curves.plot(eps, values, color=colour, lw=2)
        low, high = ([100 * getattr(value, end) for _, value in points] for end in ("low", "high"))
        curves.text(*LABELS[name], name, color=colour, fontsize=9, fontweight="bold")
        curves.fill_between(eps, low, high, color=colour, alpha=0.2, lw=0)
    curves.axvline(0.3, color=ink, lw=0.8, ls=":")
    curves.text(0.295, 12, "AT and ASGT are\ntrained at ε = 0.3", ha="right", fontsize=8, color=ink)
    curves.set(xlabel="ε of the attack (L∞, pixels in [0, 1])", xlim=(0, 0.4), ylim=(0, 101))
    curves.set_title(
        f"Accuracy under attack, % ({judge.protocol} v{judge.version})", loc="left", fontsize=10, color=ink
    )
    curves.tick_params(colors=ink, labelsize=8)
    curves.xaxis.label.set_color(ink)
    curves.spines[["top", "right"]].set_visible(False)
    curves.spines[["left", "bottom"]].set_color(ink)

    columns = {
        name: maps
        for name in METHODS
        for run in methods[name].runs
        if (maps := load_maps(Path(run.folder))) is not None
    }
    left, width, height = 0.545, 0.107, 0.2615
    figure.text(left, 0.921, "Where the logit is most sensitive", fontsize=10, color=ink)
    first = columns["ST"]
    for row in range(SHOWN):
        bottom = 0.5385 - row * (height + 0.062)
        for place, (name, colour) in enumerate(named.items()):
            axes = figure.add_axes((left + place * (width + 0.008), bottom, width, height))
            shown = columns[name].columns[0].maps[1 + row].abs().mean(dim=0)
            axes.imshow(shown.clamp_max(shown.flatten().quantile(0.99)).numpy(), cmap="magma")
            axes.contour(first.images[1 + row, 0].numpy(), levels=[0.5], colors="white", linewidths=0.6)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name.replace(" (k = 0.3)", ""), fontsize=9, color=colour, fontweight="bold")
    note = f"MNIST, AlexNet at a quarter of its width, n = {comparison.samples}, mean ± standard deviation over 3 seeds"
    figure.text(0.065, 0.02, note, fontsize=8, color=ink)
    figure.text(left, 0.16, "gradient of the label's logit; white: the digit's outline", fontsize=8, color=ink)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=200, facecolor=paper)


def main() -> None:
    """Draws both."""

    torch.set_num_threads(1)
    for name, page in PAGES.items():
        draw(ROOT / "docs" / f"front-{name}.png", *page)


if __name__ == "__main__":
    main()
