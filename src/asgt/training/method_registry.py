"""The training methods and the attacks inside them, by name, and the settings of each.

A method is one file in ``objectives/`` and one line in :data:`METHODS`. Its settings and their defaults are the fields
of its class: a field of type ``Attack`` brings the settings of the attack, a field of type ``SaliencyMask`` those of
the mask, and any other field is a setting with its name. ``stored_as = {"beta": "weight"}`` in a class gives a field
another name in files and on the command line.

Reading this registry imports no method: classes of asgt are read from their source (:mod:`asgt.records`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InputError, unknown
from ..names import is_foreign
from ..records import REQUIRED, Record, Setting, record_of

__all__ = [
    "ATTACKS",
    "MASK",
    "METHODS",
    "Part",
    "attack_part",
    "known_settings",
    "listens_to",
    "method_record",
    "method_settings",
    "part_settings",
    "role_of",
    "stored_name",
    "title_of",
]

METHODS: dict[str, str] = {
    "st": "asgt.training.objectives.standard:ST",
    "at": "asgt.training.objectives.adversarial:AT",
    "trades": "asgt.training.objectives.trades:TRADES",
    "sgt": "asgt.training.objectives.sgt:SGT",
    "sga": "asgt.training.objectives.sga:SGA",
    "asgt": "asgt.training.objectives.asgt:ASGT",
    "rrr": "asgt.training.objectives.rrr:RRR",
}
"""The methods, in the order of tables: the class of each."""


@dataclass(frozen=True)
class Part:
    """An attack or a mask as methods use it.

    Attributes:
        place: its class, ``package.module:Name``.
        defaults: defaults in training that differ from those of the class.
        fixed: fields that are not settings in training, and their values.
    """

    place: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


ATTACKS: dict[str, Part] = {
    "pgd": Part("asgt.attacks.pgd:PGD", defaults={"steps": 7}, fixed={"random_start": True, "restarts": 1}),
    "fgsm": Part("asgt.attacks.fgsm:FGSM", fixed={"random_start": False}),
    "fgsm-rs": Part("asgt.attacks.fgsm:FGSM", fixed={"random_start": True}),
}
"""The attacks inside a method; the first is the default."""

OF_ATTACKS = ("attack", "eps", "norm", "steps", "alpha", "warmup")
OF_MASKS = ("k", "target", "rank", "unit", "fill")
OF_METHODS = ("kl", "detach_clean", "weight", "clean_weight")
"""The stored settings that :class:`asgt.training.config.TrainConfig` has fields for, by what they belong to."""

_NEVER = ("targeted",)
"""Fields of attacks that are no settings of a training, which attacks away from the labels."""

MASK = Part("asgt.saliency.mask:SaliencyMask", defaults={"k": 0.1})
"""The mask inside a method."""


def method_record(method: str) -> Record:
    """The record of a method's class; ``package.module:Name`` is imported.

    Raises:
        InputError: the method is unknown.
    """

    if method in METHODS:
        return record_of(METHODS[method], "method")
    if is_foreign(method):
        return record_of(method, "method")
    raise unknown("method", method, METHODS)


def attack_part(attack: str) -> Part:
    """The attack of a name; ``package.module:Name`` is used directly.

    Raises:
        InputError: the attack is unknown.
    """

    if attack in ATTACKS:
        return ATTACKS[attack]
    if is_foreign(attack):
        return Part(attack)
    raise unknown("attack", attack, ATTACKS)


def role_of(setting: Setting) -> Literal["attack", "pgd", "mask", "plain"]:
    """The role of a method's field: any attack, PGD, the mask, or a plain value."""

    kind = setting.kind.removesuffix(" | None")
    if kind == "Attack":
        return "attack"
    return "pgd" if kind == "PGD" else "mask" if kind == "SaliencyMask" else "plain"


def stored_name(record: Record, setting: Setting) -> str:
    """The name of a method's field in files and on the command line."""

    return record.stored_as.get(setting.name, setting.name)


def part_settings(part: Part, what: str) -> dict[str, Setting]:
    """The settings of an attack or a mask inside a method by their stored names, with their defaults in training.

    Raises:
        InputError: it needs a value that no setting can store, or a field has the name of another setting.
    """

    record = record_of(part.place, what)
    settings: dict[str, Setting] = {}
    for each in record.settings:
        if each.name not in {*part.fixed, *_NEVER} and _can_be_set(each, f"{what} {part.place}"):
            name = stored_name(record, each)
            if what == "attack" and name in {*OF_MASKS, *OF_METHODS}:
                raise _taken(f"attack {part.place}", name, "a mask or a method")
            settings[name] = dataclasses.replace(each, default=part.defaults.get(each.name, each.default))
    return settings


def method_settings(method: str, attack: str | None = None) -> dict[str, Setting]:
    """The settings of a method by their stored names, those of its attack and its mask among them.

    The default of ``eps`` and ``warmup`` depends on the data: it is :data:`asgt.records.REQUIRED`, unless the class has
    one.

    Args:
        method: its name.
        attack: the attack inside it. Default: PGD.

    Raises:
        InputError: the method or the attack is unknown.
    """

    record = method_record(method)
    settings: dict[str, Setting] = {}
    first = next(iter(ATTACKS))
    for each in record.settings:
        role = role_of(each)
        if role == "plain":
            name = stored_name(record, each)
            if _can_be_set(each, f"method {method}"):
                if name in {*OF_ATTACKS, *OF_MASKS}:
                    raise _taken(f"method {method}", name, "an attack or a mask")
                _add(settings, {name: dataclasses.replace(each, name=name)}, method)
            continue
        if each.default is not REQUIRED or each.kind.endswith(" | None"):
            raise InputError(
                f"method {method}: the default of its field {each.name} would not be used by its name: remove the "
                "default, or pass the objective to asgt.train"
            )
        if role == "mask":
            _add(settings, part_settings(MASK, "mask"), method)
            continue
        settings["warmup"] = Setting(
            "warmup", "float", REQUIRED, "share of the training over which eps ramps up from 0"
        )
        if role == "attack":
            settings["attack"] = Setting("attack", "str", first, each.doc)
        part = ATTACKS["pgd"] if role == "pgd" else attack_part(attack or first)
        _add(settings, part_settings(part, "attack"), method)
    return settings


def _add(settings: dict[str, Setting], more: Mapping[str, Setting], method: str) -> None:
    """Adds settings of a field, none of which another field has."""

    if twice := sorted(settings.keys() & more.keys()):
        raise _taken(f"method {method}", twice[0], "its attack, its mask or another field")
    settings |= more


def _taken(whose: str, name: str, by: str) -> InputError:
    return InputError(
        f"{whose} has a field {name}, which is a setting of {by}: give it another name with "
        f'stored_as = {{"{name}": "my_{name}"}}'
    )


def listens_to(method: str, attack: str | None = None) -> set[str]:
    """The names of the settings that a method uses, with ``attack`` (default: PGD) inside.

    Raises:
        InputError: the method or the attack is unknown.
    """

    return set(method_settings(method, attack))


def known_settings(methods: Iterable[str] = (), attacks: Iterable[str] = ()) -> dict[str, Setting]:
    """The settings of all registered methods and attacks, and of some others, by their stored names.

    Args:
        methods: names ``package.module:Name``, whose code may run.
        attacks: the same for attacks.
    """

    settings: dict[str, Setting] = {}
    for method in dict.fromkeys((*METHODS, *methods)):
        settings = method_settings(method) | settings
    for attack in dict.fromkeys((*ATTACKS, *attacks)):
        settings = part_settings(attack_part(attack), "attack") | settings
    return settings


def title_of(name: str) -> str:
    """The name of a method or an attack in tables: ``ASGT`` for ``asgt``, ``MyMethod`` for
    ``package.module:MyMethod``.
    """

    return name.replace(":", ".").rpartition(".")[2] if is_foreign(name) else name.upper()


def _can_be_set(setting: Setting, where: str) -> bool:
    """Whether a setting holds plain values; a field of another type keeps its default."""

    if not setting.is_plain and setting.default is REQUIRED:
        raise InputError(
            f"{where}: {setting.name}: {setting.kind} has no default, and no setting can store it: give it a default, "
            "or pass the object to asgt.train"
        )
    return setting.is_plain
