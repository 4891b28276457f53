"""Shared parts of the verbs' parsers: errors in one line that name the flag, and the nearest name for an unknown
flag.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Collection, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

from ..errors import InputError, cut, shown, unknown
from ..files import plain_value, read_yaml
from ..names import is_foreign, module_of
from ..numbers import number
from ..records import REQUIRED, Setting
from ..training.config import METHOD_SETTINGS, TrainConfig, flag_of
from ..training.method_registry import ATTACKS, METHODS, known_settings, listens_to, method_record

_MODE = "plain"
"""The library's name for the way in which values are read."""

_LONGEST = 4000
"""The number of characters of a library message that are searched for the cause."""

_LONGER = {flag_of("from_run"): "--from_run"}
"""Flags whose setting has another name."""

__all__ = ["Parser", "add_allow", "add_no_cache", "add_settings", "allowed", "given", "heed_no_cache", "listed"]


class _Help(DefaultHelpFormatter):  # type: ignore[misc]
    """Flags with hyphens, and the default where there is one; types are in the words."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return ", ".join(_hyphened(option) for option in action.option_strings) or str(action.dest).upper()

    def _expand_help(self, action: argparse.Action) -> str:
        text = re.sub(r" \((?:type: [^()]*|(?:default: (?:null|False)))\)$", "", str(super()._expand_help(action)))
        plain = action.default not in (None, False, argparse.SUPPRESS) and "(default" not in text
        return f"{text} (default: {action.default})" if plain and action.option_strings else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(_Help, self)._fill_text(line, width, indent) for line in text.splitlines())


class Parser(ArgumentParser):  # type: ignore[misc]
    """A parser that raises :class:`InputError` instead of leaving the process."""

    def __init__(self, *, prog: str, description: str, usage: str) -> None:
        set_loader(_MODE, _loaded, exceptions=(InputError,))
        super().__init__(
            prog=prog,
            description=description,
            usage=usage,
            formatter_class=_Help,
            default_env=False,
            parser_mode=_MODE,
            print_config=None,
            allow_abbrev=False,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # The library repeats the value, however long it is.
        text = cut(" ".join(cut(str(message), _LONGEST).split()), _LONGEST)

        if strange := re.search(r"[Uu]nrecognized arguments: (\S+)", text):
            raise self._unknown(strange.group(1)) from ex
        if key := re.search(r"[Kk]ey '?\"?([\w.]+)'?\"? is not (?:expected|defined|accepted)", text):
            raise self._unknown(f"--{key.group(1)}") from ex
        if choice := re.search(
            r"-*([\w-]+)\W.*?Literal\[([^\]]*)\]", text.removeprefix("Parser key ").replace('"', "")
        ):
            raise InputError(f"{_hyphened('--' + choice.group(1))}: use one of {choice.group(2)}") from ex
        # The library names the key, then what it expected; the rest is its own type talk.
        if wrong := re.search(r"(?:Parser key|Problem with given|argument|key) \"?'?-*([\w-]+)\"?'?:? ?(.*)", text):
            raise InputError(f"{_hyphened('--' + wrong.group(1))}: {_plain(wrong.group(2))}") from ex
        raise InputError(cut(text, 300)) from ex

    def _unknown(self, flag: str) -> InputError:
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        name = flag.split("=")[0]
        if not name.startswith("-"):
            return InputError(f"{shown(name)} is an unexpected argument: remove it")
        return unknown("flag", _hyphened(name), sorted({_hyphened(option) for option in flags}))


def given(parser: ArgumentParser, words: list[str]) -> dict[str, Any]:
    """Only what the user gave, by name."""

    spelled = _spelled_out(parser, words)
    _refuse_yaml(parser, spelled)
    # The library would read flags from environment variables too, if one of its own asks for it.
    parsed: Namespace = parser.parse_args(spelled, env=False, defaults=False)
    return dict(parsed.as_dict())


def add_allow(parser: ArgumentParser) -> None:
    """Adds ``--allow MODULE``, which may be repeated."""

    parser.add_argument(
        "--allow",
        action="append",
        type=str,
        help="the exact name of your own module whose code may run; repeat the flag for several",
    )


def add_no_cache(parser: ArgumentParser) -> None:
    """Adds ``--no-cache``, which :func:`heed_no_cache` takes out again."""

    parser.add_argument(
        "--no_cache",
        action="store_true",
        help="decode the images into memory, and write no decoded images to disk (see ASGT_CACHE in the docs)",
    )


def heed_no_cache(asked: dict[str, Any]) -> None:
    """Applies ``--no-cache``, also for the processes that this one starts, and removes it from ``asked``."""

    if asked.pop("no_cache", False):
        os.environ["ASGT_CACHE"] = ""


def add_settings(parser: ArgumentParser, words: Sequence[str], skip: Collection[str] = ()) -> None:
    """Adds the settings of a training, those of registered methods and of the ones that the command line names.

    Args:
        parser: takes the flags.
        words: the arguments of the command line. ``--method package.module:Name`` and ``--attack`` import what they
            name.
        skip: settings of :class:`TrainConfig` that are omitted.
    """

    parser.add_class_arguments(TrainConfig, as_group=False, skip={*skip, "settings"})
    known = {"method": list(METHODS), "attack": list(ATTACKS)}
    named = {flag: _named(words, flag) for flag in known}
    for action in parser._actions:
        if action.dest in known:
            action.help = str(action.help).replace("one of asgt's", ", ".join(known[action.dest]))
    titles = [f"{method}: {method_record(method).title}" for method in (*METHODS, *named["method"])]
    parser.epilog = "\n".join(["methods:", *titles])
    taken = {action.dest for action in parser._actions}
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    for name, setting in known_settings(named["method"], named["attack"]).items():
        if name in taken - fields:
            raise InputError(
                f"{', '.join((*named['method'], *named['attack']))} has a field {name}, which is a flag of asgt: "
                f'give it another name with stored_as = {{"{name}": "my_{name}"}}'
            )
        if name not in METHOD_SETTINGS and name not in taken:
            # A number may be written as 8/255.
            kind = reduce(or_, (*setting.types, *([str] if float in setting.types else [])))
            parser.add_argument(f"--{name}", type=kind, help=_setting_help(name, setting, named["method"]))


def _named(words: Sequence[str], flag: str) -> list[str]:
    """The foreign names that a flag has on a command line."""

    values = [following for word, following in itertools.pairwise(words) if word == f"--{flag}"]
    values += [word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")]
    return [value for value in (*values, *_stored(words, flag)) if is_foreign(value)]


def _stored(words: Sequence[str], flag: str) -> list[str]:
    """The name that a file of the command line has for a flag, where ``--allow`` names its module."""

    pairs = [*itertools.pairwise(words), *(tuple(word.split("=", 1)) for word in words if "=" in word)]
    given = {name: [value for each, value in pairs if each == name] for name in ("--allow", "--config", "--out")}
    files = [Path(name) for name in given["--config"]]
    files += [Path(name) / "config.yaml" for name in given["--out"] if "--resume" in words]
    names = []
    for file in files:
        with contextlib.suppress(InputError):
            name = str(read_yaml(file).get(flag, ""))
            names += [name] if module_of(name) in given["--allow"] else []
    return names


def _setting_help(name: str, setting: Setting, named: Sequence[str]) -> str:
    """The help of a setting that :class:`TrainConfig` has no field for."""

    methods = [method for method in (*METHODS, *named) if name in listens_to(method)]
    told = ["needed" if setting.default is REQUIRED else f"default: {setting.default}"]
    if methods:
        told.insert(0, f"of {', '.join(methods)}")
    return f"{setting.doc.replace('``', '')} ({', '.join(told)})".strip()


def allowed(asked: dict[str, Any]) -> tuple[str, ...]:
    """The modules whose code may run: those that the user names with a flag.

    These are the modules of ``--allow``, which is taken out of ``asked``, and the names in ``--model``,
    ``--method``, ``--attack``, ``--attribution`` and ``--check``. Names elsewhere on the command line or in a file do
    not count.

    Raises:
        InputError: a value of ``--allow`` is not the name of a module.
    """

    modules = asked.pop("allow", None) or []
    for module in modules:
        if is_foreign(module):
            raise InputError(f"--allow {module}: give the module only, --allow {module_of(module)}")
        if not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"--allow {module}: give one module, as --allow package.module; repeat it for several")
    named: list[str] = []
    for flag in ("model", "method", "attack", "attribution", "check"):
        value = asked.get(flag) or ""
        named += value if isinstance(value, list) else listed(str(value))
    return (*modules, *(name for name in named if is_foreign(name)))


def listed(text: str) -> list[str]:
    """The names in ``one,two``, each once."""

    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _spelled_out(parser: ArgumentParser, words: list[str]) -> list[str]:
    """Flags as the parser knows them: underscores for hyphens, and ``true`` for a switch that stands alone.

    A value that begins with a minus, as that of ``--pixel-range -1000,3000``, is joined to its flag, for which the
    parser would take it.
    """

    switches = {
        option
        for action in parser._actions
        if action.nargs != 0 and (isinstance(action.default, bool) or _is_switch(getattr(action, "_typehint", None)))
        for option in action.option_strings
    }
    spelled: list[str] = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            word = f"{_LONGER.get(flag, '--' + flag[2:].replace('-', '_'))}{equals}{value}"
            if word in switches and following not in ("true", "false"):
                word += "=true"
        elif re.match(r"-[\d.]", word) and spelled and re.fullmatch(r"--\w+", spelled[-1]):
            word = f"{spelled.pop()}={word}"
        spelled.append(word)
    return spelled


def _refuse_yaml(parser: ArgumentParser, words: list[str]) -> None:
    """Refuses values that are no plain YAML, before the library reads them by a loader of its own, which takes any.

    Raises:
        InputError: it names the flag.
    """

    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        action = parser._option_string_actions.get(flag)
        value = value if equals else following
        # Texts are taken as they are: a path may hold what YAML has a meaning for.
        if action is None or action.nargs == 0 or _is_text(getattr(action, "_typehint", str)):
            continue
        if not equals and following.startswith("--"):
            continue
        try:
            plain = plain_value(value)
            if type(plain) is int and float in (kind := action._typehint, *get_args(kind)):
                number(plain, "value")  # the library fails on what is too large for a real number
        except InputError as error:
            raise InputError(f"{_hyphened(flag)} {cut(value)}: {error}") from error


def _is_text(kind: Any) -> bool:
    return kind is str or {*get_args(kind)} == {str, type(None)}


def _loaded(text: str) -> Any:
    """A value as the library's own loader reads it, once it is known to be plain.

    Raises:
        InputError: it is not; the library then takes the text for what it is.
    """

    plain_value(text)
    return get_loader("yaml")(text)


def _is_switch(kind: Any) -> bool:
    return kind is bool or bool in get_args(kind)


def _hyphened(option: str) -> str:
    return flag_of(option[2:]) if option.startswith("--") else option


def _plain(text: str) -> str:
    expected = re.search(r"Expected (?:a |an )?(.*?)\. Got value: (.*?)(?: Subtypes.*)?$", text)
    if expected:
        kind = {"<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'bool'>": "true or false"}
        return f"{cut(expected.group(2).strip())} is not {kind.get(expected.group(1), expected.group(1))}"
    if union := re.search(r"Union subtypes.*Given value: (.*)$", text):
        return f"{cut(union.group(1).strip())} is not {'a number' if 'float' in text else 'a whole number'}"
    got = re.search(r"Got value: (\S+)", text)
    return f"cannot take {cut(got.group(1))}: {cut(text, 200)}" if got else cut(text, 250)
