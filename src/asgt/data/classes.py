"""Maps the classes of the data to the logits of a model with other classes, more classes, or another order.

A model of 1,000 classes can be evaluated on images of ten. Each class of the data is assigned to a logit, by a
common name or by a table; the labels are then indices of the model's logits.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import InputError, cut, shown, unknown
from ..files import read_bounded
from .images import Images

_LARGEST = 2**24
"""The largest size of a file of class names in bytes; those of the largest data sets have a few thousand."""

__all__ = ["Classes", "mapped", "read_classes", "shares_names"]

Classes = tuple[str, ...] | dict[str, int | str]
"""The model's class names in the order of its logits; or for each class of the data its logit, or the logit's name."""


def mapped(images: Images, model_classes: Sequence[str], mapping: Mapping[str, int | str] | None = None) -> Images:
    """The same images with labels in the order of a model's logits.

    Args:
        images: N images of K classes.
        model_classes: the names of the model's classes, in the order of its logits.
        mapping: for each class of the data, by name, the number of its logit or the name of the model's class. Default:
            data and model have the same names.

    Returns:
        Images of which ``classes`` are the model's, with labels in the order of its logits.

    Raises:
        InputError: a class has no logit, a name is unknown or means several logits, or two classes share a logit.
    """

    targets: Mapping[str, int | str] = {name: name for name in images.classes} if mapping is None else mapping
    for name in images.classes:
        if name not in targets:
            raise InputError(f"--classes: the class {name!r} of the data is missing: {_known(name, targets)}")
    for name in targets:
        if name not in images.classes:
            raise InputError(f"--classes: {unknown('class of the data', name, images.classes)}")

    logits = [_logit(targets[name], model_classes) for name in images.classes]
    for logit, count in Counter(logits).items():
        if count > 1:
            both = [name for name, each in zip(images.classes, logits, strict=True) if each == logit]
            raise InputError(
                f"--classes: {both[0]!r} and {both[1]!r} are both assigned to logit {logit}: give each "
                "class of the data its own logit"
            )
    labels = torch.tensor(logits, dtype=torch.int64, device=images.labels.device)[images.labels]
    return Images(images.pixels, labels, tuple(model_classes))


def shares_names(images: Images, model_classes: Sequence[str]) -> bool:
    """Whether a model's classes contain the name of every class of the data exactly once."""

    counts = Counter(model_classes)
    return all(counts[name] == 1 for name in images.classes)


def read_classes(text: str) -> Classes:
    """Parses ``--classes``.

    Args:
        text: a file, or the content of one: names separated by commas; in a file one name per line; a JSON list of
            names; or a JSON object that gives each class of the data its logit, or the name of the model's class.

    Raises:
        InputError: it is none of these, or a name is empty.
    """

    # The functions of os.path: a long list of names is too long for the name of a file.
    is_file = os.path.isfile(text)
    where = f"--classes {text}" if is_file else "--classes"
    if not is_file and _exists(text):
        raise InputError(f"--classes {text} is not a regular file: give a file of names, or the names as cat,dog")
    try:
        content = read_bounded(text, _LARGEST).decode("utf-8-sig").strip() if is_file else text.strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} cannot be read: it is not a text file") from error

    if content.startswith(("[", "{")):
        try:
            return _checked(json.loads(content, object_pairs_hook=_once), where)
        except (ValueError, RecursionError) as error:
            said = cut(str(error), 200)
            raise (
                error if isinstance(error, InputError) else InputError(f"{where} is not valid JSON: {said}")
            ) from error
    if not is_file and "," not in content:
        raise InputError(
            f"--classes {cut(text)}: no such file: give an existing one, or names separated by commas, as cat,dog"
        )
    names = [name.strip() for name in (content.splitlines() if is_file else content.split(","))]
    return _checked(names, where)


def _exists(text: str) -> bool:
    return "," not in text and os.path.exists(text)


def _checked(content: Any, where: str) -> Classes:
    if isinstance(content, list):
        for number, name in enumerate(content):
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: name {number} of {len(content)} is {shown(name)}: give the name of a class")
        if len(content) < 2:
            raise InputError(f"{where} names {len(content)} classes: give at least two")
        return tuple(content)
    for name, target in content.items():
        if not (type(target) is int or isinstance(target, str)) or target == "":
            raise InputError(
                f"{where}: {shown(name)} is assigned to {shown(target)}: give the index of a logit or a class name"
            )
    return dict(content)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name may stand twice."""

    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"--classes: {twice[0]!r} occurs twice: remove one")
    return dict(pairs)


def _logit(target: int | str, model_classes: Sequence[str]) -> int:
    """The number of the logit that a table names."""

    if isinstance(target, int):
        if not 0 <= target < len(model_classes):
            raise InputError(
                f"--classes: logit {shown(target)} does not exist: the model has 0 to {len(model_classes) - 1}"
            )
        return target
    rows = [number for number, name in enumerate(model_classes) if name == target]
    if not rows:
        raise InputError(f"--classes: {unknown('class of the model', target, set(model_classes))}")
    if len(rows) > 1:
        raise InputError(
            f"--classes: logits {rows[0]} and {rows[1]} of the model are both called {target!r}: give the index of "
            f"the logit in a JSON object, as {json.dumps({target: rows[0]})}"
        )
    return rows[0]


def _known(name: str, targets: Mapping[str, Any]) -> str:
    return str(unknown("name", name, targets)).split(": ", 1)[1]
