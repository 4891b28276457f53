"""Measures of saliency maps: those of one model (:func:`explain`), and of several models (:func:`panel`)."""

from .evidence import Explanation, load_explanation
from .explaining import explain
from .measures import MEASURES, QUANTILES, MapBatch, Measure, measure_named
from .objects import strokes
from .panels import MINIMUM, Curve, Panel, measure_sentence, panel

__all__ = [
    "MEASURES",
    "MINIMUM",
    "QUANTILES",
    "Curve",
    "Explanation",
    "MapBatch",
    "Measure",
    "Panel",
    "explain",
    "load_explanation",
    "measure_named",
    "measure_sentence",
    "panel",
    "strokes",
]
