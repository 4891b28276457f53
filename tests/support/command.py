"""The command line of ``asgt``: what it answered, and the environment of a child process."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    status: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a refused input: all there is on standard error."""

        assert len(self.err.splitlines()) == 1, self.err
        return self.failure()

    def failure(self) -> str:
        """The one line of an input that proved wrong only while work was under way: the last on standard error."""

        lines = self.err.splitlines()
        assert self.status == 2, (self.status, self.err)
        assert "Traceback" not in self.out + self.err
        assert [line.startswith("asgt: error: ") for line in lines] == [False] * (len(lines) - 1) + [True], self.err
        return lines[-1].removeprefix("asgt: error: ")


def plain_environment() -> dict[str, str]:
    """The environment of a child: without the data folder of whoever runs the tests."""

    return {name: value for name, value in os.environ.items() if name != "ASGT_DATA"}
