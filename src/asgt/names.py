"""What names stand for, known without importing what they name."""

from __future__ import annotations

import re
from collections.abc import Collection

from .datasets import data_set
from .errors import InputError

__all__ = [
    "OBJECT",
    "file_name",
    "is_allowed",
    "is_foreign",
    "module_of",
    "names_of",
    "refuse_object",
    "refuse_unless_allowed",
    "short_name",
    "viewed",
]

OBJECT = "object:"
"""What the name of an object begins with that was passed to a function: no file and no flag can name it."""

_LIBRARIES = ("timm:", "hf:", "hub:")


def short_name(data: str) -> str:
    """The short name of a hub id that has one; any other name as it is."""

    return data_set(data).name


def is_foreign(model: str) -> bool:
    """Whether a name is a user's own ``package.module:factory``, whose use runs the user's code."""

    return ":" in model and not model.startswith(_LIBRARIES)


def module_of(model: str) -> str:
    """The module of a foreign name: ``package.module`` of ``package.module:factory``."""

    return model.partition(":")[0]


def file_name(name: str) -> str:
    """A name as part of a file's or a folder's name: ``package.module-Class`` for ``package.module:Class``.

    Raises:
        InputError: the name is no plain word, as ``input-x-gradient``, and no ``package.module:attribute``, so that it
            could lead out of its folder.
    """

    module, colon, attribute = name.partition(":")
    if colon:
        is_plain = attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
    else:
        is_plain = re.fullmatch(r"\w[\w-]*", name) is not None
    if not is_plain:
        raise InputError(f"{name!r} is no name: expected a word, as gradient, or package.module:attribute")
    return name.replace(":", "-")


def viewed(name: str, view: str) -> str:
    """A name with the view of a shortcut that it is of, ``gradient+aligned``; without one, as by ``"absent"``, itself.

    Evidence of images with a shortcut has this name, so that it does not mix with that of the images as they are.
    """

    return f"{name}+{view}" if view not in ("", "absent") else name


def is_allowed(name: str, allow: Collection[str]) -> bool:
    """Whether a foreign model may run.

    Args:
        name: the model, as ``package.module:factory``.
        allow: what the user named by themselves: whole names, as ``package.module:factory``, or modules, as
            ``package.module``. A package does not stand for its modules, nor a module for its package.
    """

    allowed = names_of(allow)
    return name in allowed or module_of(name) in allowed


def names_of(allow: Collection[str], more: str | None = None) -> tuple[str, ...]:
    """What a user allows, one name or several, as a tuple; with ``more``, where there is one."""

    # A string is a collection too, of its substrings, none of which was meant.
    return (*((allow,) if isinstance(allow, str) else allow), *(() if more is None else (more,)))


def refuse_unless_allowed(
    name: str, allow: Collection[str], where: str, *, what: str = "model", flag: str | None = "--model"
) -> None:
    """Refuses a foreign name that a file holds and the user does not give; any other name passes.

    Args:
        name: of a model, a method, an attack …
        allow: what the user named, as :func:`is_allowed` takes it.
        where: the file or the run that holds the name.
        what: what the name stands for, as ``"method"`` or ``"attribution"``.
        flag: the flag by which the command at hand names such a thing; ``None`` where it has none.

    Raises:
        InputError: it gives the flag to add.
    """

    refuse_object(name, where, what)
    if is_foreign(name) and not is_allowed(name, allow):
        module, verb = f"--allow {module_of(name)}", "explain" if what == "attribution" else "train"
        mend = f"{flag} {name} or {module}" if flag else f"{module}, or {verb} it by asgt {verb} --{what} {name}"
        raise InputError(f"{where} names the {what} {name}, code of your own that no file may run: add {mend}")


def refuse_object(name: str, where: str, what: str) -> None:
    """Refuses the name of an object that was passed to a function and is not passed again.

    Raises:
        InputError: it says what to pass.
    """

    if name.startswith(OBJECT):
        argument = "objective" if what == "method" else what
        raise InputError(
            f"{where}: the {what} {name.removeprefix(OBJECT)} was passed to asgt.train as an object, which no file and "
            f"no flag can name: pass it again in Python, as {argument}=…"
        )
