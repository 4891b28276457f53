"""Names of objects, resolved without importing the objects."""

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
"""The prefix of the names of objects that were passed to a function: no file and no flag can name them."""

_LIBRARIES = ("timm:", "hf:", "hub:")


def short_name(data: str) -> str:
    """The short name of a hub id that has one; other names are unchanged."""

    return data_set(data).name


def is_foreign(model: str) -> bool:
    """Whether a name is a user's own ``package.module:factory``, whose use runs the user's code."""

    return ":" in model and not model.startswith(_LIBRARIES)


def module_of(model: str) -> str:
    """The module of a foreign name: ``package.module`` of ``package.module:factory``."""

    return model.partition(":")[0]


def file_name(name: str) -> str:
    """A name for use in the name of a file or a folder: ``package.module-Class`` for ``package.module:Class``.

    Raises:
        InputError: the name is neither a plain name, such as ``input-x-gradient``, nor
            ``package.module:attribute``, so it could lead out of its folder.
    """

    module, colon, attribute = name.partition(":")
    if colon:
        is_plain = attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))
    else:
        is_plain = re.fullmatch(r"\w[\w-]*", name) is not None
    if not is_plain:
        raise InputError(
            f"{name!r} is not a valid name: give a plain name, such as gradient, or package.module:attribute"
        )
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
        allow: the user's list: full names, as ``package.module:factory``, or modules, as ``package.module``. A
            package does not include its modules, nor a module its package.
    """

    allowed = names_of(allow)
    return name in allowed or module_of(name) in allowed


def names_of(allow: Collection[str], more: str | None = None) -> tuple[str, ...]:
    """The names that a user allows, one or several, as a tuple; with ``more``, if given."""

    # A string is a collection too, of its substrings, none of which was meant.
    return (*((allow,) if isinstance(allow, str) else allow), *(() if more is None else (more,)))


def refuse_unless_allowed(
    name: str, allow: Collection[str], where: str, *, what: str = "model", flag: str | None = "--model"
) -> None:
    """Refuses a foreign name in a file that the user does not allow; other names are accepted.

    Args:
        name: of a model, a method, an attack …
        allow: the names that the user allows, as for :func:`is_allowed`.
        where: the file or the run with the name.
        what: the kind of object, such as ``"method"`` or ``"attribution"``.
        flag: the flag of the current command for such an object; ``None`` without one.

    Raises:
        InputError: the message has the flag to add.
    """

    refuse_object(name, where, what)
    if is_foreign(name) and not is_allowed(name, allow):
        module, verb = f"--allow {module_of(name)}", "explain" if what == "attribution" else "train"
        mend = f"{flag} {name} or {module}" if flag else f"{module}, or {verb} it with asgt {verb} --{what} {name}"
        raise InputError(f"{where} names the {what} {name}, your own code, which a file cannot run: add {mend}")


def refuse_object(name: str, where: str, what: str) -> None:
    """Refuses the name of an object that was passed to a function and is not passed again.

    Raises:
        InputError: the message has the argument to pass.
    """

    if name.startswith(OBJECT):
        argument = "objective" if what == "method" else what
        raise InputError(
            f"{where}: the {what} {name.removeprefix(OBJECT)} was passed to asgt.train as an object, which no file and "
            f"no flag can name: pass it again in Python, as {argument}=…"
        )
