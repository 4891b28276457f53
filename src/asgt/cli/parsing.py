"""What the verbs' parsers share: errors in one line that name the flag, and the nearest one for an unknown flag."""

from __future__ import annotations

import argparse
import itertools
import re
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from ..errors import InputError, unknown
from ..names import is_foreign, module_of

__all__ = ["Parser", "add_allow", "allowed", "given", "listed"]


class _Help(DefaultHelpFormatter):  # type: ignore[misc]
    """Flags with hyphens, and the default where there is one; types are in the words."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return ", ".join(_hyphened(option) for option in action.option_strings) or str(action.dest).upper()

    def _expand_help(self, action: argparse.Action) -> str:
        text = re.sub(r" \((?:type: [^()]*|(?:default: (?:null|False)))\)$", "", str(super()._expand_help(action)))
        plain = action.default not in (None, False, argparse.SUPPRESS) and "(default" not in text
        return f"{text} (default: {action.default})" if plain and action.option_strings else text


class Parser(ArgumentParser):  # type: ignore[misc]
    """A parser that raises :class:`InputError` instead of leaving the process."""

    def __init__(self, *, prog: str, description: str, usage: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            usage=usage,
            formatter_class=_Help,
            default_env=False,
            print_config=None,
            allow_abbrev=False,
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())

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
        raise InputError(text[:300]) from ex

    def _unknown(self, flag: str) -> InputError:
        flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        name = flag.split("=")[0]
        if not name.startswith("-"):
            return InputError(f"{name!r} is one argument too many")
        return unknown("flag", _hyphened(name), sorted({_hyphened(option) for option in flags}))


def given(parser: ArgumentParser, words: list[str]) -> dict[str, Any]:
    """Only what the user gave, by name."""

    # The library would read flags from environment variables too, if one of its own asks for it.
    parsed: Namespace = parser.parse_args(_spelled_out(parser, words), env=False, defaults=False)
    return dict(parsed.as_dict())


def add_allow(parser: ArgumentParser) -> None:
    """Adds ``--allow MODULE``, which may be repeated."""

    parser.add_argument(
        "--allow",
        action="append",
        type=str,
        help="a module of your own whose code may run, by its exact name; repeat it for several",
    )


def allowed(asked: dict[str, Any]) -> tuple[str, ...]:
    """Whose code may run: what the user names by a flag of its own.

    These are the modules of ``--allow``, which is taken out of ``asked``, the model of ``--model`` and the attributions
    of ``--attribution``. Only the values of these flags count, whatever else on the command line or in a file reads
    like a name.

    Raises:
        InputError: a value of ``--allow`` is not the name of a module.
    """

    modules = asked.pop("allow", None) or []
    for module in modules:
        if is_foreign(module):
            raise InputError(f"--allow {module}: it takes the module alone, --allow {module_of(module)}")
        if not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"--allow {module}: it takes one module, as --allow package.module; repeat it for several")
    named = [asked.get("model") or "", *listed(asked.get("attribution") or "")]
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
        if (action.nargs != 0 and isinstance(action.default, bool)) or action.dest == "detach_clean"
        for option in action.option_strings
    }
    spelled: list[str] = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            word = f"--{flag[2:].replace('-', '_')}{equals}{value}"
            if word in switches and following not in ("true", "false"):
                word += "=true"
        elif re.match(r"-[\d.]", word) and spelled and re.fullmatch(r"--\w+", spelled[-1]):
            word = f"{spelled.pop()}={word}"
        spelled.append(word)
    return spelled


def _hyphened(option: str) -> str:
    return f"--{option[2:].replace('_', '-')}" if option.startswith("--") else option


def _plain(text: str) -> str:
    expected = re.search(r"Expected (?:a |an )?(.*?)\. Got value: (.*?)(?: Subtypes.*)?$", text)
    if expected:
        kind = {"<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'bool'>": "true or false"}
        return f"{expected.group(2).strip()} is not {kind.get(expected.group(1), expected.group(1))}"
    if union := re.search(r"Union subtypes.*Given value: (.*)$", text):
        return f"{union.group(1).strip()} is not {'a number' if 'float' in text else 'a whole number'}"
    got = re.search(r"Got value: (\S+)", text)
    return f"cannot take {got.group(1)}: {text[:200]}" if got else text[:250]
