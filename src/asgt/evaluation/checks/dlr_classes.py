"""The difference of logits ratio needs at least four logits."""

from __future__ import annotations

from ..check import Check
from ..second_look import SecondLook

__all__ = ["check_classes_for_dlr"]

_DLR_CLASSES = 4


def check_classes_for_dlr(look: SecondLook) -> Check:
    """The difference of logits ratio needs at least four logits."""

    name, classes = "classes for DLR", look.random_logits.shape[1]
    protocol = look.evaluation.protocol
    asks = any(attack.least_classes >= _DLR_CLASSES for search in protocol.searches for attack in search.finders)
    if classes >= _DLR_CLASSES:
        return Check(name, "PASS", f"{classes} classes; the DLR loss needs {_DLR_CLASSES}")
    if asks:
        evidence = f"{classes} classes; the DLR loss needs {_DLR_CLASSES}, so it was adapted"
        return Check(name, "WARN", evidence, f"state that {protocol.name} was adapted")
    return Check(name, "PASS", f"{classes} classes; the DLR loss needs {_DLR_CLASSES}, but no attack here uses it")
