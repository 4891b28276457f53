"""Tables with images: parquet files with empty cells, other types and claims; metadata files that do not fit."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import strategies as st

from .cases import Case, Step
from .pictures import TRAINING, claiming, picture

__all__ = ["tables"]

_LABELS: list[Any] = [
    0,
    1,
    2,
    -1,
    10**18,
    "a",
    "b",
    "",
    "é",
    "nan",
    "1",
    0.5,
    float("nan"),
    float("inf"),
    True,
    None,
    b"a",
    [0],
]
_COLUMNS = [
    "image",
    "img",
    "photo",
    "label",
    "labels",
    "y",
    "fine_label",
    "file_name",
    "",
    "a b",
    "é",
    "label ",
    "\x1b[31m",
]
_FLAGS = [
    "--image-column image",
    "--label-column label",
    "--label-column y",
    "--image-column nothing",
    "--image-size 8",
]
_CSV = [
    b"",
    b"\n",
    b"\xff\xfe",
    b"\0",
    b"file_name\n0.png\n",
    b"file_name,label\n",
    b"file_name,label\n0.png\n",
    b"file_name,label\n0.png,0,1\n1.png,1\n",
    b"file_name,label\nnone.png,0\n1.png,1\n",
    b"file_name,label\n0.png,0\n0.png,1\n",
    b"file_name,label\n../0.png,0\n1.png,1\n",
    b"file_name,label\n/etc/passwd,0\n1.png,1\n",
    b"file_name,file_name\n0.png,0\n1.png,1\n",
    b'file_name,label\n"0.png,0\n1.png,1\n',
    b"file_name;label\n0.png;0\n1.png;1\n",
    b"label,file_name\n" + b"".join(b"%d,%d.png\n" % (number % 2, number) for number in range(6)),
    b"file_name,label\n" + b"".join(b"%d.png,%s\n" % (number, b"9" * 500) for number in range(6)),
    b"file_name,label\n" + b"x" * 200000 + b",0\n",
    b"\xef\xbb\xbffile_name,label\n" + b"".join(b"%d.png,%d\n" % (number, number % 2) for number in range(6)),
]
_JSONL = [
    b"{}",
    b"null\n",
    b"[]\n",
    b'{"file_name": 0, "label": 0}\n',
    b'{"file_name": null, "label": 0}\n',
    b'{"file_name": "0.png", "label": [0]}\n{"file_name": "1.png", "label": [1]}\n',
    b'{"file_name": "0.png", "label": {"a": 0}}\n',
    b'{"file_name": "0.png", "label": NaN}\n{"file_name": "1.png", "label": 1}\n',
    b'{"file_name": "0.png", "label": 1e999}\n{"file_name": "1.png", "label": 1}\n',
    b'{"file_name": "0.png", "label": "0"}\n{"file_name": "1.png"}\n',
    b'{"file_name": "0.png", "label": "0", "label": "1"}\n{"file_name": "1.png", "label": true}\n',
    b"[" * 5000 + b"\n",
]


@st.composite
def _cell(draw: st.DrawFn) -> Any:
    """A cell of a column of images, as a structure of bytes and path."""

    content = draw(
        st.sampled_from(
            [picture("L", (8, 8), "PNG", 1), picture("RGB", (8, 8), "PNG", 1), picture("L", (9, 7), "JPEG", 1)]
        )
    )
    match draw(st.integers(0, 13)):
        case 0:
            return None
        case 1:
            return {"bytes": None, "path": None}
        case 2:
            return {"bytes": b"", "path": ""}
        case 3:
            return {
                "bytes": None,
                "path": draw(st.sampled_from(["0.png", "/etc/passwd", "../x", "", "é", "http://localhost:1/"])),
            }
        case 4:
            return {"bytes": draw(st.binary(max_size=30)), "path": None}
        case 5:
            return {"bytes": content[: draw(st.integers(0, len(content)))], "path": None}
        case 6:
            return {"bytes": claiming(*draw(st.sampled_from([(0, 0), (60000, 60000), (8, 8)]))), "path": None}
    return {"bytes": content, "path": None}


@st.composite
def _parquet(draw: st.DrawFn) -> bytes:
    """A parquet file: most are near to what the library reads."""

    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    count = draw(st.sampled_from([8, 8, 8, 1, 2, 0]))
    plain = {"bytes": picture("L", (8, 8), "PNG", 1), "path": None}
    odd = draw(st.booleans())
    cells = [draw(_cell()) if odd and draw(st.integers(0, 2)) == 0 else plain for _ in range(count)]
    labels: list[Any] = [number % 2 for number in range(count)]
    if draw(st.booleans()):
        some = draw(st.lists(st.sampled_from(_LABELS), min_size=1, max_size=3))
        labels = [some[number % len(some)] for number in range(count)]
    kinds: dict[str, Any] = {
        "struct": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "binary": pa.binary(),
        "large": pa.large_binary(),
        "list": pa.list_(pa.uint8()),
    }
    kind = draw(st.sampled_from(["struct", "struct", "struct", "struct", "binary", "large", "list"]))
    if kind != "struct":
        raw = [None if cell is None else cell["bytes"] for cell in cells]
        cells = [None if value is None else list(value) for value in raw] if kind == "list" else raw
    image_name, label_name = (draw(st.one_of(st.just(name), st.sampled_from(_COLUMNS))) for name in ("image", "label"))
    columns: list[tuple[str, Any]] = [(image_name, pa.array(cells, kinds[kind]))]
    columns.append((label_name, _array(pa, labels)))
    for name in draw(st.lists(st.sampled_from(_COLUMNS), max_size=2)):
        columns.append((name, columns[draw(st.integers(0, 1))][1]))
    table = pa.table([array for _, array in columns], names=[name for name, _ in columns])
    if draw(st.integers(0, 4)) == 0:
        told = draw(st.sampled_from([b"", b"{}", b"null", b"[", b'{"info": {"features": {}}}', b'{"info": null}']))
        table = table.replace_schema_metadata({b"huggingface": told})
    file = io.BytesIO()
    parquet.write_table(table, file)
    content = bytearray(file.getvalue())
    match draw(st.integers(0, 11)):
        case 0:
            del content[draw(st.integers(0, len(content) - 1)) :]
        case 1 | 2:
            # Of the footer more often than of the rest: it holds the claims.
            far = draw(st.integers(1, min(len(content), draw(st.sampled_from([400, 100000])))))
            content[-far] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def _array(pa: Any, values: list[Any]) -> Any:
    """A column of these values; of their texts where they have no common type."""

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def tables() -> st.SearchStrategy[Case]:
    """Cases of a folder with parquet files or a metadata file, and a training on it."""

    names = st.sampled_from(
        ["train.parquet", "train.parquet", "train-00000-of-00001.parquet", "data.parquet", "é.parquet"]
    )

    @st.composite
    def case(draw: st.DrawFn) -> Case:
        words = [*TRAINING, "--data", "data"]
        for flags in draw(st.lists(st.sampled_from(_FLAGS), max_size=1)):
            words += flags.split()
        if draw(st.integers(0, 2)) == 0:
            steps = [Step("write", f"data/{number}.png", picture("L", (8, 8), "PNG", number)) for number in range(6)]
            csv = draw(st.booleans())
            known = st.sampled_from(_CSV if csv else _JSONL)
            content = draw(st.one_of(known, known, st.binary(max_size=60)))
            steps.append(Step("write", f"data/metadata.{'csv' if csv else 'jsonl'}", content))
            return Case("tables", "", tuple(steps), tuple(words))
        steps = [Step("write", f"data/{draw(names)}", draw(_parquet()))]
        if draw(st.booleans()):
            name = draw(st.sampled_from(["test.parquet", "val.parquet", "validation.parquet", "train2.parquet"]))
            steps.append(Step("write", f"data/{name}", draw(_parquet())))
        return Case("tables", "", tuple(steps), tuple(words))

    return case()
