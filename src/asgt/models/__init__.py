"""Models: the paper's, a small one, and the user's. The normalisation is inside the model."""

from .exported import from_pretrained
from .loading import MODELS, build_model
from .normalize import Normalize
from .paper_alexnet import alexnet
from .pretrained import Preprocessing, brings_weights, preprocessing
from .resnet import resnet18
from .small_net import small_cnn
from .weights import load_weights

__all__ = [
    "MODELS",
    "Normalize",
    "Preprocessing",
    "alexnet",
    "brings_weights",
    "build_model",
    "from_pretrained",
    "load_weights",
    "preprocessing",
    "resnet18",
    "small_cnn",
]
