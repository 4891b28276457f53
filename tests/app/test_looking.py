"""What the page shows of an image, against the library asked by hand; nothing here needs gradio."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.app.bench import Bench, bench_of_model, bench_of_runs
from asgt.app.choices import attack_choices, attribution_choices, parsed, words_of
from asgt.app.desk import Desk, Update
from asgt.app.drawn import curves_html, head_html, look_html, notes_html, sentence_html, summary, thumbs_html
from asgt.app.followed import StoppedError
from asgt.app.form import ANY_CLASS, OWN_ANSWER, eps_range, filled_in, window
from asgt.app.looking import Wanted, look
from asgt.errors import DamagedFileError, InputError
from asgt.modes import evaluating
from asgt.randomness import SampleKeyed, seed_of
from asgt.records import Setting
from support.messages import assert_states
from support.paths import RUNS

HOSTILE = "<img src=x onerror=alert(1)>{{value}}${1}`[a](b)**c**"


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Two runs side by side, both evaluated on 40 images."""

    return bench_of_runs([RUNS / "at-fgsm-0", RUNS / "asgt-pgd-0"])


class Halves(nn.Module):
    """Says class 1 where the right half of an image is brighter; its weights lie on single pixels."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x[:, :1, :, :2].flatten(1).sum(dim=1), x[:, :1, :, 2:].flatten(1).sum(dim=1)
        return torch.stack([left, right, -left - right], dim=1)


def small(net: nn.Module, data: str = "digits", names: tuple[str, ...] = ("left", "right", "none")) -> Bench:
    """A bench of three images of 4×4 pixels."""

    pixels = torch.full((3, 1, 4, 4), 0.2)
    pixels[0, :, :, :2], pixels[1, :, :, 2:] = 0.6, 0.6
    return bench_of_model("net", net.eval(), asgt.Images(pixels, torch.tensor([0, 1, 0]), names), data)


# --- one image under the models -----------------------------------------------------------------------------------


def test_a_look_is_what_the_library_gives_when_asked_by_hand(bench: Bench) -> None:
    row, eps = 3, 0.1
    seen = look(bench, Wanted(row=row, eps=eps, seed=5, k=0.3))
    x, y = bench.image(row), bench.images.labels[row : row + 1]
    keys = torch.tensor([row])

    for subject, each in zip(bench.subjects, seen.subjects, strict=True):
        attacked = asgt.PGD(eps=eps)(subject.model, x, y, generator=SampleKeyed(5, keys))
        assert torch.equal(each.attacked, attacked[0])
        assert torch.equal(each.delta, (attacked - x)[0])
        for answer, image in ((each.before, x), (each.after, attacked)):
            told = subject.model(image).detach()[0].double().softmax(dim=0)
            assert answer.number == int(told.argmax())
            assert answer.probabilities == pytest.approx(told.tolist(), abs=1e-6)
        assert each.map_after is not None
        assert torch.equal(each.map_after, asgt.attribute(subject.model, attacked, y)[0])
        mask = asgt.SaliencyMask(k=0.3)
        expected = mask(subject.model, x, y, generator=SampleKeyed(seed_of("mask", 5), keys))
        assert torch.equal(each.masked_before, expected[0])
        assert each.hidden == 19 == int((each.masked_before != x[0]).sum())
    largest = max(float(each.delta.abs().max()) for each in seen.subjects)
    assert seen.factor == pytest.approx(0.5 / largest)
    assert (seen.label, seen.classes) == (int(y), bench.images.classes)


def test_the_same_wish_gives_the_same_pictures_and_another_seed_others(bench: Bench) -> None:
    wish = Wanted(row=2, attribution="smoothgrad", k=0.5)
    first, again = look(bench, wish), look(bench, wish)
    assert look_html(first) == look_html(again)

    other = look(bench, replace(wish, seed=1))
    assert not torch.equal(first.subjects[0].attacked, other.subjects[0].attacked)
    assert "seed 1" in look_html(other)


@pytest.mark.parametrize("row", [3, 7, 11, 20])
def test_the_step_at_which_it_broke_is_that_of_an_attack_driven_by_hand(bench: Bench, row: int) -> None:
    seen = look(bench, Wanted(row=row, eps=0.2)).subjects[0]
    model, x, y = bench.subjects[0].model, bench.image(row), bench.images.labels[row : row + 1]
    attack = asgt.PGD(eps=0.2)

    with evaluating(model):
        state = attack.start(model, x, y, 0.2, generator=SampleKeyed(0, torch.tensor([row])))
        broke = None
        for step in range(41):
            if int(model(state.x_adv).argmax()) != int(y):
                broke = step
                break
            state = attack.step(state)

    if int(model(x).argmax()) != int(y):
        assert_states(seen.broke, "Misclassified without an attack")
    elif broke is None:
        assert_states(seen.broke, "Not fooled", "0.2")
    else:
        assert_states(seen.broke, f"after step {broke} of 40" if broke else "before its first step")


def test_the_smallest_known_eps_is_that_of_the_evidence(bench: Bench) -> None:
    subject = bench.subjects[0]
    evaluation = asgt.load_evaluation(RUNS / "at-fgsm-0/evaluation/pgd")
    norms = evaluation.details["pgd-40x5"]["norms"].tolist()
    assert {0.0, float("inf")} < set(norms)

    for row, norm in enumerate(norms):
        said = bench.known(subject, row, "linf")
        expected = "without an attack" if norm == 0 else "none up to 0.2" if norm == torch.inf else f"{norm:.4g}"
        assert_states(said, expected, "protocol pgd v3")
    assert_states(bench.known(subject, 100, "linf"), "not among the 40 images")
    assert_states(bench.known(subject, 0, "l2"), "not known", f"asgt evaluate {RUNS / 'at-fgsm-0'}")


def test_mass_lies_on_the_object_where_the_data_has_one() -> None:
    """The map of class 0 is 1 on the left half, eight pixels; around a stroke in the corner the object has four."""

    bench = small(Halves(), "mnist")
    pixels = torch.full((3, 1, 4, 4), 0.2)
    pixels[:, :, 0, 0] = 0.9
    bench = replace(bench, images=replace(bench.images, pixels=pixels))

    seen = look(bench, Wanted(row=0, eps=0.05)).subjects[0]
    assert (seen.mass_before, seen.mass_after) == (pytest.approx(0.5), pytest.approx(0.5))
    assert "50.0\u00a0% on the object" in look_html(look(bench, Wanted(row=0, eps=0.05)))
    assert look(small(Halves(), "digits"), Wanted(row=0, eps=0.05)).subjects[0].mass_before is None


def test_a_target_is_reached_or_given_already(bench: Bench) -> None:
    number = look(bench, Wanted(row=3)).subjects[0].before.number
    given = look(bench, Wanted(row=3, target=number)).subjects[0]
    assert_states(given.broke, "without an attack")
    assert not given.delta.any()

    other = (number + 1) % 10
    seen = look(bench, Wanted(row=3, target=other, eps=0.4))
    x, model = bench.image(3), bench.subjects[0].model
    attack = asgt.PGD(eps=0.4, targeted=True)
    expected = attack(model, x, torch.tensor([other]), generator=SampleKeyed(0, torch.tensor([3])))
    assert torch.equal(seen.subjects[0].attacked, expected[0])
    assert ("is reached" in seen.subjects[0].broke) == (seen.subjects[0].after.number == other)
    assert f"towards class {other}" in look_html(seen)


@pytest.mark.slow  # Captum's import
def test_a_map_that_does_not_suit_a_model_is_told_and_the_rest_is_shown() -> None:
    seen = look(small(Halves()), Wanted(row=0, eps=0.05, attribution="gradcam")).subjects[0]

    assert (seen.map_before, seen.mass_before) == (None, None)
    assert seen.note
    assert seen.before.number == 0


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"eps": 5}, ["5/255"]),
        ({"eps": -0.1}, ["-0.1"]),
        ({"eps": None}, ["ε", "8/255"]),
        ({"eps": float("nan")}, ["nan"]),
        ({"eps": "x"}, ["'x'", "8/255"]),
        ({"row": 359}, ["359", "0 to 358"]),
        ({"row": None}, ["test image", "empty"]),
        ({"row": float("nan")}, ["test image", "nan"]),
        ({"row": 1.5}, ["1.5", "whole number"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"steps": 0}, ["steps = 0"]),
        ({"steps": 2.5}, ["2.5", "whole number"]),
        ({"steps": 1e300}, ["steps", "100,000"]),
        ({"steps": float("inf")}, ["steps", "whole number"]),
        ({"k": 1.5}, ["k = 1.5"]),
        ({"k": None}, ["k", "empty"]),
        ({"k": float("nan")}, ["k", "finite"]),
        ({"norm": "l7"}, ["'l7'", "l2"]),
        ({"attack": "PDG"}, ["'PDG'", "'PGD'"]),
        ({"attack": "FGSM", "norm": "l2"}, ["FGSM", "linf"]),
        ({"attack": "FGSM", "target": 2}, ["FGSM", "MIFGSM"]),
        ({"target": 10}, ["10", "classes"]),
        ({"settings": {"restarts": "two"}}, ["restarts", "'two'"]),
        ({"settings": {"restarts": "2.5"}}, ["restarts", "whole number"]),
        ({"settings": {"alpha": "nan"}}, ["alpha", "finite"]),
        ({"settings": {"alfa": "1"}}, ["'alfa'", "'alpha'"]),
        ({"attribution": "gradint"}, ["'gradint'", "'gradient'"]),
        ({"rendering": "red"}, ["'red'", "signed"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(bench: Bench, wish: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        look(bench, Wanted(**wish))
    assert_states(refused.value, *says)


def test_a_model_that_gives_nan_is_refused() -> None:
    class NaN(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(dim=1) * torch.nan] * 3, dim=1)

    with pytest.raises(InputError) as refused:
        look(small(NaN()), Wanted())
    assert_states(refused.value, "NaN")


# --- what can be chosen -------------------------------------------------------------------------------------------


def test_every_attack_of_the_library_that_needs_no_other_can_be_chosen() -> None:
    choices = attack_choices()
    assert next(iter(choices)) == "PGD"
    assert {"APGD", "FGSM", "MIFGSM", "Square", "AutoAttack", "AnnealedPGD", "LocalSquare"} < set(choices)
    assert not {"Attack", "Whole", "Foreign", "Repeated"} & set(choices)
    assert [setting.name for setting in choices["PGD"].settings] == ["alpha", "random_start", "restarts"]
    assert set(attribution_choices()) == set(asgt.saliency.ATTRIBUTIONS)


@pytest.mark.parametrize("name", [name for name in attack_choices() if name != "AutoAttack"])
def test_every_attack_looks_with_its_own_fields_as_they_begin(bench: Bench, name: str) -> None:
    choice = attack_choices()[name]
    fields = {
        setting.name: setting.default if words_of(setting) or setting.types == (bool,) else str(setting.default or "")
        for setting in choice.settings
    }
    steps = None if choice.steps is None else 3.0
    seen = look(bench, Wanted(row=1, attack=name, steps=steps, settings=fields))
    attack = choice.kind(eps=0.1) if choice.steps is None else choice.kind(eps=0.1, steps=3)
    assert seen.attack == attack.described()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        (Setting("alpha", "float | None", None), "", None),
        (Setting("alpha", "float | None", None), " 2/255 ", 2 / 255),
        (Setting("restarts", "int", 1), 3.0, 3),
        (Setting("restarts", "int", 1), "3", 3),
        (Setting("restarts", "int", 1), None, 1),
        (Setting("random_start", "bool", True), False, False),
        (Setting("loss", "Literal['ce', 'dlr']", "ce"), "dlr", "dlr"),
    ],
)
def test_fields_become_values_of_the_setting(setting: Setting, value: object, expected: object) -> None:
    got = parsed(setting, value)
    assert got == expected
    assert type(got) is type(expected)


def fields_of(**changed: object) -> dict[str, object]:
    return {
        "source": "test image",
        "row": 0,
        "drawing": "",
        "upload": None,
        "label": OWN_ANSWER,
        "attack": "PGD",
        "eps": 0.1,
        "norm": "linf",
        "steps": 40,
        "target": ANY_CLASS,
        "seed": 0,
        "attribution": "gradient",
        "rendering": "magnitude",
        "k": 0.1,
    } | changed


def test_the_fields_ask_for_what_they_hold(bench: Bench) -> None:
    wish = filled_in(bench, fields_of(row=4, target=2), [("PGD", "restarts", "2"), ("APGD", "loss", "ce")])
    assert (wish.row, wish.target, wish.eps, dict(wish.settings)) == (4, 2, 0.1, {"restarts": "2"})

    assert eps_range(bench, "linf").unit == 1
    colour = replace(bench, record=asgt.datasets.data_set("cifar10"), eps=8 / 255)
    field = eps_range(colour, "linf")
    assert (field.unit, field.start) == (255, pytest.approx(8))
    assert filled_in(colour, fields_of(eps=4), []).eps == pytest.approx(4 / 255)
    assert filled_in(colour, fields_of(eps=1.5, norm="l2"), []).eps == 1.5


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"source": "drawing"}, ["nothing is drawn"]),
        ({"source": "upload"}, ["no picture"]),
        ({"source": "camera"}, ["upload"]),
        ({"target": 99}, ["99", "class"]),
        ({"target": HOSTILE}, ["class"]),
    ],
)
def test_fields_that_hold_nothing_of_use_are_refused(bench: Bench, changed: dict[str, object], says: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        filled_in(bench, fields_of(**changed), [])
    assert_states(refused.value, *says)


def test_the_window_of_test_images_holds_the_row(bench: Bench) -> None:
    assert window(bench, 30) == range(24, 48)
    assert window(bench, 358) == range(336, 359)
    assert window(bench, None) == window(bench, float("nan")) == window(bench, 1e9) == range(0, 24)


# --- which models -------------------------------------------------------------------------------------------------


def test_a_bench_begins_as_its_runs_were_trained(bench: Bench) -> None:
    assert [subject.name for subject in bench.subjects] == ["AT-FGSM", "ASGT-PGD"]
    assert (bench.data, bench.eps, bench.norm, bench.unit) == ("digits", 0.1, "linf", 1)
    assert any("no digest is stored" in note for note in bench.notes)
    same = bench_of_runs([RUNS / "st-0", RUNS / "st-1", RUNS / "st-1"])
    assert [subject.name for subject in same.subjects] == ["ST, seed 0", "ST, seed 1"]


def test_runs_that_cannot_stand_together_or_are_none_are_refused(tmp_path: Path) -> None:
    run = shutil.copytree(RUNS / "st-0", tmp_path / "run")
    with pytest.raises(InputError) as refused:
        bench_of_runs([tmp_path / "nothing"])
    assert_states(refused.value, tmp_path / "nothing")

    told = json.loads((run / "training.json").read_text())
    (run / "training.json").write_text(json.dumps(told | {"test_data": "0" * 64}))
    with pytest.raises(InputError) as refused:
        bench_of_runs([RUNS / "st-0", run])
    assert_states(refused.value, RUNS / "st-0", run, "digits", "one data set", "again for the others")

    (run / "training.json").write_text(json.dumps(told))
    (run / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DamagedFileError):
        bench_of_runs([run])


def test_a_run_of_somebody_elses_model_needs_its_name(tmp_path: Path) -> None:
    run = shutil.copytree(RUNS / "st-0", tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(
        config.read_text().replace("model: small_cnn", "model: theirs:net").replace("width: 0.25", "width: null")
    )

    with pytest.raises(InputError) as refused:
        bench_of_runs([run])
    assert_states(refused.value, "theirs:net", "--model theirs:net")


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        small(Halves(), names=("left", "right"))
    assert_states(refused.value, "3 logits", "2 classes")


# --- how it is drawn ----------------------------------------------------------------------------------------------


def test_no_name_can_bring_markup_onto_the_page() -> None:
    bench = small(Halves(), names=(HOSTILE, "right", "none"))
    bench = replace(bench, subjects=(replace(bench.subjects[0], name=HOSTILE),), data=HOSTILE, notes=(HOSTILE,))
    seen = look(bench, Wanted(row=0, eps=0.3))
    seen = replace(seen, said=HOSTILE)

    for page in (
        look_html(seen),
        thumbs_html(bench, range(3), 0),
        curves_html(bench, 0.1, "linf"),
        head_html(bench),
        notes_html(bench),
        sentence_html(summary(seen)),
    ):
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page


def test_pictures_have_words_and_right_and_wrong_are_told_at_a_glance(bench: Bench) -> None:
    page = look_html(look(bench, Wanted(row=3)))
    assert page.count("<img ") == page.count(' alt="')
    assert 'alt=""' not in page

    rows = range(0, 12)
    thumbs = thumbs_html(bench, rows, 3)
    labels = bench.images.labels[:12]
    x = torch.cat([bench.image(row) for row in rows])
    right = [subject.model(x).argmax(dim=1) == labels for subject in bench.subjects]
    assert thumbs.count("✗</i>") == int((~torch.stack(right)).sum()) > 0
    assert thumbs.count('aria-pressed="true"') == 1


def test_the_curve_is_that_of_the_evaluation_with_the_eps_marked(bench: Bench) -> None:
    page = curves_html(bench, 0.07, "linf")
    evaluation = asgt.load_evaluation(RUNS / "asgt-pgd-0/evaluation/pgd")
    assert evaluation.accuracy.percent() in page
    assert evaluation.robust_accuracy(0.2).percent() in page
    assert "dashed: ε = 0.07" in page
    assert page.count("<svg") == 3
    assert_states(curves_html(bench, 0.5, "l2"), "No robustness curve of AT-FGSM in L2")


# --- work that lasts ----------------------------------------------------------------------------------------------


def test_long_work_tells_how_far_it_is_and_can_be_stopped(bench: Bench) -> None:
    desk = Desk(bench)
    updates = desk.looked("page", lambda: Wanted(attack="Square", steps=10**5))
    first = next(updates)
    assert first.look is None
    assert_states(first.text, "Square", "AT-FGSM")

    desk.stop("page")
    *_, last = updates
    assert (last.look, last.wrong) == (None, False)
    assert_states(last.text, "Stopped")

    *_, found = desk.looked("page", lambda: Wanted(row=1))
    assert found.look is not None


def test_a_later_wish_of_the_same_page_ends_the_one_before(bench: Bench) -> None:
    desk = Desk(bench)
    before = desk.looked("page", lambda: Wanted(attack="Square", steps=10**5))
    next(before)
    *_, found = desk.looked("page", lambda: Wanted(row=1))
    assert found.look is not None
    # What was stopped for it says nothing over it.
    assert list(before) == []


def test_a_page_that_is_closed_leaves_no_work_behind(bench: Bench) -> None:
    desk = Desk(bench)
    updates = desk.looked("page", lambda: Wanted(attack="Square", steps=10**5))
    next(updates)
    updates.close()

    *_, found = desk.looked("another page", lambda: Wanted(row=1))
    assert found.look is not None


def test_what_is_wrong_is_a_sentence_and_a_fault_is_handed_on(bench: Bench) -> None:
    faults: list[BaseException] = []
    desk = Desk(bench, faults.append)

    def last(wish: Any) -> Update:
        *_, update = desk.looked("page", wish)
        return update

    refused = last(lambda: Wanted(eps=5))
    assert (refused.look, refused.wrong, faults) == (None, True, [])
    assert_states(refused.text, "5/255")

    fault = last(lambda: 1 / 0)
    assert (fault.wrong, [type(error) for error in faults]) == (True, [ZeroDivisionError])
    assert "Traceback" not in fault.text
    assert "ZeroDivision" not in fault.text


def test_a_look_that_is_stopped_says_so(bench: Bench) -> None:
    with pytest.raises(StoppedError):
        look(bench, Wanted(), should_stop=lambda: True)
