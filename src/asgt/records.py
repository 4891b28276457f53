"""The settings of a class: their names, types, defaults and documentation.

A class of this package is read from its source, so that the command line can list its settings without importing
PyTorch. A foreign class or function, ``package.module:Name``, is imported; the caller has checked that its code may
run (:func:`asgt.names.refuse_unless_allowed`).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from .errors import InputError, shown
from .names import module_of
from .numbers import in_float32, number
from .plugins import imported, refuse_borrowed

__all__ = ["REQUIRED", "Record", "Setting", "is_own", "record_of", "settings_of"]

_PACKAGE = __name__.partition(".")[0]
_ROOT = Path(__file__).parent


class _Required:
    """The default of a setting that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()
"""The default of a setting that has none."""

_PLAIN = {"float": float, "int": int, "bool": bool, "str": str}


@dataclass(frozen=True)
class Setting:
    """A setting of a class: a field of a dataclass, or a parameter of a function.

    Attributes:
        name: of the field.
        kind: its type as text, without modules: ``"float | None"``, ``"Literal['forward', 'reverse']"``, ``"Attack"``.
        default: its default value, or :data:`REQUIRED`.
        doc: its text in the docstring, on one line.
    """

    name: str
    kind: str
    default: Any
    doc: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the command line and YAML can represent its values."""

        return bool(self.types)

    @property
    def types(self) -> tuple[Any, ...]:
        """The types of its values, such as ``(float, NoneType)``; empty if one of them is not plain."""

        types: list[Any] = []
        for part in _union(self.kind):
            if part == "None":
                types.append(type(None))
            elif part == "Number":
                types += [float, str]
            elif part in _PLAIN:
                types.append(_PLAIN[part])
            elif choices := _choices(part):
                types.append(Literal[choices])
            else:
                return ()
        return tuple(dict.fromkeys(types))

    def plain(self, value: Any) -> Any:
        """A value as the setting's Python type.

        Args:
            value: a plain value, or a number of numpy or PyTorch.

        Raises:
            InputError: it has another type.
        """

        with suppress(ValueError, RuntimeError):  # of an array or a tensor with many elements
            value = value.item() if hasattr(value, "item") else value
        if isinstance(value, str) and float in self.types and str not in self.types:
            value = number(value, self.name)
        if isinstance(value, float):
            in_float32(value, self.name)
        for kind in self.types:
            if typing.get_origin(kind) is Literal:
                if any(value == choice and type(value) is type(choice) for choice in typing.get_args(kind)):
                    return value
            elif type(value) is kind:
                return value
        if type(value) is int and float in self.types:
            return in_float32(number(value, self.name), self.name)
        raise InputError(f"{self.name} = {shown(value)}: expected {self.expected}")

    @property
    def expected(self) -> str:
        """A description of its type."""

        words = {float: "a number", int: "a whole number", bool: "true or false", str: "a string", type(None): "null"}
        parts = []
        for kind in self.types:
            if typing.get_origin(kind) is Literal:
                parts += [repr(choice) for choice in typing.get_args(kind)]
            else:
                parts.append(words[kind])
        return " or ".join(parts)


@dataclass(frozen=True)
class Record:
    """The record of a class.

    Attributes:
        place: its name, ``package.module:Name``.
        title: the first line of its docstring.
        settings: its settings, in the order of its fields.
        stored_as: other names of settings in files and on the command line, by field.
    """

    place: str
    title: str
    settings: tuple[Setting, ...]
    stored_as: Mapping[str, str] = field(default_factory=dict)


def is_own(place: str) -> bool:
    """Whether a name ``package.module:Name`` is of this package, whose source can be read without running it."""

    return place.startswith(f"{_PACKAGE}.")


def settings_of(place: str, what: str = "class") -> tuple[Setting, ...]:
    """The settings of a class or factory function.

    Args:
        place: its name, ``package.module:Name``.
        what: its kind in errors, such as ``"method"``.


    Raises:
        InputError: the class or the function does not exist, or it cannot be imported.
    """

    return record_of(place, what).settings


def record_of(place: str, what: str = "class") -> Record:
    """The record of a class or factory function, with the arguments of :func:`settings_of`."""

    return _own(place) if is_own(place) else _imported(place, what)


# Classes of this package, from their source ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """A parsed module: its classes, assignments and imports by name."""

    classes: Mapping[str, ast.ClassDef]
    values: Mapping[str, ast.expr]
    imports: Mapping[str, tuple[str, str]]


@lru_cache
def _own(place: str) -> Record:
    module, name = module_of(place), place.partition(":")[2]
    chain = _chain(module, name)
    fields: dict[str, Setting] = {}
    excluded: set[str] = set()
    docs: dict[str, str] = {}
    stored_as: dict[str, str] = {}
    # A dataclass has the fields of its bases first; a field that a class repeats keeps its place.
    for where, node in reversed(chain):
        docs |= _documented(ast.get_docstring(node) or "")
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                field_name = line.target.id
                kind = _kind(where, line.annotation)
                if kind.startswith("ClassVar"):
                    if field_name == "stored_as" and line.value is not None:
                        stored_as |= ast.literal_eval(line.value)
                    continue
                default, in_init = _default(where, line.value)
                fields[field_name] = Setting(field_name, kind, default)
                (excluded.discard if in_init else excluded.add)(field_name)
    settings = tuple(
        dataclasses.replace(setting, doc=docs.get(setting.name, ""))
        for setting in fields.values()
        if setting.name not in excluded
    )
    return Record(place, _title(ast.get_docstring(chain[0][1]) or ""), settings, stored_as)


def _chain(module: str, name: str) -> list[tuple[str, ast.ClassDef]]:
    """A class and its bases within the package, nearest first, each with the module that defines it."""

    where, node = _class(module, name)
    chain = [(where, node)]
    for base in node.bases:
        if isinstance(base, ast.Name) and _is_class_of_package(where, base.id):
            chain += [each for each in _chain(where, base.id) if each not in chain]
    return chain


def _is_class_of_package(module: str, name: str) -> bool:
    source = _source(module)
    return name in source.classes or (name in source.imports and source.imports[name][0].startswith(_PACKAGE))


def _class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """The class that a name stands for in a module, followed through its imports."""

    source = _source(module)
    if name in source.classes:
        return module, source.classes[name]
    if name in source.imports:
        return _class(*source.imports[name])
    raise InputError(f"{module}:{name}: no such class")


@lru_cache
def _source(module: str) -> _Source:
    path = _ROOT.joinpath(*module.split(".")[1:])
    is_package = path.is_dir()
    file = path / "__init__.py" if is_package else path.with_suffix(".py")
    if not file.exists():
        raise InputError(f"no such module {module}")
    tree = ast.parse(file.read_text("utf-8"))
    package = module.split(".") if is_package else module.split(".")[:-1]
    classes: dict[str, ast.ClassDef] = {}
    values: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    for line in tree.body:
        if isinstance(line, ast.ClassDef):
            classes[line.name] = line
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
            values[line.target.id] = line.value
        elif isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            values[line.targets[0].id] = line.value
        elif isinstance(line, ast.ImportFrom):
            above = package[: len(package) - line.level + 1] if line.level else []
            origin = ".".join([*above, *([line.module] if line.module else [])])
            imports |= {each.asname or each.name: (origin, each.name) for each in line.names}
    return _Source(classes, values, imports)


def _value(module: str, name: str) -> tuple[str, ast.expr] | None:
    """The expression that a module of the package assigns to a name, followed through its imports."""

    source = _source(module)
    if name in source.values:
        return module, source.values[name]
    if name in source.imports and source.imports[name][0].startswith(f"{_PACKAGE}."):
        return _value(*source.imports[name])
    return None


def _kind(module: str, annotation: ast.expr) -> str:
    """An annotation as text, with aliases of ``Literal`` types written out."""

    if isinstance(annotation, ast.Name) and annotation.id != "Number":
        alias = _value(module, annotation.id)
        if alias is not None and ast.unparse(alias[1]).startswith("Literal["):
            return ast.unparse(alias[1])
    if isinstance(annotation, ast.BinOp):
        return f"{_kind(module, annotation.left)} | {_kind(module, annotation.right)}"
    return _without_modules(ast.unparse(annotation))


def _default(module: str, value: ast.expr | None) -> tuple[Any, bool]:
    """A field's default, and whether the field can be set."""

    if value is None:
        return REQUIRED, True
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field":
        words = {word.arg: word.value for word in value.keywords}
        in_init = "init" not in words or bool(ast.literal_eval(words["init"]))
        if "default_factory" in words:
            return None, in_init
        return _default(module, words.get("default"))[0], in_init
    return _literal(module, value), True


def _literal(module: str, value: ast.expr) -> Any:
    """The value of a literal, of a quotient such as ``8 / 255``, or of a constant of the package."""

    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
        return _literal(module, value.left) / _literal(module, value.right)
    if isinstance(value, ast.Name) and (constant := _value(module, value.id)) is not None:
        return _literal(*constant)
    try:
        return ast.literal_eval(value)
    except ValueError:
        return ast.unparse(value)


# Classes and functions of somebody else, imported ---------------------------------------------------------------------


def _imported(place: str, what: str) -> Record:
    made = imported(place, what)
    if not callable(made):
        raise InputError(f"{what} {place} is {type(made).__name__}, not a class or a function")
    refuse_borrowed(made, place, what)
    hints = _hints(made)
    docs: dict[str, str] = {}
    for part in reversed(inspect.getmro(made)) if isinstance(made, type) else (made,):
        docs |= _documented(part.__doc__ or "") | _documented(getattr(vars(part).get("__init__"), "__doc__", "") or "")
    settings = tuple(
        Setting(name, _kind_of(hints.get(name, annotation), name, default), default, docs.get(name, ""))
        for name, annotation, default in _parameters(made, place, what)
    )
    stored_as = getattr(made, "stored_as", {})
    return Record(place, _title(made.__doc__ or ""), settings, stored_as if isinstance(stored_as, Mapping) else {})


def _parameters(made: Callable[..., Any], place: str, what: str) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of each field or parameter."""

    if dataclasses.is_dataclass(made):
        parameters = []
        for each in dataclasses.fields(made):
            default = each.default
            if default is dataclasses.MISSING:
                default = REQUIRED if each.default_factory is dataclasses.MISSING else None
            if each.init:
                parameters.append((each.name, each.type, default))
        return parameters
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} {place} has no readable signature: {error}") from error
    return [
        (
            each.name,
            each.annotation if each.annotation is not each.empty else None,
            REQUIRED if each.default is each.empty else each.default,
        )
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]


def _hints(made: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as types, as far as their names are known when the program runs."""

    try:
        is_plain_class = isinstance(made, type) and not dataclasses.is_dataclass(made)
        target = vars(made).get("__init__", made) if is_plain_class else made
        return typing.get_type_hints(target)
    except Exception:  # names that only a type checker imports, or a callable without annotations
        return {}


def _kind_of(hint: Any, name: str, default: Any) -> str:
    """A type as text; of a parameter without one, that of its default."""

    if hint is None or hint is inspect.Parameter.empty:
        if type(default).__name__ in _PLAIN:
            return type(default).__name__
        return {"attack": "Attack", "mask": "SaliencyMask"}.get(name, "Any")
    if isinstance(hint, str):
        return _without_modules(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is not None and parts and str(origin).endswith(("Union", "UnionType'>")):
        return " | ".join("None" if part is type(None) else _kind_of(part, name, default) for part in parts)
    return hint.__name__ if isinstance(hint, type) else _without_modules(str(hint))


# Texts ----------------------------------------------------------------------------------------------------------------


def _without_modules(text: str) -> str:
    """A type's text without the modules of its names and with ``Optional`` written out."""

    text = re.sub(r"\b(?:\w+\.)+(?=[A-Za-z_])", "", text.strip().strip("\"'")) if "Literal[" not in text else text
    text = re.sub(r"\b\w+\.(?=Literal\[)", "", text)
    return f"{text[9:-1]} | None" if text.startswith("Optional[") else text


def _union(kind: str) -> list[str]:
    """The parts of ``A | B``; a bar inside brackets or quotes is none."""

    return [part.strip() for part in re.findall(r"(?:\[[^\]]*\]|[^|\[])+", kind)]


def _choices(part: str) -> tuple[Any, ...]:
    """The values of ``Literal[…]``."""

    if not (part.startswith("Literal[") and part.endswith("]")):
        return ()
    try:
        return tuple(ast.literal_eval(f"({part[8:-1]},)"))
    except (ValueError, SyntaxError):
        return ()


def _documented(docstring: str) -> dict[str, str]:
    """What a docstring's ``Args:`` say of each parameter, on one line."""

    from docstring_parser import parse

    return {
        each.arg_name: " ".join((each.description or "").split()).rstrip(".")
        for each in parse(inspect.cleandoc(docstring)).params
    }


def _title(docstring: str) -> str:
    lines = inspect.cleandoc(docstring).splitlines()
    return lines[0].rstrip(".") if lines else ""
