"""Your own images: train on a folder, evaluate, explain, and write one page that shows all of it.

Run it with ``python examples/own_data.py``. Without ``--images`` it makes a small folder of PNG files first, from the
digits of scikit-learn: one folder for each class, as yours may look. It takes about half a minute on a CPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import asgt
from asgt.data import sampled_rows, selection_text

EPS, SEED = 0.1, 0
METHODS = ("st", "asgt")  # standard training, and ASGT against attacks of ε


def make_images(folder: Path) -> None:
    """Writes 1,000 digits as grey PNG files of 8 × 8 pixels: ``folder/<class>/<number>.png``."""

    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(pixels[:1000], labels[:1000], strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) / 16 * 255).astype(np.uint8)).save(place / f"{number:04}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains, evaluates and explains a classifier of your own images.")
    parser.add_argument("--images", type=Path, help="a folder with one folder for each class (default: made of digits)")
    parser.add_argument("--out", type=Path, help="where runs and page go (default: a new temporary folder)")
    parser.add_argument("--epochs", type=int, default=6, help="of each method (default: 6)")
    parser.add_argument("--samples", type=int, default=150, help="test images that are attacked (default: 150)")
    asked = parser.parse_args()

    out = asked.out or Path(tempfile.mkdtemp(prefix="asgt-own-data-"))
    images = asked.images or out / "images"
    if asked.images is None and not images.exists():
        make_images(images)

    # Without a test split in the folder, a stratified fifth of the images is set aside.
    splits = asgt.load_data(str(images))
    print(
        f"data: {images}: {len(splits.train)} training and {len(splits.test)} test images {splits.train.shape}, "
        f"{len(splits.train.classes)} classes"
    )

    rows = sampled_rows(splits.test, min(asked.samples, len(splits.test)))
    test, selection = splits.test[rows], selection_text(splits.test, rows)
    folders = [out / "runs" / method for method in METHODS]
    for method, folder in zip(METHODS, folders, strict=True):
        eps = EPS if method == "asgt" else None
        config = asgt.TrainConfig(
            data=str(images), method=method, eps=eps, epochs=asked.epochs, batch_size=32, seed=SEED
        )
        # With resume, a second call with the same --out takes up what is there.
        trained = asgt.train(config, folder, resume=True)
        settings = folder / "config.yaml"
        print(f"\n{method}, {asked.epochs} epochs, seed {SEED} (all settings: {settings})\n{trained}")

        model, *_ = asgt.load_run(folder)
        place = folder / "evaluation" / "pgd"
        grid = [EPS / 2, EPS]
        evaluation = asgt.evaluate(
            model, test, "pgd", epsilons=grid, seed=SEED, folder=place, resume=True, selection=selection
        )
        print(f"\n{evaluation}")
        place = folder / "explanation" / "gradient"
        explanation = asgt.explain(model, test, eps=EPS, ids=rows, seed=SEED, folder=place, resume=True)
        print(f"\n{explanation}")

    comparison = asgt.compare(folders)
    print(f"\n{asgt.differences(comparison)}")
    page = asgt.write_report(comparison, out / "page")
    print(f"\npage: {page}")


if __name__ == "__main__":
    main()
