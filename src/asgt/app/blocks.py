"""The page itself, of gradio's parts: fields in one column, results in the other. All it shows is made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import gradio as gr

from ..errors import AsgtError
from ..records import Setting
from ..visible import LONGEST_NAME, visible
from .bench import Bench
from .choices import AttackChoice, attack_choices, attribution_choices, words_of
from .desk import Desk, Update
from .drawn import curves_html, head_html, look_html, notes_html, sentence_html, summary, thumbs_html
from .form import ANY_CLASS, OWN_ANSWER, SOURCES, WINDOW, eps_range, filled_in, most_steps, window

__all__ = ["page", "page_style"]

_NAMES = (
    "source",
    "row",
    "drawing",
    "upload",
    "label",
    "attack",
    "eps",
    "norm",
    "steps",
    "target",
    "seed",
    "attribution",
    "rendering",
    "k",
)
"""The fields, in the order in which gradio hands their values over; those of single attacks follow."""

_HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class _Field:
    """A field that only one attack has."""

    attack: str
    setting: str
    component: Any


def page(bench: Bench, desk: Desk) -> gr.Blocks:
    """Builds the page.

    Args:
        bench: the models and their images.
        desk: does the work.
    """

    return _Page(bench, desk).built()


def page_style() -> dict[str, Any]:
    """The looks of the page, as :func:`gradio.mount_gradio_app` takes them: the fonts of the system, and no request."""

    system = ("system-ui", "sans-serif")
    theme = gr.themes.Default(primary_hue="blue", font=system, font_mono=("ui-monospace", "monospace"))
    # Its own greys are too faint on white.
    theme = theme.set(block_info_text_color="*neutral_600", block_title_text_color="*neutral_700")
    return {"theme": theme, "css": _text("app.css"), "head": '<meta name="referrer" content="no-referrer">'}


class _Page:
    """Builds one page, part by part."""

    def __init__(self, bench: Bench, desk: Desk) -> None:
        self.bench, self.desk = bench, desk
        self.choices = attack_choices()
        self.fields: dict[str, Any] = {}
        self.own: list[_Field] = []
        self.groups: dict[str, Any] = {}
        self.places: dict[str, Any] = {}

    def built(self) -> gr.Blocks:
        with gr.Blocks(title="asgt app", analytics_enabled=False) as blocks:
            _shown(head_html(self.bench))
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    self._image_fields()
                    self._attack_fields()
                    self._map_fields()
                with gr.Column(scale=7, min_width=300):
                    with gr.Row(elem_id="asgt-bar"):
                        self.status = _shown(sentence_html("", live=True), elem_id="asgt-status")
                        self.stop = gr.Button("Stop", size="sm", min_width=70, elem_id="asgt-stop")
                    self.seen = _shown("", elem_id="asgt-seen")
                    self.curves = _shown("", elem_id="asgt-curves")
            _shown(notes_html(self.bench))
            self._events(blocks)
        return blocks

    def _image_fields(self) -> None:
        bench, fields = self.bench, self.fields
        with gr.Group():
            fields["source"] = gr.Radio(list(SOURCES), value=SOURCES[0], label="Image", elem_id="asgt-source")
            with gr.Column(visible=True) as self.places["test image"]:
                last = len(bench.images) - 1
                fields["row"] = gr.Number(0, label=f"Test image, 0 to {last}", precision=0, elem_id="asgt-row")
                with gr.Row():
                    self.back = gr.Button(f"Previous {WINDOW}", size="sm", min_width=80)
                    self.ahead = gr.Button(f"Next {WINDOW}", size="sm", min_width=80)
                self.thumbs = gr.HTML(
                    thumbs_html(bench, window(bench, 0), 0),
                    js_on_load=_text("thumbs.js"),
                    apply_default_css=False,
                    elem_id="asgt-thumbs",
                )
            with gr.Column(visible=False) as self.places["drawing"]:
                fields["drawing"] = gr.HTML(
                    "",
                    html_template=_text("pad.html"),
                    js_on_load=_text("pad.js"),
                    apply_default_css=False,
                    elem_id="asgt-pad",
                )
            with gr.Column(visible=False) as self.places["upload"]:
                fields["upload"] = gr.File(
                    label="Your picture", file_types=["image"], type="filepath", height=110, elem_id="asgt-upload"
                )
            with gr.Column(visible=False) as self.places["label"]:
                fields["label"] = gr.Dropdown(
                    _numbered(OWN_ANSWER, bench), value=OWN_ANSWER, label="What it shows", elem_id="asgt-label"
                )

    def _attack_fields(self) -> None:
        fields, first = self.fields, next(iter(self.choices))
        choice, norm = self.choices[first], self.bench.norm
        eps = eps_range(self.bench, norm)
        with gr.Group():
            fields["attack"] = gr.Dropdown(list(self.choices), value=first, label="Attack", elem_id="asgt-attack")
            fields["eps"] = _slider(
                0, eps.top, value=eps.start, step=eps.step, label=eps.label, buttons=[], elem_id="asgt-eps"
            )
            fields["steps"] = _slider(
                1, most_steps(choice), value=choice.steps, step=1, label="Steps", buttons=[], elem_id="asgt-steps"
            )
        with gr.Accordion("Norm, target, seed and more", open=False, elem_id="asgt-more"):
            fields["norm"] = gr.Radio(_norms(choice), value=norm, label="Norm", elem_id="asgt-norm")
            fields["target"] = gr.Dropdown(
                _numbered(ANY_CLASS, self.bench), value=ANY_CLASS, label="Target class", elem_id="asgt-target"
            )
            fields["seed"] = gr.Number(0, label="Seed of all that is random", precision=0, elem_id="asgt-seed")
            for name, each in self.choices.items():
                with gr.Column(visible=name == first) as self.groups[name]:
                    for setting in each.settings:
                        self.own.append(_Field(name, setting.name, _component(setting)))
                    if not each.settings:
                        _shown(sentence_html(f"{name} has no other settings."))

    def _map_fields(self) -> None:
        fields = self.fields
        with gr.Group():
            names = attribution_choices()
            fields["attribution"] = gr.Dropdown(names, value=names[0], label="Maps by", elem_id="asgt-attribution")
            fields["rendering"] = gr.Radio(
                [("magnitude |a|", "magnitude"), ("signed a", "signed")], value="magnitude", label="Maps show"
            )
            fields["k"] = _slider(
                0, 1, value=self.bench.k, step=0.01, label="Mask: share k of the pixels", buttons=[], elem_id="asgt-k"
            )

    def _events(self, blocks: gr.Blocks) -> None:
        fields = self.fields
        inputs = [*(fields[name] for name in _NAMES), *(field.component for field in self.own)]
        work: dict[str, Any] = {
            "fn": self._looked,
            "inputs": inputs,
            "outputs": [self.status, self.seen],
            "concurrency_limit": None,
            **_HIDDEN,
        }
        curves: dict[str, Any] = {
            "fn": self._curves,
            "inputs": [fields["eps"], fields["norm"]],
            "outputs": [self.curves],
            **_HIDDEN,
        }
        steady = ("drawing", "label", "steps", "target", "seed", "attribution", "rendering", "k")
        triggers = [fields[name].input for name in steady]
        triggers += [fields["upload"].upload, fields["upload"].clear]
        triggers += [
            field.component.submit if isinstance(field.component, gr.Textbox) else field.component.input
            for field in self.own
        ]
        triggers += [field.component.blur for field in self.own if isinstance(field.component, gr.Textbox)]
        gr.on(triggers, **work, trigger_mode="always_last")
        fields["eps"].input(**work, trigger_mode="always_last").then(**curves)
        blocks.load(**work).then(**curves)

        shown = [self.places[name] for name in (*SOURCES, "label")]
        fields["source"].input(_places, fields["source"], shown, **_HIDDEN).then(**work)
        fitted = [fields["steps"], fields["norm"], fields["eps"], *self.groups.values()]
        attack = [fields["attack"], fields["norm"], fields["eps"]]
        fields["attack"].input(self._fitted, attack, fitted, **_HIDDEN).then(**work).then(**curves)
        fields["norm"].input(self._eps_field, fields["norm"], fields["eps"], **_HIDDEN).then(**work).then(**curves)

        row = [fields["row"], self.thumbs]
        self.thumbs.click(self._clicked, fields["row"], row, **_HIDDEN).then(**work)
        self.back.click(lambda row: self._moved(row, -WINDOW), fields["row"], row, **_HIDDEN).then(**work)
        self.ahead.click(lambda row: self._moved(row, WINDOW), fields["row"], row, **_HIDDEN).then(**work)
        fields["row"].input(self._thumbs, fields["row"], self.thumbs, trigger_mode="always_last", **_HIDDEN).then(
            **work
        )
        self.stop.click(self._stop, None, None, queue=False, **_HIDDEN)

    def _looked(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, Any]]:
        named = dict(zip(_NAMES, values, strict=False))
        settings = [
            (field.attack, field.setting, value) for field, value in zip(self.own, values[len(_NAMES) :], strict=True)
        ]
        for update in self.desk.looked(_session(request), lambda: filled_in(self.bench, named, settings)):
            yield _told(update)
        # Of a wish that was stopped for another one there is nothing to say; without a word, gradio would show nothing.
        yield gr.skip(), gr.skip()

    def _curves(self, eps: Any, norm: str) -> Any:
        chosen = eps_range(self.bench, "l2" if norm == "l2" else "linf")
        if not isinstance(eps, int | float) or not 0 <= eps <= max(chosen.top, chosen.unit):
            return gr.skip()
        return curves_html(self.bench, eps / chosen.unit, "l2" if norm == "l2" else "linf")

    def _stop(self, request: gr.Request) -> None:
        self.desk.stop(_session(request))

    def _fitted(self, attack: str, norm: str, eps: Any) -> list[Any]:
        """The fields that the attack has, with its own values."""

        choice = self.choices[attack]
        kept = norm if norm in choice.norms else choice.norms[0]
        steps = gr.update(visible=False)
        if choice.steps is not None:
            steps = gr.update(visible=True, maximum=most_steps(choice), value=choice.steps)
        return [
            steps,
            gr.update(choices=_norms(choice), value=kept),
            gr.update() if kept == norm else self._eps_field(kept),
            *(gr.update(visible=name == attack) for name in self.groups),
        ]

    def _eps_field(self, norm: str) -> Any:
        eps = eps_range(self.bench, "l2" if norm == "l2" else "linf")
        return gr.update(maximum=eps.top, step=eps.step, value=eps.start, label=eps.label)

    def _clicked(self, row: Any, event: gr.EventData) -> list[Any]:
        chosen = getattr(event, "row", None)
        return self._moved(chosen, 0) if isinstance(chosen, int) else [row, gr.skip()]

    def _moved(self, row: Any, by: int) -> list[Any]:
        place = row if isinstance(row, int) else 0
        place = min(max(place + by, 0), len(self.bench.images) - 1)
        return [place, self._thumbs(place)]

    def _thumbs(self, row: Any) -> str:
        try:
            return thumbs_html(self.bench, window(self.bench, row), row if isinstance(row, int) else -1)
        except AsgtError as error:
            return sentence_html(str(error), "wrong")


def _told(update: Update) -> tuple[Any, Any]:
    """What the status says, and what is seen."""

    if update.look is None:
        return sentence_html(update.text, "wrong" if update.wrong else "", live=True), gr.skip()
    return sentence_html(summary(update.look), live=True), look_html(update.look)


def _slider(*ends: float, **options: Any) -> gr.Slider:
    """A slider whose number field may hold anything: what cannot be meant is said in a sentence of ours.

    Not a class of its own, for which gradio would write a file into this folder.
    """

    slider = gr.Slider(*ends, **options)
    slider.preprocess = lambda payload: payload
    return slider


def _shown(content: str, **options: Any) -> gr.HTML:
    """Something that is made elsewhere, with nothing of gradio's own looks."""

    return gr.HTML(content, js_on_load=None, apply_default_css=False, **options)


def _places(source: str) -> list[Any]:
    """Which of the ways to give an image is shown."""

    return [*(gr.update(visible=source == name) for name in SOURCES), gr.update(visible=source != SOURCES[0])]


def _component(setting: Setting) -> Any:
    """The field of a setting that only one attack has."""

    label, said = setting.name, visible(setting.doc.replace("``", ""), 200)
    if words := words_of(setting):
        return gr.Dropdown(list(words), value=setting.default, label=label, info=said)
    if setting.types == (bool,):
        return gr.Checkbox(setting.default, label=label, info=said)
    start = "" if setting.default is None else f"{setting.default:g}"
    return gr.Textbox(start, label=label, info=said, placeholder="default", max_lines=1)


def _norms(choice: AttackChoice) -> list[tuple[str, str]]:
    signs = {"linf": "L∞", "l2": "L2"}
    return [(signs[norm], norm) for norm in choice.norms]


def _numbered(first: str, bench: Bench) -> list[tuple[str, Any]]:
    """A choice of a class, or of none; two classes may have names that look alike."""

    names = [visible(name, LONGEST_NAME).replace("\n", " ") for name in bench.images.classes]
    return [(first, first), *((name, number) for number, name in enumerate(names))]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _text(name: str) -> str:
    return files("asgt.app").joinpath("page", name).read_text("utf-8")
