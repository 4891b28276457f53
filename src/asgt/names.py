"""What names stand for, known without importing what they name."""

from __future__ import annotations

from collections.abc import Collection

from .errors import InputError

__all__ = ["HUB", "is_allowed", "is_foreign", "module_of", "names_of", "refuse_unless_allowed", "short_name"]

HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
"""Short names of data sets and the hub ids that they stand for."""

_LIBRARIES = ("timm:", "hf:")


def short_name(data: str) -> str:
    """The short name of a hub id that has one; any other name as it is."""

    return {hub: short for short, hub in HUB.items()}.get(data, data)


def is_foreign(model: str) -> bool:
    """Whether a model's name is a user's own ``package.module:factory``, whose building runs the user's code."""

    return ":" in model and not model.startswith(_LIBRARIES)


def module_of(model: str) -> str:
    """The module of a foreign name: ``package.module`` of ``package.module:factory``."""

    return model.partition(":")[0]


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


def refuse_unless_allowed(model: str, allow: Collection[str], where: str, *, by_model: bool = True) -> None:
    """Refuses a foreign model that a file names and the user does not; any other model passes.

    Args:
        model: the name of the model.
        allow: what the user named, as :func:`is_allowed` takes it.
        where: the file or the run that names the model.
        by_model: whether the command at hand has a flag ``--model``.

    Raises:
        InputError: it gives the flag to add.
    """

    if is_foreign(model) and not is_allowed(model, allow):
        flag = f"--allow {module_of(model)}"
        mend = f"--model {model} or {flag}" if by_model else f"{flag}, or train it by asgt train --model {model}"
        raise InputError(f"{where} names the model {model}, code of your own that no file may run: add {mend}")
