"""One trial: work, disturbed, taken up again, and compared with what it gives undisturbed."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from support.ledger import Ledger, Trial
from support.results import differences

from .disturbances import DISTURBANCES, Fault, Scene, check_end
from .works import WORKS, Base, results

__all__ = ["FAULTS", "Chaos"]

FAULTS = ("traceback", "hang", "crash", "status", "orphan", "writers", "silent", "different", "unsound", "lost")
"""The outcomes that are faults."""


class Chaos:
    """Trials of a seed.

    Args:
        folder: for the work, the log and what is left of faults.
        base: what work begins with.
        seed: of the trials.
        works: the names of work, in turn.
        kinds: the names of disturbances, in turn.
    """

    def __init__(self, folder: Path, base: Base, seed: int, works: Sequence[str], kinds: Sequence[str]) -> None:
        self.folder, self.base, self.seed = folder, base, seed
        self.works, self.kinds = works, kinds

    def named(self, number: int) -> tuple[str, str]:
        """The work and the disturbance of a trial: all pairs come in turn."""

        lap, place = divmod(number, len(self.kinds))
        return self.works[(lap + place) % len(self.works)], self.kinds[place]

    def trial(self, number: int) -> Trial:
        """Makes a trial. The folder of one that shows a fault stays."""

        name, kind = self.named(number)
        work, disturbance = WORKS[name], DISTURBANCES[kind]
        seconds, right = self.base.undisturbed(name)
        place = self.folder / "faults" / f"{self.seed}-{number}-{name}-{kind.replace(' ', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        folder = place / "files"
        self.base.make(name, folder)
        scene = Scene(work, folder, seconds, right, random.Random(f"{self.seed}/{number}"), [])
        began = time.monotonic()
        try:
            disturbance.happen(scene)
            outcome, told = "done", scene.means
            if not disturbance.is_final:
                # What has not begun is begun, as a user would.
                line = work.again if (folder / work.folder).exists() else work.line
                ended = scene.end(scene.begin(line))
                check_end(ended, 0, 2)
                if ended.status == 2:
                    told = ended.err.strip().splitlines()[-1]
                    if not disturbance.may_refuse:
                        raise Fault("lost", told)
                    outcome = "refused"
            if outcome == "done" and (differing := differences(right, results(work, folder))):
                raise Fault("different", f"other results in {', '.join(differing[:4])}")
            if outcome == "done" and (verified := scene.end(scene.begin(work.verify))).status != 0:
                raise Fault("unsound", f"asgt {work.verify}: {' '.join(verified.out.split())[:300]}")
        except Fault as fault:
            outcome, told = fault.outcome, f"{name}, {kind}: {fault.told}"
            calls = [f"status {end.status}, signal {end.signal}\n{end.out}{end.err}" for end in scene.said]
            (place / "said.txt").write_text("\n".join([work.line, *calls]), errors="backslashreplace")
        else:
            shutil.rmtree(place)
        seconds = time.monotonic() - began
        where = str(place) if outcome in FAULTS else ""
        return Trial(number, f"{name}/{kind}", outcome, told, round(seconds, 3), where, outcome)

    def run(self, count: int, ledger: Ledger) -> None:
        """Makes the trials below ``count`` that the log does not have yet."""

        began, before = time.monotonic(), count - len(ledger.left(count))
        for number in ledger.left(count):
            ledger.add(self.trial(number))
            ledger.show_progress(count, began, before)
