"""Protocols, curves, health, and the evidence that they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.attacks import FGSM, PGD
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.accuracy import correct_under_attack
from asgt.evaluation.curve import evaluate
from asgt.evaluation.health import is_catastrophic, is_collapsed
from asgt.evaluation.protocols import PROTOCOLS, protocol_named
from asgt.evaluation.shards import load_evaluation
from support.curves import Band
from support.edits import resealed
from support.messages import assert_states

torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is the oracle (make test installs it)")


class Linear(nn.Module):
    """Two classes, logits (0, w·x + b): robust at ε exactly if |w·x + b| > Σ|w|ε, the box apart."""

    def __init__(self, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weights).flatten(1).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture(scope="module")
def images() -> asgt.Images:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (40, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return asgt.Images(pixels, torch.randint(0, 3, (40,), generator=generator), ("a", "b", "c"))


@pytest.fixture(scope="module")
def net(images: asgt.Images) -> nn.Module:
    """A net that knows its images: every one is right, and small ε break them."""

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.pixels / 255), images.labels).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_paper_protocol_equals_torchattacks_given_its_parameters(net: nn.Module, images: asgt.Images) -> None:
    grid = (0.01, 0.03, 0.1, 0.2)
    found = evaluate(net, images, protocol="paper", epsilons=grid, batch_size=16)

    x, y = images.pixels.float() / 255, images.labels
    for name in ("fgsm", "pgd-constant", "pgd-relative", "mifgsm-constant", "mifgsm-relative"):
        for row, eps in enumerate(grid):
            alpha = 2 / 255 if "constant" in name else 2.5 * eps / 10
            oracle = {
                "fgsm": lambda eps=eps, alpha=alpha: torchattacks.FGSM(net, eps=eps),
                "pgd": lambda eps=eps, alpha=alpha: torchattacks.PGD(
                    net, eps=eps, alpha=alpha, steps=10, random_start=False
                ),
                "mifgsm": lambda eps=eps, alpha=alpha: torchattacks.MIFGSM(
                    net, eps=eps, alpha=alpha, steps=10, decay=1.0
                ),
            }[name.split("-")[0]]()
            expected = net(oracle(x, y)).argmax(dim=1) == y
            assert torch.equal(found.outcomes[name][row], expected), (name, eps)
        assert 0 < found.outcomes[name].float().mean() < 1, "a curve of zeros or ones would compare nothing"


@pytest.mark.slow
def test_a_ball_that_constant_steps_cannot_cross_costs_nothing_and_one_that_they_can_does(
    net: nn.Module, images: asgt.Images
) -> None:
    calls: list[int] = []
    net.register_forward_hook(lambda *_: calls.append(1))

    def asked(grid: tuple[float, ...]) -> int:
        calls.clear()
        evaluate(net, images, protocol="paper", epsilons=grid, batch_size=64)
        return len(calls)

    # 20/255 is how far ten steps of 2/255 go. FGSM, and PGD and MI-FGSM without a random start, look once more at 0.3;
    # PGD from a random start and both relative ones take ten gradients each.
    assert asked((0.1, 0.2, 0.3)) - asked((0.1, 0.2)) == 6 + 3 * 10
    assert asked((0.05, 0.06, 0.2)) - asked((0.05, 0.2)) == 6 + 5 * 10
    net._forward_hooks.clear()


@pytest.mark.slow
def test_pgd_protocol_finds_the_exact_robust_accuracy_of_a_linear_model() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 5, 5, generator=generator)
    pixels = torch.randint(64, 192, (60, 1, 5, 5), dtype=torch.uint8, generator=generator)
    x = pixels.float() / 255
    bias = -float((x * weights).flatten(1).sum(dim=1).median())
    score = (x * weights).flatten(1).sum(dim=1) + bias
    labels = (score > 0).long()
    labels[:6] = 1 - labels[:6]  # clean errors

    grid = (0.01, 0.05, 0.1, 0.2)  # the box is at least 64/255 away: it never binds
    found = evaluate(Linear(weights, bias), asgt.Images(pixels, labels, ("0", "1")), protocol="pgd", epsilons=grid)

    right = (score > 0).long() == labels
    for row, eps in enumerate(grid):
        robust = right & (score.abs() > eps * weights.abs().sum())
        assert torch.equal(found.outcomes["pgd-40x5"][row], robust)
    assert int(found.clean.sum()) == 54


@pytest.mark.slow
def test_pgd_curve_falls_and_paper_curve_attacks_clean_errors_too(images: asgt.Images, net: nn.Module) -> None:
    wrong = asgt.Images(images.pixels, (images.labels + 1) % 3, images.classes)
    worst = evaluate(net, wrong, protocol="pgd", epsilons=(0.02, 0.05)).outcomes["pgd-40x5"]
    assert not worst.any(), "a clean error stays an error in a worst case"

    found = evaluate(net, images, protocol="pgd", epsilons=(0.3, 0.01, 0.05))
    assert found.epsilons == (0.01, 0.05, 0.3)
    curve = found.outcomes["pgd-40x5"].int()
    assert bool((curve.diff(dim=0) <= 0).all())


@pytest.mark.slow
def test_outcomes_do_not_depend_on_the_batch_size(images: asgt.Images, net: nn.Module) -> None:
    first, second = (
        evaluate(net, images, protocol="pgd", epsilons=(0.02, 0.04), batch_size=size).outcomes["pgd-40x5"]
        for size in (40, 7)
    )
    assert torch.equal(first, second)
    attack = PGD(0.03, steps=4)
    outcomes = [correct_under_attack(net, images, attack, batch_size=size) for size in (40, 7)]
    assert torch.equal(*outcomes)


@pytest.mark.slow
def test_result_names_protocol_model_data_and_interval(images: asgt.Images, net: nn.Module, tmp_path: Path) -> None:
    from scipy.stats import binomtest

    found = evaluate(net, images, protocol="pgd", epsilons=[0.02], folder=tmp_path / "e")
    result = json.loads((tmp_path / "e" / "result.json").read_text())
    assert len(result.pop("sha256")) == 64
    assert result == found.to_dict()
    assert (result["protocol"]["name"], result["protocol"]["version"], result["samples"]) == ("pgd", 3, 40)
    assert len(result["model"]) == len(result["data"]) == 64
    [row] = result["attacks"]["pgd-40x5"]
    right = int(found.outcomes["pgd-40x5"].sum())
    interval = binomtest(right, 40).proportion_ci(0.95, "wilson")
    assert (row["accuracy"], row["low"], row["high"]) == pytest.approx((right / 40, *interval))


@pytest.mark.slow
def test_resumed_evaluation_keeps_its_evidence_and_refuses_another_models(
    images: asgt.Images, net: nn.Module, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    first = evaluate(net, images, protocol="paper", epsilons=[0.02], folder=folder)
    with pytest.raises(InputError, match="--resume"):
        evaluate(net, images, protocol="paper", epsilons=[0.02], folder=folder)

    # One attack of six is gone, as after a kill: only that one is run again.
    (folder / "fgsm-00000.safetensors").unlink()
    (folder / "result.json").unlink()
    kept = (folder / "pgd-relative-00000.safetensors").stat().st_mtime_ns
    again = evaluate(net, images, protocol="paper", epsilons=[0.02], folder=folder, resume=True)
    assert all(torch.equal(first.outcomes[name], again.outcomes[name]) for name in first.outcomes)
    assert (folder / "pgd-relative-00000.safetensors").stat().st_mtime_ns == kept

    for change in ({"epsilons": [0.03]}, {"seed": 1}):
        with pytest.raises(InputError) as refused:
            evaluate(
                net, images, **({"protocol": "paper", "epsilons": [0.02], "folder": folder, "resume": True} | change)
            )
        assert_states(refused.value, folder, "settings", "--out")


def test_a_nan_withholds_the_number(images: asgt.Images) -> None:
    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(dim=1) * torch.nan] * 3, dim=1)

    with pytest.raises(InputError, match="NaN"):
        evaluate(Overflows(), images, protocol="pgd", epsilons=[0.1])


@pytest.mark.parametrize("grid", [[], [0.0], [-0.1], [float("nan")], [8.0]])
def test_a_grid_that_cannot_be_meant_is_refused(images: asgt.Images, net: nn.Module, grid: list[float]) -> None:
    with pytest.raises(InputError, match="eps"):
        evaluate(net, images, epsilons=grid)


def test_l2_has_its_protocol_and_the_papers_is_linf_only() -> None:
    assert protocol_named("pgd", "l2").searches[0].attacks[0].norm == "l2"
    with pytest.raises(InputError) as refused:
        protocol_named("paper", "l2")
    assert_states(refused.value, "paper", "L∞", "l2", "--protocol")
    with pytest.raises(InputError) as refused:
        protocol_named("pdg")
    assert_states(refused.value, "pdg", "autoattack", "paper", "pgd", "standard")


def test_protocols_are_what_the_design_fixes() -> None:
    [search] = PROTOCOLS["pgd"].searches
    assert search.at(0.1) == PGD(0.1, steps=40, alpha=None, restarts=5)
    paper = {search.name: search.at(0.2) for search in PROTOCOLS["paper"].searches}
    assert paper["fgsm"] == FGSM(0.2)
    assert paper["pgd-constant-rs"] == PGD(0.2, steps=10, alpha=2 / 255)
    assert paper["pgd-constant"] == replace(paper["pgd-constant-rs"], random_start=False)
    assert paper["mifgsm-relative"].alpha == pytest.approx(0.05)


def test_collapse_is_one_class_for_half_the_images_but_fairly_with_few_classes() -> None:
    ten = torch.arange(100) % 10
    assert is_collapsed(torch.zeros(100, dtype=torch.int64), ten)
    assert not is_collapsed(ten, ten)
    half = ten.clone()
    half[:50] = 3
    assert is_collapsed(half, ten)

    two = torch.arange(100) % 2
    assert not is_collapsed(two, two), "half of the images is fair for two classes"
    assert is_collapsed(torch.ones(100, dtype=torch.int64), two)


@pytest.mark.parametrize(
    ("fgsm", "pgd", "dead"),
    [(0.88, 0.0, True), (0.86, 0.79, False), (0.05, 0.0, False), (0.6, 0.35, False), (0.5, 0.2, True)],
)
def test_catastrophic_overfitting_is_high_under_one_step_and_low_under_several(
    fgsm: float, pgd: float, dead: bool
) -> None:
    assert is_catastrophic(fgsm, pgd) is dead


@pytest.mark.slow
def test_evidence_lies_in_shards_that_a_kill_leaves_whole(
    images: asgt.Images, net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asgt.evaluation import evaluator

    monkeypatch.setattr(evaluator, "SHARD", 16)
    whole = evaluate(net, images, protocol="pgd", epsilons=[0.02, 0.05], folder=tmp_path / "whole")
    names = [f"pgd-40x5-{number:05d}.safetensors" for number in range(3)]
    assert sorted(path.name for path in (tmp_path / "whole").glob("*.safetensors")) == ["labels.safetensors", *names]
    assert load_evaluation(tmp_path / "whole").to_dict() == whole.to_dict()

    # Killed in the second shard: the first stays as it is, and the end is the same, whatever the batch size.
    attacked, calls = evaluator.smallest_norms, []

    def killed(*words: object, **settings: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attacked(*words, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluator, "smallest_norms", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, images, protocol="pgd", epsilons=[0.02, 0.05], folder=tmp_path / "killed")
    kept = (tmp_path / "killed" / names[0]).stat().st_mtime_ns
    monkeypatch.setattr(evaluator, "smallest_norms", attacked)
    again = evaluate(
        net, images, protocol="pgd", epsilons=[0.02, 0.05], folder=tmp_path / "killed", resume=True, batch_size=7
    )
    assert (tmp_path / "killed" / names[0]).stat().st_mtime_ns == kept
    assert torch.equal(again.outcomes["pgd-40x5"], whole.outcomes["pgd-40x5"])

    # A shard in another's place is not taken for it.
    (tmp_path / "whole" / names[0]).write_bytes((tmp_path / "whole" / names[1]).read_bytes())
    with pytest.raises(DamagedFileError) as refused:
        load_evaluation(tmp_path / "whole")
    assert_states(refused.value, tmp_path / "whole" / names[0], "damaged", "manifest.json")
    resealed(tmp_path / "whole")  # not even where the digests fit
    with pytest.raises(DamagedFileError) as refused:
        load_evaluation(tmp_path / "whole")
    assert_states(refused.value, tmp_path / "whole" / names[0], "damaged", "evidence")


@pytest.mark.slow
def test_where_attacks_below_a_failure_succeed_all_samples_are_attacked_at_every_eps(
    images: asgt.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asgt.evaluation import protocols

    # Always at the ball's corner, and fooled only between 0.05 and 0.11: what going down from above cannot see.
    corner = protocols.Search("corner", (asgt.PGD(0.0, steps=4, alpha=1.0, random_start=False),))
    weak = protocols.Protocol("pgd", 3, (corner,), worst_case=True, claim="none")
    monkeypatch.setitem(protocols.PROTOCOLS, "pgd", weak)
    grey = asgt.Images(
        torch.full((100, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64), ("a", "b")
    )
    epsilons = [0.02, 0.06, 0.1, 0.2, 0.4]

    found = evaluate(Band(), grey, protocol="pgd", epsilons=epsilons, folder=tmp_path / "e")
    assert found.outcomes["corner"].sum(dim=1).tolist() == [100, 0, 0, 0, 0]
    assert found.cost("corner")["missed"] == 100
    assert not found.exhaustive
    assert load_evaluation(tmp_path / "e").to_dict() == found.to_dict()

    asked = evaluate(Band(), grey, protocol="pgd", epsilons=epsilons, exhaustive=True)
    assert torch.equal(asked.outcomes["corner"], found.outcomes["corner"])
    assert asked.exhaustive
