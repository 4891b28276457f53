"""The metadata of a model card, as the hub reads it: YAML between two lines of three dashes.

References:
    https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

from typing import Any

from ..evaluation.outcomes import Evaluation
from ..numbers import eps_text, norm_sign
from ..visible import LONGEST_NAME, visible
from .card_source import CardSource

__all__ = ["metadata"]

_TAGS = ("asgt", "pytorch", "safetensors", "adversarial-robustness", "interpretability")


def metadata(source: CardSource) -> str:
    """The block of metadata; every name in it is a quoted text of one line."""

    import yaml

    values: dict[str, Any] = _license(source)
    values |= {"library_name": "asgt", "pipeline_tag": "image-classification", "tags": _tags(source)}
    values |= {"datasets": [source.data_hub]} if source.data_hub else {}
    values |= {"metrics": ["accuracy"]}
    if source.evaluations:
        results = [_result(source, evaluation) for evaluation in source.evaluations]
        values["model-index"] = [{"name": _line(source.title), "results": results}]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---"


def _license(source: CardSource) -> dict[str, str]:
    return {"license": source.license} if source.license else {"license": "other", "license_name": "not-stated"}


def _tags(source: CardSource) -> list[str]:
    formats = {"model.onnx": "onnx"}
    adversarial = ["adversarial-training"] if source.run.config.eps is not None else []
    return [*_TAGS, *adversarial, *(formats[file] for file, _ in source.parity if file in formats)]


def _result(source: CardSource, evaluation: Evaluation) -> dict[str, Any]:
    """One evaluation: clean accuracy, and accuracy under each search at the quoted ε, as shares in [0, 1]."""

    eps = source.eps_of(evaluation)
    protocol = f"protocol {evaluation.protocol.name} v{evaluation.protocol.version}"
    at = f"{norm_sign(evaluation.norm)}, ε = {eps_text(eps)}, {protocol}, n = {evaluation.samples}"
    metrics = [_metric(f"clean accuracy, n = {evaluation.samples}", evaluation.accuracy.value)]
    for search in evaluation.protocol.searches:
        what = "robust accuracy" if evaluation.protocol.worst_case else "accuracy under attack"
        name = f"{what} ({search.title or search.name}), {at}"
        metrics.append(_metric(name, evaluation.robust_accuracy(eps, search.name).value))
    return {
        "task": {"type": "image-classification", "name": f"Image classification under attack, {protocol}"},
        "dataset": {"name": _line(source.data), "type": source.data_hub or _line(source.data), "split": "test"},
        "metrics": metrics,
    }


def _metric(name: str, value: float) -> dict[str, Any]:
    return {"type": "accuracy", "name": _line(name, 200), "value": value}


def _line(text: str, longest: int = LONGEST_NAME) -> str:
    return visible(" ".join(visible(text).split()), longest)
