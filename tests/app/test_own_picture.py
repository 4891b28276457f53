"""A picture of the user's own is prepared as the data set's own images are: against :func:`asgt.load_data`."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import asgt
from asgt.app.bench import pixel_options
from asgt.app.own_picture import of_data_uri, prepared
from asgt.errors import InputError
from support.messages import assert_states


def noise(width: int, height: int, channels: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(width + channels).integers(0, 256, (height, width, channels)).astype(np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(noise(30, 20, 3)), exif=exif)


PICTURES: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "colour": (lambda: saved(Image.fromarray(noise(40, 30, 3))), ["40 × 30", "grey", "30 to 8", "cropped"]),
    "four channels": (lambda: saved(Image.fromarray(noise(30, 40, 4))), ["transparency", "white", "grey"]),
    "grey": (lambda: saved(Image.fromarray(noise(16, 16, 1)[..., 0])), ["16 × 16", "resized to 8"]),
    "as it is": (lambda: saved(Image.fromarray(noise(8, 8, 1)[..., 0])), ["taken as it is"]),
    "cmyk": (lambda: saved(Image.fromarray(noise(20, 20, 3)).convert("CMYK"), "JPEG"), ["grey"]),
    "palette": (lambda: saved(Image.fromarray(noise(20, 9, 3)).convert("P"), "GIF"), ["9 to 8"]),
    "turned": (turned, ["EXIF"]),
    "16 bits": (
        lambda: saved(Image.fromarray(noise(12, 12, 1)[..., 0].astype(np.uint16) * 257)),
        ["16 bits", "resized"],
    ),
    "one pixel": (lambda: saved(Image.fromarray(noise(1, 1, 3))), ["1 × 1", "resized to 8"]),
    "a line": (lambda: saved(Image.fromarray(noise(200, 1, 3))), ["200 × 1", "1 to 8"]),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_prepared_as_a_data_set_would(name: str, channels: int, tmp_path: Path) -> None:
    make, facts = PICTURES[name]
    content = make()
    for place in ("cat/a", "cat/b", "dog/a", "dog/b"):
        (tmp_path / "data" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / f"{place}.png").write_bytes(content)
    read = asgt.load_data(tmp_path / "data", image_size=8, **{"grey" if channels == 1 else "rgb": True}, cache=False)
    pixels = read.test.pixels[:1]
    expected = pixels if pixels.is_floating_point() else pixels.float() / 255

    made = prepared(content, "mine.png", (channels, 8, 8), pixel_options({}))

    assert torch.equal(made.image, expected)
    told = ["its grey repeated"] if facts == ["taken as it is"] else [fact for fact in facts if fact != "grey"]
    assert_states(made.said, "8 × 8", *(facts if channels == 1 else told))


def test_the_data_own_way_of_reading_is_kept(tmp_path: Path) -> None:
    content = PICTURES["colour"][0]()
    for place in ("cat/a", "cat/b", "dog/a", "dog/b"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.png").write_bytes(content)
    settings = {"image_size": 8, "crop": 0.5, "interpolation": "bicubic"}

    made = prepared(content, "mine.png", (3, 8, 8), pixel_options(settings))

    expected = asgt.load_data(tmp_path, rgb=True, cache=False, **settings).test.pixels[:1].float() / 255
    assert torch.equal(made.image, expected)
    assert_states(made.said, "bicubic", "0.5 of the side used")


@pytest.mark.parametrize(
    ("content", "shape", "says"),
    [
        (b"", (1, 8, 8), ["mine.png", "not an image"]),
        (b"GIF89a", (1, 8, 8), ["mine.png", "cannot be read"]),
        (saved(Image.fromarray(noise(40, 30, 3)))[:-500], (1, 8, 8), ["mine.png", "cannot be read"]),
        (saved(Image.fromarray(noise(40, 30, 3))), (1, 8, 9), ["40 × 30", "9 × 8", "no squares"]),
        (saved(Image.fromarray(noise(40, 30, 3))), (2, 8, 8), ["2 channels"]),
        (b"x" * (51 * 2**20), (1, 8, 8), ["51 MiB", "50 MiB"]),
    ],
    ids=["empty", "a head alone", "cut short", "no square", "two channels", "too large"],
)
def test_what_cannot_be_prepared_is_refused_in_a_line(
    content: bytes, shape: tuple[int, int, int], says: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        prepared(content, "mine.png", shape, pixel_options({}))
    assert_states(refused.value, *says)


def test_no_square_is_taken_where_it_has_the_very_size() -> None:
    made = prepared(saved(Image.fromarray(noise(9, 8, 3))), "mine.png", (3, 8, 9), pixel_options({}))
    assert torch.equal(made.image[0].permute(1, 2, 0), torch.from_numpy(noise(9, 8, 3)).float() / 255)


def test_a_drawing_comes_as_the_data_uri_of_a_png() -> None:
    content = saved(Image.fromarray(noise(8, 8, 1)[..., 0]))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    assert of_data_uri(uri) == content
    for wrong in (uri[:-3], "data:image/png;base64,é", "http://somewhere/a.png", ""):
        with pytest.raises(InputError, match="draw it again"):
            of_data_uri(wrong)
