"""Work for a page that must stay responsive: done in a separate thread, told about while it lasts, and stoppable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import AsgtError
from .bench import Bench
from .followed import StoppedError
from .looking import Look, Wanted, look

__all__ = ["Desk", "Update"]

_SOON, _OFTEN = 0.4, 1.0
"""Seconds before the first report of how far the work is, and between two of them, which a screen reader reads out."""

_FAULT = "A fault of asgt: its traceback is in the terminal."


@dataclass(frozen=True, eq=False)
class Update:
    """What the page says next.

    Attributes:
        text: a sentence.
        look: what is seen; ``None`` while it is being made, and where it cannot be.
        wrong: whether the sentence says what is wrong.
    """

    text: str
    look: Look | None = None
    wrong: bool = False


class _Job:
    """One wish of one page."""

    def __init__(self) -> None:
        self.stopped, self.done = threading.Event(), threading.Event()
        self.progress = ("begins", 0.0)
        self.update = Update("")


class Desk:
    """Does what pages wish for, one thing at a time, since all of them use the same models.

    Args:
        bench: the models and their images.
        on_fault: is told of an error that is no fault of the user.
    """

    def __init__(self, bench: Bench, on_fault: Callable[[BaseException], None] = lambda error: None) -> None:
        self.bench, self.on_fault = bench, on_fault
        self._turn = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def looked(self, page: str, wish: Callable[[], Wanted]) -> Iterator[Update]:
        """Looks at an image, and says what to show meanwhile. What the page wished for before is stopped in silence.

        Args:
            page: which page it is.
            wish: reads the page's fields; it may raise an :class:`InputError`.
        """

        job = _Job()
        if (before := self._jobs.get(page)) is not None:
            before.stopped.set()
        self._jobs[page] = job
        threading.Thread(target=self._work, args=(job, wish), daemon=True).start()
        try:
            if not job.done.wait(_SOON):
                while True:
                    what, share = job.progress
                    yield Update(f"Working: {what} ({share:.0%}).")
                    if job.done.wait(_OFTEN):
                        break
            if self._jobs.get(page) is job:
                del self._jobs[page]
                yield job.update
        finally:  # the page may be closed meanwhile
            job.stopped.set()

    def stop(self, page: str | None = None) -> None:
        """Stops what a page wished for; ``None`` stops everything."""

        for name, job in list(self._jobs.items()):
            if page in (None, name):
                job.stopped.set()

    def _work(self, job: _Job, wish: Callable[[], Wanted]) -> None:
        def told(what: str, share: float) -> None:
            job.progress = (what, share)

        try:
            with self._turn:
                found = look(self.bench, wish(), told=told, should_stop=job.stopped.is_set)
            job.update = Update("", found)
        except StoppedError as stop:
            job.update = Update(f"{str(stop)[0].upper()}{str(stop)[1:]}.")
        except AsgtError as error:
            job.update = Update(str(error), wrong=True)
        except BaseException as error:
            job.update = Update(_FAULT, wrong=True)
            self.on_fault(error)
        finally:
            job.done.set()
