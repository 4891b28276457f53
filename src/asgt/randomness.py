r"""Random numbers as functions of a key.

Nothing below the trainer uses the global generator. Random numbers come from a generator that is passed in, and a
generator's seed is a hash of its purpose (:func:`seeded`), so that a resumed run needs no stored random state.

:class:`SampleKeyed` goes one step further, for evaluation: the noise of a sample is a function of only (seed,
sample, draw), independent of the batch. It is the SplitMix64 counter generator (Steele et al. 2014, "Fast splittable
pseudorandom number generators"), evaluated for all coordinates at once on the device.

:class:`Share` is for a batch that several processes split: each draws the noise of the whole batch and uses its own
rows, so that the noise of a row does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import math
import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Generator",
    "Generators",
    "SampleKeyed",
    "Share",
    "keyed_uniform",
    "keys_like",
    "normal_like",
    "seed_of",
    "seeded",
    "seeded_globally",
    "uniform_like",
]

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``(seed, "attack", epoch, step)``; different keys give unrelated seeds.

    Whole numbers of numpy and PyTorch count as equal plain ones.
    """

    plain = (part if isinstance(part, str) else operator.index(part) for part in key)
    text = "\0".join(f"{type(part).__name__}:{part}" for part in plain)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seeded(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose whole stream is a function of ``key``."""

    return torch.Generator(device).manual_seed(seed_of(*key))


@contextmanager
def seeded_globally(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds the global generators of PyTorch, numpy and Python, for code that uses them, and restores them.

    Args:
        seed: for all of them.
        device: the device whose generator the code uses, in addition to the CPU's.
    """

    device = torch.device(device)
    numpys, pythons = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)


class SampleKeyed:
    """Noise keyed by (seed, sample, draw): it does not depend on the batches.

    Args:
        seed: the evaluation's seed.
        samples: the index of each sample of the batch in its data set, int64 (B,).
        draw: the number of the first draw; each draw takes the next number.

    Example:
        >>> import torch
        >>> import asgt
        >>> x = torch.zeros(3, 1, 2, 2)
        >>> whole = asgt.SampleKeyed(0, torch.arange(3)).uniform_like(x)
        >>> part = asgt.SampleKeyed(0, torch.tensor([2])).uniform_like(x[2:])
        >>> torch.equal(whole[2:], part)
        True
    """

    def __init__(self, seed: int, samples: Tensor, draw: int = 0) -> None:
        self.seed = operator.index(seed)
        self.samples = samples
        self.draw = draw

    def uniform_like(self, x: Tensor) -> Tensor:
        """Uniform values in (0, 1) of the shape and type of ``x`` (B, …)."""

        values = _uniform(self.keys(x.device), math.prod(x.shape[1:])).view_as(x).to(x.dtype)
        # Half precision may round up to 1, which no quantile survives.
        return values.clamp_max(1.0 - torch.finfo(x.dtype).eps)

    def keys(self, device: torch.device) -> Tensor:
        """The key of each sample in the next draw, int64 (B,)."""

        stream = seed_of(self.seed, self.draw)
        self.draw += 1
        return _mix(self.samples.to(device) * _GOLDEN + stream)


@dataclass(frozen=True)
class Share:
    """The noise of one process's rows of a batch that several processes split evenly.

    Args:
        generator: the source of the noise of the whole batch, in the same state on every process.
        rank: the index of the part, from 0.
        ranks: the number of parts.
    """

    generator: torch.Generator
    rank: int
    ranks: int

    def of(self, draw: Callable[[Tensor, torch.Generator], Tensor], x: Tensor) -> Tensor:
        """This process's rows of ``draw(batch, generator)`` for the whole batch; ``x`` (B, …) is its part."""

        # Only shape, type and device of the batch matter to a draw: no memory is taken for the others' rows.
        batch = x[:1].expand(len(x) * self.ranks, *x.shape[1:])
        return draw(batch, self.generator)[self.rank * len(x) : (self.rank + 1) * len(x)]


Generator: TypeAlias = torch.Generator | SampleKeyed | Share
"""The source of noise: PyTorch's generator on the device of the images, noise keyed by sample, or a share of it."""


@dataclass(frozen=True)
class Generators:
    """Separate random streams for attack and mask, so that a change of one does not change the noise of the other.

    Args:
        attack: the source of random starts. Default: PyTorch's global generator.
        mask: the source of random fills. Default: PyTorch's global generator.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> streams = asgt.Generators(attack=torch.Generator().manual_seed(0), mask=torch.Generator().manual_seed(1))
        >>> objective = asgt.ASGT(attack=asgt.PGD(eps=0.1, steps=2), mask=asgt.SaliencyMask(k=0.1))
        >>> objective(model, x, y, generator=streams).loss.ndim
        0
    """

    attack: Generator | None = None
    mask: Generator | None = None


def uniform_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Uniform values in [0, 1) of the shape, type and device of ``x``; ``None`` uses PyTorch's global generator."""

    if isinstance(generator, Share):
        return generator.of(uniform_like, x)
    if isinstance(generator, SampleKeyed):
        return generator.uniform_like(x)
    return torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def normal_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal values of the shape, type and device of ``x``."""

    if isinstance(generator, Share):
        return generator.of(normal_like, x)
    if isinstance(generator, SampleKeyed):
        normal: Tensor = torch.special.ndtri(generator.uniform_like(x.float())).to(x.dtype)
        return normal
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def keys_like(x: Tensor, generator: Generator | None) -> Tensor:
    """A key for each sample of ``x`` (B, …), int64 (B,): for the sample's own noise by :func:`keyed_uniform`.

    It is one draw of the generator, for any amount of noise.
    """

    if isinstance(generator, Share):
        return generator.of(keys_like, x)
    if isinstance(generator, SampleKeyed):
        return generator.keys(x.device)
    return torch.randint(-(1 << 63), (1 << 63) - 1, x.shape[:1], device=x.device, generator=generator)


def keyed_uniform(keys: Tensor, draws: Tensor, count: int) -> Tensor:
    """Uniform values in (0, 1), float32 (B, count), a function of each sample's key (B,) and number of draw (B,).

    At most 1 − 2⁻²³, so that ``n`` times a value, rounded, is still below ``n``.
    """

    return _uniform(_mix(keys + draws * _GOLDEN), count).clamp_max(1.0 - 2.0**-23)


def _uniform(keys: Tensor, count: int) -> Tensor:
    coordinate = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    # 23 bits and a half are exact in float32.
    bits = _shift(_mix(keys[:, None] + coordinate), 41)
    return (bits.float() + 0.5) * 2.0**-23


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; SplitMix64 is defined on unsigned numbers.
    return (z >> bits) & ((1 << (64 - bits)) - 1)
