"""The gate: a map that a model with random weights also has does not explain what the trained model has learned.

References:
    Adebayo et al. 2018, "Sanity checks for saliency maps", https://arxiv.org/abs/1810.03292
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from ..randomness import seeded_globally

__all__ = ["RANDOMISED", "UNINFORMATIVE", "reinitialised"]

RANDOMISED = 3
"""The number of re-initialised models to compare the maps with."""

UNINFORMATIVE = 0.5
"""Above this median rank correlation, the maps do not depend on what was learned."""


@torch.no_grad()
def reinitialised(model: nn.Module, seed: int) -> tuple[nn.Module | None, str]:
    """A copy of a model with all of its parameters re-initialised; the model and the global generators are unchanged.

    Every module's own ``reset_parameters`` is called, inner modules first: a network with its own initialisation
    overrides them.

    Args:
        model: the classifier.
        seed: of the draws.

    Returns:
        The copy and ``""``, or ``None`` and the reason.
    """

    try:
        copy = deepcopy(model)
    except Exception as error:  # a stranger's module may hold anything
        return None, f"the model cannot be copied: {type(error).__name__}"
    parameters = dict(copy.named_parameters())
    if not parameters:
        return None, "the model has no parameters to re-initialise"
    before = {name: (weight, weight._version, weight.clone()) for name, weight in parameters.items()}

    device = next(iter(parameters.values())).device
    with seeded_globally(seed, device):
        # In the order of modules() a module comes before what it holds.
        for module in reversed(list(copy.modules())):
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                try:
                    reset()
                except Exception as error:  # a stranger's may ask for more than it is given
                    return None, f"{type(module).__name__} cannot be re-initialised: {type(error).__name__}"

    # A tensor counts what is written into it, so that a bias that starts at zero is seen to be set as well; but not
    # what is written into its data.
    after = dict(copy.named_parameters())
    kept = [
        name
        for name, (weight, version, values) in before.items()
        if after.get(name) is weight and weight._version == version and weight.equal(values)
    ]
    if kept:
        others = f" and {len(kept) - 1} others" if len(kept) > 1 else ""
        return None, f"no module re-initialises {kept[0]}{others}: give its module a reset_parameters()"
    return copy, ""
