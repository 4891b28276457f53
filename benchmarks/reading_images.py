"""What reading a folder of photographs costs: decoding on one core and on all, a second start, and gathering batches.

    python benchmarks/reading_images.py
    python benchmarks/reading_images.py --write docs/performance.md

Photographs are made for it: smooth colours with noise, as JPEG of quality 85. Each measurement is a process of its own,
as a command is; one core and all of them are measured in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from page import replace_section
from timing import machine

__all__ = ["main"]

_SIZES = {"224 × 224": (224, 224, None), "500 × 375, resized to 224": (500, 375, 224)}
"""By name: width and height of the files, and the size that they are resized to."""
_BATCH = 64


def _photograph(number: int, width: int, height: int, file: Path) -> None:
    draws = np.random.default_rng(number)
    rough = draws.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))
    noise: NDArray[np.int16] = draws.integers(-12, 13, smooth.shape, dtype=np.int16)
    Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(file, quality=85)


def _folder(place: Path, images: int, width: int, height: int) -> Path:
    for split in ("train", "test"):
        for label in "ab":
            (place / split / label).mkdir(parents=True)

    def make(number: int) -> None:
        split = "test" if number % 10 == 0 else "train"
        _photograph(number, width, height, place / split / "ab"[number % 2] / f"{number}.jpg")

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(images)))
    # Files that were changed just now are hashed again.
    time.sleep(3)
    return place


def _load(folder: str, size: str) -> None:
    """One process: loads the folder, and says how many seconds that took."""

    from asgt.data import load_data
    from asgt.memory import prepare

    prepare()  # as every command does
    began = time.perf_counter()
    load_data(folder, image_size=int(size) or None)
    print(time.perf_counter() - began)


def _seconds(folder: Path, size: int | None, cores: str, cache: Path) -> float:
    words = [sys.executable, __file__, "--load", str(folder), str(size or 0)]
    environment = {**os.environ, "ASGT_CACHE": str(cache)}
    every = os.sched_getaffinity(0)
    # Before the process begins: PyTorch starts a thread for each core that it sees then, and two on one core spin.
    os.sched_setaffinity(0, {max(every)} if cores == "one" else every)
    try:
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    finally:
        os.sched_setaffinity(0, every)
    return float(said.stdout)


def _gathered(folder: Path, size: int | None, cache: Path) -> tuple[float, float]:
    """Images a second that are gathered from the cache in random order, batch by batch, with nothing else running.

    From the disk, where each image is checked as well, and once more, when the file system has it in memory.
    """

    import asgt.data.split_decoding as split_decoding
    from asgt.data import load_data

    os.environ["ASGT_CACHE"] = str(cache)
    split_decoding.IN_MEMORY = 0
    for file in cache.rglob("*"):
        if file.is_file():
            _leave_memory(file)
    pixels = load_data(folder, image_size=size).train.pixels
    order = torch.randperm(len(pixels)).split(_BATCH)
    speeds = []
    for _ in range(2):
        began = time.perf_counter()
        for rows in order:
            pixels[rows]
        speeds.append(len(pixels) / (time.perf_counter() - began))
    return speeds[0], speeds[1]


def _leave_memory(file: Path) -> None:
    """Asks the system to keep nothing of a file in memory."""

    opened = os.open(file, os.O_RDONLY)
    os.fsync(opened)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)


def table(images: int, repetitions: int) -> str:
    """The table of all sizes."""

    cores = len(os.sched_getaffinity(0))
    head = (
        "files",
        "one core, images/s",
        f"{cores} cores, images/s",
        f"{cores} / 1",
        "second start",
        "gathered from the disk, images/s",
        "gathered again, images/s",
    )
    rows = []
    for name, (width, height, size) in _SIZES.items():
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
            folder, cache = _folder(Path(place) / "photos", images, width, height), Path(place) / "cache"
            taken: dict[str, list[float]] = {"one": [], "all": [], "again": []}
            for _ in range(repetitions):
                for side in ("one", "all"):
                    shutil.rmtree(cache, ignore_errors=True)
                    taken[side].append(_seconds(folder, size, side, cache))
                taken["again"].append(_seconds(folder, size, "all", cache))
            one, many, again = (median(taken[side]) for side in ("one", "all", "again"))
            ratio = median(first / second for first, second in zip(taken["one"], taken["all"], strict=True))
            gathered = [f"{speed:,.0f}" for speed in _gathered(folder, size, cache)]
        row = (name, f"{images / one:,.0f}", f"{images / many:,.0f}", f"**{ratio:.2f}×**")
        rows.append((*row, f"{again:.2f} s, **{many / again:.0f}×** faster", *gathered))
        print(rows[-1], flush=True)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="What reading a folder of photographs costs.")
    parser.add_argument("--images", type=int, default=6000, help="photographs (default: 6000)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the comments of a page too")
    parser.add_argument("--load", nargs=2, metavar="WORD", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        _load(*asked.load)
        return
    torch.set_num_threads(1)
    made = table(asked.images, asked.repetitions)
    text = f"{machine(('torch', 'pillow'))}; {asked.images:,} images.\n\n{made}"
    print(f"\n{text}")
    if asked.write is not None:
        replace_section(asked.write, "reading-images", text)


if __name__ == "__main__":
    main()
