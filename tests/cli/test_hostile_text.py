"""Control characters out of files, names and other people's errors never reach a terminal or a page as they are."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from asgt.cli import main
from asgt.cli.console import Console
from asgt.errors import InputError
from asgt.report.figures import Chart, Line, write_charts
from asgt.visible import visible
from support.command import Answer
from support.messages import assert_states
from support.paths import RUNS

BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

HIDDEN = [
    character
    for character in map(chr, range(0x11000))
    if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
    or unicodedata.bidirectional(character) in BIDIRECTIONAL
]
"""What steers, breaks or reorders a text, by the Unicode tables."""

HOSTILE = "be\x1b[31mgin\x07\x7f\x9b\x85\u2028\u2029\u202e\u2066\udcffend"


def assert_plain(text: str) -> None:
    """Asserts that nothing in a text steers a terminal or hides what it says."""

    found = sorted({f"U+{ord(character):04X}" for character in text if character in HIDDEN and character not in "\n"})
    assert not found, f"{found} in {text[:500]!r}"


def test_every_character_that_steers_is_made_visible() -> None:
    assert len(HIDDEN) > 65 + 2048
    for character in HIDDEN:
        shown = visible(f"a{character}b")
        if character == "\n":
            assert shown == "a\nb"
        else:
            assert shown.isprintable()
            assert shown.encode().decode("unicode_escape") == f"a{character}b"
            assert visible(shown) == shown


def test_what_is_visible_stays() -> None:
    text = "Größe 猫 🐈 ε ≤ 8/255 עברית \\x1b \u00a0 two\nlines"
    assert visible(text) == text
    assert visible(text, len(text)) == text


def test_a_long_text_keeps_its_two_ends() -> None:
    shown = visible("a" * 300 + HOSTILE + "z" * 300, 80)
    assert len(shown) == 80
    assert (shown[:10], shown[-10:]) == ("a" * 10, "z" * 10)


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_is_printed_steers_the_terminal(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    console = Console()
    table = Table(HOSTILE)
    table.add_row(escape(HOSTILE))
    table.add_row(Text(HOSTILE))
    for said in (HOSTILE, table, Text(HOSTILE)):
        console.out.print(said)
        console.err.print(said)
    console.say(f"{HOSTILE}\nsecond [red]line")
    console.warn(f"{HOSTILE}\nsecond [red]line")
    console.start(f"{HOSTILE}[red]", 3)
    console.advance()
    console.stop()
    for said in capsys.readouterr():
        assert "\\x1b[31m" in said
        # What rich itself draws with, on a terminal only.
        assert_plain(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.replace("\r", "")) if terminal else said)


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.warn("first\nasgt: error: second")
    console.say("first\nasgt: error: second")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert not any(line.startswith("asgt: error") for line in lines)


@pytest.mark.parametrize(
    "error",
    [InputError(f"{HOSTILE}\n\nof a file"), OSError(36, f"{HOSTILE}\nof a file", f"a/{HOSTILE}"), KeyError(HOSTILE)],
    ids=["input", "file", "fault"],
)
def test_an_errors_text_is_plain(
    error: Exception, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    verb(work)
    if isinstance(error, KeyError):
        # A fault of ours keeps its traceback, which Python prints by the hook that is set meanwhile.
        verb(lambda: sys.excepthook(KeyError, KeyError(HOSTILE), None))
        assert main([]) == 0
        said = capsys.readouterr().err
    else:
        assert main([]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert_states(said, "of a file")
    assert_plain(said)
    assert "\\x1b" in said


def test_logs_warnings_and_what_python_ignores_are_plain(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Ends:
        def __repr__(self) -> str:
            return f"<{HOSTILE}>"

        def __del__(self) -> None:
            raise ValueError(f"ignored {HOSTILE}")

    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("a library")
    logger.propagate = False

    def work() -> None:
        logger.addHandler(handler)
        logger.warning("logged %s", HOSTILE)
        try:
            raise ValueError(f"raised {HOSTILE}")
        except ValueError:
            logger.exception("and %s", HOSTILE)
        sys.stderr.write(warnings.formatwarning(f"warned {HOSTILE}", UserWarning, "a.py", 1))
        _Ends()

    before = logging.getLogRecordFactory(), warnings.formatwarning, sys.unraisablehook, sys.excepthook
    # The test runner has a hook of its own, which stays.
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    verb(work)
    assert main([]) == 0
    monkeypatch.undo()
    logger.removeHandler(handler)
    said = capsys.readouterr().err
    assert_states(said, "logged be\\x1b[31mgin", "raised be\\x1b", "warned be\\x1b", "ignored be\\x1b")
    assert_plain(said)
    assert before == (logging.getLogRecordFactory(), warnings.formatwarning, sys.unraisablehook, sys.excepthook)


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        ["train", "--method", HOSTILE],
        ["train", "--data", HOSTILE],
        ["train", f"--{HOSTILE}"],
        ["evaluate", HOSTILE],
        ["compare", HOSTILE, HOSTILE + "2"],
        ["explain", HOSTILE],
        ["reproduce", HOSTILE],
        ["train", "--config", HOSTILE],
    ],
    ids=lambda words: words[0] if words[0] != HOSTILE else "verb",
)
def test_a_hostile_word_is_refused_in_one_plain_line(words: list[str], cli: Callable[..., Answer]) -> None:
    answer = cli(*words)
    assert_plain(answer.refusal())


@pytest.mark.draws
def test_a_figure_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    values = (1.0, 2.0)
    line = Line(name=HOSTILE, number=0, x=values, y=values, low=values, high=values, texts=("1", "2"))
    chart = Chart("a", HOSTILE, HOSTILE, x_label=HOSTILE, y_label=HOSTILE, x_name="x", lines=(line,))
    write_charts([chart], tmp_path / "figure.svg", title=HOSTILE)
    text = (tmp_path / "figure.svg").read_text()
    assert_plain(text)
    assert text.count("\\x1b[31m") >= 4
    ElementTree.fromstring(text)


@pytest.fixture
def hostile_run(tmp_path: Path, no_files: None) -> Path:
    """A run whose folder, classes and warnings are hostile; no figures are drawn of it."""

    # Weights in a folder whose name is no UTF-8 cannot be read at all.
    folder = tmp_path / f"st-0-{HOSTILE}".replace("\udcff", "")
    shutil.copytree(RUNS / "st-0", folder)
    result = json.loads((folder / "training.json").read_text())
    result["warnings"] = [f"warned {HOSTILE}\nasgt: error: of a file"]
    result["classes"] = [f"{number} {HOSTILE}" for number in range(10)]
    result["chosen_by"] = HOSTILE
    (folder / "training.json").write_text(json.dumps(result))
    return folder


@pytest.mark.slow
def test_a_hostile_run_is_compared_plainly(hostile_run: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("compare", hostile_run, "--out", "page")
    assert answer.status == 0, answer.err
    assert_states(answer.err, "warned be\\x1b[31mgin")
    assert_plain(answer.out + answer.err)
    assert not [line for line in answer.err.splitlines() if line.startswith("asgt: error")]
    assert_states(Path("page/report.html").read_text(), "warned be\\x1b[31mgin")
    for file in Path("page").rglob("*"):
        if file.suffix in (".html", ".csv", ".svg", ".md", ".json"):
            assert_plain(file.read_text())


def test_json_keeps_the_text_and_is_ascii(tmp_path: Path) -> None:
    from asgt.files import read_sealed, write_sealed

    write_sealed(tmp_path / "result.json", {"name": HOSTILE})
    content = (tmp_path / "result.json").read_bytes()
    assert content.isascii()
    assert b"\x1b" not in content
    assert read_sealed(tmp_path / "result.json") == ({"name": HOSTILE}, True)
