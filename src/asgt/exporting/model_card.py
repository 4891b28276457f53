"""The model card, ``README.md``: the model, the measurements, the limits, repetition and citation."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ..models.exported import CARD, CONFIG, ONNX, PROGRAM, RESULTS, WEIGHTS
from ..numbers import eps_text, norm_sign
from ..statistics import share
from ..training.config import flag_of
from .card_evidence import accuracy_section, checks_section, limits_section, summary
from .card_metadata import metadata
from .card_source import CardSource
from .markdown import code, escaped, fenced, table
from .repeating import command, evaluate_words, passed_objects, settings_of, train_words

__all__ = ["model_card"]

_LISTED = 20
"""The number of class names in the card; ``config.json`` has all of them."""

_OTHER_FORMATS = {
    ONNX: "The network as ONNX, input `images`, output `logits`, any batch size.",
    PROGRAM: "The network as a program, any batch size. `torch.export.load` reads it. That function may unpickle "
    "the content of a changed archive, so load it only after `asgt verify` has checked the folder.",
}

_PAPER = """@article{guesmi2024exploring,
  title  = {Exploring the interplay of interpretability and robustness in deep neural networks: a saliency-guided approach},
  author = {Guesmi, Amira and Aswani, Nishant Suresh and Shafique, Muhammad},
  year   = {2024},
  note   = {arXiv:2405.06278},
  url    = {https://arxiv.org/abs/2405.06278}
}"""  # noqa: E501


def model_card(source: CardSource) -> str:
    """The card of an export, as Markdown with the metadata of the hub."""

    parts = [
        metadata(source),
        f"# {source.text(source.title)}",
        summary(source),
        _use(source),
        accuracy_section(source),
        limits_section(source),
        checks_section(source),
        _data(source),
        _training(source),
        _files(source),
        _repeat(source),
        _cite(source),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _use(source: CardSource) -> str:
    channels, height, width = source.exported.shape
    own = ", model=net" if source.exported.is_own else ""
    lines = [
        "import asgt",
        "",
        f"model = asgt.from_pretrained({source.place!r}{own})  # evaluation mode, on the CPU",
        f"logits = model(images)  # float32 (B, {channels}, {height}, {width}) in [0, 1] to (B, "
        f"{len(source.exported.classes)})",
    ]
    told = ["## Use", fenced("\n".join(lines), "python")]
    told.append(
        "Pass unnormalised pixels in [0, 1]: normalisation is inside the model. No file of this model runs code "
        "when `asgt` loads it."
    )
    if source.exported.is_own:
        told.append(
            f"The architecture {code(source.exported.model.removeprefix('object:'))} is not part of this folder: `net` "
            "is a module that you build."
        )
    return "\n\n".join(told)


def _data(source: CardSource) -> str:
    result, exported = source.run.result, source.exported
    channels, height, width = exported.shape
    listed = ", ".join(code(name) for name in exported.classes[:_LISTED])
    more = len(exported.classes) - _LISTED
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    name = source.text(source.data)
    link = f"[{name}](https://huggingface.co/datasets/{source.data_hub})" if source.data_hub else name
    rows = [
        ["data", link],
        ["images", f"{height}×{width} px, {kind}"],
        [f"{len(exported.classes)} classes", listed + (f", and {more} more in `{CONFIG}`" if more > 0 else "")],
        ["SHA-256 of the training images", code(result.train_data)],
        ["SHA-256 of the test images", code(result.test_data)],
    ]
    rows += [[f"read with {code(flag_of(name))}", _value(value)] for name, value in exported.reading.items()]
    return "\n\n".join(["## Data", table(["", ""], rows)])


def _training(source: CardSource) -> str:
    run, result = source.run, source.run.result
    rows = [[code(name), _value(value)] for name, value in settings_of(run).items()]
    at = "" if result.eps is None else f" at ε = {eps_text(result.eps)} ({norm_sign(result.norm)})"
    names = {"clean": "clean", "fgsm": f"FGSM{at}", "pgd": f"PGD-10{at}"}
    count = result.validation_images
    measured = "; ".join(
        f"{source.text(names.get(name, name))} {share(round(value * count), count).percent()}"
        for name, value in result.validation.items()
    )
    told = [
        "## Training",
        f"Method {code(source.method)}, seed {run.seed}. Settings:",
        table(["setting", "value"], rows),
        f"The weights: {result.chosen_text}. Accuracy on {count} images of the training split, in % [95 % interval "
        f"(Wilson)]: {measured}."
        + (
            " These numbers selected the epoch, so they are not a result."
            if result.epochs
            else " They are not test images."
        ),
    ]
    if sha256 := (result.start or {}).get("sha256"):
        told.append(f"Training started from given weights, SHA-256 {code(str(sha256))}.")
    return "\n\n".join(told)


def _files(source: CardSource) -> str:
    rows = [
        [f"`{WEIGHTS}`", f"The weights and the normalisation. SHA-256 of the tensors: {code(source.exported.weights)}"],
        [f"`{CONFIG}`", "The architecture by name, the image size, the classes."],
    ]
    if source.evaluations:
        rows.append([f"`{RESULTS}/`", "The result of each evaluation: every number above, as JSON."])
    rows += [[f"`{file}`", f"{_OTHER_FORMATS[file]} {escaped(parity)}"] for file, parity in source.parity]
    rows += [[f"`{CARD}`", "This card."], ["`manifest.json`", "The SHA-256 of every file. Loading checks them."]]
    return "\n\n".join(["## Files", table(["file", "content"], rows)])


def _repeat(source: CardSource) -> str:
    run, told = source.run, ["## Repeat"]
    if words := train_words(run, "run"):
        lines = [words, *(evaluate_words(each, ["run"]) for each in source.evaluations)]
        told.append("Train and evaluate again. The same seed on the same machine and versions gives the same weights:")
        told.append(fenced("\n".join(f"$ {command(each)}" for each in lines), "console"))
    else:
        told.append(
            f"Training got {' and '.join(passed_objects(run))} as Python objects, so no command repeats it: call "
            "`asgt.train` with them."
        )
    subject = ["--model", f"hub:{source.place}", "--data", source.data, "--out"]
    again = [evaluate_words(each, [*subject, f"result-{each.protocol.stored_as}"]) for each in source.evaluations]
    again = again or [["asgt", "evaluate", *subject, "result"]]
    told.append("Evaluate these weights:")
    told.append(fenced("\n".join(f"$ {command(each)}" for each in again), "console"))
    versions = ", ".join(f"{name} {version(name)}" for name in ("asgt", "torch", "numpy"))
    told.append(f"Exported with {escaped(versions)}.")
    return "\n\n".join(told)


def _cite(source: CardSource) -> str:
    software = (
        f"@software{{asgt,\n  title   = {{asgt: adversarial saliency-guided training}},\n  author  = {{The asgt "
        f"authors}},\n  version = {{{version('asgt')}}}\n}}"
    )
    licence = "not stated by the owner" if not source.license else code(source.license)
    return "\n\n".join(
        [
            "## License and citation",
            f"License of the weights: {licence}. Cite the paper of the method and the software:",
            fenced(f"{_PAPER}\n\n{software}", "bibtex"),
        ]
    )


def _value(value: Any) -> str:
    return code(eps_text(value) if isinstance(value, float) and value < 1 else str(value))
