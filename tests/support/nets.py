"""What every test of a model needs: it fails on request, and it is left as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BombError(Exception):
    """What a model raises that is made to fail."""


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Modes, values, gradients and which gradients are wanted end as they began."""

    def look() -> tuple[dict[str, bool], dict[str, Tensor], dict[str, Tensor | None], dict[str, bool]]:
        return (
            {name: module.training for name, module in net.named_modules()},
            {name: value.clone() for name, value in net.state_dict().items()},
            {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()},
            {name: p.requires_grad for name, p in net.named_parameters()},
        )

    modes, values, gradients, wanted = look()
    yield
    modes_now, values_now, gradients_now, wanted_now = look()

    assert modes_now == modes
    assert wanted_now == wanted
    assert all(torch.equal(values_now[name], value) for name, value in values.items())
    for name, gradient in gradients.items():
        now = gradients_now[name]
        assert now is None if gradient is None else now is not None and torch.equal(now, gradient), name
