"""What an attack does step by step on a few images: whether its loss has levelled off when its steps are over.

A trace is stored beside the outcomes and changes none of them. Its file holds tensors, its summary is in
``result.json`` with their digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ..attacks import Norm
from ..errors import DamagedFileError
from ..files import digest_tensors, read_tensors, write_tensors
from ..numbers import counted, eps_text, norm_sign
from ..tabular import draw_courses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TRACE", "Trace", "read_trace", "write_trace"]

TRACE = "trace.safetensors"
"""The file of a trace in a folder of evidence."""

_COURSES = ("loss", "margin", "distance", "gradient")
_PLAIN: dict[str, type] = {"asked": int, "search": str, "attack": str, "eps": float, "norm": str, "final": bool}


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The course of one run of an attack of T steps on M images, at one ε.

    Attributes:
        asked: how many images were requested.
        search: the name of the search whose attack it is.
        attack: the attack as text, with its effort.
        eps: the radius.
        norm: the norm of ε.
        final: whether the evidence tests the last iterate alone; else any iterate that fools the model is a success.
        rows: the numbers of the images, int64 (M,): survivors first, then broken ones, each in the order of the data.
        survived: whether the evidence counts the image as right at ``eps``, bool (M,).
        loss: the attack's loss at each iterate, from the start to the end, float32 (M, T + 1).
        margin: the logit of the label over the largest other, likewise; below zero, the model is fooled.
        distance: the norm of the perturbation, likewise.
        gradient: the L2 norm of the gradient of the loss, likewise.
        fooled: whether the iterate fools the model and lies in the ball and the box, bool (M, T + 1).

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x = torch.rand(20, 1, 8, 8)
        >>> y = model(x).argmax(dim=1)
        >>> evaluation = asgt.evaluate(model, (x, y), "pgd", epsilons=["8/255", "16/255"], trace=4)
        >>> trace = evaluation.trace
        >>> trace.attack, trace.loss.shape
        ('PGD-40 (α = 2.5ε/40, random starts)', torch.Size([4, 41]))
    """

    asked: int
    search: str
    attack: str
    eps: float
    norm: Norm
    final: bool
    rows: Tensor
    survived: Tensor
    loss: Tensor
    margin: Tensor
    distance: Tensor
    gradient: Tensor
    fooled: Tensor

    @property
    def steps(self) -> int:
        """T."""

        return self.loss.shape[1] - 1

    @property
    def survivors(self) -> int:
        """How many of the images survive."""

        return int(self.survived.sum())

    @property
    def broken(self) -> int:
        """How many do not."""

        return len(self.survived) - self.survivors

    @property
    def late(self) -> int:
        """The number of the step after which the last tenth of the steps begins."""

        return self.steps - max(1, round(0.1 * self.steps))

    @property
    def late_rise(self) -> float | None:
        """The share of the rise of the survivors' highest loss so far that falls into the last tenth of the steps.

        Near zero, the attack has converged. A loss that rises evenly from start to end gives about a tenth. ``None``
        without survivors, or where their loss does not rise.
        """

        highest = self.loss[self.survived].double().nan_to_num(nan=-torch.inf).cummax(dim=1).values
        rise = float((highest[:, -1] - highest[:, 0]).sum())
        late = float((highest[:, -1] - highest[:, self.late]).sum())
        return late / rise if math.isfinite(rise) and rise > 0 else None

    @property
    def contradicts(self) -> Tensor:
        """Which images end otherwise than the evidence says, bool (M,).

        In a worst case these are survivors that the trace breaks at ``eps``. That one run of one attack does not
        break them all contradicts nothing.
        """

        return self.survived == self.fooled[:, -1] if self.final else self.survived & self.fooled.any(dim=1)

    def sentence(self) -> str:
        """Whether the attack has converged, as text."""

        late = self.late_rise
        told = (
            "no loss of a survivor rises"
            if late is None
            else f"{100 * late:.1f} % of the rise of the survivors' loss falls into the last tenth of the steps "
            "(near 0: converged; 10: still rising evenly)"
        )
        return (
            f"trace of {self.attack} at eps {eps_text(self.eps)} on {counted(self.survivors, 'survivor')} and "
            f"{counted(self.broken, 'broken image')}: {told}{self.warning(' · ')}"
        )

    def warning(self, before: str = "") -> str:
        """What contradicts the evidence, after some text; empty where nothing does."""

        count = int(self.contradicts.sum())
        if not count:
            return ""
        if self.final:
            return f"{before}{counted(count, 'image')} of the trace end otherwise than in the evaluation"
        return f"{before}{counted(count, 'survivor')} of the trace break: robust accuracy is too high"

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``result.json`` says of it."""

        return {name: getattr(self, name) for name in _PLAIN} | {
            "images": len(self.rows),
            "survivors": self.survivors,
            "steps": self.steps,
            "late_rise": self.late_rise,
            "contradicted": int(self.contradicts.sum()),
            "tensors": digest_tensors(self.tensors()),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What its file holds."""

        return {name: getattr(self, name) for name in ("rows", "survived", *_COURSES, "fooled")}

    def plot(self, axes: Axes | None = None, course: str = "loss") -> Axes:
        """Draws the course of each image thin and the medians of survivors and broken images thick.

        Args:
            axes: matplotlib axes to draw on. Default: those of a new figure.
            course: ``"loss"``, ``"margin"``, ``"distance"`` or ``"gradient"``.
        """

        return draw_courses(
            {
                "survivors": getattr(self, course)[self.survived].tolist(),
                "broken": getattr(self, course)[~self.survived].tolist(),
            },
            axes,
            title=f"{self.attack}, ε = {eps_text(self.eps)} ({norm_sign(self.norm)})",
            x_label="step",
            y_label=course,
        )


def write_trace(folder: Path, trace: Trace | None) -> None:
    """Writes the file of a trace atomically; removes that of another time where there is none."""

    if trace is None:
        (folder / TRACE).unlink(missing_ok=True)
    else:
        write_tensors(folder / TRACE, trace.tensors(), {}, begin=False)


def read_trace(folder: Path, told: Any, samples: int) -> Trace | None:
    """The trace that a result tells of; ``None`` where it tells of none.

    Args:
        folder: the folder of evidence.
        told: what ``result.json`` says of it.
        samples: how many images were evaluated.

    Raises:
        DamagedFileError: it is missing, or not what was written.
    """

    if told is None:
        return None
    file, result, again = folder / TRACE, folder / "result.json", "--resume writes it again"
    if not file.exists():
        raise DamagedFileError(f"{file} is missing, and {result} was made with it: {again}")
    tensors = read_tensors(file)[0]
    try:
        if digest_tensors(tensors) != told["tensors"] or not _is_whole(tensors, samples):
            raise ValueError(TRACE)
        plain = {name: told[name] for name in _PLAIN}
        if any(type(value) is not _PLAIN[name] for name, value in plain.items()) or plain["norm"] not in get_args(Norm):
            raise TypeError(TRACE)
        return Trace(**plain, **tensors)  # type: ignore[arg-type]
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{file} is damaged: it does not hold the trace of {result}; {again}") from error


def _is_whole(tensors: Mapping[str, Tensor], samples: int) -> bool:
    """Whether tensors are those of a trace of some of so many images."""

    rows, shape = tensors["rows"], tuple(tensors["loss"].shape)
    expected = {"rows": (torch.int64, shape[:1]), "survived": (torch.bool, shape[:1]), "fooled": (torch.bool, shape)}
    expected |= dict.fromkeys(_COURSES, (torch.float32, shape))
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if found != expected or len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        return False
    return 0 <= int(rows.min()) <= int(rows.max()) < samples
