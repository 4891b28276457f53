"""Writes a finished run as a folder that others load: see :mod:`asgt.models.exported` for its content."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import LabelledImages, Splits, to_unit
from ..errors import InputError, shown, unknown
from ..files import (
    digest_file,
    digest_model,
    digest_tensors,
    read_bounded,
    read_tensors,
    write_bytes,
    write_sealed,
    write_tensors,
)
from ..locks import holds_nothing, locked
from ..manifest import MANIFEST, Manifest
from ..models.exported import (
    CARD,
    CONFIG,
    EXPORT,
    ONNX,
    PROGRAM,
    READING,
    RESULTS,
    WEIGHTS,
    Exported,
    export_in,
    load_exported,
    read_exported,
)
from ..models.pretrained import hf_architecture
from ..modes import ask
from ..names import is_allowed
from ..progress import SILENT, Progress
from ..runs.run import Run, load_run, read_run
from ..training.run_folder import RunFolder
from ..training.setup import STEP
from .card_source import UNSTATED, CardSource
from .markdown import last_part
from .model_card import model_card
from .programs import as_onnx, as_program, captured, run_onnx, run_program
from .pushing import refuse_repository
from .repeating import model_title

__all__ = ["FORMATS", "Export", "export_run"]

FORMATS = ("onnx", "torch-export")
"""The formats of the network, in addition to its weights."""

_FILES = {"onnx": ONNX, "torch-export": PROGRAM}
_COMPARED, _TOLERANCE = 64, 1e-5
_STAGE = ".export.{}.part"
"""The folder in which files are made; it and locks are not content of an export."""
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        folder: its folder.
        files: the names of the files in it, those of the manifest first.
        is_loaded: whether the export was loaded again here, and has exactly the weights of the run; it was not if its
            architecture is code that was neither passed nor allowed.
        is_evaluated: whether the card has numbers.
        parity: for each other format, by the name of its file, a sentence on the difference of its logits from the
            model's.
    """

    folder: Path
    files: tuple[str, ...]
    is_loaded: bool
    is_evaluated: bool
    parity: tuple[tuple[str, str], ...] = ()


def export_run(
    run: Path | str,
    out: Path | str,
    *,
    formats: Sequence[str] = (),
    license: str = UNSTATED,
    name: str = "",
    model: nn.Module | Callable[..., nn.Module] | None = None,
    data: Splits | tuple[LabelledImages, LabelledImages] | None = None,
    allow: Collection[str] = (),
    progress: Progress = SILENT,
) -> Export:
    """Writes a finished run as a folder with its weights, configuration, model card and digests.

    The data is not needed, except to compare other formats on its test images.

    Args:
        run: the run folder, evaluated or not.
        out: the folder to write: new, empty, or with an earlier export, which is replaced.
        formats: further formats of the network, of :data:`FORMATS`. Default: only the weights.
        license: of the weights, an identifier of the hub, such as ``"mit"``. Default: the card says that none is
            stated.
        name: the name of the model in the card, such as ``"ORGANISATION/NAME"``. Default: the name of the folder.
        model: the architecture for loading the export, if it was passed to the training as an object.
        data: the data, if it was passed to the training as objects.
        allow: the modules whose code may run to load the export, as for :func:`asgt.load_run`. Default: none.
        progress: receives messages.

    Raises:
        InputError: the run is not finished; the folder has other content; or another format cannot be written, or
            has other logits.
        DamagedFileError: a file of the run is damaged.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> export = asgt.export_run("run", "shared")
        >>> sorted(file.name for file in export.folder.iterdir())
        ['README.md', 'config.json', 'manifest.json', 'model.safetensors']
    """

    out, formats = Path(out), tuple(dict.fromkeys(formats))
    for each in formats:
        if each not in FORMATS:
            raise unknown("format", each, FORMATS)
    if license and _LICENSE.fullmatch(license) is None:
        raise InputError(
            f"license {shown(license)}: give an identifier of the hub, such as mit, apache-2.0 or cc-by-4.0"
        )
    if "/" in name:
        refuse_repository(name)
    read = read_run(Path(run))
    place = name or last_part(os.path.abspath(out))
    with locked(out, "asgt export", progress=progress):
        previous = _previous(out)
        with _staged(out) as stage:
            exported = _weights_and_config(read, stage)
            net = _loaded_again(exported, model, allow)
            parity = _programs(stage, formats, net, exported, lambda: _images(read, model, data, allow, progress))
            source = CardSource(read, exported, place, license, parity)
            write_bytes(stage / CARD, model_card(source).encode())
            files = _sealed(stage, read, exported)
            _put_in_place(stage, out, files, previous)
    return Export(out, (*files, MANIFEST), net is not None, bool(read.evaluations), parity)


def _previous(out: Path) -> Manifest | None:
    """The manifest of the export that a folder holds; ``None`` where it is new or empty.

    Raises:
        InputError: it holds something else, or its card was edited since.
    """

    if holds_nothing(out):
        return None
    manifest = export_in(out)
    if manifest is None:
        raise InputError(f"{out} is not empty and not an earlier export: give a new or an empty folder to --out")
    card = out / CARD
    if card.exists() and digest_file(card) != manifest.files.get(CARD):
        raise InputError(f"{card} was edited after it was exported: move it away, or give another --out")
    return manifest


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder in the folder, gone at the end; those of killed exports go with it."""

    stage = out / _STAGE.format(os.getpid())
    try:
        stage.mkdir()
        yield stage
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        for each in out.glob(_STAGE.format("*")):
            shutil.rmtree(each, ignore_errors=True)


def _weights_and_config(run: Run, stage: Path) -> Exported:
    """Writes the weights, the configuration and the results, and lists them, so that they can be loaded."""

    config, result, folder = run.config, run.result, RunFolder(run.folder)
    tensors, told = read_tensors(folder.model)
    kept = {name: text for name, text in told.items() if name != STEP}
    write_tensors(stage / WEIGHTS, tensors, kept | {"format": "pt"})
    is_hf = config.model.startswith("hf:")
    channels, height, width = result.shape
    exported = Exported(
        folder=stage,
        name=str(run.folder),
        model=model_title(config.model),
        shape=(channels, height, width),
        classes=tuple(result.classes),
        weights=digest_tensors(tensors),
        options={name: float(value) for name in ("width", "dropout") if (value := getattr(config, name)) is not None},
        head=str(result.start.get("head", "")) if config.has_start else None,
        transformers=hf_architecture(config.model.removeprefix("hf:")) if is_hf else None,
        reading={name: value for name, value in config.data_settings().items() if name in READING},
    )
    write_sealed(stage / CONFIG, exported.to_dict())
    for evaluation in run.evaluations.values():
        stored = evaluation.protocol.stored_as
        content = read_bounded(folder.evaluation(stored) / "result.json")
        write_bytes(stage / RESULTS / f"{stored}.json", content)
    _sealed(stage, run, exported)
    return exported


def _sealed(stage: Path, run: Run, exported: Exported) -> tuple[str, ...]:
    """Writes the manifest of what is there; returns the names of the files that it lists."""

    files = {
        file.relative_to(stage).as_posix(): digest_file(file)
        for file in sorted(stage.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    made_from = {
        "config": digest_file(RunFolder(run.folder).config),
        "train_data": run.result.train_data,
        "test_data": run.result.test_data,
        "weights": exported.weights,
    }
    Manifest(stage).with_files(EXPORT, files, made_from).write()
    return tuple(files)


def _loaded_again(
    exported: Exported, model: nn.Module | Callable[..., nn.Module] | None, allow: Collection[str]
) -> nn.Module | None:
    """The model as it will be loaded, whose state is that of the run; ``None`` where its code is not at hand."""

    read = read_exported(str(exported.folder))
    if read.is_own and model is None and not is_allowed(read.model, allow):
        return None
    net = load_exported(read, model=model, allow=allow)
    if digest_model(net) != exported.weights:
        raise InputError(
            f"{exported.name}: its model and its weights do not match, so it cannot be exported: pass the "
            "model of the training"
        )
    return net


def _programs(
    stage: Path,
    formats: Sequence[str],
    net: nn.Module | None,
    exported: Exported,
    images: Callable[[], tuple[Tensor, str]],
) -> tuple[tuple[str, str], ...]:
    """Writes the network in other formats, each after it gave the same logits; how far they lie apart, in words."""

    if not formats:
        return ()
    if net is None:
        raise InputError(
            f"--format {formats[0]} needs the architecture {exported.model}, which is your own code: name it with "
            "--model or --allow, or pass model=…"
        )
    program = captured(net, exported.shape)
    x, which = images()
    with torch.no_grad():
        expected = ask(net, x).float()
    parity = []
    for each in formats:
        content = as_onnx(program) if each == "onnx" else as_program(program)
        run = run_onnx if each == "onnx" else run_program
        # In batches of several sizes: that of the capture must not be the only one.
        given = torch.cat([run(content, part) for part in (x[:1], x[1:4], x[4:]) if len(part)]).float()
        apart, largest = float((given - expected).abs().max()), float(expected.abs().max())
        if not apart <= _TOLERANCE * max(1.0, largest):
            raise InputError(
                f"--format {each}: its logits differ by {apart:.1e} from those of the model (at most "
                f"{_TOLERANCE * max(1.0, largest):.0e} is allowed), so it is not written"
            )
        write_bytes(stage / _FILES[each], content)
        parity.append((_FILES[each], f"Its logits differ by at most {apart:.1e} from those of PyTorch on {which}."))
    return tuple(parity)


def _images(
    run: Run,
    model: nn.Module | Callable[..., nn.Module] | None,
    data: Splits | tuple[LabelledImages, LabelledImages] | None,
    allow: Collection[str],
    progress: Progress,
) -> tuple[Tensor, str]:
    """Test images of the run, float (N, C, H, W), and which they are; random ones where its data is not here."""

    try:
        splits = load_run(run.folder, allow=allow, model=model, data=data, progress=progress)[1]
    except InputError as error:
        progress.say(f"formats are compared on random images, because the test images cannot be read: {error}")
        generator = torch.Generator().manual_seed(0)
        channels, height, width = run.result.shape
        shape = (_COMPARED, channels, height, width)
        return torch.rand(shape, generator=generator), f"{_COMPARED} images of uniform noise"
    pixels = to_unit(splits.test.pixels[:_COMPARED])
    return pixels, f"{len(pixels)} test images"


def _put_in_place(stage: Path, out: Path, files: Sequence[str], previous: Manifest | None) -> None:
    """Moves what was made into its place, the card and the manifest last, and removes what an earlier export left."""

    last = (CARD, MANIFEST)
    for name in (*(name for name in files if name not in last), *last):
        (out / name).parent.mkdir(exist_ok=True)
        os.replace(stage / name, out / name)
    for name in () if previous is None else previous.files.keys() - {*files}:
        (out / name).unlink(missing_ok=True)
    if (results := out / RESULTS).is_dir() and not any(results.iterdir()):
        results.rmdir()
