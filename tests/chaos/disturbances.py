"""What happens to work: kills, a full disk, torn files, a clock that steps, a second writer, a deleted folder.

Each disturbance is a function of the work at hand and of a generator of random numbers. It begins the work, disturbs it
and looks at how it ended. It leaves a folder from which the same command must go on, or it raises a :class:`Fault`.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.forked import Child, Ended, Limits

from .works import Work, begin, results

__all__ = ["DISTURBANCES", "Disturbance", "Fault", "Scene", "check_end"]

_PATIENCE = 30.0  # seconds that a stop by a signal may take
_ORPHANS = 10.0  # seconds in which what it started must notice that it is gone


class Fault(Exception):  # noqa: N818 (it is no error of the test's)
    """Work ended as it must not.

    Attributes:
        outcome: the class of the fault.
        told: what there is to say of it.
    """

    def __init__(self, outcome: str, told: str) -> None:
        super().__init__(f"{outcome}: {told}")
        self.outcome, self.told = outcome, told


@dataclass
class Scene:
    """Work at hand.

    Attributes:
        work: it.
        folder: where it is done.
        seconds: that it takes undisturbed.
        right: its results undisturbed.
        draws: random numbers.
        said: how each call ended so far.
        means: by what it was disturbed, where there are several ways.
    """

    work: Work
    folder: Path
    seconds: float
    right: dict[str, str]
    draws: random.Random
    said: list[Ended]
    means: str = ""

    def begin(
        self, line: str = "", *, limits: Limits | None = None, name: str = "", more: Callable[[], None] | None = None
    ) -> Child:
        """Begins the work, or another line."""

        return begin(line or self.work.line, self.folder, limits=limits, name=name, more=more)

    def end(self, child: Child) -> Ended:
        """Waits for the end of a call, and refuses a traceback and a hang."""

        ended = child.end()
        self.said.append(ended)
        if ended.timed_out:
            raise Fault("hang", f"not over after {ended.seconds:.0f} s")
        if "Traceback (most recent call last)" in ended.out + ended.err:
            raise Fault("traceback", ended.err.strip().splitlines()[-1][:300])
        return ended

    def moment(self) -> float:
        """A random moment of the work, in seconds from its begin; in a few cases it is over by then."""

        return self.draws.uniform(0.0, 1.05) * self.seconds


@dataclass(frozen=True)
class Disturbance:
    """Something that happens to work.

    Attributes:
        happen: makes it happen.
        may_refuse: whether the damage may be such that the work cannot be taken up.
        is_final: whether nothing is taken up afterwards: the results are those of the call itself.
    """

    happen: Callable[[Scene], None]
    may_refuse: bool = False
    is_final: bool = False


def check_end(ended: Ended, *statuses: int) -> None:
    """Refuses an end by another status, or one of status 2 without its line."""

    last = (ended.err.strip().splitlines() or [""])[-1]
    if ended.signal is not None:
        raise Fault("crash", f"ended by signal {ended.signal}")
    if ended.status not in statuses:
        raise Fault("status", f"status {ended.status}, not {' or '.join(map(str, statuses))}: {last[:300]}")
    if ended.status == 2 and not last.startswith("asgt: error: "):
        raise Fault("status", f"status 2 without a line of error: {last[:300]}")


def _killed(scene: Scene) -> None:
    for line in [scene.work.line, scene.work.again, scene.work.again][: scene.draws.choice([1, 1, 2, 3])]:
        child = scene.begin(line if _has_begun(scene) else scene.work.line)
        if not child.is_over(scene.moment()):
            child.kill(signal.SIGKILL, alone=True)
        child.is_over(_PATIENCE)
        if child.left_running(_ORPHANS):
            scene.end(child)
            raise Fault("orphan", f"what it started still ran {_ORPHANS:.0f} s after it was killed")
        scene.said.append(child.end())


def _has_begun(scene: Scene) -> bool:
    return (scene.folder / scene.work.folder).exists()


def _asked_to_stop(number: int) -> Callable[[Scene], None]:
    def happen(scene: Scene) -> None:
        child = scene.begin()
        is_over = child.is_over(scene.moment())
        # A terminal sends an interrupt to the whole group; a scheduler's request may go to one process.
        child.kill(number, alone=number == signal.SIGTERM)
        if not child.is_over(_PATIENCE):
            scene.end(child)
        ended = scene.end(child)
        # Before the command line has set its handlers, a signal ends it as any process.
        if ended.signal == number and ended.seconds < 1.0:
            return
        check_end(ended, *((0,) if is_over else (0, 130)))

    return happen


def _full_disk(scene: Scene) -> None:
    largest = max(file.stat().st_size for file in scene.folder.rglob("*") if file.is_file())
    room = int(10 ** scene.draws.uniform(1.5, 5.0))
    if _mounted(scene.folder, largest + room):
        scene.means = "a small tmpfs"
        try:
            ended = scene.end(scene.begin())
            check_end(ended, 0, 2)
        finally:
            _unmounted(scene.folder)
        return
    scene.means = "RLIMIT_FSIZE, as no tmpfs may be mounted"
    check_end(scene.end(scene.begin(limits=Limits(seconds=120, file=room))), 0, 2)


def _mounted(folder: Path, size: int) -> bool:
    """Puts a small file system of its own under a folder, with what the folder holds; ``False`` where none may."""

    held = folder.with_name(f"{folder.name}-held")
    used = sum(4096 + file.stat().st_size for file in folder.rglob("*"))
    libc = ctypes.CDLL(None, use_errno=True)
    folder.rename(held)
    folder.mkdir()
    options = f"size={used + size}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        folder.rmdir()
        held.rename(folder)
        return False
    shutil.copytree(held, folder, dirs_exist_ok=True)
    return True


def _unmounted(folder: Path) -> None:
    """Takes the file system away again; what it holds stays."""

    held = folder.with_name(f"{folder.name}-held")
    shutil.rmtree(held)
    shutil.copytree(folder, held)
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(folder), 2)
    folder.rmdir()
    held.rename(folder)


def _torn(scene: Scene) -> None:
    child = scene.begin()
    if not child.is_over(scene.moment()):
        child.kill(signal.SIGKILL)
    scene.said.append(child.end())
    # A machine that stops may lose the end of what was written last, and leave what was not yet renamed.
    files = [file for file in (scene.folder / scene.work.folder).rglob("*") if file.is_file()]
    files = sorted((file for file in files if not file.name.startswith(".")), key=lambda file: -file.stat().st_mtime_ns)
    if not files:
        return
    file = scene.draws.choice(files[:4])
    content = file.read_bytes()
    (file.parent / f".{file.name}.{child.pid}.part").write_bytes(content[: len(content) // 2])
    file.write_bytes(content[: scene.draws.choice([0, len(content) - 1, scene.draws.randrange(len(content) + 1)])])


def _clock(scene: Scene) -> None:
    step = scene.draws.choice([-1, 1]) * scene.draws.choice([1.0, 3600.0, 86400.0 * 400])
    after = scene.draws.randrange(30)
    monotonic_too = scene.draws.random() < 0.5

    def step_clock() -> None:
        calls = [0]

        def stepped(clock: Callable[[], float]) -> Callable[[], float]:
            def now() -> float:
                calls[0] += 1
                return clock() + (step if calls[0] > after else 0.0)

            return now

        time.time = stepped(time.time)
        if monotonic_too:
            time.monotonic = stepped(time.monotonic)

    child = scene.begin(more=step_clock)
    if scene.draws.random() < 0.5 and not child.is_over(scene.moment()):
        child.kill(signal.SIGKILL)
        scene.said.append(child.end())
    else:
        check_end(scene.end(child), 0)
    for file in scene.folder.rglob("*"):
        os.utime(file, (time.time() + step, time.time() + step))


def _two_writers(scene: Scene) -> None:
    first = scene.begin(name="first")
    is_over = first.is_over(scene.draws.choice([0.0, 0.0, 0.05, 0.3]))
    second = scene.begin(name="second")
    ends = [scene.end(first), scene.end(second)]
    for ended in ends:
        check_end(ended, 0, 2)
    worked = sum(ended.status == 0 for ended in ends)
    # On a busy machine the first may be over before the second begins, which may then do the same work again.
    if worked != 1 and not (worked == 2 and is_over):
        raise Fault("writers", f"{worked} of two writers worked in one folder")


def _deleted(scene: Scene) -> None:
    child = scene.begin()
    child.is_over(scene.moment())
    gone = _has_begun(scene)
    shutil.rmtree(scene.folder / scene.work.folder, ignore_errors=True)
    is_over = child.is_over(0)
    ended = scene.end(child)
    check_end(ended, 0, 2)
    if gone and not is_over and ended.status == 0 and results(scene.work, scene.folder) != scene.right:
        raise Fault("silent", "status 0, and its results were deleted while it was at work")
    # It begins anew.
    shutil.rmtree(scene.folder / scene.work.folder, ignore_errors=True)


DISTURBANCES = {
    "kill": Disturbance(_killed),
    "terminate": Disturbance(_asked_to_stop(signal.SIGTERM)),
    "interrupt": Disturbance(_asked_to_stop(signal.SIGINT)),
    "full disk": Disturbance(_full_disk),
    "torn": Disturbance(_torn, may_refuse=True),
    "clock": Disturbance(_clock),
    "writers": Disturbance(_two_writers, is_final=True),
    "deleted": Disturbance(_deleted),
}
"""By name."""
