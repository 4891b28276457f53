"""The cost of a run in passes (:mod:`asgt.training.counting`), computed before it starts by running its code.

The time of a pass on this machine is measured, for an estimate of the run time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from ..attacks import Norm
from ..data import Images, load_data, to_unit
from ..devices import one_thread, place, resolve_device
from ..errors import InputError
from ..evaluation.curve import evaluate
from ..evaluation.discard_audit import RISKS, SMALLEST, audit_sizes, nearest_count
from ..evaluation.evaluator import AUDITED
from ..evaluation.protocols import PhasedSearch, protocol_named
from ..explanation import explain
from ..saliency import attribution_class
from ..training.building import build_from
from ..training.config import TrainConfig
from ..training.counting import Counter, step_passes
from ..training.methods import build_objective
from ..training.validating import judge

__all__ = ["evaluation_passes", "explanation_passes", "pace", "step_passes", "training_passes"]


def training_passes(config: TrainConfig, images: int, validation: int) -> int:
    """The passes of a training: the steps on its images, and the validation after every epoch.

    This is for a model whose training and evaluation modes differ; others share forward passes and need fewer. For
    a foreign method that cannot be counted, it is an estimate: a forward and a backward pass.
    """

    objective, model = build_objective(config), Counter()
    judge(model, _images(), objective.adversary, config.seed)
    try:
        passes = step_passes(objective)
    except InputError:
        if not config.has_foreign_method:
            raise
        passes = 3
    return config.epochs * (images * passes + validation * model.passes)


def evaluation_passes(protocol: str, epsilons: Sequence[float], samples: int, norm: Norm = "linf") -> int:
    """The passes of an evaluation of a model that cannot be fooled: about those of other models.

    A search in phases cannot be simulated with such a model. Its cost is an estimate: an eighth of the full search, and
    the full search on as many images as an audit takes in which none breaks.

    Raises:
        InputError: the protocol is unknown in this norm, or an ε is invalid.
    """

    def passes(count: int) -> int:
        model = Counter()
        evaluate(model, _images(count), protocol=protocol, epsilons=epsilons, norm=norm)
        return model.passes

    for phased in protocol_named(protocol, norm).searches:
        if not isinstance(phased, PhasedSearch):
            continue
        full = evaluation_passes("standard@1", epsilons, samples, norm)
        audited = 0
        if phased.audited:
            nearest = nearest_count(samples)
            audited = samples
            if samples >= SMALLEST:
                audited = nearest + audit_sizes(samples - nearest, samples, RISKS[0])[0]
        return full if audited == samples else full * (8 * audited + samples) // (8 * samples)

    # The first few are attacked at every ε, the others not.
    few = min(samples, AUDITED)
    first = passes(few)
    return first + (samples - few) * (passes(few + 1) - first)


def explanation_passes(attribution: str, samples: int, norm: Norm = "linf") -> int:
    """Passes of an explanation, without those of the re-initialised models.

    Raises:
        InputError: the attribution is unknown.
    """

    model = Counter()
    # A model that only counts has no layer to look at. What looks at one goes forward and back as the gradient does.
    counted = "gradient" if attribution_class(attribution).looks_at_layer() else attribution
    explain(model, _images(), eps=0.1, norm=norm, attribution=counted)
    return samples * model.passes


def pace(config: TrainConfig) -> float:
    """The time of a pass on this machine in seconds, measured for a second on steps of the configuration's model, on
    one thread.

    It is an estimate for a run with its own core; on a CPU it is processor time, independent of other load. An
    accelerator that several runs share has a higher throughput than for one.

    Raises:
        InputError: the data or the model cannot be loaded.
    """

    device = resolve_device(config.device)
    data = load_data(config.data, limit=256, **config.data_settings())
    with one_thread(), torch.random.fork_rng():
        model = place(build_from(config, data), device, to_unit(data.train.pixels[:2]))
        images = data.train.to(device)
        x, y = to_unit(images.pixels[: config.batch_size]), images.labels[: config.batch_size]

        def step() -> None:
            torch.nn.functional.cross_entropy(model(x), y).backward()
            # Reading a number waits for the device.
            float(next(model.parameters()).detach().flatten()[0])

        clock = time.process_time if device.type == "cpu" else time.perf_counter
        step()
        began, steps = clock(), 0
        while clock() - began < 1.0:
            step()
            steps += 1
        return (clock() - began) / (3 * steps * len(x))


def _images(count: int = 1) -> Images:
    return Images(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), ("0", "1"))
