"""Traces as charts: what an attack does to each image step by step, and the medians of survivors and broken images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..comparison.comparing import Comparison
from ..evaluation.protocols import Protocol
from ..evaluation.trace import Trace
from ..names import file_name
from ..numbers import eps_text, norm_sign
from .figures import Chart, Line

__all__ = ["Traced", "traced_runs"]

_MARKS = 20  # points of a median that have a marker and can be pointed at
_THREADS = 32  # images of a kind that are drawn
_SPREAD = 30.0  # a loss that spans more than this factor is drawn on a logarithmic axis
_LOWEST = 1e-3  # where such an axis begins at the lowest, as a share of the largest value


@dataclass(frozen=True)
class Traced:
    """The trace of a run.

    Attributes:
        protocol: by which the run was evaluated.
        method: its method, as tables call it.
        seed: its seed.
        trace: what the attack did.
        chart: the loss over the steps.
    """

    protocol: Protocol
    method: str
    seed: int
    trace: Trace
    chart: Chart


def traced_runs(comparison: Comparison) -> list[Traced]:
    """For each shared protocol and method, the first run that has a trace."""

    traced = []
    for name, protocol in comparison.protocols.items():
        for number, method in enumerate(comparison.methods):
            traces = ((run.seed, run.evaluations[name].trace) for run in method.runs)
            seed, trace = next(((seed, trace) for seed, trace in traces if trace is not None), (0, None))
            if trace is not None:
                key = f"trace-{file_name(name.replace('@', '-v'))}-{number}"
                title = f"{method.name}, seed {seed}, {protocol.name} v{protocol.version}"
                traced.append(Traced(protocol, method.name, seed, trace, _chart(key, title, trace)))
    return traced


def _chart(key: str, title: str, trace: Trace) -> Chart:
    late = trace.late_rise
    last = "no rise" if late is None else f"{100 * late:.1f} % of the survivors' rise in the last tenth"
    kinds = (("survivors", trace.survived), ("broken", ~trace.survived))
    lines = tuple(_line(name, number, trace.loss[which]) for number, (name, which) in enumerate(kinds) if which.any())
    finite = trace.loss[trace.loss.isfinite()]
    low, high = (float(end) for end in finite.aminmax()) if len(finite) else (0.0, 1.0)
    logarithmic = low > 0 and high > _SPREAD * low
    return Chart(
        key=key,
        title=title,
        subtitle=f"{trace.attack}, ε = {eps_text(trace.eps)} ({norm_sign(trace.norm)})\n{last}",
        x_label="step",
        y_label="loss of the attack",
        x_name="step",
        lines=lines,
        y_limits=(max(0.8 * low, _LOWEST * high), 1.25 * high) if logarithmic else None,
        marks=((float(trace.late), "dotted"),),
        y_scale="log" if logarithmic else "linear",
    )


def _line(name: str, number: int, courses: Tensor) -> Line:
    """The median of some courses (M, T + 1), marked at some of its steps, and each course as a thread."""

    steps = courses.shape[1] - 1
    every = math.ceil(steps / _MARKS)
    places = [*range(0, steps, every), steps]
    middle = courses.double().nanquantile(0.5, dim=0)
    values = tuple(float(middle[place]) for place in places)
    return Line(
        name=name,
        number=number,
        x=tuple(map(float, places)),
        y=values,
        low=values,
        high=values,
        texts=tuple(f"{value:.3g}" for value in values),
        threads=tuple(tuple(map(float, course)) for course in courses[:_THREADS]),
    )
