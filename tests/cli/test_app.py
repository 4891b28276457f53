"""``asgt app`` on the command line: what is refused before a page is there."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from asgt.app.bench import Bench
from support.messages import assert_states
from support.paths import RUNS

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="the page needs gradio: pip install 'asgt[app]'")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), ["--model", "run folders"]),
        (("--model", "small_cnn"), ["--data"]),
        ((RUNS / "st-0", "--weights", "net.pt"), ["--weights", "run folders"]),
        ((RUNS / "st-0", "--data", "digits"), ["--data", "run folders"]),
        ((RUNS / "st-0", "--image-size", 8), ["--image-size", "run folders"]),
        ((RUNS / "st-0", "--model", "small_cnn"), ["--model", "'small_cnn'"]),
        ((RUNS / "st-0", "--port", 0), ["--port 0", "65535"]),
        ((RUNS / "st-0", "--port", "x"), ["--port", "x"]),
        (("--model", "small_cnn", "--data", "digits", "--mean", "0.5"), ["--mean", "--std"]),
        ((RUNS / "st-0", "--prot", 1), ["--prot", "--port"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(cli: Callable, words: tuple[object, ...], says: list[str]) -> None:
    assert_states(cli("app", *words).refusal(), *says)


def test_without_gradio_it_says_what_to_install(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgt.app.serving.find_spec", lambda name: None if name == "gradio" else find_spec(name))
    assert_states(cli("app", RUNS / "st-0").refusal(), "gradio", "asgt[app]")


@needs_gradio
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere",), ["nowhere"]),
        (("--model", "small_cnn", "--data", "digits"), ["--weights", "small_cnn"]),
        (("--model", "smal_cnn", "--weights", "net.pt", "--data", "digits"), ["'smal_cnn'", "'small_cnn'"]),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(cli: Callable, words: tuple[object, ...], says: list[str]) -> None:
    assert_states(cli("app", *words).refusal(), *says)


@needs_gradio
def test_an_exported_model_is_looked_at_as_its_run(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Bench] = []
    monkeypatch.setattr("asgt.app.serving.serve", lambda bench, bound, **told: served.append(bench))
    assert cli("export", RUNS / "asgt-pgd-0", "--out", "net").status == 0

    answer = cli("app", "--model", "hub:net", "--data", "digits")
    assert answer.status == 0, answer.err
    assert cli("app", RUNS / "asgt-pgd-0").status == 0

    exported, run = served
    assert exported.answers(range(12)) == run.answers(range(12))
    assert (exported.subjects[0].name, exported.data, exported.eps) == ("hub:net", "digits", 0.1)
    assert_states(exported.known(exported.subjects[0], 0, "linf"), "not known")
