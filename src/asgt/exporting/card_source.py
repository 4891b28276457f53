"""What a model card is written from: a run as it was read, and the evaluation that its first sentence quotes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..comparison.method_naming import method_names
from ..datasets import data_set
from ..errors import InputError
from ..evaluation.outcomes import Evaluation, grid_place
from ..models.exported import Exported
from ..runs.run import Run
from .markdown import escaped, without_places
from .repeating import data_on_hub, data_title, model_title, places_of

__all__ = ["UNSTATED", "CardSource"]

UNSTATED = ""
"""The license of a model whose owner states none."""

_STRONGEST = ("autoattack", "standard", "standard-quick", "pgd")
"""Worst-case protocols, those that a claim may rest on first."""


@dataclass(frozen=True)
class CardSource:
    """A run to be handed on.

    Attributes:
        run: as it was read.
        exported: what ``config.json`` will hold.
        place: what the model is called in the card's code: the name of the folder, or ``ORGANISATION/NAME``.
        license: an identifier of the hub, as ``"mit"``; :data:`UNSTATED` where none is stated.
        parity: for each other format, by the name of its file, how far its logits lie from the model's, in words.
    """

    run: Run
    exported: Exported
    place: str
    license: str = UNSTATED
    parity: tuple[tuple[str, str], ...] = ()

    @cached_property
    def method(self) -> str:
        """The method's name, as tables have it: ``"ASGT-PGD"``."""

        return method_names([self.run.config])[0]

    @cached_property
    def title(self) -> str:
        """``"small_cnn trained by ASGT-PGD on digits"``."""

        return f"{model_title(self.run.config.model)} trained by {self.method} on {self.data}"

    @cached_property
    def data(self) -> str:
        return data_title(self.run)

    @cached_property
    def data_hub(self) -> str:
        return data_on_hub(self.run)

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """The strongest first; protocols that are no worst case last."""

        def place(evaluation: Evaluation) -> tuple[bool, int, int]:
            name = evaluation.protocol.name
            rank = _STRONGEST.index(name) if name in _STRONGEST else len(_STRONGEST)
            return not evaluation.protocol.worst_case, rank, -evaluation.protocol.version

        return tuple(sorted(self.run.evaluations.values(), key=place))

    def eps_of(self, evaluation: Evaluation) -> float:
        """The ε of the grid that is quoted: that of the training, else that of the data, else the smallest."""

        trained = self.run.config.eps if (self.run.config.norm or "linf") == evaluation.norm else None
        usual = data_set(self.run.config.data).eps if evaluation.norm == "linf" else None
        for eps in (trained, usual):
            try:
                if eps is not None:
                    return evaluation.epsilons[grid_place(evaluation.epsilons, eps)]
            except InputError:
                continue
        return evaluation.epsilons[0]

    def text(self, sentence: str) -> str:
        """A sentence of the run as Markdown, without the paths of the machine that it lies on."""

        return escaped(without_places(sentence, places_of(self.run)))
