"""One writer for a folder: a second one is refused, and the lock of a process that is gone is taken over."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from asgt.errors import InputError
from asgt.locks import LOCK, holds_nothing, locked
from asgt.progress import SILENT
from support.messages import assert_states


class Heard(type(SILENT)):  # type: ignore[misc]
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def _hold(folder: Path, held: object) -> None:
    with locked(folder, "asgt train"):
        held.set()  # type: ignore[attr-defined]
        signal.pause()


def test_a_second_writer_is_refused_and_the_lock_of_a_dead_one_taken_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "run", held))
    holder.start()
    try:
        assert held.wait(20)
        with pytest.raises(InputError) as caught, locked(tmp_path / "run", "asgt evaluate"):
            pytest.fail("two writers")
        assert_states(caught.value, "asgt train", f"process {holder.pid}", tmp_path / "run", "wait", "--out")
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    heard = Heard()
    with locked(tmp_path / "run", "asgt evaluate", progress=heard):
        assert not holds_nothing(tmp_path)
        assert holds_nothing(tmp_path / "run")
    assert len(heard.said) == 1
    assert_states(heard.said[0], tmp_path / "run", "took over", "asgt train", f"process {holder.pid}", "no longer")
    heard.said.clear()
    with locked(tmp_path / "run", "asgt evaluate", progress=heard):
        pass
    assert heard.said == []


def test_the_same_process_is_a_second_writer_too(tmp_path: Path) -> None:
    with locked(tmp_path, "asgt explain"):
        with pytest.raises(InputError, match="asgt explain"), locked(tmp_path, "asgt explain"):
            pytest.fail("two writers")
        # Another lock in the same folder is another matter.
        with locked(tmp_path, "asgt explain", name=".other.lock"):
            pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"doing": 3}', "\0", '"' + 9 * "x"])
def test_a_note_that_a_kill_or_a_hand_damaged_is_no_obstacle(note: str, tmp_path: Path) -> None:
    (tmp_path / f"{LOCK}.json").write_text(note)
    heard = Heard()
    with locked(tmp_path, "asgt train", progress=heard):
        pass
    assert_states(heard.said[0], "took over", "another process")


def test_a_lock_leaves_no_trace_and_only_folders_that_hold_something(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", "asgt train"):
        pass
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b", "asgt train"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_place_that_takes_no_folder_is_an_error_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"), locked(tmp_path / "file", "asgt train"):
        pass
    with pytest.raises(InputError, match="cannot write"), locked(tmp_path / "file" / "below", "asgt train"):
        pass


def test_a_working_directory_that_changes_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with locked(Path("run"), "asgt train"):
        (tmp_path / "run" / "kept").touch()
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["kept"]
