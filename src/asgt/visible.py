r"""Texts for display: on a terminal, on a page, in a figure, in a table for people.

Names of classes, warnings in a file, configurations and the errors of other people's libraries may hold any character.
Escape sequences steer a terminal, bidirectional overrides show a text in another order than it has, and surrogates,
which represent undecodable bytes in the names of files, cannot be written at all. Where a text is shown, each such
character is replaced by its backslash form, as ``\x1b`` or ``\u202e``. The data is unchanged.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST", "LONGEST_NAME", "visible"]

LONGEST = 2000
"""The number of shown characters of a text."""

LONGEST_NAME = 80
"""Characters that are shown of the name of a method, a class or a data set in a table, a legend or a caption."""

# C0 but the newline, DEL, C1, line and paragraph separators, bidirectional embeddings, overrides and isolates,
# surrogates.
_HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, longest: int | None = None) -> str:
    """The text with control characters in their backslash form; other characters are unchanged.

    Args:
        text: any text.
        longest: the number of characters to show. The middle of a longer text is replaced by an
            ellipsis: an error ends with how to mend it. Default: the text is not cut.
    """

    shown = _HIDDEN.sub(_backslashed, text)
    if longest is None or len(shown) <= longest:
        return shown
    begin = (longest - 3) * 2 // 3
    return f"{shown[:begin]} … {shown[len(shown) - (longest - 3 - begin) :]}"


def _backslashed(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
