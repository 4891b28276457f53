"""Damaged folders: of finished runs, of what is begun and not finished, and the files that a grid keeps of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

from .cases import Case, Step, editable

__all__ = ["BASES", "COMMANDS", "damaged", "files_of"]

COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {
    "run": {
        "compare run --out page": ("page",),
        "compare run other --out page": ("page",),
        "evaluate run --protocol pgd --resume": ("run/evaluation/pgd",),
        "evaluate run --protocol standard --resume": ("run/evaluation/standard@2",),
        "evaluate run --samples 6 --epsilons 0.1 --out fresh": ("fresh",),
        "explain run --resume --out page": ("page", "run/explanation"),
        "train --resume --out run": ("run/model.safetensors", "run/training.json"),
        "verify run": (),
    },
    "kept": {
        "kept keep/grid": (),
        "verify keep/grid": (),
        "reproduce grid.yaml --workers 1 --out reproduced --keep keep": ("keep", "reproduced/accuracies.csv"),
    },
    "unfinished": {
        "evaluate half --samples 4 --epsilons 0.1 --resume": ("half/evaluation/pgd",),
        "explain half --resume --samples 8 --out page": ("half/explanation",),
        "train --resume --out begun": ("begun/model.safetensors", "begun/training.json", "begun/metrics.jsonl"),
        "verify begun": (),
        "verify half": (),
    },
}
"""For each family its command lines, and where the results of each lie. ``kept`` is no verb: it reads kept files."""

BASES = {"run": ("runs", "run"), "kept": ("grid", "keep"), "unfinished": ("unfinished", "")}
"""For each family the folder of the material that its cases begin with, and where in it the files lie."""


def files_of(material: Path, family: str) -> list[str]:
    """The files of a family's base that may be damaged, relative to it."""

    base, below = BASES[family]
    files = [file for file in sorted((material / base / below).rglob("*")) if file.is_file()]
    return [str(file.relative_to(material / base)) for file in files if not file.name.startswith(".")]


def damaged(family: str, material: Path, verbs: Sequence[str]) -> st.SearchStrategy[Case]:
    """Cases of one damaged file.

    Args:
        family: a name of :data:`COMMANDS`.
        material: the folder of what is damaged.
        verbs: those that there are; a line of another one is left out.
    """

    files = files_of(material, family)
    commands: Mapping[str, tuple[str, ...]] = {
        line: places for line, places in COMMANDS[family].items() if line.split()[0] in (*verbs, "kept")
    }
    others = [str(file.relative_to(material)) for file in sorted(material.rglob("*")) if file.is_file()]
    share = st.floats(0, 1, exclude_max=True)

    @st.composite
    def step(draw: st.DrawFn, path: str) -> Step:
        kinds = ["flip", "flip", "flip", "cut", "cut", "insert", "zero", "delete", "swap"]
        structured = ["edit"] * 9 if path.endswith((".json", ".yaml", ".jsonl")) else ["edit"]
        kind = draw(st.sampled_from(kinds + structured))
        place = draw(st.one_of(share, st.sampled_from([0.0, 0.999999])))
        content, text = b"", ""
        match kind:
            case "flip":
                content = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                content = draw(
                    st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from([b"\0", b"\n", b"{", b"9"]))
                )
            case "zero":
                content = bytes(draw(st.sampled_from([1, 8, 512, 4096])))
            case "edit":
                text = draw(st.sampled_from(editable))
            case "swap":
                like = [other for other in others if other.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]]
                text = draw(st.sampled_from(like or others))
        return Step(kind, path, content, place, text)

    @st.composite
    def case(draw: st.DrawFn) -> Case:
        line, results = draw(st.sampled_from(sorted(commands.items())))
        words = tuple(line.split())
        path = draw(st.sampled_from(files))
        steps = [draw(step(path))]
        # Without its digests, a damaged folder may be taken for another one, but not in silence.
        if draw(st.integers(0, 11)) == 0 and (digests := [file for file in files if file.endswith("manifest.json")]):
            steps.append(Step("delete", draw(st.sampled_from(digests))))
        return Case(family, BASES[family][0], tuple(steps), words, words, results)

    return case()
