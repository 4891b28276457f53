"""Everything that the page shows of one image: the models' answers, an attack, the maps, the mask and the curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..attacks import Attack, Norm, check_eps
from ..errors import InputError, unknown
from ..explanation.measures import MapBatch
from ..explanation.measures.object_mass import MASS
from ..explanation.shown_maps import COLOURS_OF, Rendering
from ..inputs import models_explained
from ..modes import ask, at_least_float32
from ..numbers import Number, counted, eps_text, in_float32, norm_sign, number, whole
from ..randomness import SampleKeyed, seed_of
from ..saliency import ATTRIBUTIONS, SaliencyMask, attribute
from .bench import Bench, Subject
from .choices import attack_choices
from .followed import Attempt, StoppedError, attempt
from .own_picture import Prepared

__all__ = ["TOP", "Answer", "Look", "SubjectLook", "Teller", "Wanted", "look"]

TOP = 5
"""Classes that are the most likely of an answer."""

_MAPS_PER_PASS = 64

Teller: TypeAlias = Callable[[str, float], None]
"""Is told what is being done, and which share of it is, in [0, 1]."""


def _untold(what: str, share: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is chosen on the page. Values come from fields, so all of them are checked by :func:`look`.

    Attributes:
        row: which test image.
        own: a picture of the user's own in its place.
        label: the class of that picture; ``None`` for each model's own answer.
        attack: the name of the attack.
        eps: the radius in [0, 1].
        norm: its norm.
        steps: the steps of the attack, where they can be set.
        target: the class that the attack is to reach; ``None`` for any wrong one.
        settings: what only this attack has, by name.
        seed: keys all that is random.
        attribution: what makes the maps.
        rendering: how they are drawn.
        k: the share of the features that the mask hides.
    """

    row: Any = 0
    own: Prepared | None = None
    label: int | None = None
    attack: str = "PGD"
    eps: Number | None = 0.1
    norm: str = "linf"
    steps: Any = None
    target: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: Any = 0
    attribution: str = "gradient"
    rendering: Rendering = "magnitude"
    k: Any = 0.1


@dataclass(frozen=True)
class Answer:
    """What a model says of an image.

    Attributes:
        number: the class, by its number.
        probabilities: of all classes, by their numbers.
    """

    number: int
    probabilities: tuple[float, ...]

    @property
    def likeliest(self) -> list[int]:
        """The :data:`TOP` most likely classes, descending."""

        order = sorted(range(len(self.probabilities)), key=lambda number: -self.probabilities[number])
        return order[:TOP]


@dataclass(frozen=True, eq=False)
class SubjectLook:
    """One model on the image.

    Attributes:
        name: of the model.
        label: the class that is attacked and explained.
        before: its answer to the image.
        after: its answer to the attacked image.
        attacked: the attacked image, (C, H, W).
        delta: the perturbation, (C, H, W).
        map_before: the map of the image, (C, H, W); ``None`` where there is none.
        map_after: that of the attacked image, of the same class.
        mass_before: the share of the first that lies on the object; ``None`` where that is not known.
        mass_after: that of the second.
        masked_before: the image as SGT masks it, (C, H, W).
        masked_after: the attacked image as ASGT masks it.
        hidden: the features that each of the two masks hides.
        broke: how the attack went, in a sentence.
        known: the smallest ε that is known, in a sentence; ``""`` for a picture of the user's own.
        note: why there is no map, in a sentence; ``""`` where there is one.
    """

    name: str
    label: int
    before: Answer
    after: Answer
    attacked: Tensor
    delta: Tensor
    map_before: Tensor | None
    map_after: Tensor | None
    mass_before: float | None
    mass_after: float | None
    masked_before: Tensor
    masked_after: Tensor
    hidden: int
    broke: str
    known: str
    note: str


@dataclass(frozen=True, eq=False)
class Look:
    """Everything that the page shows of one image.

    Attributes:
        image: (C, H, W) in [0, 1].
        title: which image it is.
        label: its class; ``None`` where it is not known.
        said: how a picture of the user's own was prepared.
        classes: the names of the classes.
        attack: the attack, as text.
        target: the class that it is to reach; ``None`` for any wrong one.
        eps: the radius.
        norm: its norm.
        k: the share that the masks hide.
        seed: of all that is random.
        attribution: what made the maps.
        rendering: how they are drawn.
        factor: by how much the perturbations are enlarged, the same for all models.
        subjects: a model each.
        seconds: wall time.
    """

    image: Tensor
    title: str
    label: int | None
    said: str
    classes: tuple[str, ...]
    attack: str
    target: int | None
    eps: float
    norm: Norm
    k: float
    seed: int
    attribution: str
    rendering: Rendering
    factor: float
    subjects: tuple[SubjectLook, ...]
    seconds: float


def look(
    bench: Bench,
    wanted: Wanted,
    *,
    told: Teller = _untold,
    should_stop: Callable[[], bool] = lambda: False,
) -> Look:
    """Looks at one image under every model; the same wish gives the same pictures.

    Args:
        bench: the models and their images.
        wanted: what is chosen.
        told: is told how far the attack is.
        should_stop: is called at each step of an attack, and before the maps.

    Raises:
        InputError: a choice is invalid, or a model cannot do what is requested.
        StoppedError: ``should_stop`` said so.
    """

    began = time.perf_counter()
    attack, norm = _attack(wanted)
    seed = whole_field(wanted.seed, "seed")
    k = share_field(wanted.k)
    if wanted.attribution not in ATTRIBUTIONS:
        raise unknown("attribution", wanted.attribution, ATTRIBUTIONS)
    if wanted.rendering not in COLOURS_OF:
        raise unknown("rendering", wanted.rendering, COLOURS_OF)
    row, x, label = _image(bench, wanted)
    if wanted.target is not None and not 0 <= wanted.target < len(bench.images.classes):
        raise InputError(f"target class {wanted.target}: there are {len(bench.images.classes)} classes, from 0")

    looks = []
    for place, subject in enumerate(bench.subjects):
        worker = _Looking(bench, subject, wanted.attribution, seed, row)

        def at_each(done: int, name: str = subject.name, place: int = place) -> None:
            share = min(1.0, done / max(1, attack.gradients or attack.steps))
            told(f"{attack.title} on {name}: {done} done", (place + share) / len(bench.subjects))

        try:
            seen = worker.seen(
                x,
                label,
                attack,
                k,
                target=wanted.target,
                own=wanted.own is not None,
                told=at_each,
                should_stop=should_stop,
            )
        except InputError as error:
            if len(bench.subjects) == 1:
                raise
            raise InputError(f"{subject.name}: {error}") from error
        looks.append(seen)
    largest = max(float(each.delta.abs().max()) for each in looks)
    return Look(
        image=x[0],
        title="your picture" if wanted.own is not None else f"test image {row}",
        label=label,
        said="" if wanted.own is None else wanted.own.said,
        classes=bench.images.classes,
        attack=attack.described(),
        target=wanted.target,
        eps=attack.radius,
        norm=norm,
        k=k,
        seed=seed,
        attribution=wanted.attribution,
        rendering=wanted.rendering,
        factor=0.5 / largest if largest > 0 else 1.0,
        subjects=tuple(looks),
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True, eq=False)
class _Looking:
    """One model on one image."""

    bench: Bench
    subject: Subject
    attribution: str
    seed: int
    row: int

    def seen(
        self,
        x: Tensor,
        label: int | None,
        attack: Attack,
        k: float,
        *,
        target: int | None,
        own: bool,
        told: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> SubjectLook:
        model = self.subject.model
        with models_explained(model, x):
            before = _answer(model, x)
        explained = before.number if label is None else label
        y = torch.tensor([explained])
        made = self._attacked(x, y, attack, target=target, before=before, told=told, should_stop=should_stop)
        if should_stop():
            raise StoppedError
        maps, masses, note = self._maps(x, made.image, y, attack)
        mask = SaliencyMask(k=k, **self.subject.mask)
        masked = [mask(model, each, y, generator=self._noise("mask"))[0] for each in (x, made.image)]
        features = x.shape[2] * x.shape[3] * (x.shape[1] if mask.unit == "element" else 1)
        return SubjectLook(
            name=self.subject.name,
            label=explained,
            before=before,
            after=_answer(model, made.image),
            attacked=made.image[0],
            delta=(made.image - x)[0],
            map_before=maps[0],
            map_after=maps[1],
            mass_before=masses[0],
            mass_after=masses[1],
            masked_before=masked[0],
            masked_after=masked[1],
            hidden=max(1, int(k * features + 1e-9)) if k > 0 else 0,
            broke=_broke(attack, made, before.number, explained, target),
            known="" if own else self.bench.known(self.subject, self.row, attack.norm),
            note=note,
        )

    def _attacked(
        self,
        x: Tensor,
        y: Tensor,
        attack: Attack,
        *,
        target: int | None,
        before: Answer,
        told: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> Attempt:
        if target is not None and before.number == target:  # which an attack refuses: there is nothing to reach
            return Attempt(x, 0.0, None, True)
        label = int(y)
        return attempt(
            self.subject.model,
            x,
            y if target is None else torch.tensor([target]),
            attack,
            fools=lambda answer: answer != label if target is None else answer == target,
            seed=self.seed,
            row=self.row,
            told=told,
            should_stop=should_stop,
        )

    def _noise(self, name: str) -> SampleKeyed:
        """Noise of this image for one purpose, the same for all models and before and after an attack."""

        return SampleKeyed(seed_of(name, self.seed), torch.tensor([self.row]))

    def _maps(
        self, x: Tensor, attacked: Tensor, y: Tensor, attack: Attack
    ) -> tuple[list[Tensor | None], list[float | None], str]:
        """The maps before and after, their mass on the object, and why there is none."""

        objects = None
        if self.bench.record.objects is not None:
            objects = self.bench.record.objects(x)
        maps: list[Tensor | None] = []
        masses: list[float | None] = []
        for image in (x, attacked):
            try:
                a = attribute(
                    self.subject.model,
                    image,
                    y,
                    self.attribution,
                    generator=self._noise("picture"),
                    batch_size=_MAPS_PER_PASS,
                )
            except InputError as error:
                # The rest of the page is right all the same: an attribution need not suit every model.
                return [None, None], [None, None], str(error)
            maps.append(a[0])
            masses.append(self._mass(image, y, a, objects, attack))
        return maps, masses, ""

    def _mass(self, image: Tensor, y: Tensor, a: Tensor, objects: Tensor | None, attack: Attack) -> float | None:
        """The share of a map that lies on the object, by the measure of :mod:`asgt.explanation`."""

        if objects is None or not bool(a.isfinite().all()):
            return None

        def mapper(model: Any, images: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
            raise AssertionError("the mass needs no other map")

        batch = MapBatch(
            model=self.subject.model,
            x=image,
            y=y,
            ids=torch.tensor([self.row]),
            a=a,
            mean=image.mean(dim=(0, 2, 3)).view(-1, 1, 1),
            objects=objects,
            eps=attack.radius,
            norm=attack.norm,
            seed=self.seed,
            mapper=mapper,
            batch_size=1,
        )
        share = float(MASS.value(MASS.compute(batch))[0])
        return share if share == share else None


def whole_field(value: Any, name: str) -> int:
    """The whole number, zero or more, in a field for numbers, which gives reals and ``None`` for nothing.

    Raises:
        InputError: it holds something else.
    """

    if value is None or value == "":
        raise InputError(f"{name} is empty: give a whole number, zero or more")
    real = number(value, name)
    if real != real or real in (float("inf"), float("-inf")) or real != int(real) or not 0 <= real < 2**53:
        raise InputError(f"{name} = {real:g}: give a whole number, zero or more")
    return whole(int(real), name)


def share_field(value: Any) -> float:
    """The k of a mask that a field holds.

    Raises:
        InputError: it is no share in [0, 1].
    """

    if value is None or value == "":
        raise InputError("k is empty: give the share of the features to hide, from 0 to 1")
    k = in_float32(number(value, "k"), "k")
    if not 0 <= k <= 1:
        raise InputError(f"k = {k:g}: the share of masked features lies in [0, 1]; 0 masks none")
    return k


def _attack(wanted: Wanted) -> tuple[Attack, Norm]:
    """The attack that is chosen, and its norm."""

    choices = attack_choices()
    if wanted.attack not in choices:
        raise unknown("attack", wanted.attack, choices)
    if wanted.norm not in ("linf", "l2"):
        raise unknown("norm", wanted.norm, ("linf", "l2"))
    norm: Norm = "linf" if wanted.norm == "linf" else "l2"
    if wanted.eps is None or wanted.eps == "":
        raise InputError("ε is empty: give a radius, as 0.1 or 8/255")
    eps = number(wanted.eps, "ε")
    check_eps(eps, norm)
    choice = choices[wanted.attack]
    if wanted.target is not None and not choice.kind.takes_targets:
        able = [name for name, other in choices.items() if other.kind.takes_targets]
        raise InputError(f"{wanted.attack} aims at any wrong class: choose no target, or one of {', '.join(able)}")
    steps = choice.steps if wanted.steps in (None, "") else wanted.steps
    return choice.made(eps, norm, steps, wanted.settings, wanted.target is not None), norm


def _image(bench: Bench, wanted: Wanted) -> tuple[int, Tensor, int | None]:
    """The row that keys the noise, the image, (1, C, H, W), and its class where that is known."""

    if wanted.own is not None:
        if wanted.label is not None and not 0 <= wanted.label < len(bench.images.classes):
            raise InputError(
                f"class {wanted.label}: there are {counted(len(bench.images.classes), 'class', 'classes')}"
            )
        return 0, wanted.own.image, wanted.label
    row = whole_field(wanted.row, "the test image")
    if row >= len(bench.images):
        raise InputError(f"there is no test image {row}: they are numbered from 0 to {len(bench.images) - 1}")
    return row, bench.image(row), int(bench.images.labels[row])


@torch.no_grad()
def _answer(model: nn.Module, x: Tensor) -> Answer:
    logits = at_least_float32(ask(model, x))[0].double()
    if bool(logits.isnan().any()):
        raise InputError("the model gives NaN on this image: look for overflow in the model")
    return Answer(int(logits.argmax()), tuple(logits.softmax(dim=0).tolist()))


def _broke(attack: Attack, made: Attempt, before: int, label: int, target: int | None) -> str:
    """How the attack went, in a sentence."""

    length = f"the perturbation has {norm_sign(attack.norm)} norm {made.length:.4g}"
    if target is not None and before == target:
        return "The model gives the target class without an attack, so there is nothing to reach."
    if target is None and before != label:
        return f"Misclassified without an attack; {length}."
    done = "Fooled" if target is None else "The target class is reached"
    if made.broke_at is None:
        not_done = "Not fooled" if target is None else "The target class is not reached"
        return f"{not_done} at ε = {eps_text(attack.radius)} by this attack, which proves nothing of others; {length}."
    when = _when(attack, made.broke_at)
    if not made.fooled:
        return f"{done} {when}, but not by the image at the end of the attack; {length}."
    return f"{done} {when}; {length}."


def _when(attack: Attack, at: int) -> str:
    if not attack.uses_gradients:
        return f"at query {at} of {attack.steps}"
    if not attack.goes_by_steps:
        return f"after {counted(at, 'gradient')}"
    if at == 0:
        return "at the start of the attack, before its first step"
    run, step = divmod(at - 1, attack.steps)
    of = f" of run {run + 1}" if attack.restarts > 1 else ""
    return f"after step {step + 1} of {attack.steps}{of}"
