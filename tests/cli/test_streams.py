"""What becomes of a command when its output, its encoding, a signal or a path is not as it should be.

Most cases call the entry point in this process, with streams on descriptors of their own, as a shell gives them.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgt.cli import main
from asgt.cli.console import Console
from asgt.cli.interrupts import Interruption
from support.command import Answer
from support.messages import assert_states

MESSAGE = "ε ≤ 8/255 · ± 0.5 → 猫 │ é"


@pytest.fixture
def stdout_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts standard output, or standard error, onto a descriptor."""

    files: list[io.TextIOWrapper] = []

    def put(descriptor: int, name: str = "stdout", encoding: str = "utf-8") -> None:
        files.append(os.fdopen(descriptor, "w", encoding=encoding))
        monkeypatch.setattr(sys, name, files[-1])

    yield put
    for file in files:
        file.close()


def without_reader() -> int:
    """The writing end of a pipe whose reader has gone."""

    reader, writer = os.pipe()
    os.close(reader)
    return writer


# Readers that leave ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("lines", [1, 5000])
def test_work_goes_on_when_its_reader_has_gone(
    name: str,
    lines: int,
    verb: Callable[..., None],
    stdout_on: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def work() -> None:
        console = Console()
        for _ in range(lines):
            print("a line", file=getattr(sys, name))
            (console.out if name == "stdout" else console.err).print("another")
        (tmp_path / "result.json").write_text("{}")

    verb(work)
    stdout_on(without_reader(), name)
    assert main([]) == 0
    assert (tmp_path / "result.json").exists()
    assert capsys.readouterr() == ("", "")


def test_an_error_keeps_its_status_when_its_reader_has_gone(stdout_on: Callable[..., None]) -> None:
    stdout_on(without_reader(), "stderr")
    assert main(["no-such-verb"]) == 2


def test_a_reader_that_takes_one_line_gets_it(verb: Callable[..., None], stdout_on: Callable[..., None]) -> None:
    reader, writer = os.pipe()
    verb(lambda: print("first", flush=True))
    stdout_on(writer)
    assert main([]) == 0
    assert os.read(reader, 100) == b"first\n"
    os.close(reader)


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["train", "--help"]])
def test_a_text_that_nobody_reads_is_no_error(
    words: list[str], stdout_on: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stdout_on(without_reader())
    try:
        status = main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_closed_from_the_start_is_no_error(
    stream: str, verb: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb(lambda: print(MESSAGE, file=getattr(sys, stream)))
    monkeypatch.setattr(sys, stream, None)
    assert main([]) == 0
    assert getattr(sys, stream) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_said(
    verb: Callable[..., None], stdout_on: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(lambda: print("a table"))
    stdout_on(os.open("/dev/full", os.O_WRONLY))
    assert main([]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert_states(said, "standard output", os.strerror(errno.ENOSPC))


def test_the_process_ends_quietly_when_nobody_reads(process: Callable[..., Answer]) -> None:
    def leave() -> None:
        os.dup2(without_reader(), 1)

    assert process("--help", preexec=leave) == Answer(0, "", "")


# Encodings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "shift_jis"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_an_encoding_lacks_is_replaced(
    encoding: str, name: str, verb: Callable[..., None], stdout_on: Callable[..., None]
) -> None:
    def work() -> None:
        console = Console()
        print(MESSAGE, file=getattr(sys, name))
        (console.out if name == "stdout" else console.err).print(MESSAGE)

    reader, writer = os.pipe()
    verb(work)
    stdout_on(writer, name, encoding)
    assert main([]) == 0
    with open(reader, encoding=encoding, closefd=True) as file:
        os.set_blocking(reader, False)
        lines = file.readline(), file.readline()
    assert lines[0] == lines[1]
    assert "8/255" in lines[0]
    if encoding == "utf-8":
        assert lines[0].rstrip() == MESSAGE
    if encoding == "ascii":
        assert_states(lines[0], "eps <= 8/255", "+- 0.5 ->", "\\u732b", "e")


def test_a_stream_without_a_descriptor_is_steady_too(
    verb: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    verb(lambda: print(MESSAGE))
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([]) == 0
    assert stream.errors == "strict", "it is given back as it was"
    stream.seek(0)
    assert "eps <= 8/255" in stream.read()


def test_tables_in_ascii_keep_their_columns(verb: Callable[..., None], stdout_on: Callable[..., None]) -> None:
    from rich.table import Table

    def work() -> None:
        table = Table("ε", "name")
        table.add_row("≥ 1", "猫")
        table.add_row("2", "dog")
        Console().out.print(table)

    reader, writer = os.pipe()
    verb(work)
    stdout_on(writer, encoding="ascii")
    assert main([]) == 0
    sys.stdout.close()
    with open(reader, encoding="ascii") as file:
        lines = file.read().splitlines()
    assert len({len(line) for line in lines if line.strip()}) == 1, lines


@pytest.mark.slow
def test_workers_of_a_grid_write_in_any_encoding() -> None:
    code = """
        import logging, sys, warnings
        import asgt.experiments.worker as worker
        def listen(*_, **__):
            print("\\u03b5 on standard output", flush=True)
            logging.warning("\\u03b5 \\x1b[31m in a log")
            warnings.warn("\\u03b5 \\x1b[31m in a warning")
            raise SystemExit(0)
        worker.threading.Thread = listen
        worker.main()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = ended.stderr.decode("ascii")
    assert ended.returncode == 0, said
    assert_states(said, "eps on standard output", "eps \\x1b[31m in a log", "eps \\x1b[31m in a warning")
    assert "\x1b" not in said


# Signals --------------------------------------------------------------------------------------------------------------


class _Deaf:
    """Its end takes long, and no exception gets out of it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


def _swallow(number: int) -> None:
    try:
        os.kill(os.getpid(), number)
        signal.pause()
    except BaseException:
        pass


def _ignore(number: int) -> None:
    _Deaf(number)


def _wait(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", [_swallow, _ignore, _wait])
def test_a_signal_ends_the_work_whoever_swallows_its_exception(
    way: Callable[[int], None],
    number: int,
    verb: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished = []

    def work() -> None:
        way(number)
        for _ in range(500):  # the exception comes once more, long before these 5 s are over
            time.sleep(0.01)
        finished.append(True)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    verb(work)
    assert main([]) == 130
    assert not finished
    assert capsys.readouterr().err == "asgt: interrupted\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert Interruption._current is None


def test_a_signal_that_turned_into_another_error_is_an_interruption(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            raise RuntimeError("a library had something else to say") from None

    verb(work)
    assert main([]) == 130
    assert capsys.readouterr().err == "asgt: interrupted\n"


def test_a_clean_up_is_not_broken_off(verb: Callable[..., None]) -> None:
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        finally:
            time.sleep(0.5)
            cleaned.append(True)

    verb(work)
    assert main([]) == 130
    assert cleaned


def test_a_signal_before_the_work_begins_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(undo: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("asgt.cli.entry.visible_diagnostics", interrupted)
    assert main(["--version"]) == 130
    assert capsys.readouterr().err == "asgt: interrupted\n"


def test_an_ignored_signal_stays_ignored(verb: Callable[..., None]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        verb(lambda: os.kill(os.getpid(), signal.SIGINT))
        assert main([]) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_ends_the_process_at_its_end_too(tmp_path: Path) -> None:
    code = """
        import atexit, os, signal, sys
        import asgt.cli.entry as entry
        def finish(words):
            atexit.register(os.kill, os.getpid(), signal.SIGINT)
            global file
            file = open("result.txt", "w")
            file.write("whole")
            atexit.register(file.flush)
            print("done")
            return 0
        entry._run = finish
        entry.process()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "done\n", "asgt: interrupted\n")
    assert (tmp_path / "result.txt").read_text() == "whole"


def test_the_end_of_a_process_loses_no_file(tmp_path: Path) -> None:
    code = """
        import asgt.cli.entry as entry
        def finish(words):
            global file
            file = open("result.txt", "w")
            file.write("whole")
            return 0
        entry._run = finish
        entry.process()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "result.txt").read_text() == "whole"


# Paths ----------------------------------------------------------------------------------------------------------------


def _too_long(folder: Path) -> str:
    return "a" * 256


def _circle(folder: Path) -> str:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    return "one/run"


def _below_a_file(folder: Path) -> str:
    (folder / "file").write_text("")
    return "file/run"


def _null(folder: Path) -> str:
    return "a\0b"


def _a_file(folder: Path) -> str:
    (folder / "file").write_text("")
    return "file"


OUTS = [_too_long, _circle, _below_a_file, _null, _a_file]

COMMANDS = [
    ("train", "--data", "digits", "--method", "st", "--epochs", 1, "--limit", 50, "--out"),
    ("compare", "RUN", "--out"),
    ("explain", "RUN", "--samples", 20, "--out"),
    (
        "evaluate",
        "--weights",
        "RUN/model.safetensors",
        "--model",
        "small_cnn",
        "--data",
        "digits",
        "--samples",
        5,
        "--epsilons",
        0.1,
        "--out",
    ),
    ("evaluate",),
    ("compare",),
    ("explain",),
    ("train", "--resume", "--out"),
    ("train", "--data"),
    ("evaluate", "--model", "small_cnn", "--data", "digits", "--out", "evidence", "--weights"),
    ("reproduce", "--config"),
    ("train", "--config"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: f"{words[0]}{words[-1] if len(words) > 1 else ''}")
@pytest.mark.parametrize("path", OUTS, ids=lambda path: path.__name__.strip("_"))
def test_a_path_that_cannot_be_is_said_in_one_line(
    path: Callable[[Path], str], words: tuple[object, ...], cli: Callable[..., Answer], finished_run: Path
) -> None:
    place = path(Path.cwd())
    filled = [str(word).replace("RUN", str(finished_run)) for word in words]
    answer = cli(*filled, place)
    answer.failure()


@pytest.mark.parametrize("name", ["metrics.jsonl", "training.json", "config.yaml", "model.safetensors"])
def test_a_folder_where_a_file_is_expected(name: str, cli: Callable[..., Answer], finished_run: Path) -> None:
    (finished_run / name).unlink()
    (finished_run / name).mkdir()
    assert name in cli("compare", finished_run).failure()
    assert name in cli("explain", finished_run).failure()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "checkpoint.safetensors"])
def test_a_folder_in_the_place_of_a_file_to_resume_from(
    name: str, cli: Callable[..., Answer], stopped_run: Path
) -> None:
    (stopped_run / name).unlink()
    (stopped_run / name).mkdir()
    assert name in cli("train", "--resume", "--out", stopped_run).failure()


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTEMPTY,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENXIO,
        errno.EMFILE,
        errno.ETXTBSY,
        errno.EINVAL,
    ],
    ids=errno.errorcode.get,
)
def test_whatever_the_file_system_refuses_is_one_line(
    number: int, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise OSError(number, os.strerror(number), "out/with\nnew\x1bline")

    verb(work)
    assert main([]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert_states(said, os.strerror(number), "\\x1bline")


def test_an_error_of_the_system_that_names_no_file_is_ours(verb: Callable[..., None]) -> None:
    def work() -> None:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    verb(work)
    with pytest.raises(ConnectionResetError):
        main([])
