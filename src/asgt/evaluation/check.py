"""The result of a check: its name, verdict, evidence and remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

__all__ = ["THOROUGH", "WORST_FIRST", "Check", "CheckStatus", "checks_text"]

THOROUGH = "asgt evaluate --thorough runs it"
"""The remedy of an expensive check that was not requested."""

CheckStatus: TypeAlias = Literal["PASS", "WARN", "FAIL", "NOT RUN"]

WORST_FIRST: tuple[CheckStatus, ...] = ("FAIL", "WARN", "NOT RUN", "PASS")
"""The verdicts in the order in which they matter to the reader."""


@dataclass(frozen=True)
class Check:
    """The result of one check of an evaluation.

    Attributes:
        name: what it examines, as in ``"budget reach"``.
        verdict: ``"PASS"``, ``"WARN"``, ``"FAIL"`` or ``"NOT RUN"``.
        evidence: a sentence with its numbers: samples, ε, attack and threshold.
        remedy: what to do about it; empty after ``"PASS"``.
        samples: the indices of the affected samples among the evaluated images, at most 16.

    Example:
        >>> import asgt
        >>> def few_images(look):
        ...     count = look.evaluation.samples
        ...     verdict = "WARN" if count < 100 else "PASS"
        ...     return asgt.Check("few images", verdict, f"{count} images", "evaluate more images")
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> digits = asgt.load_data("digits").test[:4]
        >>> evaluation = asgt.evaluate(model, digits, "pgd", epsilons=[0.1], checks=[few_images])
        >>> evaluation.checks[-1].verdict
        'WARN'
    """

    name: str
    verdict: CheckStatus
    evidence: str
    remedy: str = ""
    samples: tuple[int, ...] = ()

    def __str__(self) -> str:
        """The check in a line: ``FAIL budget reach: …; remedy: …``."""

        told = f"{self.verdict} {self.name}: {self.evidence}"
        return f"{told}; remedy: {self.remedy}" if self.remedy else told

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``result.json`` holds them."""

        return asdict(self) | {"samples": [int(sample) for sample in self.samples]}

    @classmethod
    def from_dict(cls, values: Any) -> Check:
        """The check of which :meth:`to_dict` made these values.

        Raises:
            ValueError: it made no such values.
        """

        if not isinstance(values, dict) or set(values) != {"name", "verdict", "evidence", "remedy", "samples"}:
            raise ValueError(f"not a check: {values!r}")
        samples = values["samples"]
        if not all(isinstance(values[name], str) for name in ("name", "evidence", "remedy")):
            raise ValueError(f"a check's name, evidence and remedy are strings: {values!r}")
        if values["verdict"] not in get_args(CheckStatus):
            raise ValueError(f"verdict {values['verdict']!r} is none of {', '.join(get_args(CheckStatus))}")
        if not isinstance(samples, list) or not all(type(number) is int and number >= 0 for number in samples):
            raise ValueError(f"samples are not indices: {samples!r}")
        return cls(**values | {"samples": tuple(samples)})


def checks_text(checks: tuple[Check, ...]) -> str:
    """All checks in a line: how many of each verdict, and which failed."""

    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in get_args(CheckStatus)}
    if counts["NOT RUN"] == len(checks):
        return "no check was run"
    words = {
        "PASS": "passes" if counts["PASS"] == 1 else "pass",
        "WARN": "warns" if counts["WARN"] == 1 else "warn",
        "FAIL": "fails" if counts["FAIL"] == 1 else "fail",
        "NOT RUN": "not run",
    }
    failed = [check.name for check in checks if check.verdict == "FAIL"]
    tally = ", ".join(f"{counts[verdict]} {words[verdict]}" for verdict in get_args(CheckStatus))
    return f"{tally}: {'failed: ' + ', '.join(failed) if failed else 'no failure detected'}"
