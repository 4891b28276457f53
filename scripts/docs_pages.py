"""Writes what the site shows but nobody types: API pages, the command line, the configuration, the file formats.

A page in ``docs/`` asks for it by a comment, as ``<!-- generated: verbs -->``, which the text takes the place of.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from docstring_parser import parse

import asgt
import docs_roles
from asgt.cli.entry import VERBS
from asgt.evaluation.checks import CHECKS
from asgt.training.config import DATA_SETTINGS, METHOD_SETTINGS, TrainConfig, flag_of
from asgt.training.method_registry import METHODS, listens_to

__all__ = ["MODULES", "api_pages", "filled", "public_names", "shown_members", "targets"]

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "docs" / "schemas"

MODULES = {
    "attacks": "Attacks",
    "training": "Training and methods",
    "evaluation": "Evaluation",
    "saliency": "Saliency",
    "explanation": "Explanation",
    "comparison": "Comparison",
    "report": "Report and figures",
    "runs": "Runs",
    "experiments": "Experiments",
    "data": "Data",
    "models": "Models",
    "exporting": "Sharing a model",
    "basics": "Errors, statistics, randomness",
}
"""The pages of the API, by their names, in the order of the navigation."""

_BASICS = ("errors", "statistics", "randomness")

_INTROS = {
    "attacks": "Attacks return perturbed images within a ball of radius ε around the images and within [0, 1].",
    "training": "An objective turns a batch into a loss. `asgt.train` runs a whole training and writes a run folder.",
    "evaluation": "Robust accuracy of one model over a grid of ε, with intervals and checks.",
    "saliency": "Saliency maps of one model, and the mask of saliency-guided training.",
    "explanation": "Measures that compare the saliency maps of several models on the same images.",
    "comparison": "Finished runs side by side: tables, differences, and which of them are significant.",
    "report": "Figures and the HTML page. These functions draw; they compute nothing.",
    "runs": "Run folders: load what a training wrote, and check the files against their digests.",
    "experiments": "Grids of methods and seeds: read one, run all of it, and get one page.",
    "data": "Images and labels, from names, folders, archives, tables and hubs.",
    "models": "Classifiers with their normalisation inside, and their weights.",
    "exporting": "Finished runs as folders to hand on, with a model card and digests, and back.",
    "basics": "The types that all parts share.",
}


def public_names() -> dict[str, list[str]]:
    """The names of ``asgt.__all__``, by the page of the API that they are on, in alphabetical order.

    Raises:
        SystemExit: a name belongs to a package that has no page.
    """

    pages: dict[str, list[str]] = {module: [] for module in MODULES}
    for name in sorted(asgt.__all__, key=str.lower):
        module = asgt._MODULE_OF[name].split(".")[1]
        page = "basics" if module in _BASICS else module
        if page not in pages:
            raise SystemExit(f"asgt.{name} is in asgt.{module}, which has no page: add it to MODULES in {__file__}")
        pages[page].append(name)
    return pages


def shown_members(name: str) -> list[str]:
    """The methods and properties of a public class that its reference entry shows, in the order of the source.

    What a class of a family, as ``asgt.PGD``, does as its base says is documented at the base alone.
    """

    value = getattr(asgt, name)
    if not inspect.isclass(value) or _has_documented_base(value):
        return []
    members = []
    for member, held in vars(value).items():
        function = held.fget if isinstance(held, property) else held.func if _is_cached(held) else held
        function = getattr(function, "__func__", function)
        if not member.startswith("_") and inspect.isfunction(function) and function.__doc__:
            members.append(member)
    return members


def _is_cached(held: object) -> bool:
    return isinstance(held, cached_property)


def _has_documented_base(value: type) -> bool:
    public = {getattr(asgt, name) for name in asgt.__all__ if inspect.isclass(getattr(asgt, name))}
    return any(base in public or base.__module__.startswith("torch.") for base in value.__mro__[1:])


def targets() -> dict[str, str]:
    """The identifier on the site of each public name and shown member, by every path that docstrings call it by."""

    found = {}
    for name in asgt.__all__:
        for path in (name, f"asgt.{name}", f"{asgt._MODULE_OF[name]}.{name}", f"{_home(name)}.{name}"):
            found[path] = f"asgt.{name}"
            found |= {f"{path}.{member}": f"asgt.{name}.{member}" for member in shown_members(name)}
    return found


def _home(name: str) -> str:
    return str(getattr(getattr(asgt, name), "__module__", asgt._MODULE_OF[name]))


def api_pages() -> dict[str, str]:
    """The pages of the API, by their paths in the site's sources."""

    pages = {}
    for module, names in public_names().items():
        blocks = [f"# {MODULES[module]}", _INTROS[module]]
        for name in names:
            members = json.dumps(shown_members(name)) if shown_members(name) else "false"
            blocks.append(f"::: asgt.{name}\n    options:\n      members: {members}")
        pages[f"reference/api/{module}.md"] = "\n\n".join(blocks) + "\n"
    return pages


def filled(text: str) -> str:
    """A page with each ``<!-- generated: … -->`` in it replaced by what it asks for.

    Raises:
        SystemExit: it asks for something else.
    """

    def one(match: re.Match[str]) -> str:
        kind, _, argument = match.group(1).partition(" ")
        if kind not in _KINDS:
            raise SystemExit(f"<!-- generated: {match.group(1)} -->: use one of {', '.join(_KINDS)}")
        return _KINDS[kind](*([argument] if argument else [])).strip()

    return re.sub(r"<!-- generated: (.+?) -->", one, text)


def _api() -> str:
    """A table of all public names."""

    lines = []
    for module, names in public_names().items():
        lines += [f"## [{MODULES[module]}](api/{module}.md)", "", _INTROS[module], "", "| name | |", "|---|---|"]
        lines += [f"| [`{name}`][asgt.{name}] | {_first_sentence(name)} |" for name in names]
        lines.append("")
    return "\n".join(lines)


def _first_sentence(name: str) -> str:
    if name == "PROTOCOLS":
        return "The newest version of each protocol, by name."
    text = (inspect.getdoc(getattr(asgt, name)) or "").split("\n\n")[0]
    return _cell(docs_roles.converted(" ".join(text.split()), targets(), f"asgt.{name}"))


def _verbs() -> str:
    """Each verb of the command line with its flags, from its parser."""

    parts = []
    for verb in VERBS:
        parser = import_module(f"asgt.cli.{verb}").make_parser()
        formatter = parser._get_formatter()
        parts += [f"## asgt {verb}", "", str(parser.description), "", f"```text\n{parser.usage}\n```", ""]
        parts += ["| argument | meaning |", "|---|---|"]
        for action in parser._actions:
            if action.dest == "help" or action.help == argparse.SUPPRESS:
                continue
            flag = formatter._format_action_invocation(action)
            parts.append(f"| `{flag}` | {_cell(formatter._expand_help(action))} |")
        parts.append("")
    return "\n".join(parts)


_GROUPS: dict[str, tuple[str, ...]] = {
    "Data": ("data", "limit", "validation", "augment", "shortcut", *DATA_SETTINGS),
    "Model and weights": ("model", "width", "dropout", "weights", "from_run", "mean", "std"),
    "Method and attack": ("method", "attack", *METHOD_SETTINGS, "settings"),
    "Optimisation": (
        *("epochs", "batch_size", "optimizer", "lr", "head_lr", "momentum", "weight_decay", "clip_norm"),
        *("label_smoothing", "class_weights", "schedule", "average", "keep"),
    ),
    "Run": ("seed", "device", "precision", "cuda_graphs", "checkpoint_every", "tracker", "tensorboard"),
}


def _settings() -> str:
    """Every field of the training configuration with its type, default and meaning.

    Raises:
        SystemExit: a field belongs to no group.
    """

    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    grouped = {name for names in _GROUPS.values() for name in names}
    if stray := sorted(fields.keys() - grouped):
        raise SystemExit(f"TrainConfig has fields that no group of {__file__} names: {', '.join(stray)}")
    docs = {each.arg_name: each.description or "" for each in parse(inspect.getdoc(TrainConfig) or "").params}
    parts = []
    for title, names in _GROUPS.items():
        parts += [f"## {title}", "", "| setting | flag | type | default | meaning |", "|---|---|---|---|---|"]
        for name in (name for name in names if name in fields):
            kind = _cell(str(fields[name].type).replace('"', "")).replace("Number", "float \\| str")
            flag = "" if name == "settings" else f"`{flag_of(name)}`"
            parts.append(f"| `{name}` | {flag} | {kind} | {_default(fields[name])} | {_cell(docs[name])} |")
        parts.append("")
    return "\n".join(parts)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "`{}`"
    return "not set" if field.default is None else f"`{field.default}`"


def _methods() -> str:
    """Which settings each registered method and its attack listen to."""

    lines = ["| method | settings |", "|---|---|"]
    lines += [f"| `{method}` | {', '.join(f'`{name}`' for name in sorted(listens_to(method)))} |" for method in METHODS]
    return "\n".join(lines)


def _schema(name: str) -> str:
    """The fields of a file, from its JSON schema."""

    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    lines = [f"{schema['description']} [JSON schema](../schemas/{name}.schema.json)", ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for path, field in _fields(schema):
        lines.append(f"| `{path}` | {_cell(_type_of(field))} | {_cell(field.get('description', ''))} |")
    return "\n".join(lines)


def _fields(schema: dict[str, Any], begin: str = "", depth: int = 0) -> Iterable[tuple[str, dict[str, Any]]]:
    """The fields of an object two levels deep, those that are not required with a question mark."""

    named = {name: (field, name in schema.get("required", ())) for name, field in schema.get("properties", {}).items()}
    named |= {name: (field, False) for name, field in schema.get("patternProperties", {}).items()}
    for name, (field, required) in named.items():
        yield f"{begin}{name}{'' if required else '?'}", field
        if depth == 0 and field.get("properties"):
            yield from _fields(field, f"{begin}{name}.", depth + 1)


def _type_of(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _reason(function: str) -> str:
    """Why a check is there, from the docstring of the function in the registry.

    Raises:
        SystemExit: the registry has no such check.
    """

    known = {check.__name__: check for check in CHECKS.values()}
    if function not in known:
        raise SystemExit(f"<!-- generated: reason {function} -->: the checks are {', '.join(known)}")
    return inspect.getdoc(known[function]) or ""


def _cell(text: str) -> str:
    """A text as the cell of a table takes it."""

    return " ".join(text.split()).replace("``", "`").replace("\\|", "|").replace("|", "\\|").replace("<", "&lt;")


_KINDS: dict[str, Callable[..., str]] = {
    "api": _api,
    "verbs": _verbs,
    "settings": _settings,
    "methods": _methods,
    "schema": _schema,
    "reason": _reason,
}
"""What a page may ask for."""
