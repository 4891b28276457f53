"""The input of a model card: a run, and the evaluation for its first sentence."""

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
"""Worst-case protocols, those for robustness claims first."""


@dataclass(frozen=True)
class CardSource:
    """A run to be exported.

    Attributes:
        run: the run.
        exported: the content of ``config.json``.
        place: the name of the model in the card's code: the name of the folder, or ``ORGANISATION/NAME``.
        license: an identifier of the hub, as ``"mit"``; :data:`UNSTATED` if none is stated.
        parity: for each other format, by the name of its file, a sentence on the difference of its logits from the
            model's.
    """

    run: Run
    exported: Exported
    place: str
    license: str = UNSTATED
    parity: tuple[tuple[str, str], ...] = ()

    @cached_property
    def method(self) -> str:
        """The method's name in tables: ``"ASGT-PGD"``."""

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
        """The strongest first; protocols without a worst case last."""

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
        """A sentence of the run as Markdown, without paths of this machine."""

        return escaped(without_places(sentence, places_of(self.run)))
