"""Folders of images: odd names, other modes and sizes, damaged files, nested and empty folders, links, zip archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import cache

from hypothesis import strategies as st

from .cases import Case, Step

__all__ = ["TRAINING", "claiming", "picture", "pictures"]

_MODES = ["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr", "HSV", "LAB"]
_FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"]
_SIZES = [(8, 8), (8, 8), (8, 8), (1, 1), (1, 300), (300, 1), (9, 7), (7, 9), (64, 64)]
_CLASS_NAMES = [
    *("0", "1", "cat", "dog", "-1", "nan", "None", "null", "train", "test", "val", "Train", "images", "labels", "raw"),
    *(
        "é",
        "e\u0301",
        "ß",
        "日本",
        "\u202ex",
        "a b",
        " a",
        "a ",
        "a\nb",
        "a\tb",
        "\x1b[31m",
        "[red]",
        "[/]",
        "a,b",
        '"',
    ),
    *(
        "'",
        "$x",
        "%s",
        "{}",
        "-x",
        "--x",
        ".hidden",
        "..x",
        "__MACOSX",
        "@eaDir",
        "a.png",
        "x.zip",
        "a" * 200,
        "\udcff",
    ),
]
_FILE_NAMES = [
    "a.png",
    "b.jpg",
    "c.PNG",
    "d",
    "e.txt",
    ".hidden.png",
    "Thumbs.db",
    "é.png",
    "a b.png",
    "\n.png",
    "-.png",
]
TRAINING = ("train", "--method", "st", "--epochs", "1", "--width", "0.25", "--batch-size", "4", "--out", "out")
"""A short training; the data is still to be named."""
_FLAGS = [
    "--image-size 8",
    "--image-size 1",
    "--grey",
    "--rgb",
    "--decode imagefolder",
    "--pixel-range 0,4095",
    "--crop 0.5 --image-size 8",
    "--interpolation nearest --image-size 5",
    "--augment crop-flip",
    "--augment resized-crop",
    "--augment randaugment",
    "--label-column label",
    "--limit 4",
    "--validation 0.5",
    "--keep last",
]


@cache
def picture(mode: str, size: tuple[int, int], kind: str, seed: int) -> bytes:
    """The file of an image of random values; a PNG of 8 × 8 grey values where the format does not take the mode."""

    import numpy as np
    from PIL import Image

    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    file = io.BytesIO()
    try:
        if mode in ("I;16", "I", "F"):
            types = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
            image = Image.fromarray(values[..., 0].astype(types[mode]) * 200)
        else:
            image = Image.fromarray(values, "RGBA").convert("RGB").convert(mode)
        image.save(file, kind)
    except (OSError, ValueError, KeyError):
        file = io.BytesIO()
        Image.fromarray(values[:8, :8, 0].repeat(8, 0).repeat(8, 1)[:8, :8]).save(file, "PNG")
    return file.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def claiming(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of a few bytes that claims a size."""

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + _chunk(b"IEND", b"")
    )


_ODD_FILES = [
    b"",
    b"\0" * 100,
    b"text",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"\xff\xd8\xff\xe0",
    b"RIFF\0\0\0\0WEBP",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    claiming(0, 0),
    claiming(8, 8),
    claiming(60000, 60000),
    claiming(2**31 - 1, 2**31 - 1),
    claiming(8, 8, depth=3),
    claiming(8, 8, colour=7),
    claiming(20000, 20000, depth=1),
]


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """The content of a file in a class folder: most are plain images, some are cut, flipped or no images."""

    which = draw(st.integers(0, 9))
    if which < 5:
        return picture("L", (8, 8), "PNG", draw(st.integers(0, 30)))
    if which == 5:
        return draw(st.sampled_from(_ODD_FILES))
    content = picture(
        draw(st.sampled_from(_MODES)),
        draw(st.sampled_from(_SIZES)),
        draw(st.sampled_from(_FORMATS)),
        draw(st.integers(0, 3)),
    )
    if which == 6:
        return content[: draw(st.integers(0, len(content)))]
    if which == 7:
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + bytes([content[place] ^ (1 << draw(st.integers(0, 7)))]) + content[place + 1 :]
    return content


def pictures() -> st.SearchStrategy[Case]:
    """Cases of a folder of images, or a zip archive of one, and a training on it."""

    @st.composite
    def case(draw: st.DrawFn) -> Case:
        steps: list[Step] = []
        count = draw(st.sampled_from([2, 2, 2, 3, 1]))
        labels = draw(st.lists(st.sampled_from(_CLASS_NAMES), min_size=count, max_size=count))
        splits = draw(
            st.sampled_from([[""], [""], ["train/", "test/"], ["train/", "val/"], ["a/"], ["train/"], ["x/", "y/"]])
        )
        odd = draw(st.integers(0, 3)) > 0
        for split in splits:
            for label in labels:
                for number in range(draw(st.sampled_from([6, 6, 6, 3, 1, 0]))):
                    content = draw(image_files()) if odd and draw(st.integers(0, 3)) == 0 else None
                    content = picture("L", (8, 8), "PNG", number) if content is None else content
                    steps.append(Step("write", f"data/{split}{label}/{number}.png", content))
        for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
            steps.append(draw(_extra(splits, labels)))
        words = [*TRAINING]
        for flags in draw(st.lists(st.sampled_from(_FLAGS), max_size=2)):
            words += flags.split()
        if draw(st.integers(0, 6)) == 0:
            steps = [Step("write", "data.zip", _zipped(steps, draw(st.integers(0, 5)), draw(st.floats(0, 1))))]
            return Case("images", "", tuple(steps), (*words, "--data", "data.zip"))
        return Case("images", "", tuple(steps), (*words, "--data", "data"))

    return case()


@st.composite
def _extra(draw: st.DrawFn, splits: list[str], labels: list[str]) -> Step:
    """Something beside the images of a folder."""

    split, label = draw(st.sampled_from(splits)), draw(st.sampled_from(labels))
    place = f"data/{split}{draw(st.sampled_from(['', f'{label}/', f'{label}/deep/', 'empty/', f'{label}/a/b/c/d/']))}"
    name = draw(st.sampled_from(_FILE_NAMES))
    match draw(st.integers(0, 5)):
        case 0:
            return Step("link", f"{place}loop", text=draw(st.sampled_from([".", "..", "loop", "../..", "/dev/zero"])))
        case 1:
            return Step(
                "link", f"{place}{name}", text=draw(st.sampled_from(["nowhere", "0.png", "/dev/null", f"../{label}"]))
            )
        case 2:
            return Step("folder", f"{place}{draw(st.sampled_from(['new', '0.png', '.git', 'a.zip']))}")
        case 3:
            metadata = draw(
                st.sampled_from(["metadata.csv", "metadata.jsonl", "labels.csv", "dataset_info.json", "README.md"])
            )
            return Step(
                "write", f"{place}{metadata}", draw(st.sampled_from([b"", b"file_name,label\n", b"{}", b"\xff"]))
            )
    return Step("write", f"{place}{name}", draw(image_files()))


def _zipped(steps: list[Step], how: int, place: float) -> bytes:
    """A zip archive of the files: whole, in some odd way, or damaged."""

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if how == 1 else zipfile.ZIP_STORED) as archive:
        for number, step in enumerate(steps):
            if step.kind == "write":
                name = step.path.removeprefix("data/").encode(errors="replace").decode()
                prefix = {2: "../", 3: "/"}.get(how, "")
                # With the time of the day in it, no archive would be the same again.
                entry = zipfile.ZipInfo(f"{prefix}{name}" if number or how != 4 else "a" * 60000)
                archive.writestr(entry, step.content, archive.compression)
    content = file.getvalue()
    if how == 5 and content:
        at = int(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
    return content
