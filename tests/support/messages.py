"""What a message to the user states: facts, in whatever words."""

from __future__ import annotations

import re


def assert_states(said: str | BaseException, *facts: object) -> None:
    """Asserts that a message holds each fact: a setting, a value, a place, a remedy, a word that tells it from others.

    Facts are found in any order, with any white space between their words, and as whole words: 3 is not in 13, nor
    ``--k`` in ``--keep``. An exception is a refusal, which is one line.
    """

    text = str(said)
    assert facts, "no fact is asked for"
    if isinstance(said, BaseException):
        assert len(text.splitlines()) == 1, text
    missing = [fact for fact in map(str, facts) if not _holds(text, fact)]
    assert not missing, f"{missing} not stated in: {text}"


def _holds(text: str, fact: str) -> bool:
    """Whether a text holds a fact that is not part of a longer word or number."""

    words = r"\s+".join(map(re.escape, fact.split()))
    before = r"(?<!\w)(?<!\d\.)" if fact[:1].isalnum() else ""
    after = r"(?!\w|\.\d)" if fact[-1:].isalnum() else ""
    return bool(words) and re.search(before + words + after, text) is not None
