"""asgt: train image classifiers that are robust and interpretable, and measure both.

In your own training loop::

    objective = asgt.ASGT(attack=asgt.PGD(eps=8/255, steps=7), mask=asgt.SaliencyMask(k=0.1), weight=1.0)
    out = objective(model, x, y)
    out.loss.backward()

A complete run: :func:`asgt.train` and :func:`asgt.evaluate`; a grid of runs with its page: :func:`asgt.reproduce`.
Saliency maps of a model: :func:`asgt.explain`, and a comparison of models: :func:`asgt.panel`. Names are imported when
they are first used, so that ``import asgt`` is fast.
"""

import os
import sys

# python -m asgt has the working directory first on the path, where a file may be called as any module that is imported
# below and later. The command asgt does not search it at all, and what the user names asgt.plugins finds there. It is
# left out here, before anything else is imported: even from __future__ import annotations reads a file.
if (
    sys.argv[:1] == ["-m"]
    and sys.orig_argv[-len(sys.argv) :][:1] in (["asgt"], ["-masgt"])
    and not sys.flags.safe_path
    and sys.path[:1] in ([""], [os.getcwd()])
):
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .training.method_registry import ATTACKS, METHODS

if TYPE_CHECKING:
    from .attacks import (
        APGD,
        FGSM,
        MIFGSM,
        PGD,
        AnnealedPGD,
        Attack,
        AutoAttack,
        Foreign,
        LocalSquare,
        Repeated,
        RescaledSquare,
        Square,
    )
    from .comparison import Comparison, compare
    from .comparison.differences import DifferenceTable, differences
    from .comparison.shortcut_gaps import ShortcutComparison, compare_shortcut_use
    from .data import Images, Splits, load_data
    from .errors import AsgtError, DamagedFileError, InputError, InterruptedRunError
    from .evaluation.check import Check
    from .evaluation.curve import evaluate, robustness_curve
    from .evaluation.outcomes import Evaluation
    from .evaluation.protocols import PROTOCOLS, Protocol
    from .evaluation.shards import load_evaluation
    from .evaluation.shortcut_use import ShortcutUse, shortcut_use
    from .evaluation.trace import Trace
    from .experiments import Preset, load_preset, reproduce
    from .explanation import Explanation, Measure, Panel, explain, load_explanation, panel, strokes
    from .explanation.map_grid import saliency_maps
    from .explanation.shown_maps import SaliencyMaps
    from .exporting import export_run
    from .models import Normalize, build_model, from_pretrained, load_weights
    from .randomness import Generators, SampleKeyed
    from .report.curves import robustness_curves
    from .report.map_drawing import write_contact_sheet, write_maps
    from .report.page import write_report
    from .runs.run import load_run
    from .runs.verifying import Verified, verify
    from .saliency import Attribution, SaliencyMask, attribute
    from .statistics import Estimate, PairedDifference
    from .training.config import TrainConfig
    from .training.objectives import ASGT, AT, RRR, SGA, SGT, ST, TRADES, Objective, Output
    from .training.run_folder import TrainResult
    from .training.trainer import train

__all__ = [
    "APGD",
    "ASGT",
    "AT",
    "FGSM",
    "MIFGSM",
    "PGD",
    "PROTOCOLS",
    "RRR",
    "SGA",
    "SGT",
    "ST",
    "TRADES",
    "AnnealedPGD",
    "AsgtError",
    "Attack",
    "Attribution",
    "AutoAttack",
    "Check",
    "Comparison",
    "DamagedFileError",
    "DifferenceTable",
    "Estimate",
    "Evaluation",
    "Explanation",
    "Foreign",
    "Generators",
    "Images",
    "InputError",
    "InterruptedRunError",
    "LocalSquare",
    "Measure",
    "Normalize",
    "Objective",
    "Output",
    "PairedDifference",
    "Panel",
    "Preset",
    "Protocol",
    "Repeated",
    "RescaledSquare",
    "SaliencyMaps",
    "SaliencyMask",
    "SampleKeyed",
    "ShortcutComparison",
    "ShortcutUse",
    "Splits",
    "Square",
    "Trace",
    "TrainConfig",
    "TrainResult",
    "Verified",
    "attribute",
    "build_model",
    "compare",
    "compare_shortcut_use",
    "differences",
    "evaluate",
    "explain",
    "export_run",
    "from_pretrained",
    "load_data",
    "load_evaluation",
    "load_explanation",
    "load_preset",
    "load_run",
    "load_weights",
    "panel",
    "reproduce",
    "robustness_curve",
    "robustness_curves",
    "saliency_maps",
    "shortcut_use",
    "strokes",
    "train",
    "verify",
    "write_contact_sheet",
    "write_maps",
    "write_report",
]

_HOMES = {
    "attacks": (
        "APGD",
        "FGSM",
        "MIFGSM",
        "PGD",
        "AnnealedPGD",
        "Attack",
        "AutoAttack",
        "Foreign",
        "LocalSquare",
        "Repeated",
        "RescaledSquare",
        "Square",
    ),
    "comparison": (
        "Comparison",
        "compare",
    ),
    "comparison.differences": (
        "DifferenceTable",
        "differences",
    ),
    "comparison.shortcut_gaps": (
        "ShortcutComparison",
        "compare_shortcut_use",
    ),
    "data": (
        "Images",
        "Splits",
        "load_data",
    ),
    "errors": (
        "AsgtError",
        "DamagedFileError",
        "InputError",
        "InterruptedRunError",
    ),
    "evaluation.check": ("Check",),
    "evaluation.curve": (
        "evaluate",
        "robustness_curve",
    ),
    "evaluation.outcomes": ("Evaluation",),
    "evaluation.protocols": (
        "PROTOCOLS",
        "Protocol",
    ),
    "evaluation.shards": ("load_evaluation",),
    "evaluation.shortcut_use": (
        "ShortcutUse",
        "shortcut_use",
    ),
    "evaluation.trace": ("Trace",),
    "experiments": (
        "Preset",
        "load_preset",
        "reproduce",
    ),
    "explanation": (
        "Explanation",
        "Measure",
        "Panel",
        "explain",
        "load_explanation",
        "panel",
        "strokes",
    ),
    "explanation.map_grid": ("saliency_maps",),
    "explanation.shown_maps": ("SaliencyMaps",),
    "exporting": ("export_run",),
    "models": (
        "Normalize",
        "build_model",
        "from_pretrained",
        "load_weights",
    ),
    "randomness": (
        "Generators",
        "SampleKeyed",
    ),
    "report.curves": ("robustness_curves",),
    "report.map_drawing": (
        "write_contact_sheet",
        "write_maps",
    ),
    "report.page": ("write_report",),
    "runs.run": ("load_run",),
    "runs.verifying": (
        "Verified",
        "verify",
    ),
    "saliency": (
        "Attribution",
        "SaliencyMask",
        "attribute",
    ),
    "statistics": (
        "Estimate",
        "PairedDifference",
    ),
    "training.config": ("TrainConfig",),
    "training.objectives": (
        "Objective",
        "Output",
    ),
    "training.run_folder": ("TrainResult",),
    "training.trainer": ("train",),
}
_MODULE_OF = {name: f"asgt.{module}" for module, names in _HOMES.items() for name in names}
# A registered method or attack of asgt is public without a line here.
for _place in (*METHODS.values(), *(part.place for part in ATTACKS.values())):
    _MODULE_OF.setdefault(_place.partition(":")[2], _place.partition(":")[0])
__all__ += [name for name in _MODULE_OF if name not in __all__]

_PACKAGES = (
    *("attacks", "comparison", "data", "datasets", "evaluation", "experiments", "explanation", "exporting"),
    *("models", "report", "runs", "saliency", "shortcuts", "training"),
)
"""The packages that are imported when they are first used, as in ``asgt.data.plant``."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("asgt")
    if name in _PACKAGES:
        return import_module(f"asgt.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'asgt' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
