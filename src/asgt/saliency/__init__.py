"""Saliency: the gradient, the mask from it, and the maps of any classifier by the usual methods."""

from .attribution import Attribution, Watched
from .attributions import (
    ATTRIBUTIONS,
    attribute,
    attribution_class,
    attribution_name,
    attribution_settings,
    magnitude,
    to_numpy,
)
from .gradient import Target, saliency
from .mask import SaliencyMask

__all__ = [
    "ATTRIBUTIONS",
    "Attribution",
    "SaliencyMask",
    "Target",
    "Watched",
    "attribute",
    "attribution_class",
    "attribution_name",
    "attribution_settings",
    "magnitude",
    "saliency",
    "to_numpy",
]
