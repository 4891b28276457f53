"""YAML and JSON that a user writes: configurations, grids and lists of classes, with parts that nobody means."""

from __future__ import annotations

from hypothesis import strategies as st

from .cases import Case, Step
from .oddities import NAMES, NUMBERS

__all__ = ["documents"]

Document = dict[str, "str | Document | list[Document]"]
"""A YAML mapping whose leaves are YAML text as it stands."""

_TRAIN: Document = {
    "data": "digits",
    "model": "small_cnn",
    "method": "at",
    "attack": "fgsm",
    "eps": "0.1",
    "width": "0.25",
    "epochs": "1",
    "batch_size": "30",
    "lr": "0.05",
    "limit": "60",
    "seed": "0",
    "schedule": "constant",
    "keep": "last",
}
_GRID: Document = {
    "data": "digits",
    "seeds": "1",
    "train": {"model": "small_cnn", "width": "0.25", "limit": "60", "epochs": "1", "batch_size": "30", "device": "cpu"},
    "methods": [{"method": "st"}, {"method": "at", "attack": "fgsm"}],
    "evaluate": {"protocols": "[pgd]", "epsilons": "[0.1]", "samples": "8"},
    "explain": {"samples": "8", "attributions": "[gradient]"},
}
_UNKNOWN = [
    "odd",
    "Method",
    "eps ",
    "settings",
    "__class__",
    "epsilon",
    "1",
    "null",
    "true",
    "[a]",
    "? {a: b}\n",
    "é",
    '""',
]
_RAW = [
    "",
    "null",
    "~",
    "[]",
    "{}",
    "[null]",
    "{null: null}",
    "{[1]: 2}",
    "{{a: 1}: 2}",
    "!!python/object/apply:os.system ['true']",
    "!!python/name:os.system",
    "!!binary aGVsbG8=",
    "!!binary '*'",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!pairs [a: 1]",
    "!!int x",
    "!!float x",
    "!!str 1",
    "!!bool maybe",
    "!!timestamp x",
    "!!null x",
    "!odd x",
    "!<tag:yaml.org,2002:seq> x",
    "&a [*a]",
    "&a {b: *a}",
    "*nothing",
    "&a",
    "<<",
    "{<<: {method: st}}",
    "{<<: [{a: 1}, {a: 2}]}",
    "{<<: 1}",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "2024-99-99",
    "12:30:45",
    "190:20:30.15",
    "0x10",
    "0o10",
    "010",
    "0b11",
    "1_000",
    "1e3",
    "1e-3",
    "1e400",
    "-1e400",
    ".nan",
    ".inf",
    "-.inf",
    "1.0",
    "yes",
    "on",
    "'1'",
    '"1"',
    "'",
    '"\\x00"',
    '"\\uD800"',
    '"\\U0001F600"',
    '"\\x1b[31m"',
    "|\n    text\n    more",
    ">\n    text",
    "a: b",
    "[1, 2",
    "{a: 1",
    "]",
    "@x",
    "`x`",
    "%x",
    "# nothing",
    "\tx",
    "? x",
    "- x",
    "[" * 50 + "]" * 50,
    "[" * 3000 + "]" * 3000,
    "{a: " * 3000 + "1" + "}" * 3000,
    "9" * 5000,
    "-" + "9" * 400,
    "a" * 70000,
    "[&a [x, x, x], &b [*a, *a, *a], &c [*b, *b, *b], &d [*c, *c, *c], &e [*d, *d, *d], [*e, *e, *e]]",
    "[" + ", ".join(f"{{method: st, lr: 0.{number}}}" for number in range(1, 60)) + "]",
    "[digits, mnist]",
    "{digits: 1}",
    "[pgd, pgd]",
    "[pgd, null]",
    "[0.1, 0.1]",
    "[0.1, x]",
    "['8/255', 16/255]",
    "[[0.1]]",
    "[{method: at}]",
    "[{}]",
    "[method]",
]
_WRAPS = [
    b"\xef\xbb\xbf%s",
    b"---\n%s",
    b"%s---\na: 1\n",
    b"%s...\n",
    b"%%YAML 1.1\n---\n%s",
    b"%%TAG ! tag:yaml.org,2002:\n---\n%s",
    b"\x00%s",
    b"%s\x00",
    b"\xff\xfe%s",
    b"%s\xff\n",
    b"\r\n%s",
    b"- %s",
    b"[%s",
    b"x%s",
    b"%s\n\n\tx: 1\n",
    b"%s: : :\n",
    b"%s<<: *a\n",
    b"defaults: &a {epochs: 1}\n%s",
]
_CLASSES = [
    "[]",
    "{}",
    "null",
    "1",
    '"a"',
    '["0"]',
    '["0","1","2","3","4","5","6","7","8","9"]',
    '["0","0","2","3","4","5","6","7","8","9"]',
    "[0,1,2,3,4,5,6,7,8,9]",
    '["0","1","2","3","4","5","6","7","8",null]',
    '["0","1","2","3","4","5","6","7","8",["9"]]',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9}',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":true}',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9.0}',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":-1}',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":1e400}',
    '{"0":0,"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":99999999999999999999999}',
    '{"0":[0]}',
    '{"":0}',
    "[NaN]",
    "[" * 5000,
    "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n",
    "0\n1\n2\n3\n4\n5\n6\n7\n8\n\n9\n",
    "0\r1\r2\r3\r4\r5\r6\r7\r8\r9",
    "\ufeff0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n",
    "a\n" * 10,
    "\x00\n",
    "\x1b[31m\n",
    "",
    " ",
    "a" * 100000,
]


def documents() -> st.SearchStrategy[Case]:
    """Cases of a document and the command line that reads it."""

    config = changed(_TRAIN).map(
        lambda text: Case("yaml", "", (Step("write", "c.yaml", text),), ("train", "--config", "c.yaml", "--out", "out"))
    )
    grid = changed(_GRID).map(
        lambda text: Case(
            "yaml", "", (Step("write", "g.yaml", text),), ("reproduce", "g.yaml", "--dry-run", "--out", "out")
        )
    )
    words = "evaluate --model small_cnn --width 0.25 --weights run/model.safetensors --data digits --samples 2"
    classes = st.one_of(st.sampled_from(_CLASSES), st.text(max_size=30)).map(
        lambda text: Case(
            "yaml",
            "runs",
            (Step("write", "classes.json", text.encode(errors="surrogatepass")),),
            (*words.split(), "--epsilons", "0.1", "--classes", "classes.json", "--out", "out"),
        )
    )
    return st.integers(0, 9).flatmap(lambda which: classes if which == 0 else config if which < 5 else grid)


def changed(document: Document) -> st.SearchStrategy[bytes]:
    """The text of a document with some of its parts changed."""

    raw = st.one_of(st.sampled_from(_RAW), st.sampled_from(NUMBERS), st.sampled_from(NAMES))

    @st.composite
    def text(draw: st.DrawFn) -> bytes:
        lines = _lines(document)
        for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
            place = draw(st.integers(0, len(lines) - 1))
            name, _, value = lines[place].partition(":")
            indent = name[: len(name) - len(name.lstrip(" -"))]
            match draw(st.integers(0, 9)):
                case 0:
                    del lines[place]
                    lines = lines or ["{}"]
                case 1:
                    lines.insert(place, lines[place])
                case 2:
                    lines[place] = f"{indent}{draw(st.sampled_from(_UNKNOWN))}:{value}"
                case 3:
                    lines.insert(place, f"{indent}{draw(st.sampled_from(_UNKNOWN))}: {draw(raw)}")
                case 4:
                    lines[place] = f"{draw(st.sampled_from(['', ' ', '    ', '- ']))}{lines[place].strip()}"
                case 5 if not value:
                    # A section instead of its lines.
                    depth = len(indent)
                    last = place + 1
                    while last < len(lines) and len(lines[last]) - len(lines[last].lstrip(" ")) > depth:
                        last += 1
                    lines[place:last] = [f"{name}: {draw(raw)}"]
                case _:
                    lines[place] = f"{name}: {draw(raw)}"
        content = ("\n".join(lines) + "\n").encode(errors="surrogatepass")
        if draw(st.integers(0, 7)) == 0:
            content = draw(st.sampled_from(_WRAPS)).replace(b"%s", content).replace(b"%%", b"%")
        return content

    return text()


def _lines(document: Document, indent: str = "") -> list[str]:
    lines = []
    for name, value in document.items():
        if isinstance(value, str):
            lines.append(f"{indent}{name}: {value}")
        elif isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}:")
            for part in value:
                first, *others = _lines(part, f"{indent}    ")
                lines += [f"{indent}  - {first.strip()}", *others]
    return lines
