"""Pixels: orientation, transparency, modes and bits, against what numpy computes from the values written."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, PngImagePlugin

from asgt.data import Splits, load_data
from support.layouts import refusal
from support.messages import assert_states

DRAWN = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Puts the same file into both splits and classes, or several files: ``folder("x.png", content)``."""

    def make(name: str, *contents: bytes) -> Path:
        for split in ("train", "test"):
            for label in ("a", "b"):
                place = tmp_path / "root" / split / label
                place.mkdir(parents=True, exist_ok=True)
                for number, content in enumerate(contents):
                    (place / f"{number}{name}").write_bytes(content)
        return tmp_path / "root"

    return make


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(place: Path, **options: Any) -> Splits:
    return load_data(str(place), **options)


def first(place: Path, **options: Any) -> np.ndarray:
    """The first image, (H, W) or (H, W, 3)."""

    pixels = read(place, **options).test.pixels[0].permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def random(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    return DRAWN.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def png(values: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of 8 or 16 bits written by hand, for Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    lines = b"".join(b"\0" + line.astype(values.dtype.newbyteorder(">")).tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + (chunk(b"tRNS", extra) if extra else b"") + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


# Orientation ---------------------------------------------------------------------------------------------------------

# What each EXIF orientation says of a picture, in numpy's words.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a),
}


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_the_exif_orientation_is_applied_or_left(
    folder: Callable[..., Path], orientation: int, kind: str, options: dict[str, Any]
) -> None:
    values = random(5, 7, 3)
    place = folder("x." + kind.lower(), saved(Image.fromarray(values), kind, exif=exif(orientation), **options))

    assert np.array_equal(first(place), TURNS[orientation](values))
    assert np.array_equal(first(place, decode="imagefolder"), values)
    assert ("EXIF" in " ".join(read(place).notes)) == (orientation > 1)


def test_a_jpeg_is_turned_before_it_is_cropped(folder: Callable[..., Path]) -> None:
    values = np.zeros((8, 16), dtype=np.uint8)
    values[:, :8] = 255
    place = folder("x.jpg", saved(Image.fromarray(values), "JPEG", quality=95, exif=exif(6)))

    # Turned clockwise, the bright left half is on top; the centre of 8×16 is 4 lines of each.
    pixels = first(place, image_size=8)
    assert pixels[:4].min() > 200
    assert pixels[4:].max() < 50


def test_an_orientation_is_applied_to_16_bits_and_a_damaged_block_is_no_orientation(
    folder: Callable[..., Path],
) -> None:
    values = random(5, 7, kind=np.uint16)
    values[0, 0] = 65535
    place = folder("x.png", saved(Image.fromarray(values), "PNG", exif=exif(6)))
    np.testing.assert_allclose(first(place), np.rot90(values, -1) / 65535, atol=1e-7)

    eight = random(5, 7)
    folder("x.png", saved(Image.fromarray(eight), "PNG", exif=b"Exif\0\0II*\0damaged"))
    assert np.array_equal(first(place), eight)


def test_a_png_is_turned_as_its_xmp_says(folder: Callable[..., Path]) -> None:
    values, info = random(4, 6), PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>')

    place = folder("x.png", saved(Image.fromarray(values), "PNG", pnginfo=info))

    assert np.array_equal(first(place), values[::-1, ::-1])


# Transparency --------------------------------------------------------------------------------------------------------


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(np.float64)[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_transparency_is_put_on_white_or_left(folder: Callable[..., Path]) -> None:
    values = random(6, 6, 4)
    values[0, :, 3], values[1, :, 3] = 0, 255
    place = folder("x.png", saved(Image.fromarray(values), "PNG"))

    pixels = first(place)
    np.testing.assert_allclose(pixels, on_white(values[..., :3], values[..., 3]), atol=1.0)
    assert (pixels[0] == 255).all()
    assert np.array_equal(pixels[1], values[1, :, :3])
    assert np.array_equal(first(place, decode="imagefolder"), values[..., :3])
    assert "white" in " ".join(read(place).notes)


def test_grey_with_transparency_stays_grey(folder: Callable[..., Path]) -> None:
    values = random(6, 6, 2)

    pixels = first(folder("x.png", saved(Image.fromarray(values), "PNG")))

    np.testing.assert_allclose(pixels, on_white(values[..., :1], values[..., 1])[..., 0], atol=1.0)


def test_a_palette_with_transparency_is_put_on_white(folder: Callable[..., Path]) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]] * 3, dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])

    pixels = first(folder("x.png", saved(image, "PNG", transparency=bytes([255, 0, 51]))))

    assert pixels[0].tolist()[:2] == [[10, 20, 30], [255, 255, 255]]
    np.testing.assert_allclose(pixels[0, 2], [205.4, 205.6, 205.8], atol=1.0)


@pytest.mark.parametrize(
    ("values", "colour", "extra", "expected"),
    [
        (np.array([[7, 8], [9, 7]], np.uint8), 0, struct.pack(">H", 7), [[255, 8], [9, 255]]),
        (
            np.array([[[1, 2, 3], [3, 2, 1]]] * 2, np.uint8),
            2,
            struct.pack(">HHH", 3, 2, 1),
            [[[1, 2, 3], [255] * 3]] * 2,
        ),
    ],
)
def test_a_transparent_colour_becomes_white(
    folder: Callable[..., Path], values: np.ndarray, colour: int, extra: bytes, expected: list[Any]
) -> None:
    assert first(folder("x.png", png(values, colour, extra))).tolist() == expected


# Modes ---------------------------------------------------------------------------------------------------------------


def test_cmyk_and_bilevel_are_converted(folder: Callable[..., Path]) -> None:
    cmyk = np.zeros((4, 4, 4), dtype=np.uint8)
    cmyk[..., 0], cmyk[0, :, 3] = 255, 255
    pixels = first(folder("x.tiff", saved(Image.frombytes("CMYK", (4, 4), cmyk.tobytes()), "TIFF")))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[1, 0].tolist() == [0, 255, 255]

    bits = np.array([[True, False], [False, True]])
    assert first(folder("x.tiff", saved(Image.fromarray(bits), "TIFF"))).tolist() == [[255, 0], [0, 255]]


@pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow below 13 cannot read the YCbCr TIFF that it writes"
)
def test_a_grey_of_ycbcr_is_converted(folder: Callable[..., Path]) -> None:
    flat = np.full((4, 4, 3), 128, dtype=np.uint8)
    flat[..., 0] = 77
    image = Image.frombytes("YCbCr", (4, 4), flat.tobytes())
    assert first(folder("x.tiff", saved(image, "TIFF")))[0, 0].tolist() == [77, 77, 77]


def test_lab_is_converted_as_its_definition_says(folder: Callable[..., Path]) -> None:
    values = np.zeros((4, 4, 3), dtype=np.uint8)
    # In a TIFF, a* and b* have a sign: zero is no chroma.
    values[..., 0] = 136
    values[0, :, 0] = 255
    place = folder("x.tiff", saved(Image.frombytes("LAB", (4, 4), values.tobytes()), "TIFF"))

    pixels = first(place)

    # L* = 53.3 without chroma is the grey 127 of sRGB, L* = 100 is white.
    np.testing.assert_allclose(pixels[1, 0], [127] * 3, atol=2)
    assert pixels[0].min() >= 254


@pytest.mark.parametrize(
    "suffix", [".JPE", ".jfif", ".mpo", ".jp2", ".tga", ".pcx", ".ico", ".qoi", ".sgi", ".dds", ".msp"]
)
def test_every_suffix_that_pillow_reads_is_read(folder: Callable[..., Path], suffix: str) -> None:
    kind = Image.registered_extensions()[suffix.lower()]
    image = Image.fromarray(np.full((16, 16, 3), 255, dtype=np.uint8))
    if kind == "MSP":
        image = image.convert("1")

    pixels = first(folder("x" + suffix, saved(image, kind)))

    assert pixels.shape[:2] == (16, 16)
    assert pixels.min() >= 254


@pytest.mark.parametrize("suffix", [".eps", ".wmf", ".h5", ".mpg"])
def test_formats_without_a_decoder_are_no_images(folder: Callable[..., Path], suffix: str) -> None:
    folder("x" + suffix, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    place = folder("x.png", saved(Image.fromarray(random(4, 4)), "PNG"))

    assert "4 files" in " ".join(read(place).notes)


def test_a_script_under_the_name_of_an_image_is_not_run(folder: Callable[..., Path]) -> None:
    place = folder("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")

    assert_states(refusal(place), "0x.png", "not an image")


def test_of_several_frames_the_first_is_taken_and_they_are_counted(folder: Callable[..., Path]) -> None:
    frames = [random(4, 4) for _ in range(3)]
    more = [Image.fromarray(frame) for frame in frames[1:]]
    place = folder("x.tiff", saved(Image.fromarray(frames[0]), "TIFF", save_all=True, append_images=more))

    assert np.array_equal(first(place), frames[0])
    assert_states(" ".join(read(place).notes), "4 images", "first", "frames")


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"8BPS" + bytes(40), b"P6 1 1 1"]
)
def test_whatever_cannot_be_decoded_is_refused_by_its_name(folder: Callable[..., Path], content: bytes) -> None:
    line = refusal(folder("x.png", content))

    assert_states(line, "0x.png", "read")


# Bits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_16_bits_keep_their_precision(folder: Callable[..., Path], suffix: str) -> None:
    values = random(6, 6, kind=np.uint16)
    values[0, 0] = 65535
    content = saved(Image.fromarray(values), Image.registered_extensions()[suffix])

    splits = read(folder("x" + suffix, content))

    assert splits.test.pixels.dtype == torch.float32
    np.testing.assert_allclose(splits.test.pixels[0, 0].numpy(), values / 65535, atol=1e-7)


@pytest.mark.parametrize("train", [True, False])
def test_12_bits_in_16_are_refused_until_the_range_is_given(folder: Callable[..., Path], train: bool) -> None:
    values = random(6, 6, kind=np.uint16) % 4096
    values[0, 0] = 4095
    place = folder("x.png", saved(Image.fromarray(values), "PNG"))

    line = refusal(place, train=train)
    assert_states(line, "4095", "65535", "--pixel-range 0,4095", "12-bit", "0x.png")
    np.testing.assert_allclose(first(place, pixel_range=(0, 4095)), values / 4095, atol=1e-7)
    np.testing.assert_allclose(first(place, pixel_range=(0, 65535)), values / 65535, atol=1e-7)
    assert "outside" in refusal(place, pixel_range=(0, 1023))


def test_whether_16_bits_are_in_use_all_images_tell(folder: Callable[..., Path]) -> None:
    dark = np.full((4, 4), 100, dtype=np.uint16)
    place = folder("x.png", saved(Image.fromarray(dark), "PNG"))
    bright = np.full((4, 4), 40000, dtype=np.uint16)
    (place / "train" / "a" / "bright.png").write_bytes(saved(Image.fromarray(bright), "PNG"))

    for train in (True, False):
        np.testing.assert_allclose(first(place, train=train), dark / 65535, atol=1e-7)


def test_floats_stay_as_they_are(folder: Callable[..., Path]) -> None:
    values = DRAWN.random((6, 6), dtype=np.float32)
    place = folder("x.tiff", saved(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(first(place), values)

    folder("x.tiff", saved(Image.fromarray(values * 100 - 50), "TIFF"))
    assert_states(refusal(place), "0x.tiff", "real", "--pixel-range")
    np.testing.assert_allclose(first(place, pixel_range=(-50, 50)), values, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_refused(folder: Callable[..., Path], wrong: float) -> None:
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[1, 2] = wrong

    assert "x.tiff" in refusal(folder("x.tiff", saved(Image.fromarray(values), "TIFF")), pixel_range=(0, 1))


def test_whole_numbers_of_32_bits_need_a_range(folder: Callable[..., Path]) -> None:
    values = np.arange(16, dtype=np.int32).reshape(4, 4) * 1000
    place = folder("x.tiff", saved(Image.fromarray(values), "TIFF"))

    assert "--pixel-range" in refusal(place)
    np.testing.assert_allclose(first(place, pixel_range=(0, 15000)), values / 15000, atol=1e-7)


def tiff(values: np.ndarray, sample_format: int) -> bytes:
    """A grey TIFF written by hand, for Pillow does not write every sample format."""

    height, width = values.shape
    short, long = 3, 4
    entries = [
        (256, long, width),
        (257, long, height),
        (258, short, 8 * values.itemsize),
        (259, short, 1),
        (262, short, 1),
        (273, long, 8 + 2 + 12 * 9 + 4),
        (278, long, height),
        (279, long, values.nbytes),
        (339, short, sample_format),
    ]
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return (
        head
        + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        + bytes(4)
        + (values.astype(values.dtype.newbyteorder("<")).tobytes())
    )


def test_8_bits_with_a_sign_are_refused(folder: Callable[..., Path]) -> None:
    values = random(4, 4)

    assert np.array_equal(first(folder("x.tif", tiff(values, 1))), values)
    assert "sign" in refusal(folder("x.tif", tiff(values, 2)))


def test_32_bits_without_a_sign_do_not_wrap(folder: Callable[..., Path]) -> None:
    values = random(4, 4, kind=np.uint32)
    values[0, :2] = 0, 2**32 - 1

    pixels = first(folder("x.tif", tiff(values, 1)), pixel_range=(0, 2**32 - 1))
    np.testing.assert_allclose(pixels, values / (2**32 - 1), atol=1e-6)

    signed = values.view(np.int32)
    pixels = first(folder("x.tif", tiff(signed, 2)), pixel_range=(-(2**31), 2**31 - 1))
    np.testing.assert_allclose(pixels, (signed.astype(float) + 2**31) / (2**32 - 1), atol=1e-6)


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_colours_of_16_bits_are_refused(folder: Callable[..., Path], colour: int) -> None:
    values = random(4, 4 * {2: 3, 4: 2, 6: 4}[colour], kind=np.uint16).reshape(4, 4, -1)

    assert_states(refusal(folder("x.png", png(values, colour))), "0x.png", "16")


@pytest.mark.parametrize(
    ("suffix", "head"),
    [(".ppm", b"P6 2 2 65535\n"), (".ppm", b"P6 2 2 1023\n")],
)
def test_a_colour_pixmap_of_more_than_8_bits_is_refused(folder: Callable[..., Path], suffix: str, head: bytes) -> None:
    assert "bits" in refusal(folder("x" + suffix, head + bytes(24)))


def test_a_transparent_value_of_16_bits_becomes_white(folder: Callable[..., Path]) -> None:
    values = np.array([[7, 60000], [50000, 7]], dtype=np.uint16)

    pixels = first(folder("x.png", png(values, 0, struct.pack(">H", 7))))

    np.testing.assert_allclose(pixels, [[1, 60000 / 65535], [50000 / 65535, 1]], atol=1e-7)


def test_a_pgm_is_read_by_the_range_that_it_states(folder: Callable[..., Path]) -> None:
    values = np.array([[0, 1023], [512, 100]], dtype=">u2")

    pixels = first(folder("x.pgm", b"P5 2 2 1023\n" + values.tobytes()))

    np.testing.assert_allclose(pixels, values / 1023, atol=1e-5)


def test_8_bits_beside_floats_are_divided_by_255(folder: Callable[..., Path]) -> None:
    eight, deep = random(4, 4), DRAWN.random((4, 4), dtype=np.float32)
    place = folder("x.tiff", saved(Image.fromarray(eight), "TIFF"), saved(Image.fromarray(deep), "TIFF"))

    pixels = read(place).test.pixels[:2, 0].numpy()

    assert np.array_equal(pixels[0], eight.astype(np.float32) / np.float32(255))
    assert np.array_equal(pixels[1], deep)


def test_a_range_that_no_image_or_no_single_one_has_is_refused(folder: Callable[..., Path]) -> None:
    place = folder("x.tiff", saved(Image.fromarray(random(4, 4)), "TIFF"))
    assert_states(refusal(place, pixel_range=(0, 4095)), "8 bits", "--pixel-range")

    floats, whole = DRAWN.random((4, 4), dtype=np.float32), random(4, 4, kind=np.uint16)
    folder("x.tiff", saved(Image.fromarray(floats), "TIFF"), saved(Image.fromarray(whole), "TIFF"))
    assert "both" in refusal(place, pixel_range=(0, 65535))


# Size and channels ---------------------------------------------------------------------------------------------------


def test_16_bits_are_resized_without_rounding(folder: Callable[..., Path]) -> None:
    # Columns of two values: their mean lies between two levels of 8 bits.
    values = np.tile(np.array([40000, 40001, 65535, 65533], dtype=np.uint16), (4, 1))

    pixels = first(folder("x.png", saved(Image.fromarray(values), "PNG")), image_size=2, interpolation="box")

    np.testing.assert_allclose(pixels * 65535, [[40000.5, 65534]] * 2, atol=0.02)


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_an_interpolation_does_not_leave_the_unit_range(folder: Callable[..., Path], interpolation: str) -> None:
    values = np.zeros((8, 8), dtype=np.float32)
    values[:, 4:] = 1

    pixels = first(folder("x.tiff", saved(Image.fromarray(values), "TIFF")), image_size=16, interpolation=interpolation)

    assert pixels.min() == 0
    assert pixels.max() == 1


def test_a_crop_resizes_to_more_first(folder: Callable[..., Path]) -> None:
    values = random(16, 32, 3)
    image = Image.fromarray(values)

    pixels = first(folder("x.png", saved(image, "PNG")), image_size=7, crop=0.875, interpolation="bicubic")

    # 7 / 0.875 = 8: 16 wide, of which the centre is 4 to 11 and 0 to 7, rounded down.
    by_hand = np.asarray(image.resize((16, 8), Image.Resampling.BICUBIC))[0:7, 4:11]
    assert np.array_equal(pixels, by_hand)


@pytest.mark.parametrize(
    ("size", "crop", "short"), [(224, 0.875, 256), (224, 0.9, 248), (224, 0.95, 235), (7, 0.7, 10)]
)
def test_the_side_to_resize_to_is_rounded_down(folder: Callable[..., Path], size: int, crop: float, short: int) -> None:
    image = Image.fromarray(random(12, 12))

    pixels = first(folder("x.png", saved(image, "PNG")), image_size=size, crop=crop, interpolation="nearest")

    edge = (short - size) // 2
    by_hand = np.asarray(image.resize((short, short), Image.Resampling.NEAREST))
    assert np.array_equal(pixels, by_hand[edge : edge + size, edge : edge + size])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 4), {"image_size": 10**6}),
        ((4, 4), {"image_size": 10**400}),
        ((4, 4), {"image_size": 8, "crop": 1e-6}),
        ((4, 4), {"image_size": 8, "crop": 1e-320}),
        ((1, 60000), {"image_size": 4096}),
        ((60000, 1, 3), {"image_size": 4096}),
    ],
)
def test_a_size_that_no_memory_holds_is_refused_before_resizing(
    folder: Callable[..., Path], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    place = folder("x.png", saved(Image.fromarray(np.zeros(shape, dtype=np.uint8)), "PNG"))

    line = refusal(place, **options)

    size = options["image_size"]
    assert_states(line, "image_size", size if size < 10**9 else "401 digits")
    assert "x.png" not in line


def test_grey_becomes_three_channels_on_request(folder: Callable[..., Path]) -> None:
    values = random(4, 4)
    place = folder("x.png", saved(Image.fromarray(values), "PNG"))

    assert read(place).test.shape == (1, 4, 4)
    assert np.array_equal(first(place, rgb=True), np.repeat(values[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 0.875}, "image_size"),
        ({"interpolation": "bicubic"}, "image_size"),
        ({"image_size": 4, "crop": 0.0}, "crop"),
        ({"image_size": 4, "crop": 1.5}, "crop"),
        ({"image_size": 4.5}, "image_size"),
        ({"image_size": 4, "interpolation": "bilinaer"}, "'bilinear'"),
        ({"decode": "browsr"}, "'browser'"),
        ({"grey": True, "rgb": True}, "--rgb"),
        ({"pixel_range": (4095, 0)}, "pixel_range"),
        ({"pixel_range": (0, float("nan"))}, "pixel_range"),
        ({"pixel_range": 5}, "pixel_range"),
        ({"pixel_range": ("a", "b")}, "pixel_range"),
        ({"pixel_range": (0, 10**400)}, "pixel_range"),
        ({"pixel_range": (0, None)}, "pixel_range"),
        ({"image_size": 4, "crop": "x"}, "crop"),
        ({"image_size": 4, "crop": float("nan")}, "crop"),
        ({"image_size": 4, "interpolation": 5}, "interpolation"),
        ({"decode": 5}, "decode"),
        ({"channels": 2}, "channels"),
        ({"label_column": 5}, "label_column"),
        ({"data_config": ["a"]}, "data_config"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    folder: Callable[..., Path], options: dict[str, Any], said: str
) -> None:
    assert said in refusal(folder("x.png", saved(Image.fromarray(random(4, 4)), "PNG")), **options)
