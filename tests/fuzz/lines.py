"""Command lines: valid ones of every verb, with flags added, doubled, emptied, given odd values or torn apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from .cases import Case
from .oddities import odd_words

__all__ = ["BASES", "flags_in", "lines"]

BASES: dict[str, Sequence[str]] = {
    "train": ("train --method st --limit 60 --epochs 1 --width 0.25 --batch-size 30 --out out",),
    "evaluate": (
        "evaluate run --samples 4 --epsilons 0.1 --out out",
        "evaluate run --resume",
        "evaluate --model small_cnn --width 0.25 --weights run/model.safetensors --data digits --samples 4 "
        "--epsilons 0.1 --out out",
    ),
    "explain": ("explain run --samples 4 --resume --out page", "explain run --resume --out page"),
    "compare": ("compare run --out page", "compare run other --out page"),
    "reproduce": (
        "reproduce grid.yaml --dry-run --out out",
        "reproduce digits --dry-run --out out",
        "reproduce digits --scale laptop --seeds 1 --dry-run",
    ),
    "profile": ("profile --method st --width 0.25 --batch-size 2 --data-shape 1x8x8 --repetitions 1",),
}
"""Lines of each verb that are right and short, in a folder with the finished runs ``run`` and ``other``."""

_VERBS = (
    "",
    "help",
    "--help",
    "-h",
    "--version",
    "-V",
    "Train",
    "train ",
    "--train",
    "-",
    "--",
    "trainn",
    "é",
    "\x1b[2J",
)


def flags_in(help_text: str) -> list[str]:
    """The flags that the help of a verb lists."""

    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", help_text, re.MULTILINE)


def lines(flags: Mapping[str, Sequence[str]]) -> st.SearchStrategy[Case]:
    """Cases of command lines.

    Args:
        flags: of each verb that there is. A verb without a valid line here begins with its name and a run.
    """

    every = sorted({flag for own in flags.values() for flag in own})

    @st.composite
    def line(draw: st.DrawFn) -> Case:
        verb = draw(st.sampled_from(sorted(flags)))
        words = draw(st.sampled_from(BASES.get(verb, (f"{verb} run",)))).split()
        own = st.one_of(st.sampled_from(sorted(flags[verb]) or every), st.sampled_from(every))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3, 4, 6]))):
            place = draw(st.integers(0, len(words)))
            match draw(st.integers(0, 11)):
                case 0 | 1 | 2 | 3:
                    words += [draw(own), draw(odd_words())]
                case 4:
                    words += [f"{draw(own)}={draw(odd_words())}"]
                case 5:
                    words += [draw(own)]
                case 6 | 7 | 8 if place < len(words) and place > 0:
                    words[place] = draw(odd_words())
                case 9 if place < len(words):
                    del words[place]
                case 10 if place < len(words):
                    words.insert(place, words[place])
                case _:
                    words.insert(place, draw(st.one_of(odd_words(), own, st.sampled_from(_VERBS))))
        if words[:1] == ["reproduce"] and "--dry-run" not in words:
            words.append("--dry-run")  # what is right would be a whole grid, for hours
        return Case("line", "runs", (), tuple(words))

    return line()
