"""Models: the paper's, a small one, and anybody's own. Normalisation lives inside the model."""

from .alexnet import alexnet
from .loading import MODELS, build_model, load_weights
from .normalize import Normalize
from .resnet import resnet18
from .small_cnn import small_cnn

__all__ = ["MODELS", "Normalize", "alexnet", "build_model", "load_weights", "resnet18", "small_cnn"]
