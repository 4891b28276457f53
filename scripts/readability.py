"""Measures how long the sentences of the documentation are: at most 18 words on average, and none above 35.

Only prose counts: no code, tables, headings, or targets of links. All pages must meet both limits, the generated ones
too. Run it as ``python scripts/readability.py``, with paths of pages for these alone.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LONGEST", "MEAN", "PAGES", "Page", "main", "read", "sentences"]

ROOT = Path(__file__).resolve().parents[1]

MEAN, LONGEST = 18.0, 35
"""Words per sentence: the most on average, and the most of one."""

PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")),
)
"""All pages, from the root of the repository."""

# Points within these end no sentence.
_SHORT = re.compile(r"\b(?:e\.g|i\.e|cf|vs|al|fig|eq|no|approx|resp)\.|(?<=\d)\.(?=\d)", re.IGNORECASE)
_DOT = "\N{ONE DOT LEADER}"


@dataclass(frozen=True)
class Page:
    """The sentences of a page.

    Attributes:
        path: the file, relative to the repository.
        sentences: each with its words.
    """

    path: str
    sentences: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Words per sentence; 0 of a page without prose."""

        return sum(map(words, self.sentences)) / len(self.sentences) if self.sentences else 0.0

    @property
    def too_long(self) -> tuple[str, ...]:
        """The sentences above the limit."""

        return tuple(sentence for sentence in self.sentences if words(sentence) > LONGEST)

    @property
    def is_readable(self) -> bool:
        """Whether the page meets both limits."""

        return self.mean <= MEAN and not self.too_long


def words(sentence: str) -> int:
    """The words of a sentence; signs alone, as a dash, are none."""

    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of the prose of a Markdown page."""

    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", " ", text)
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)
    # Code within a line is one word, whatever is in it.
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"https?://\S+", "address", text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(("#", "|", "    ", ":::", "---")):
            blocks.append([])
            continue
        item = re.match(r"(?:[-*+]|\d+\.)\s+(.*)", bare)
        if item:
            blocks.append([item.group(1)])
        else:
            blocks[-1].append(bare.lstrip("> "))
    found = []
    for block in blocks:
        whole = re.sub(r"[*_]{1,2}(\S.*?)[*_]{1,2}", r"\1", " ".join(block))
        whole = _SHORT.sub(lambda match: match.group(0).replace(".", _DOT), whole)
        # A colon before a list or code ends what is read at once; a semicolon does not.
        parts = re.split(r"(?<=[.!?])[\"')\]]*\s+|:$", whole)
        found += [part.strip().replace(_DOT, ".") for part in parts if words(part)]
    return tuple(found)


def read(path: Path) -> Page:
    """The sentences of a file."""

    return Page(path.resolve().relative_to(ROOT).as_posix(), sentences(path.read_text()))


def main(arguments: list[str]) -> int:
    """Prints each page with its numbers. Returns 1 if one misses a limit."""

    files = [Path(each) for each in arguments] or [ROOT / name for name in PAGES]
    failed = False
    for page in map(read, files):
        failed |= not page.is_readable
        state = "ok" if page.is_readable else "FAIL"
        print(f"{page.path}: {page.mean:.1f} words a sentence, {len(page.too_long)} above {LONGEST}: {state}")
        for sentence in page.too_long:
            print(f"  {words(sentence)} words: {sentence}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
