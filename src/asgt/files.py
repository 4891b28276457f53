"""Atomic files whose changes are detected.

A file is written next to its place, flushed to the disk and renamed. So no reader sees an incomplete file, and a
kill or a full disk does not change the old one. Tensor files and sealed JSON have the SHA-256 of their content, which
every read checks. The error names a damaged file, which is never partly used.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import pickle
import platform
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import DamagedFileError, InputError, cut, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Hashed",
    "agree",
    "digest",
    "digest_file",
    "digest_model",
    "digest_stored",
    "digest_tensors",
    "is_sealed",
    "package_versions",
    "plain_value",
    "read_bounded",
    "read_json",
    "read_sealed",
    "read_tensors",
    "read_yaml",
    "standing",
    "write_bytes",
    "write_sealed",
    "write_tensors",
    "write_yaml",
]

_SEAL = "sha256"
"""The last key of sealed JSON: the digest of all the text before it."""
_DIGEST, _MARK, _MARKED = "asgt.sha256", "asgt.sealed", "1"
"""The keys in the metadata of a tensor file: its digest, and that it has one.

With two keys, a flipped bit cannot make a sealed file look like one without a digest.
"""
_SEALED_END = re.compile(rb'  "[^"\n]*": "([0-9a-f]{64})"\n\}\n\Z')

_LARGEST_YAML = 2**20
"""The largest size of a configuration in bytes. The longest ones have a few thousand."""

_LARGEST_TEXT = 2**28
"""The largest size in bytes of other texts."""

_DEEPEST, _MOST_VALUES, _LONGEST_NUMBER = 32, 50_000, 400
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "map", "null", "seq", "str"))
"""The allowed tags of YAML: plain values only."""


def write_bytes(path: Path, content: bytes, *, begin: bool = True) -> str:
    """Writes ``content`` to ``path`` atomically.

    Args:
        path: the path.
        content: the bytes.
        begin: make a missing folder. Work in an existing folder passes ``False``: a removed folder must not appear
            again with partial content.

    Returns:
        The SHA-256 of the content.

    Raises:
        InputError: the disk is full, read-only or forbidden, or the folder was removed.
    """

    return _write(path, [content], begin)


def _write(path: Path, parts: Iterable[bytes | memoryview], begin: bool) -> str:
    """Writes a file of which no more than one part need be in memory; see :func:`write_bytes`."""

    sha = hashlib.sha256()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    try:
        if begin:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.parent.is_dir():
            raise InputError(f"cannot write {path}: its folder was removed during the operation: run it again")
        with open(part, "wb") as file:
            for content in parts:
                file.write(content)
                sha.update(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            # The rename itself must reach the disk too.
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return sha.hexdigest()


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[None]:
    """Makes a missing folder, and checks at the end that it is still the same one.

    Raises:
        InputError: it cannot be made, or it was removed during the operation.
    """

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Held open, so that no folder that is made later has its number.
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
        if not folder.is_dir() or not os.path.samestat(os.fstat(held), os.stat(folder)):
            raise InputError(f"{folder} was removed during the operation: run it again")
    finally:
        os.close(held)


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        InputError: the file does not exist, is not a regular one, or is too large.
        DamagedFileError: it is not JSON.
    """

    return _parsed(path, _read(path))


def _parsed(path: Path, text: str) -> Any:
    """What the text of a JSON file says."""

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {_first_line(error)}") from error


def write_sealed(path: Path, value: Mapping[str, Any], *, begin: bool = True) -> str:
    """Writes a mapping as indented JSON, atomically; returns the SHA-256 of the file.

    The last key, ``sha256``, is the digest of all the text before it, which :func:`read_sealed` checks.
    """

    text = json.dumps(dict(value), indent=2, allow_nan=False).removesuffix("\n}") + ",\n"
    return write_bytes(path, f'{text}  "{_SEAL}": "{digest(text.encode())}"\n}}\n'.encode(), begin=begin)


def read_sealed(path: Path) -> tuple[Any, bool]:
    """Reads JSON of :func:`write_sealed`, or plain JSON.

    Returns:
        The value, without its digest; and whether it had one. Plain JSON has none.

    Raises:
        InputError: there is no such file.
        DamagedFileError: it is not JSON, or it was changed after it was written.
    """

    text = _read(path)
    value = _parsed(path, text)
    seal = _seal_in(text, value)
    if seal is None:
        return value, False
    if not seal:
        raise _changed(path)
    del value[_SEAL]
    return value, True


def _seal_in(text: str, value: Any) -> bool | None:
    """Whether the digest that JSON carries is right; ``None`` where it carries none."""

    content = text.encode()
    end = _SEALED_END.search(content)
    is_right = end is not None and digest(content[: end.start()]).encode() == end.group(1)
    if not isinstance(value, dict):
        return None
    if _SEAL in value:
        return is_right
    # A right digest under another name: that of a sealed file, of which the name was damaged.
    return False if is_right else None


def write_yaml(path: Path, value: Mapping[str, Any]) -> str:
    """Writes a mapping as YAML in its order, atomically; returns the SHA-256 of the file."""

    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes strings that would be read as another type."""

    def text(dumper: yaml.SafeDumper, word: str) -> yaml.ScalarNode:
        try:
            is_plain = plain_value(word) == word
        except InputError:
            is_plain = True  # the library quotes what is no YAML
        return dumper.represent_scalar("tag:yaml.org,2002:str", word, style=None if is_plain else "'")

    Dumper.add_representer(str, text)
    return write_bytes(path, yaml.dump(dict(value), Dumper=Dumper, sort_keys=False).encode())


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping with plain values only: nothing in it is executed.

    Raises:
        InputError: the file does not exist, is not a regular one, or is too large for a configuration.
        DamagedFileError: it is not YAML for :func:`plain_value`, or not a mapping.
    """

    text = _read(path, _LARGEST_YAML)
    try:
        value = plain_value(text)
    except InputError as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from error

    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} is damaged: write settings as 'name: value' lines")
    return value


def plain_value(text: str) -> Any:
    """Parses YAML to plain values: a number, a string, a list, …; nothing in it is executed, and values cannot be
    larger than the text.

    Raises:
        InputError: it is not YAML, or has an element that no configuration needs: an alias, with which a few lines
            mean millions; a tag of another type than plain values; a name that occurs twice or is not a string; very
            deep nesting; or a number of hundreds of digits.
    """

    import yaml

    if len(text) > _LARGEST_YAML:
        raise InputError(f"{len(text):,} characters are too many for a configuration: use at most {_LARGEST_YAML:,}")
    try:
        return yaml.load(text, _plain_loader())  # noqa: S506
    except InputError:
        raise
    except yaml.YAMLError as error:
        raise InputError(cut(_first_line(error), 200)) from error
    except (RecursionError, ValueError) as error:  # a directive, as %YAML, of numbers without end
        raise InputError(cut(_first_line(error), 200)) from error


@cache
def _plain_loader() -> Any:
    """The class that reads YAML; the library is imported only when there is something to read."""

    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-3 as a number, like YAML 1.2; in YAML 1.1 it is a string."""

        depth = values = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise InputError(
                    f"line {line} has the alias *{cut(str(event.anchor))}, with which a few lines can mean "
                    "millions: write the value there"
                )
            tag = getattr(event, "tag", None)
            if tag not in (None, "!") and tag not in _TAGS:
                raise InputError(f"line {line} has the tag {shown(tag)}, which is not of a plain value: remove the tag")
            self.depth += 1
            self.values += 1
            if self.depth > _DEEPEST:
                raise InputError(f"line {line} is nested deeper than {_DEEPEST} levels: use fewer")
            if self.values > _MOST_VALUES:
                raise InputError(
                    f"line {line} is beyond {_MOST_VALUES:,} values, the limit of a configuration: use fewer"
                )
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names: dict[str, int] = {}
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                line = key.start_mark.line + 1
                if key.tag != "tag:yaml.org,2002:str":
                    what = shown(key.value) if isinstance(key.value, str) else "of several parts"
                    raise InputError(
                        f"line {line}: a name {what}, which is not a string: put it in quotes if it is one"
                    )
                if key.value in names:
                    first = names[key.value]
                    raise InputError(f"line {line}: {shown(key.value)} occurs twice, first on line {first}: remove one")
                names[key.value] = line
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            if not isinstance(node, yaml.ScalarNode):
                return super().construct_object(node, deep)
            try:
                return super().construct_object(node, deep)
            except InputError:
                raise
            # A number or a date that is none raises whatever its constructor happens to stumble over.
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
                raise InputError(
                    f"line {line}: {shown(node.value)} is not a valid {kind}: give one, or put it in quotes"
                ) from error

        def construct_scalar(self, node: Any) -> Any:
            value = super().construct_scalar(node)
            if node.tag.endswith((":int", ":float")) and len(value) > _LONGEST_NUMBER:
                line = node.start_mark.line + 1
                raise InputError(
                    f"line {line}: a number of {len(value):,} digits, {cut(value, 20)}: give a smaller one"
                )
            return value

    exponent = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    return Loader


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, begin: bool = True
) -> str:
    """Writes named tensors and string metadata as one safetensors file, atomically.

    The metadata gets the SHA-256 of the tensors and of the rest of the metadata, which every read checks.

    Returns:
        The SHA-256 of the file.
    """

    told = dict(metadata or {})
    told |= {_DIGEST: _seal(digest_tensors(tensors), told), _MARK: _MARKED}
    header, names = _header(tensors, told)
    return _write(path, itertools.chain([header], (_bytes_of(tensors[name]) for name in names)), begin)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: its tensors, on the CPU, and its metadata, without the digest.

    Raises:
        InputError: the file does not exist.
        DamagedFileError: it is incomplete, has another type, or was changed after it was written.
    """

    tensors, metadata, _ = _stored(path)
    return tensors, metadata


def digest_stored(path: Path) -> str:
    """The SHA-256 of the tensors that a safetensors file holds, as :func:`digest_tensors` computes it.

    Raises:
        InputError, DamagedFileError: as :func:`read_tensors`.
    """

    tensors, _, content = _stored(path)
    return digest_tensors(tensors) if content is None else content


def is_sealed(path: Path) -> bool:
    """Whether a tensor file or a JSON file has its digest; only a read checks it.

    Raises:
        InputError: there is no such file.
        DamagedFileError: it is not such a file.
    """

    if path.suffix == ".json":
        text = _read(path)
        return _seal_in(text, _parsed(path, text)) is not None
    with _opened(path) as file:
        return not {_DIGEST, _MARK}.isdisjoint(file.metadata() or {})


def _stored(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str | None]:
    """The tensors and the metadata of a file, and the digest of its tensors; ``None`` where it carries none."""

    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata() or {})

    carried, mark = metadata.pop(_DIGEST, None), metadata.pop(_MARK, None)
    if carried is None and mark is None:
        return tensors, metadata, None
    content = digest_tensors(tensors)
    if mark != _MARKED or carried != _seal(content, metadata):
        raise _changed(path)
    return tensors, metadata, content


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """What a safetensors file begins with, and the names of its tensors in the order in which their bytes follow.

    The library joins all tensors to one block before it writes them; here it lays out empty ones of the same names and
    types. Its order of the metadata is random, ours is that of the names.
    """

    import safetensors.torch
    import torch

    empty = {name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors.items()}
    content = safetensors.torch.save(empty, dict(metadata))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names, place = [name for name in header if name != "__metadata__"], 0
    for name in names:
        end = place + tensors[name].numel() * tensors[name].element_size()
        header[name] |= {"shape": list(tensors[name].shape), "data_offsets": [place, end]}
        place = end
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text, names


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    content: memoryview = flat.numpy().data
    return content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open."""

    import safetensors

    if not path.is_file():
        raise InputError(f"no such file {path}: give an existing one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged or not a safetensors file: {_first_line(error)}") from error


def _seal(content: str, metadata: Mapping[str, str]) -> str:
    """The digest that a tensor file carries: of the digest of its tensors, and of its metadata."""

    return digest(content.encode(), json.dumps(sorted(metadata.items())).encode())


def _changed(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: its content does not match its SHA-256")


def digest(*contents: bytes) -> str:
    """The SHA-256 of some bytes, in 64 hexadecimal digits."""

    sha = hashlib.sha256()
    for content in contents:
        sha.update(content)
    return sha.hexdigest()


def digest_file(path: Path) -> str:
    """The SHA-256 of a file, as ``sha256sum`` prints it.

    Raises:
        InputError: it cannot be read.
    """

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never open, and a device never ends
            raise InputError(f"cannot read {path}: it is not a regular file")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


class Hashed(Protocol):
    """An object with the type and the shape of a tensor, and its bytes in parts."""

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def shape(self) -> torch.Size: ...
    def chunks(self) -> Iterator[Tensor]: ...


def digest_tensors(tensors: Mapping[str, Tensor | Hashed]) -> str:
    """The SHA-256 of named tensors: their names, types, shapes and bytes, in the order of the names."""

    import torch

    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{len(name)}:{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in [tensor] if isinstance(tensor, torch.Tensor) else tensor.chunks():
            sha.update(_bytes_of(part))
    return sha.hexdigest()


def digest_model(model: nn.Module) -> str:
    """The SHA-256 of a model's state dict; ``""`` if it is empty.

    For plain tensors it is :func:`digest_tensors`. Quantised weights, packed weights and the extra state of
    modules count as well.

    Raises:
        InputError: the extra state of a module has no identity: it is not a plain value and cannot be pickled.
    """

    from torch import Tensor

    state = model.state_dict()
    if all(isinstance(value, Tensor) and not value.is_quantized for value in state.values()):
        return digest_tensors(state) if state else ""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(f"{len(name)}:{name} ".encode())
        sha.update(_content(name, state[name]))
    return sha.hexdigest()


def _content(name: str, value: Any) -> bytes:
    """What a part of a state dict holds, as bytes."""

    from torch import Tensor

    if isinstance(value, Tensor):
        if not value.is_quantized:
            return digest_tensors({"": value}).encode()
        return digest_tensors({"values": value.int_repr(), "dequantised": value.dequantize()}).encode()
    if isinstance(value, (Mapping, list, tuple)):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        return digest(*(f"{key!r}:".encode() + _content(name, part) for key, part in parts)).encode()
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f"{type(value).__name__}:{value!r}".encode()
    if callable(unpack := getattr(value, "unpack", None)):  # the packed weights of quantised layers
        return _content(name, unpack())
    try:
        return pickle.dumps(value)
    except Exception as error:  # whatever a stranger's object raises
        raise InputError(
            f"{name} of the model's state is a {type(value).__name__}: stored evidence identifies a model by its "
            "tensors and plain values: use only these"
        ) from error


def agree(value: Any, other: Any) -> bool:
    """Whether two plain values are equal; floats up to rounding, which may differ between machines."""

    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(agree(value[name], other[name]) for name in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(agree, value, other))
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(value == other)


def package_versions(*packages: str) -> dict[str, str]:
    """The versions of Python, asgt and those packages that are installed, as results hold them."""

    versions = {"python": platform.python_version()}
    for package in ("asgt", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def read_bounded(path: Path | str, most: int = _LARGEST_TEXT) -> bytes:
    """The content of a regular file; devices, pipes and folders are refused before reading.

    Args:
        path: the file.
        most: the largest size in bytes.

    Raises:
        InputError: the file does not exist, is not a regular file, or is larger.
    """

    try:
        # Before it is opened: a pipe that nobody writes to would never open, and a device never ends.
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"cannot read {path}: Is a directory: give a file in it")
        if not stat.S_ISREG(kind):
            raise InputError(f"cannot read {path}: it is a device, a pipe or a socket: give a regular file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most + 1) if size <= most else b""
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {cut(str(path), 300)}: {error.strerror or error}") from error
    except ValueError as error:  # a name that holds the byte 0
        raise InputError(f"cannot read {shown(str(path))}: {error}") from error
    if size > most or len(content) > most:
        raise InputError(
            f"cannot read {path}: {max(size, len(content)):,} bytes are more than the limit of {most:,}: "
            "give another file"
        )
    return content


def _read(path: Path, most: int = _LARGEST_TEXT) -> str:
    try:
        return read_bounded(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} is damaged: it is not text") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
