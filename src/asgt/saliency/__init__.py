"""Saliency: the gradient, and the mask that is made of it."""

from .gradient import Target, saliency
from .mask import SaliencyMask

__all__ = ["SaliencyMask", "Target", "saliency"]
