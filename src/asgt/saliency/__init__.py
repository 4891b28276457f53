"""Saliency: the gradient, the mask that is made of it, and the maps of any classifier by the field's methods."""

from .attributions import ATTRIBUTIONS, attribute, attribution_settings, magnitude, to_numpy
from .gradient import Target, saliency
from .mask import SaliencyMask

__all__ = [
    "ATTRIBUTIONS",
    "SaliencyMask",
    "Target",
    "attribute",
    "attribution_settings",
    "magnitude",
    "saliency",
    "to_numpy",
]
