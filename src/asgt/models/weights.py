"""Loads weights from files of any origin into a matching network: nothing in a file is executed.

The content determines the type of a file, not its suffix. Weights are loaded into the whole model, or into the
network inside it, whichever matches. Only if neither matches, the names of wrappers are removed (``module.`` of
``DataParallel``, ``_orig_mod.`` of ``torch.compile``, ``model.`` of Lightning), so a network with a part of such a
name loads its own state dict.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..capacity import refuse_memory
from ..errors import DamagedFileError, InputError, cut, shown
from ..files import read_tensors
from .normalize import Cast, Normalize, precision_of

__all__ = ["Loaded", "load_all_but_head", "load_weights", "put_before_net", "versions_text"]

_WRAPPERS = ("module", "_orig_mod", "model")
_STATISTICS = ("running_mean", "running_var")
_NORMALISATION = frozenset({"normalize.mean", "normalize.std"})
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_DEEPEST = 4
_MOST = 100
"""The largest number of state dicts of a file that are tried."""

_NAME, _COMPARED = 200, 2000
"""The limits of length and number of names in the search for the nearest one."""
_VERSIONS = "versions of modules"

State: TypeAlias = OrderedDict[str, Any]
Compared: TypeAlias = dict[str, str]
"""The compared part of each name."""
_Compare: TypeAlias = Callable[[Iterable[str]], Compared]


@dataclass(frozen=True)
class _Match:
    """Where each tensor of a file goes.

    Attributes:
        target: the module that is loaded.
        names: for each name in the target's state dict, that in the file; ``None`` where the target itself knows.
        normalisation: the file's names of the mean and the deviation that it brings for a model without any.
        line: what was matched, in words; empty where the file fits as it is.
    """

    target: nn.Module
    names: dict[str, str] | None
    normalisation: tuple[str, str] | None = None
    line: str = ""


@dataclass(frozen=True)
class Loaded:
    """The part of a file that was loaded into a model.

    Attributes:
        line: a description of the matching; empty if everything matches.
        left_out: the number of logits of the file's head, if it was omitted; ``None`` if it was loaded.
    """

    line: str
    left_out: int | None = None


def load_weights(model: nn.Module, path: Path | str) -> str:
    """Loads weights into a model, from safetensors or from a PyTorch file read with ``weights_only=True``.

    The state dict may be under any single key of the file. If the file has the normalisation of asgt and the model
    was built without one, the model gets that of the file. If a file is refused, the model is unchanged.

    Args:
        model: from :func:`asgt.build_model`, or any other module.
        path: the file.

    Returns:
        One line on the matching; empty if everything matches.

    Raises:
        DamagedFileError: the file is incomplete or damaged.
        InputError: it has no weights, or those of another model; the line names the first missing or wrong one.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> torch.save(model.state_dict(), "weights.pt")
        >>> asgt.load_weights(model, "weights.pt")
        ''
    """

    return _loaded(model, Path(path), None).line


def load_all_but_head(model: nn.Module, path: Path | str, head: str | None) -> Loaded:
    """The same, but the file may have other classes: then the model's head is unchanged.

    Args:
        model: as for :func:`load_weights`.
        path: the file.
        head: the dotted name of the layer of the logits. Its tensors are omitted if those of the file differ only in
            the first dimension. ``None``: there is no such layer.

    Raises:
        DamagedFileError: the file is incomplete or damaged.
        InputError: it has no weights, or those of another model.
    """

    return _loaded(model, Path(path), head, headless=head is None)


def _loaded(model: nn.Module, path: Path, head: str | None, *, headless: bool = False) -> Loaded:
    key, state, match = _chosen(model, _content(path), path)
    others = {} if head is None else _of_other_classes(model, match, state, head)
    _check_values(match, state, path, skip=others, headless=headless)

    weights = state
    if (names := match.names) is not None:
        # Files of old versions of PyTorch lack BatchNorm's counter, which no answer depends on.
        own = match.target.state_dict()
        held = {
            name: state[other]
            for name, other in names.items()
            if name not in others and not (_is_counter(name) and _counts(state[other]))
        }
        renamed = {name: held.get(name, own[name]) for name in own}
        weights = _versioned(renamed, _versions(own, state, names))
    normalize = None if match.normalisation is None else _normalisation(match.normalisation, state, path)
    before = deepcopy(match.target.state_dict())
    try:
        match.target.load_state_dict(weights)
    except Exception as error:  # the model's own code may raise anything
        match.target.load_state_dict(before)
        reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        raise InputError(f"{path} does not match the model: {(reasons or [str(error)])[0][:200]}") from error
    if normalize is not None:
        put_before_net(model, normalize)
    where = f"found under {key!r}" if key else ""
    return Loaded("; ".join(part for part in (where, match.line) if part), next(iter(others.values()), None))


def _of_other_classes(model: nn.Module, match: _Match, state: State, head: str) -> dict[str, int]:
    """The tensors of the head that the file has of another number of classes, by the target's names: that number.

    Nothing where they fit, or differ in anything else: then they are loaded, or refused, as all others are.
    """

    place = next(name for name, module in model.named_modules() if module is match.target)
    own, start = match.target.state_dict(), f"{head.removeprefix(f'{place}.' if place else '')}."
    mine = {name: value for name, value in own.items() if name.startswith(start) and isinstance(value, Tensor)}
    rows: dict[str, int] = {}
    for name, value in mine.items():
        theirs = state.get((match.names or {}).get(name, ""))
        if not isinstance(theirs, Tensor) or theirs.ndim == 0 or theirs.shape[1:] != value.shape[1:]:
            return {}
        rows[name] = len(theirs)
    count = len(next(iter(mine.values()), ()))
    return rows if len({*rows.values()} | {count}) == 2 and count not in rows.values() else {}


def versions_text(state: Mapping[str, Any]) -> dict[str, str]:
    """The versions of a model's modules as the metadata of a safetensors file, from which :func:`load_weights` reads.

    PyTorch stores them with a state dict, so that a module can read the format of its older versions.
    """

    versions = {module: each.get("version") for module, each in getattr(state, "_metadata", {}).items()}
    return {_VERSIONS: json.dumps({module: version for module, version in versions.items() if version is not None})}


def _read_versions(text: str | None) -> dict[str, dict[str, Any]] | None:
    try:
        versions = {} if text is None else json.loads(text)
        return {module: {"version": version} for module, version in versions.items()} if text else None
    except (AttributeError, ValueError):  # somebody else's metadata of that name
        return None


def _versioned(state: Mapping[str, Any], versions: Any) -> State:
    """The state dict, with what PyTorch knows of its modules beside it where there is any."""

    kept: State = OrderedDict(state)
    if isinstance(versions, Mapping):
        kept._metadata = versions  # type: ignore[attr-defined]
    return kept


def _versions(own: Mapping[str, Any], state: State, names: Mapping[str, str]) -> dict[str, Any] | None:
    """The versions that a file gives its modules, by the names that the modules have in the model."""

    theirs, mine = getattr(state, "_metadata", None), getattr(own, "_metadata", {})
    if theirs is None:
        return None

    def called(module: str) -> str | None:
        """The name of a module in the file, from the first of its tensors."""

        before = f"{module}." if module else ""
        for name, other in names.items():
            if name.startswith(before) and other.endswith(rest := name.removeprefix(before)):
                return other.removesuffix(rest).rstrip(".")
        return None

    return {module: theirs.get(called(module), each) for module, each in mine.items()}


def _normalisation(names: tuple[str, str], state: State, path: Path) -> Normalize:
    mean, std = (state[name] for name in names)
    if mean.dtype not in _FLOATS or std.dtype not in _FLOATS:
        raise InputError(f"{path}: {names[0]!r} and {names[1]!r} are {mean.dtype} and {std.dtype}, instead of floats")
    return Normalize(mean.flatten().tolist(), std.flatten().tolist())


def put_before_net(model: nn.Module, normalize: Normalize) -> None:
    """Adds normalisation to a model that was built without it, and the cast to the network's precision."""

    model.normalize = normalize
    net = model.net
    assert isinstance(net, nn.Module)
    if (dtype := precision_of(net)) != torch.float32:
        del model.net
        model.cast = Cast(dtype)
        model.net = net


# What a file holds ---------------------------------------------------------------------------------------------------


def _content(path: Path) -> Any:
    """What a file holds, by its first bytes."""

    # The functions of os.path: those of pathlib raise on a name that is too long.
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give the file of weights in it")
    if not os.path.isfile(path):
        what = "is a device, a pipe or a socket: give a regular file" if os.path.exists(path) else ""
        raise InputError(f"{path} {what}" if what else f"no such file {path}: give an existing one")
    try:
        with open(path, "rb") as file:
            head = file.read(32)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if head:
        refuse_memory(size, f"{path}", "use a machine with more memory, or a file with the weights only")

    if not head:
        raise DamagedFileError(f"{path} is empty: give a file of weights")
    if head[8:9] == b"{":
        try:
            tensors, metadata = read_tensors(path)
        except InputError:
            raise
        except Exception as error:  # a type of number that this version of PyTorch does not have
            raise DamagedFileError(f"{path} cannot be read as safetensors: {cut(str(error), 200)}") from error
        return _versioned(tensors, _read_versions(metadata.get(_VERSIONS)))
    for start, what in (
        (b"\x89HDF", "is an HDF5 file, as Keras writes: convert it to a PyTorch state dict"),
        (b"version https://git-lfs", "is a pointer of git-lfs, not the weights: download them with git lfs pull"),
        (b"<", "is a page in HTML or XML, perhaps an error of the download: download the weights again"),
        (b"{", "is JSON, perhaps the index of weights in several files: give one file with all of them"),
        (b"\x08", "looks like an ONNX model: export the PyTorch state dict instead"),
    ):
        if head.startswith(start):
            raise InputError(f"{path} {what}")
    if head.startswith(b"PK"):
        _check_archive(path)
    elif head[:1] != b"\x80":
        raise DamagedFileError(f"{path} is damaged or has no weights: give safetensors, or a file of torch.save")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open(path, "rb") as file:  # of a path, torch.load would look at the suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip, a damaged pickle, a refused global: PyTorch has a type for each
        # Its own message advises to trust the file, which may run anything.
        raise DamagedFileError(
            f"{path} is damaged, or has more than plain weights: save only model.state_dict(), or safetensors"
        ) from error


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DamagedFileError(
            f"{path} is damaged: it is incomplete, or not an archive of torch.save: copy it again"
        ) from error
    whole = sum(entry.file_size for entry in entries)
    refuse_memory(whole, f"{path}, unpacked,", "save the weights again with torch.save, which does not compress")
    if any(name.endswith("constants.pkl") or "/code/" in f"/{name}" for name in names):
        raise InputError(f"{path} is a TorchScript program, which can run any code: save only model.state_dict()")
    if not any(name.endswith("data.pkl") for name in names):
        kind = "numpy arrays" if any(name.endswith(".npy") for name in names) else "other files"
        raise InputError(f"{path} is an archive of {kind}: give safetensors, or a file of torch.save")


def _state_dicts(
    content: Any, key: str = "", depth: int = 0, seen: set[int] | None = None
) -> Iterator[tuple[str, State]]:
    """The state dicts in the content of a file, with the keys that lead there; those of optimizers are none.

    A mapping around them is entered once: a file may hold it under any number of keys, and that again in others.
    """

    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or not content or "param_groups" in content:
        return
    if all(isinstance(name, str) for name in content) and all(
        isinstance(value, Tensor) or name.endswith("_extra_state") for name, value in content.items()
    ):
        yield key, _versioned(content, getattr(content, "_metadata", None))
    elif depth < _DEEPEST and id(content) not in seen:
        seen.add(id(content))
        for name, value in content.items():
            if isinstance(name, str):
                yield from _state_dicts(value, f"{key}.{name}" if key else name, depth + 1, seen)


def _chosen(model: nn.Module, content: Any, path: Path) -> tuple[str, State, _Match]:
    """The state dict of a file that fits the model, and how."""

    states = list(itertools.islice(_state_dicts(content), _MOST))
    if not states:
        kind = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            kind = f"a dict with {', '.join(map(shown, itertools.islice(content, 6)))}" + (
                ", …" if len(content) > 6 else ""
            )
        raise InputError(f"{path} has no state dict but {kind}: save tensors by name, as model.state_dict()")
    fitting = [(key, state, match) for key, state in states if (match := _match(model, state)) is not None]
    if len(fitting) > 1:
        keys = ", ".join(shown(key) for key, _, _ in fitting[:6])
        raise InputError(f"{path} has several matching state dicts ({keys}): save only one of them")
    if not fitting:
        raise _misfit(model, max((state for _, state in states), key=len), path)
    return fitting[0]


# Where weights go ----------------------------------------------------------------------------------------------------


def _targets(model: nn.Module) -> list[nn.Module]:
    """The modules that weights may be meant for: the whole model, and the net beside its normalisation."""

    inner = getattr(model, "net", None)
    whole = isinstance(model, nn.Sequential) and isinstance(inner, nn.Module) and hasattr(model, "normalize")
    return [model, inner] if whole and isinstance(inner, nn.Module) else [model]


def _match(model: nn.Module, state: State) -> _Match | None:
    """Where a state dict goes, the plainest way first; ``None`` where it does not fit."""

    state = _without_count(state)
    whole, *inner = targets = _targets(model)
    bare = bool(inner) and isinstance(getattr(whole, "normalize", None), nn.Identity)

    for target in targets:
        if names := _paired(target, _as_they_are, _as_they_are, state):
            return _Match(target, names, line="weights of the net alone" if target in inner else "")
    if bare and (match := _with_normalisation(whole, _as_they_are, state)):
        return match
    # A module may rename what old files hold.
    for target in (*inner, whole):
        if _loads(target, state):
            return _Match(target, None, line="names of an older version of the model")

    without = f"names compared without {', '.join(map(repr, _WRAPPERS))}"
    for mine, theirs in ((_unwrapped, _unwrapped), (_unwrapped, _without_first), (_without_first, _unwrapped)):
        for target in targets:
            if names := _paired(target, mine, theirs, state):
                return _Match(target, names, line=_prefix_line(names) or without)
        if bare and mine is theirs and (match := _with_normalisation(whole, mine, state)):
            return match
    return None


def _without_count(state: State) -> State:
    """The same without the count that an average of weights (``AveragedModel``) has beside them."""

    if "n_averaged" not in state or not all(name.startswith("module.") or name == "n_averaged" for name in state):
        return state
    rest = {name: value for name, value in state.items() if name != "n_averaged"}
    return _versioned(rest, getattr(state, "_metadata", None))


def _with_normalisation(whole: nn.Module, compared: _Compare, state: State) -> _Match | None:
    """How a file that asgt wrote fits, with its normalisation for a model that was built without one."""

    theirs = {short: name for name, short in compared(state).items() if short in _NORMALISATION}
    rest: State = OrderedDict((name, value) for name, value in state.items() if name not in theirs.values())
    if len(theirs) < len(_NORMALISATION) or not (names := _paired(whole, compared, compared, rest)):
        return None
    return _Match(whole, names, (theirs["normalize.mean"], theirs["normalize.std"]), _prefix_line(names))


def _paired(target: nn.Module, mine: _Compare, theirs: _Compare, state: State) -> dict[str, str] | None:
    """For each name of a module's state the one in the file, if each has just one.

    BatchNorm's counter may be missing. Of a weight that the module has under several names, one name is enough.
    """

    held = target.state_dict(keep_vars=True)
    own, given = mine(held), {short: name for name, short in theirs(state).items()}
    if not own or len(set(own.values())) != len(held) or len(given) != len(state):
        return None
    names = {name: given[short] for name, short in own.items() if short in given}
    if len(names) != len(given):
        return None
    shared = {id(held[name]): other for name, other in names.items() if isinstance(held[name], Tensor)}
    for name in held:
        if name not in names and id(held[name]) in shared:
            names[name] = shared[id(held[name])]
        elif name not in names and not name.endswith("num_batches_tracked"):
            return None
    return names


def _as_they_are(names: Iterable[str]) -> Compared:
    return {name: name for name in names}


def _unwrapped(names: Iterable[str]) -> Compared:
    """The names without the parts that wrappers add."""

    return {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}


def _without_first(names: Iterable[str]) -> Compared:
    """The names without wrappers and without their first part; nothing where the first parts differ."""

    unwrapped = _unwrapped(names)
    first = {name.partition(".")[0] for name in unwrapped.values()}
    if len(first) != 1 or not all("." in name for name in unwrapped.values()):
        return {}
    return {name: short.partition(".")[2] for name, short in unwrapped.items()}


def _prefix_line(names: dict[str, str]) -> str:
    """Which prefix was left out or added, where it is the same one for all."""

    for longer, shorter, words in (
        (list(names.values()), list(names), "the file's prefix {!r} removed"),
        (list(names), list(names.values()), "the model's prefix {!r} removed"),
    ):
        prefixes = {long.removesuffix(short) for long, short in zip(longer, shorter, strict=True)}
        if len(prefixes) == 1 and all(long.endswith(short) for long, short in zip(longer, shorter, strict=True)):
            prefix = prefixes.pop()
            return words.format(prefix) if prefix else ""
    return ""


def _loads(target: nn.Module, state: State) -> bool:
    """Whether a module of one's own, that changes what it loads, takes a state dict; tried on a copy."""

    changes = any(
        module._load_state_dict_pre_hooks
        or (
            type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
            and not type(module).__module__.startswith("torch.")
        )
        for module in target.modules()
    )
    if not changes:
        return False
    try:
        deepcopy(target).load_state_dict(dict(state))
    except Exception:  # a stranger's code may raise anything
        return False
    return True


# What does not fit ---------------------------------------------------------------------------------------------------


def _check_values(
    match: _Match, state: State, path: Path, *, skip: Collection[str] = (), headless: bool = False
) -> None:
    """Refuses tensors of another shape or kind than the model's, before any is loaded.

    Args:
        match: where they go.
        state: the tensors.
        path: the file.
        skip: the target's names of those that are not loaded.
        headless: whether other classes would be no reason to refuse, if only the model had a head.
    """

    own = match.target.state_dict()
    trained = {name for name, _ in match.target.named_parameters()}
    _refuse_shapes(match, state, path, skip=skip, headless=headless)
    for name, other in (match.names or {name: name for name in state}).items():
        mine, theirs = own.get(name), state[other]
        if name in skip or not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
            continue
        if theirs.layout != torch.strided or theirs.is_meta:
            raise InputError(f"{path}: {shown(other)} is sparse or has no values: save dense tensors")
        if mine.is_complex() and theirs.is_complex():
            continue
        if (mine.is_floating_point() or mine.is_complex()) and theirs.dtype not in _FLOATS:
            raise InputError(f"{path}: {shown(other)} is {theirs.dtype}, instead of floats")
        if _is_counter(name) and _counts(theirs):
            continue
        if not mine.is_floating_point() and (theirs.is_floating_point() or theirs.is_complex()):
            raise InputError(f"{path}: {shown(other)} is {theirs.dtype}, where {mine.dtype} belongs")
        if theirs.dtype not in _FLOATS:
            continue  # whole numbers and truths are always finite, and some kinds of them cannot be asked
        # As the model will have them: a half-precision model has no value of 1e6.
        cast = theirs.to(mine.dtype)
        is_statistic = name.endswith(_STATISTICS)
        # Another buffer may mask a class by minus infinity.
        wrong = ~cast.isfinite() if name in trained or is_statistic else cast.isnan()
        if bool(wrong.any()):
            kept = "" if bool((~theirs.isfinite() & wrong).any()) else f", as {mine.dtype}"
            raise InputError(f"{path} has weights that are NaN or infinite{kept}: {shown(other)}")
        if is_statistic and name.endswith("var") and bool((cast < 0).any()):
            raise InputError(f"{path}: {shown(other)} has negative variances: the file is damaged or of another layer")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _counts(value: Tensor) -> bool:
    """Whether a count was converted to floats with the rest of a file. No answer depends on it."""

    return value.is_floating_point() and bool((value.isinf() | (value == value.round())).all())


def _refuse_shapes(match: _Match, state: State, path: Path, *, skip: Collection[str], headless: bool) -> None:
    """Refuses tensors of another shape than the model's; the arguments are those of :func:`_check_values`.

    Raises:
        InputError: it names the first, how many there are, and the flag that most likely mends it.
    """

    own, misfits = match.target.state_dict(), dict[str, tuple[torch.Size, torch.Size]]()
    pairs = match.names or {name: name for name in state}
    for name, other in pairs.items():
        mine, theirs = own.get(name), state[other]
        if name in skip or not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
            continue
        if theirs.layout != torch.strided or theirs.is_meta:  # refused for that
            continue
        # A lazy module takes its shape from the file. PyTorch loads shape (1,) into a scalar.
        if not (is_lazy(mine) or mine.shape == theirs.shape or (mine.ndim == 0 and theirs.shape == (1,))):
            misfits[name] = mine.shape, theirs.shape
    if not misfits:
        return
    name, (wanted, given) = next(iter(misfits.items()))
    others = [other for other in misfits if other != name]
    more = f" (and {len(others)} more, the last of them {others[-1]!r})" if others else ""
    raise InputError(
        f"{path} has the weights of another model: {shown(pairs[name])} has the shape {tuple(given)}, the model's "
        f"{name!r} has {tuple(wanted)}{more}{_how_to_mend(misfits, headless=headless)}"
    )


def _how_to_mend(misfits: Mapping[str, tuple[torch.Size, torch.Size]], *, headless: bool) -> str:
    """What most likely differs between a model and the one that weights are of.

    Args:
        misfits: for the name of each tensor that does not fit, its shape in the model and in the file.
        headless: whether other classes would be no reason to refuse, if only the model had a head.
    """

    shapes = {name: both for name, both in misfits.items() if not name.endswith(tuple(_NORMALISATION))} or misfits
    if not all(len(mine) == len(theirs) for mine, theirs in shapes.values()):
        return "; give their model with --model"
    differing = [
        {dim for dim, (one, two) in enumerate(zip(mine, theirs, strict=True)) if one != two}
        for mine, theirs in shapes.values()
    ]
    mine, theirs = next(iter(shapes.values()))
    if all(dims == {0} for dims in differing):
        if headless:
            return "; the model has no single Linear or Conv2d for its logits that could be replaced for other classes"
        if len({name.rpartition(".")[0] for name in shapes}) == 1:
            return f"; they have {theirs[0]} classes, the model {mine[0]}: name their classes with --classes"
    if differing == [{1}] and len(mine) == 4 and {mine[1], theirs[1]} == {1, 3}:
        flag = "add --grey for grey images" if theirs[1] == 1 else "add --rgb for three channels"
        return f"; they have {theirs[1]} channel(s), the model {mine[1]}: {flag}"
    if all(0 not in dims and len(both[0]) < 4 for dims, both in zip(differing, shapes.values(), strict=True)):
        return "; they are for images of another size: give it with --image-size"
    return "; give their model with --width or --model"


def _misfit(model: nn.Module, state: State, path: Path) -> InputError:
    """What the file lacks or has too much, seen from the part of the model that it fits best."""

    theirs = {short: name for name, short in _unwrapped(state).items()}
    best = max(_targets(model), key=lambda target: len(set(_unwrapped(target.state_dict()).values()) & theirs.keys()))
    own = {short: name for name, short in _unwrapped(best.state_dict()).items()}
    missing = [name for name in own if name not in theirs and not name.endswith("num_batches_tracked")]
    beyond = [name for name in theirs if name not in own]
    if missing:
        compared = [name for name in beyond or list(theirs) if len(name) <= _NAME][:_COMPARED]
        near = difflib.get_close_matches(missing[0], compared, n=1, cutoff=0.0)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        has = f"; it has {shown(theirs[near[0]])}" if near else ""
        return InputError(
            f"{path} has the weights of another model: {own[missing[0]]!r} is missing{more}{has}; give their model "
            "with --model"
        )
    more = f" (and {len(beyond) - 1} more)" if len(beyond) > 1 else ""
    first = theirs[beyond[0]] if beyond else next(iter(state), "")
    return InputError(
        f"{path} has the weights of another model: {shown(first)} is not part of it{more}; give their model with "
        "--model"
    )
