"""What a user reads is plain technical English: no message, help, page or public docstring uses a private term."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from support.paths import ROOT

SOURCE = ROOT / "src" / "asgt"

# A private term, and the field's word for it.
TERMS = {
    r"dear(?:er|est)?": "expensive",
    r"waver(?:s|ed|ing)?": "is not deterministic",
    r"words?": "option, value, name, argument or text",
    r"judg(?:e|es|ed|ing|ement|ements)": "test, evaluate or compare",
    r"kept": "saved or stored",
    r"stands?|stood": "is",
    r"ask(?:s|ed|ing)?": "request, call or need",
    r"leaves?|left": "remain, keep, omit or remove",
    r"withst(?:and|ands|ood|anding)": "is robust",
    r"of (?:its|their|one's) own|at their word": "its own",
    r"(?:where|as) (?:it|they) (?:is|are) there": "if it exists",
    r"whole or not at all": "atomically",
    r"anew": "again",
    r"cannot be meant": "is invalid",
    r"hand(?:s|ed)? over": "pass",
    r"(?:go|goes|went|going) on": "continue",
    r"(?:take|takes|taken|took) up": "continue or use",
    r"some(?:body|one) else's|stranger(?:'?s)?": "external or foreign",
}
PRIVATE = re.compile(rf"\b(?:{'|'.join(TERMS)})\b", re.IGNORECASE)

# Phrases in which such a word has its usual meaning, or whose text is stored, each with its reason.
ALLOWED = {
    r"\b(?:min|s|minutes?) left\b": "the remaining time of a progress line",
    r"\bupper left corner\b|\bleft corner\b": "a direction",
    r"\bof one's own\b: not yet a robustness claim": "a part of the key of stored evidence",
    r"which asks for no ε, once": "a part of the stored description of attacks",
    r"the audit was left out": "a part of the key of stored evidence",
}
USUAL = re.compile("|".join(ALLOWED))

CODE = re.compile(
    r"``.*?``|\\left\b|:\w+:`.*?`|^\s*(?:>>>|\.\.\. ).*$|^\s+[\w*]+: |::\n\n(?:[ ]+.*\n|\n)+", re.MULTILINE
)
TEMPLATE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", re.DOTALL)


def prose(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts of a module for users, with their lines: literals of two words or more, and public docstrings."""

    documented, private, inner, texts = set(), set(), set(), []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for number, part in enumerate(body if isinstance(body, list) else []):
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                own = number == 0 and not isinstance(node, ast.Module)
                name = getattr(node, "name", "") if own else _assigned(body[number - 1]) if number else ""
                documented.add(part.value)
                if name.startswith("_") and not name.startswith("__"):
                    private.add(part.value)
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            texts.append((node, "".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append((node, node.value))
    for node, text in texts:
        if node in documented:
            if node not in private:
                yield node.lineno, CODE.sub(" ", text)
        elif node not in inner and len((shown := TEMPLATE.sub(" ", text)).split()) > 1:
            yield node.lineno, shown


def _assigned(node: ast.stmt) -> str:
    """The name that an attribute's docstring documents."""

    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def private_terms(text: str) -> list[str]:
    return [found.group() for found in PRIVATE.finditer(USUAL.sub(" ", text))]


def test_no_text_for_users_has_a_private_term() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        source = path.read_text()
        for line, text in prose(ast.parse(source)) if PRIVATE.search(source) else ():
            found += [f"{path.relative_to(SOURCE)}:{line}: {term}: {text.strip()[:80]}" for term in private_terms(text)]
    for path in sorted((*SOURCE.glob("*/page/*.html"), *SOURCE.glob("*/page/*.md"))):
        found += [f"{path.relative_to(SOURCE)}: {term}" for term in private_terms(TEMPLATE.sub(" ", path.read_text()))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "terms"),
    [
        ('raise InputError(f"{name} is not kept: leave it out")', ["kept", "leave"]),
        ('def run():\n    """Judges what the runs withstand."""', ["Judges", "withstand"]),
        ('LIMIT = 3\n"""What was asked for."""', ["asked"]),
        ('def _run():\n    """Judges the runs."""', []),
        ('_LIMIT = 3\n"""What was asked for."""', []),
        ('def run(asked):\n    """Runs.\n\n    Args:\n        asked: the ``words``.\n    """', []),
        ('"about 3 min left"', []),
        ('get("kept")', []),
    ],
)
def test_terms_are_found_in_texts_for_users_alone(source: str, terms: list[str]) -> None:
    assert [term for _, text in prose(ast.parse(source)) for term in private_terms(text)] == terms
