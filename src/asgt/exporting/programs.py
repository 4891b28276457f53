"""The network in formats for other programs: ONNX, and the archive of ``torch.export``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import InputError
from ..modes import ask

__all__ = ["as_onnx", "as_program", "captured", "run_onnx", "run_program"]

_BATCH = 2**16
"""The largest batch of a captured network."""

_SAMPLES = "sample_inputs/"
"""The part of an archive with pickled example images, which are not needed."""

_OF_THE_WRITER = ("/.data/", "/byteorder", "/version")
"""Records that PyTorch's writer adds by itself."""


class _Logits(nn.Module):
    """A classifier whose output is the logits alone, also where its net returns an output object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        answer: Any = self.model(images)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return logits


def captured(model: nn.Module, shape: tuple[int, int, int]) -> ExportedProgram:
    """The network as a graph for any number of images.

    Args:
        model: in evaluation mode, on the CPU.
        shape: (C, H, W) of the images.

    Raises:
        InputError: the computation of the network depends on the values or the number of its images.
    """

    with torch.no_grad():
        ask(model, torch.zeros(2, *shape))  # an error of the model's own comes first, as its own
    try:
        with _quiet():
            program = torch.export.export(
                _Logits(model), (torch.zeros(2, *shape),), dynamic_shapes=({0: Dim("batch", max=_BATCH)},)
            )
    except Exception as error:  # PyTorch has an error of its own for each reason
        raise InputError(
            f"the network cannot be captured for other programs ({type(error).__name__}: {_first_line(error)}): "
            "make its computation independent of the values and the number of its images, or export without --format"
        ) from error
    # Where each operation stood in a file of this machine.
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    return program


def as_program(program: ExportedProgram) -> bytes:
    """The archive that :func:`torch.export.load` reads, without pickled example images."""

    whole = io.BytesIO()
    with _quiet():
        torch.export.save(program, whole)
    whole.seek(0)
    reader, content = torch._C.PyTorchFileReader(whole), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(content)
    for name in reader.get_all_records():
        if not any(part in f"/{name}" for part in _OF_THE_WRITER):
            record = b"" if _SAMPLES in name else reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return content.getvalue()


def as_onnx(program: ExportedProgram) -> bytes:
    """The network as ONNX, in one piece, its input called ``images`` and its output ``logits``.

    Raises:
        InputError: the packages for it are not installed, or ONNX has no such operation.
    """

    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}: pip install 'asgt[onnx]'") from error
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=["logits"])
    except Exception as error:
        raise InputError(f"the network cannot be written as ONNX: {_first_line(error)}") from error
    assert made is not None
    proto = made.model_proto
    _forget(proto)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def run_program(content: bytes, images: Tensor) -> Tensor:
    """The logits of an archive of ``torch.export`` that was just made here."""

    with _quiet(), torch.no_grad():
        logits: Tensor = torch.export.load(io.BytesIO(content)).module()(images)
    return logits


def run_onnx(content: bytes, images: Tensor) -> Tensor:
    """The logits of ONNX in onnxruntime, on the CPU.

    Raises:
        InputError: onnxruntime is not installed.
    """

    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("--format onnx needs onnxruntime for its check: pip install 'asgt[onnx]'") from error
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _forget(proto: Any) -> None:
    """Removes what ONNX says about the source of a network: the places of files, and the lines in them."""

    graphs = [proto.graph]
    for each in (proto, *proto.functions):
        del each.metadata_props[:]
    while graphs:
        graph = graphs.pop()
        nodes = [*graph.node, *(node for function in proto.functions for node in function.node)]
        for each in (graph, *nodes, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del each.metadata_props[:]
            each.doc_string = ""
        graphs += [attribute.g for node in nodes for attribute in node.attribute if attribute.HasField("g")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and progress lines of PyTorch's exporters."""

    import logging
    from contextlib import redirect_stdout

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
