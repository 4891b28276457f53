"""The script that measures sentences, and the pages that must meet its limits."""

from __future__ import annotations

from typing import Any

import pytest

from support.documented import script
from support.paths import ROOT

readability: Any = script("readability")


@pytest.mark.parametrize("page", readability.PAGES)
def test_a_page_meets_the_limits(page: str) -> None:
    found = readability.read(ROOT / page)
    assert not found.too_long, "\n".join(found.too_long)
    assert found.mean <= readability.MEAN, f"{page}: {found.mean:.1f} words a sentence"


def test_only_prose_counts() -> None:
    text = (
        "# A title of many words that is not prose\n\n"
        "One two [three four](a-link.md#of-words). Five `code of six words` at ε = 0.5 and 1.5.\n\n"
        "| a table | of words |\n|---|---|\n| one | two |\n\n"
        "```python\nx = 'code in a block. It has. Points.'\n```\n\n"
        "<!-- a comment of words -->\n- An item, e.g. this.\n- Another\n  item.\n"
    )
    assert readability.sentences(text) == (
        "One two three four.",
        "Five code at ε = 0.5 and 1.5.",
        "An item, e.g. this.",
        "Another item.",
    )
    assert [readability.words(each) for each in readability.sentences(text)] == [4, 7, 4, 2]


def test_a_long_sentence_and_a_long_mean_are_told() -> None:
    long = readability.Page("page.md", readability.sentences("word " * 36 + "."))
    assert len(long.too_long) == 1
    assert not long.is_readable
    limit = readability.Page("page.md", readability.sentences("word " * 35 + "."))
    assert limit.too_long == ()
    assert not limit.is_readable  # 35 words on average
    assert readability.Page("page.md", ("word " * 18,)).is_readable
    assert readability.Page("page.md", ()).mean == 0.0


def test_the_script_prints_the_offenders(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(readability, "ROOT", tmp_path)
    for name, words in (("short.md", 5), ("long.md", 40)):
        (tmp_path / name).write_text("Word " * words + ".\n")
    assert readability.main([str(tmp_path / "short.md")]) == 0
    assert "short.md: 5.0 words a sentence, 0 above 35: ok" in capsys.readouterr().out
    assert readability.main([str(tmp_path / "short.md"), str(tmp_path / "long.md")]) == 1
    said = capsys.readouterr().out
    assert "long.md: 40.0 words a sentence, 1 above 35: FAIL" in said
    assert "40 words: Word Word" in said
