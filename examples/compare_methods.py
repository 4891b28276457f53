"""Trains ST, AT, SGT, SGA and ASGT on real digits, attacks them, and shows one table and one picture.

This is what ``make demo`` runs. Runs that are finished are not repeated.
"""

import argparse
from pathlib import Path

from rich import box
from rich.console import Console as RichConsole
from rich.table import Table

import asgt
from asgt.cli.console import Console

METHODS = ("st", "at", "sgt", "sga", "asgt")
EPSILONS = (0.05, 0.1, 0.15, 0.2, 0.3)
PANELS = (("paper", "fgsm"), ("paper", "pgd-constant"), ("paper", "pgd-relative"), ("pgd", "pgd-40x5"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where the runs and the picture go")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--samples", type=int, help="attack only the first so many test images")
    arguments = parser.parse_args()

    progress = Console()
    found: dict[str, dict[str, asgt.Evaluation]] = {}
    warnings: dict[str, list[str]] = {}
    for method in METHODS:
        progress.say(f"{method.upper()}: training on digits")
        config = asgt.TrainConfig(data="digits", method=method, epochs=arguments.epochs, batch_size=64)
        run = arguments.out / method
        warnings[method] = asgt.train(config, run, resume=run.exists(), progress=progress).warnings
        model, data, _, _ = asgt.load_run(run)
        found[method.upper()] = {
            protocol: asgt.evaluate(
                model,
                data.test[: arguments.samples],
                protocol=protocol,
                epsilons=EPSILONS,
                folder=run / "evaluation" / protocol,
                resume=True,
                progress=progress,
            )
            for protocol in ("paper", "pgd")
        }

    out = RichConsole(highlight=False)
    out.print(table(found))
    for method, lines in warnings.items():
        for line in lines:
            progress.warn(f"{method.upper()}: {line}")
    picture = arguments.out / "robustness.png"
    asgt.robustness_curves(
        found,
        picture,
        panels=PANELS,
        title="digits (8×8), small CNN, trained at ε = 0.1 (L∞); one seed; bands: Wilson 95 % of one model",
    )
    out.print(f"robustness curves: {picture}\nrun folders with all evidence: {arguments.out}/")


def table(found: dict[str, dict[str, asgt.Evaluation]]) -> Table:
    """Methods × attacks at the training ε, each with its interval."""

    samples = next(iter(found.values()))["pgd"].samples
    caption = (
        f"accuracy % [Wilson 95 %] on n = {samples} test images of digits · attacks at ε = 0.1 (L∞) · one seed (0) · "
        "protocols paper v1 (final iterate; PGD with 10 steps; not a robustness claim) and pgd v1 (PGD-40, 5 restarts, "
        "worst case; not yet one)"
    )
    grid = Table(title=caption, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for column in ("method", "clean\n", "FGSM\npaper", "PGD α=2/255\npaper", "PGD α=ε/4\npaper", "PGD-40 ×5\npgd"):
        grid.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for method, by_protocol in found.items():
        cells = [by_protocol["pgd"].clean_accuracy()]
        cells += [by_protocol[protocol].curve(attack)[EPSILONS.index(0.1)] for protocol, attack in PANELS]
        grid.add_row(
            method, *[f"{100 * c['accuracy']:.1f} [{100 * c['low']:.0f}–{100 * c['high']:.0f}]" for c in cells]
        )
    return grid


if __name__ == "__main__":
    main()
