"""Settings of attacks, objectives, masks and attributions are checked by their annotations, in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

import asgt
from asgt.errors import InputError
from asgt.numbers import plain_fields
from asgt.saliency.deeplift import DeepLIFT
from asgt.saliency.smoothgrad import SmoothGrad

MASK, ATTACK = asgt.SaliencyMask(k=0.3), asgt.PGD(eps=0.1)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: asgt.MIFGSM(decay=-1), "decay = -1"),
        (lambda: asgt.MIFGSM(decay=math.nan), "decay = nan"),
        (lambda: asgt.MIFGSM(decay=None), "decay = None: a value is needed"),
        (lambda: asgt.LocalSquare(skipped=-1), "skipped = -1"),
        (lambda: asgt.AutoAttack(part="fab"), "unknown part 'fab': did you mean 'fab-t'"),
        (lambda: asgt.APGD(loss="dlr"), "unknown loss 'dlr'"),
        (lambda: asgt.PGD(norm=None), "norm = None: a value is needed"),
        (lambda: asgt.PGD(norm=2), "norm = 2: one of 'linf', 'l2' is needed"),
        (lambda: asgt.PGD(random_start="no"), "random_start = 'no': true or false is needed"),
        (lambda: asgt.PGD(steps=None), "steps = None: a value is needed"),
        (lambda: asgt.TRADES(attack=asgt.FGSM(eps=0.1)), "a value of type PGD is needed"),
        (lambda: asgt.AT(attack="pgd"), "attack = 'pgd': a value of type Attack is needed"),
        (lambda: asgt.ASGT(attack=ATTACK, mask=0.3), "mask = 0.3: a value of type SaliencyMask is needed"),
        (lambda: asgt.SGT(mask=MASK, weight=None), "weight = None: a value is needed"),
        (lambda: asgt.SGT(mask=MASK, kl="symmetric"), "unknown kl 'symmetric'"),
        (lambda: asgt.SaliencyMask(k=None), "k = None: a value is needed"),
        (lambda: asgt.SaliencyMask(k=0.3, unit="pixels"), "unknown unit 'pixels': did you mean 'pixel'"),
        (lambda: DeepLIFT(baseline="black"), "baseline = 'black' is not a number"),
        (lambda: SmoothGrad(samples=2.5), "samples = 2.5 is not a whole number"),
    ],
)
def test_a_value_that_a_field_does_not_take_is_one_line(made: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as error:
        made()
    assert "\n" not in str(error.value)


def test_values_of_numpy_become_plain_ones() -> None:
    attack = asgt.PGD(eps=np.float32(0.5), steps=np.int64(3), random_start=np.bool_(True))
    assert (type(attack.eps), type(attack.steps), type(attack.random_start)) == (float, int, bool)


def test_annotations_that_say_nothing_to_it_are_left_alone() -> None:
    @dataclass(frozen=True)
    class Record:
        free: Any
        either: int | str = 3
        late: float = None  # type: ignore[assignment]
        way: Literal["a", "b"] | None = None

        def __post_init__(self) -> None:
            plain_fields(self)

    record = Record(free=object(), either="x", late=None)
    assert (record.either, record.late, record.way) == ("x", None, None)
    with pytest.raises(InputError, match="unknown way 'c'"):
        Record(free=1, way="c")  # type: ignore[arg-type]
