"""Explains a finished run on the first of its test images, into its folder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..attacks import Norm
from ..data import Images, in_memory, sampled_rows
from ..data import shortcut_view as viewed_images
from ..datasets import data_set
from ..devices import resolve_device
from ..errors import InputError
from ..explanation import Explanation, explain, load_explanation
from ..progress import SILENT, Progress
from ..shortcuts import ShortcutView
from ..training.run_folder import RunFolder

__all__ = ["explain_run", "explained_alike"]


def explain_run(
    folder: RunFolder,
    model: nn.Module,
    test: Images,
    data: str,
    *,
    samples: int,
    eps: float,
    norm: Norm,
    attribution: str = "gradient",
    rows: Tensor | None = None,
    shortcut: str | None = None,
    shortcut_view: ShortcutView = "absent",
    layer: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    resume: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Explains the model of a run, or uses the stored explanation of its folder.

    Args:
        folder: the run's.
        model: its model.
        test: all of its test images.
        data: the name of the data, which determines whether the object is known.
        samples: the number of explained images.
        eps: the training ε of the compared methods.
        norm: its norm.
        attribution: what makes the maps.
        rows: which they are, int64 (N,). Default: the first, or drawn class by class where these lack a class.
        shortcut: what is planted in them, as :func:`asgt.shortcuts.shortcut_named` takes it. Default: nothing.
        shortcut_view: which test set with a shortcut is explained; its evidence lies in a separate folder.
        layer: the layer that it looks at, where it looks at one.
        batch_size: images a pass. Default: as :func:`asgt.explain` has it.
        device: where to.
        resume: continue an explanation that was begun and not finished; a finished one is used anyway.
        progress: is told how many images are through.

    Raises:
        InputError: a setting is invalid, or the folder has an explanation with other settings.
    """

    view = "absent" if shortcut is None else shortcut_view
    place = folder.explanation(attribution, view)
    rows = sampled_rows(test, samples) if rows is None else rows
    if int(rows.max()) >= len(test):
        raise InputError(f"{place} is of test image {int(rows.max())}, but there are only {len(test)}: remove it")
    finished = explained_alike(place, samples=len(rows), eps=eps, norm=norm)
    # Which shortcut an image gets, its row of the whole test split decides.
    images = viewed_images(test, shortcut, view)[rows]
    where = resolve_device(device)
    return explain(
        model.to(where),
        images.to(where),
        eps=eps,
        norm=norm,
        attribution=attribution,
        layer=layer,
        objects=_objects(test[rows], data),
        shortcut_view=view,
        ids=rows,
        batch_size=batch_size,
        folder=place,
        resume=resume or finished,
        progress=progress,
    )


def explained_alike(place: Path, *, samples: int, eps: float, norm: Norm) -> bool:
    """Whether a folder has a finished explanation of the same number of images at the same ε.

    Raises:
        InputError: it has one with other settings.
    """

    if not (place / "result.json").is_file():
        return False
    kept = load_explanation(place)
    for name, there, asked in (("eps", kept.eps, eps), ("norm", kept.norm, norm), ("samples", kept.samples, samples)):
        if there != asked:
            raise InputError(
                f"{place} was made with {name} = {there}, not {asked}: use it with {name} = {there} and --resume, or "
                "remove it to explain again"
            )
    return True


def _objects(images: Images, data: str) -> Tensor | None:
    """Where the object is, bool (N, H, W), for data of which that is known; a folder goes by its own name."""

    known = data_set(Path(data).name if Path(data).is_dir() else data)
    return None if known.objects is None else known.objects(in_memory(images.pixels))
