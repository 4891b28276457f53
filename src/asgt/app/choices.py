"""What can be chosen on the page: attacks with their own settings, and attributions, as the library has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from .. import attacks
from ..attacks import Attack, Norm
from ..attacks.attack import is_attack_class
from ..errors import InputError, unknown
from ..numbers import number
from ..records import REQUIRED, Setting, record_of
from ..saliency import ATTRIBUTIONS

__all__ = ["MOST", "AttackChoice", "attack_choices", "attribution_choices", "parsed", "words_of"]

_SHARED = ("eps", "norm", "steps", "targeted")
"""The settings that many attacks have, for which the page has one field each."""

MOST = 100_000
"""The largest whole number that a setting may have here, as of steps and restarts."""


@dataclass(frozen=True)
class AttackChoice:
    """An attack of the library.

    Attributes:
        kind: its class.
        title: the first line of its documentation.
        steps: its own number of steps; ``None`` where it cannot be set.
        settings: what only it has, as values that a field of a page can hold.
    """

    kind: type[Attack]
    title: str
    steps: int | None
    settings: tuple[Setting, ...]

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms that it is defined in."""

        return self.kind.norms

    def made(self, eps: float, norm: Norm, steps: Any, values: Mapping[str, Any], targeted: bool = False) -> Attack:
        """The attack with some settings.

        Args:
            eps: the radius.
            norm: its norm.
            steps: how many steps; omitted where it cannot be set.
            values: of its settings by name, as a field of a page gives them; one that is omitted has its default.
            targeted: whether it is called with the class that it is to reach.

        Raises:
            InputError: a setting is invalid, or the attack is not defined in the norm or towards a target.
        """

        known = {setting.name: setting for setting in self.settings}
        if strange := sorted(values.keys() - known.keys()):
            raise unknown("setting", strange[0], known)
        own: dict[str, Any] = {name: parsed(known[name], value) for name, value in values.items()}
        if self.steps is not None:
            own["steps"] = parsed(Setting("steps", "int", self.steps), steps)
        if targeted:
            own["targeted"] = True
        return self.kind(eps=eps, **own).in_norm(norm)


def attack_choices() -> dict[str, AttackChoice]:
    """The attacks of :mod:`asgt.attacks` that need nothing but numbers and names, by their names."""

    choices = {}
    for name in attacks.__all__:
        kind = getattr(attacks, name)
        if not is_attack_class(kind):
            continue
        record = record_of(f"{kind.__module__}:{kind.__name__}", "attack")
        # One that wraps another attack, or somebody's own, asks for what no field can hold.
        if any(setting.default is REQUIRED for setting in record.settings):
            continue
        steps = next((setting.default for setting in record.settings if setting.name == "steps"), None)
        own = tuple(setting for setting in record.settings if setting.name not in _SHARED and setting.is_plain)
        choices[name] = AttackChoice(kind, record.title, steps, own)
    # The best known one first, with which the page begins.
    return dict(sorted(choices.items(), key=lambda item: item[0] != "PGD"))


def attribution_choices() -> list[str]:
    """The names of the attributions; the first is the gradient that the masks sort by."""

    return list(ATTRIBUTIONS)


def parsed(setting: Setting, value: Any) -> Any:
    """A field's value as the setting's own type; an empty field is the setting's ``None``, or else its default.

    Raises:
        InputError: it is no such value.
    """

    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "":
        return None if type(None) in setting.types else setting.default
    if int in setting.types and float not in setting.types:
        # Fields for numbers give reals, whatever was asked for.
        real = number(value, setting.name)
        if not math.isfinite(real) or real != int(real):
            raise InputError(f"{setting.name} = {real:g} is not a whole number")
        if abs(real) > MOST:
            raise InputError(f"{setting.name} = {real:g}: at most {MOST:,} on the page; in Python there is no limit")
        value = int(real)
    return setting.plain(value)


def words_of(setting: Setting) -> tuple[str, ...]:
    """The values that a setting chooses from; none where it is no choice of names."""

    words = [get_args(kind) for kind in setting.types if get_origin(kind) is Literal]
    return tuple(word for group in words for word in group)
