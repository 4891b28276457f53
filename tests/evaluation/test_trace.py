"""Traces: the steps of an attack against closed forms and against the evidence, and their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import Tensor, nn

import asgt
from asgt.attacks import APGD, FGSM, PGD, AnnealedPGD, Repeated, Square
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.trace import TRACE
from asgt.evaluation.tracing import traced
from asgt.files import read_sealed, read_tensors, write_sealed, write_tensors
from support.attacked import Linear, smooth_net
from support.messages import assert_states
from support.paths import ROOT, RUNS

WEIGHT = [1.0, -0.5, 0.25, -0.75]
GRID = [0.02, 0.06, 0.15]
MINE = PGD(steps=5)


@pytest.fixture(scope="module")
def subject() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A smooth net and 60 images, a few of which it gets wrong."""

    net = smooth_net().float()
    x = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = net(x).detach().argmax(dim=1)
    y[::9] = (y[::9] + 1) % 6
    return net, (x, y)


@pytest.fixture(scope="module")
def evidence(subject: tuple[nn.Module, tuple[Tensor, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence of an evaluation with a trace."""

    folder = tmp_path_factory.mktemp("evidence") / "mine"
    net, images = subject
    asgt.evaluate(net, images, MINE, epsilons=GRID, trace=6, folder=folder)
    return folder


@pytest.fixture
def kept(evidence: Path, tmp_path: Path) -> Path:
    """A copy of it, to change as the test likes."""

    return Path(shutil.copytree(evidence, tmp_path / "mine"))


@pytest.fixture(scope="module")
def found(subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> asgt.Evaluation:
    """An evaluation at one ε, without a trace."""

    net, images = subject
    return asgt.evaluate(net, images, MINE, epsilons=[0.06])


# ---------------------------------------------------------------------------------------------------------------------
# What is recorded
# ---------------------------------------------------------------------------------------------------------------------


def test_on_a_linear_model_each_step_is_known() -> None:
    """Logits w · x and 0: a step of α lowers the margin by α ‖w‖₁, and the loss is log(1 + exp(−margin))."""

    x = torch.full((3, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0.6, 0.1])
    attack = PGD(steps=20, alpha=0.01, random_start=False)

    evaluation = asgt.evaluate(
        Linear(WEIGHT, torch.float32),
        (x, torch.tensor([0, 0, 1])),
        attack,
        epsilons=[0.1],
        worst_case=False,
        trace=3,
    )

    trace = evaluation.trace
    assert trace is not None
    assert (trace.rows.tolist(), trace.survived.tolist()) == ([0, 2, 1], [True, True, False])
    taken = torch.arange(21).clamp_max(10).double()  # ε is ten steps away
    for row, clean in enumerate([0.4, 0.4, 0.1]):
        margins = clean - 0.01 * taken * 2.5
        torch.testing.assert_close(trace.margin[row].double(), margins, rtol=0, atol=1e-5)
        torch.testing.assert_close(trace.loss[row].double(), (-margins).exp().log1p(), rtol=0, atol=1e-5)
        slope = (-margins).sigmoid() * torch.tensor(WEIGHT).double().norm()
        torch.testing.assert_close(trace.gradient[row].double(), slope, rtol=0, atol=1e-5)
        torch.testing.assert_close(trace.distance[row].double(), 0.01 * taken, rtol=0, atol=1e-6)
        assert torch.equal(trace.fooled[row], margins < 0)
    assert trace.late_rise == 0


def test_a_loss_that_still_rises_is_told() -> None:
    """Ten steps that end on the way: each adds as much to the margin, and a little more than the last to the loss."""

    x = torch.full((4, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = 0.9
    attack = PGD(steps=10, alpha=0.01, random_start=False)
    settings: dict[str, Any] = {"epsilons": [0.15], "worst_case": False, "trace": 4}

    trace = asgt.evaluate(
        Linear(WEIGHT, torch.float32), (x, torch.zeros(4, dtype=torch.int64)), attack, **settings
    ).trace

    assert trace is not None
    at = [(-torch.tensor(margin).double()).exp().log1p() for margin in (0.4, 0.4 - 0.9 * 0.25, 0.4 - 0.25)]
    assert trace.late_rise == pytest.approx(float((at[2] - at[1]) / (at[2] - at[0])), abs=1e-5)
    assert 0.1 < trace.late_rise < 0.11
    assert f"{100 * trace.late_rise:.1f} %" in trace.sentence()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_run_of_the_evaluation(norm: str, subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    """The evidence has the norm at which each image broke: the trace breaks the same ones, at the same place."""

    net, images = subject
    eps = 0.05 if norm == "linf" else 0.6
    attack = PGD(steps=12, norm=norm)  # type: ignore[arg-type]

    evaluation = asgt.evaluate(
        net,
        images,
        attack,
        epsilons=[eps],
        norm=norm,  # type: ignore[arg-type]
        worst_case=False,
        seed=3,
        trace=60,
    )

    trace, (details,) = evaluation.trace, evaluation.details.values()
    assert trace is not None
    assert trace.survivors > 10
    assert trace.broken > 10
    broke = trace.fooled.any(dim=1)
    assert torch.equal(broke, ~trace.survived)
    first = trace.fooled.int().argmax(dim=1)[broke]
    at = trace.distance[broke].gather(1, first[:, None]).squeeze(1)
    torch.testing.assert_close(at, details["norms"][trace.rows[broke]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "protocol", ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pgd", "standard-quick"))]
)
def test_it_ends_where_the_evidence_says_and_changes_no_number(
    protocol: str, subject: tuple[nn.Module, tuple[Tensor, Tensor]]
) -> None:
    net, (x, y) = subject
    images = x[:30], y[:30]

    with_trace = asgt.evaluate(net, images, protocol, epsilons=GRID, trace=20)
    without = asgt.evaluate(net, images, protocol, epsilons=GRID)

    trace = with_trace.trace
    assert trace is not None
    assert without.trace is None
    assert not trace.contradicts.any()
    place = GRID.index(trace.eps)
    assert torch.equal(with_trace.outcomes[trace.search][place, trace.rows], trace.survived)
    if protocol == "paper":
        assert torch.equal(trace.fooled[:, -1], ~trace.survived)
    told = [evaluation.to_dict() for evaluation in (with_trace, without)]
    assert told[0].pop("trace")["images"] == 20
    for each in told:
        del each["seconds"]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("attacks", "title", "steps"),
    [
        ([FGSM(), APGD(steps=8)], "APGD-CE (8 steps)", 8),
        ([AnnealedPGD(steps=5)], "annealed PGD-5 (margin)", 5),
        ([Repeated(attack=AnnealedPGD(steps=5, loss="ce"), restarts=2)], "annealed PGD-5 (CE)", 5),
        ([Square(steps=5), PGD(steps=6, restarts=3)], "PGD-6 (α = 2.5ε/6, random starts)", 6),
    ],
)
def test_the_first_attack_of_several_gradient_steps_is_traced(
    attacks: list[Any], title: str, steps: int, subject: tuple[nn.Module, tuple[Tensor, Tensor]]
) -> None:
    net, images = subject

    trace = asgt.evaluate(net, images, attacks, epsilons=GRID, trace=8).trace

    assert trace is not None
    assert (trace.attack, trace.steps, len(trace.rows)) == (title, steps, 8)
    assert not trace.contradicts.any()
    # A loss of margins is minus the margin.
    if title.endswith("(margin)"):
        torch.testing.assert_close(trace.loss, -trace.margin)


@pytest.mark.parametrize(
    ("count", "survivors", "broken"), [(1, 1, 0), (5, 3, 2), (40, 20, 20), (53, 26, 27), (60, 26, 27)]
)
def test_the_first_of_each_kind_are_taken(
    count: int, survivors: int, broken: int, subject: tuple[nn.Module, tuple[Tensor, Tensor]], found: asgt.Evaluation
) -> None:
    """Of 60 images 7 are clean errors; of the others 26 survive here, and what one kind lacks the other fills."""

    net, images = subject
    even = torch.arange(60) % 2 == 0
    half = replace(found, outcomes={"worst-case": even[None]})
    few = replace(found, outcomes={"worst-case": (even & (torch.arange(60) < 10))[None]})
    right = torch.tensor([row for row in range(60) if row % 9])

    for evaluation, first, second in (
        (half, right[right % 2 == 0][:survivors], right[right % 2 == 1][:broken]),
        (few, right[(right % 2 == 0) & (right < 10)][:survivors], None),
    ):
        trace = traced(net, asgt.data.as_images(images, "images"), evaluation, count, batch_size=7)

        assert trace is not None
        if second is None:
            assert (trace.survivors, trace.broken) == (len(first), min(count, 53) - len(first))
            continue
        assert torch.equal(trace.rows, torch.cat([first, second]))
        assert trace.survived.tolist() == [True] * survivors + [False] * broken


def test_a_survivor_that_breaks_is_told(
    subject: tuple[nn.Module, tuple[Tensor, Tensor]], found: asgt.Evaluation
) -> None:
    net, images = subject
    wrong = replace(found, outcomes={"worst-case": torch.ones(1, 60, dtype=torch.bool)})

    trace = traced(net, asgt.data.as_images(images, "images"), wrong, 60, batch_size=64)

    assert trace is not None
    broken = int((found.clean & ~found.outcomes["worst-case"][0]).sum())
    assert 0 < int(trace.contradicts.sum()) <= broken
    assert_states(trace.sentence(), int(trace.contradicts.sum()), "too high")


def test_without_an_image_that_is_right_there_is_none(subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    net, (x, _) = subject
    wrong = (net(x).argmax(dim=1) + 1) % 6

    assert asgt.evaluate(net, (x, wrong), "pgd", epsilons=[0.06], trace=3).trace is None


@pytest.mark.slow
def test_it_is_drawn(subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    net, images = subject
    evaluation = asgt.evaluate(net, images, PGD(steps=4), epsilons=[0.06], trace=5)
    assert evaluation.trace is not None

    axes = evaluation.trace.plot(course="margin")

    thick = [line for line in axes.get_lines() if line.get_linewidth() > 2]
    assert len(axes.get_lines()) == 5 + len(thick) == 7
    middle = evaluation.trace.margin[evaluation.trace.survived].median(dim=0).values
    assert list(thick[0].get_ydata()) == pytest.approx(middle.tolist())
    assert evaluation.trace.sentence() in str(evaluation)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "count", "facts"),
    [
        ("pgd", 0, ("trace = 0",)),
        ("pgd", -3, ("trace = -3",)),
        ("pgd", 1.5, ("trace = 1.5", "whole")),
        ("pgd", 61, ("trace = 61", "60 images")),
        ("pgd", 10**9, ("1,000",)),
        ("autoattack", 5, ("autoattack", "gradient", "pgd")),
        ([Square(steps=3)], 5, ("gradient", "pgd")),
        ([FGSM()], 5, ("several",)),
    ],
)
def test_a_trace_that_cannot_be_made_is_refused_before_anything_runs(
    protocol: Any, count: Any, facts: tuple[str, ...], subject: tuple[nn.Module, tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    net, images = subject

    with pytest.raises(InputError) as caught:
        asgt.evaluate(net, images, protocol, epsilons=[0.06], trace=count, folder=tmp_path / "out")
    assert_states(caught.value, *facts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--trace", "0"], ("trace = 0",)),
        (["--trace", "-1"], ("trace = -1",)),
        (["--trace", "3", "--protocol", "autoattack"], ("autoattack",)),
        pytest.param(["--trace", "10", "--samples", "5"], ("trace = 10", "5 images"), marks=pytest.mark.slow),
        (["--trace", "many"], ("trace",)),
    ],
)
def test_the_command_line_refuses_it_in_one_line(
    words: list[str], facts: tuple[str, ...], tmp_path: Path, cli: Callable
) -> None:
    shutil.copytree(RUNS / "st-0", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation")

    said = cli("evaluate", tmp_path / "run", "--epsilons", "0.1", *words)

    assert_states(said, *facts)


# ---------------------------------------------------------------------------------------------------------------------
# Its file
# ---------------------------------------------------------------------------------------------------------------------


def test_it_is_read_back_and_sealed(kept: Path) -> None:
    read = asgt.load_evaluation(kept)

    assert read.trace is not None
    assert read.trace.asked == 6
    assert TRACE in json.loads((kept / "manifest.json").read_text())["files"]
    assert read_sealed(kept / "result.json")[0]["trace"] == read.trace.to_dict()
    assert [finding for place in asgt.verify(kept) for finding in place.findings] == []


def test_evidence_without_one_is_read(subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    assert asgt.load_evaluation(RUNS / "st-0" / "evaluation" / "pgd").trace is None


@pytest.mark.parametrize("damage", ["missing", "bytes", "other", "shape"])
def test_damage_is_noticed_and_mended_by_resume(
    damage: str, kept: Path, subject: tuple[nn.Module, tuple[Tensor, Tensor]]
) -> None:
    net, images = subject
    file, was = kept / TRACE, (kept / TRACE).read_bytes()
    (kept / "manifest.json").unlink()
    tensors, told = read_tensors(file)
    match damage:
        case "missing":
            file.unlink()
        case "bytes":
            file.write_bytes(was[:-5] + b"12345")
        case "other":
            write_tensors(file, tensors | {"loss": tensors["loss"] + 1}, told)
        case "shape":
            write_tensors(file, tensors | {"rows": tensors["rows"][:-1]}, told)

    with pytest.raises(DamagedFileError, match=TRACE.replace(".", r"\.")):
        asgt.load_evaluation(kept)
    asgt.evaluate(net, images, MINE, epsilons=GRID, folder=kept, resume=True)
    assert file.read_bytes() == was


@pytest.mark.parametrize("told", [{}, 3, {"eps": "0.1"}, {"norm": "l7"}, {"final": None}, {"asked": 10**9}])
def test_a_result_that_tells_nonsense_of_it_is_refused(told: Any, kept: Path) -> None:
    result = read_sealed(kept / "result.json")[0]
    was = result["trace"]
    (kept / "manifest.json").unlink()
    write_sealed(kept / "result.json", result | {"trace": was | told if told and isinstance(told, dict) else told})

    if told == {"asked": 10**9}:  # how many were asked for is the user's word
        assert asgt.load_evaluation(kept).trace is not None
        return
    with pytest.raises(DamagedFileError):
        asgt.load_evaluation(kept)


@pytest.mark.slow
def test_resume_adds_changes_and_keeps_it(kept: Path, subject: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    net, images = subject
    before = asgt.load_evaluation(kept)

    for count, expected in ((None, 6), (4, 4), (None, 4)):
        asgt.evaluate(net, images, MINE, epsilons=GRID, folder=kept, resume=True, trace=count)
        read = asgt.load_evaluation(kept)
        assert read.trace is not None
        assert (read.trace.asked, len(read.trace.rows)) == (expected, expected)
        assert torch.equal(read.outcomes["worst-case"], before.outcomes["worst-case"])
    # Half-way, as a kill leaves it: the trace is asked for again, as thorough checks are.
    for name in ("result.json", "manifest.json"):
        (kept / name).unlink()
    asgt.evaluate(net, images, MINE, epsilons=GRID, folder=kept, resume=True)
    assert asgt.load_evaluation(kept).trace is None
    assert not (kept / TRACE).exists()


@pytest.mark.slow
def test_the_command_line_says_it_in_a_sentence(tmp_path: Path, cli: Callable) -> None:
    shutil.copytree(RUNS / "st-0", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation")

    said = cli("evaluate", tmp_path / "run", "--epsilons", "0.1", "--samples", "20", "--trace", "4")

    assert said.status == 0
    (line,) = (line for line in said.out.splitlines() if line.startswith("trace of"))
    read = asgt.load_evaluation(tmp_path / "run" / "evaluation" / "pgd").trace
    assert read is not None
    assert line.split() == read.sentence().split()[: len(line.split())]
    schema = json.loads((ROOT / "docs" / "schemas" / "evaluation-result.schema.json").read_text())
    told = json.loads((tmp_path / "run" / "evaluation" / "pgd" / "result.json").read_text())
    Draft202012Validator(schema).validate(told)
