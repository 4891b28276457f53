"""The checks of an evaluation: each on a model made to fail it, and all of them on one that has nothing to hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import asgt
from asgt import MIFGSM, PGD, Evaluation, Images, InputError
from asgt.attacks import APGD, Attack, AutoAttack
from asgt.evaluation.accuracy import correct, correct_under_attack
from asgt.evaluation.check import Check, checks_text
from asgt.evaluation.checks import run_checks
from asgt.evaluation.protocols import PROTOCOLS, Protocol, Search
from asgt.evaluation.second_look import SecondLook
from asgt.statistics import clopper_pearson
from support.curves import Band

GRID = (0.05, 0.1, 0.15, 0.2)
NAMES = (
    "budget reach",
    "legality",
    "determinism",
    "softmax outputs",
    "classes for DLR",
    "gradients at the start",
    "logit scale",
    "FGSM against the search",
    "monotonicity",
    "full range",
    "random noise",
    "square",
    "doubled effort",
    "catastrophic overfitting",
    "clean accuracy",
)


class Wrapped(nn.Module):
    """A net with something before it, and something after it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = torch.clone,
        after: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


class Score(nn.Module):
    """Two classes, logits (s, −s)/2 for a score s of the image: class 0 is right where s is above zero."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        return torch.stack([score, -score], dim=1) / 2


class Backwards(torch.autograd.Function):
    """The identity, whose gradient points the wrong way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


@pytest.fixture(scope="module")
def digits(digits_net: tuple[nn.Module, Tensor, Tensor]) -> tuple[nn.Module, Images]:
    net, x, y = digits_net
    return net, Images(x[:200], y[:200], tuple("0123456789"))


@pytest.fixture(scope="module")
def healthy(digits: tuple[nn.Module, Images]) -> Evaluation:
    return asgt.evaluate(*digits, protocol="pgd", epsilons=GRID)


def made(
    images: Images,
    protocol: Protocol,
    clean: Tensor,
    outcomes: dict[str, Tensor],
    grid: tuple[float, ...] = GRID,
    details: dict[str, dict[str, Tensor]] | None = None,
    norm: str = "linf",
) -> Evaluation:
    """An evaluation that found what it is told to have found."""

    return Evaluation(
        protocol=protocol,
        norm=norm,  # type: ignore[arg-type]
        epsilons=grid,
        seed=0,
        model="",
        data=images.digest(),
        classes=2,
        clean=clean,
        outcomes=outcomes,
        details=details or {},
    )


def alone(attack: Attack, *, worst_case: bool = False) -> Protocol:
    """A protocol of one attack."""

    return Protocol("alone", 1, (Search("alone", (attack,)),), worst_case, claim="none")


def survived(images: Images, attack: Attack, grid: tuple[float, ...]) -> Evaluation:
    """An evaluation by one attack that broke nothing."""

    everything = torch.ones(len(images), dtype=torch.bool)
    outcomes = {"alone": everything.expand(len(grid), -1)}
    return made(images, alone(attack), everything, outcomes, grid, norm=attack.norm)


def grey(count: int, size: int = 8, level: float = 0.5) -> Images:
    return Images(torch.full((count, 1, size, size), level), torch.zeros(count, dtype=torch.int64), ("a", "b"))


def check(name: str, model: nn.Module, images: Images, found: Evaluation, **settings: Any) -> Check:
    [it] = [check for check in run_checks(model, images, found, **settings) if check.name == name]
    assert (it.remedy == "") == (it.verdict == "PASS"), it
    assert it.samples == tuple(sorted(it.samples))[:16]
    return it


# A model with nothing to hide.


@pytest.mark.slow
def test_a_healthy_model_fails_nothing_and_the_dear_checks_say_that_they_did_not_run(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    assert 0.3 < healthy.outcomes["pgd-40x5"][2].float().mean() < 0.6, "no survivors, or none broken, tests nothing"
    checks = run_checks(*digits, healthy)
    assert tuple(check.name for check in checks) == NAMES
    verdicts = {check.name: check.verdict for check in checks}
    assert verdicts == dict.fromkeys(NAMES, "PASS") | dict.fromkeys(("square", "doubled effort"), "NOT RUN")
    assert checks_text(checks) == "13 pass, 0 warn, 0 fail, 2 not run: no failure detected"
    for name in ("square", "doubled effort"):
        assert "--thorough" in next(check.remedy for check in checks if check.name == name)

    assert run_checks(*digits, healthy, batch_size=7) == checks, "a check may not depend on the batches"


@pytest.mark.slow
def test_a_healthy_model_fails_no_thorough_check_and_comes_back_as_it_was(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    net = nn.Sequential(digits[0], nn.Dropout(0.5))
    checks = {check.name: check for check in run_checks(net, digits[1], healthy, thorough=True)}
    assert [check for check in checks.values() if check.verdict == "FAIL"] == []
    assert [name for name, check in checks.items() if check.verdict == "NOT RUN"] == []
    assert "PGD-80 × 10" in checks["doubled effort"].evidence
    assert "1,000 queries" in checks["square"].evidence
    assert [part.training for part in (net, *net)] == [True, False, True]


@pytest.mark.slow
def test_a_healthy_model_fails_nothing_in_l2(digits: tuple[nn.Module, Images]) -> None:
    found = asgt.evaluate(*digits, protocol="pgd", epsilons=(0.3, 0.6, 1.0), norm="l2")
    checks = run_checks(*digits, found)
    assert [check for check in checks if check.verdict in ("FAIL", "WARN")] == []
    assert "ε = 8" in next(check.evidence for check in checks if check.name == "full range")  # sqrt(64)


def test_the_examined_eps_leaves_nearest_to_half_and_of_two_alike_the_larger() -> None:
    images = grey(10)

    def level(clean: int, *left: int) -> int:
        outcomes = torch.stack([torch.arange(10) < count for count in left])
        found = made(images, alone(PGD(0.0)), torch.arange(10) < clean, {"alone": outcomes})
        return SecondLook(nn.Identity(), images, found, thorough=False, batch_size=8).level

    assert level(8, 8, 5, 1) == 1
    assert level(8, 6, 2, 0) == 1  # both are 2 from 4
    assert level(8, 8, 0, 0) == 0, "where nothing survives there is nothing to examine"
    assert level(6, 7, 10) == 1, "clean errors are no survivors, whatever the final iterate makes of them"


def test_where_nothing_survives_there_is_nothing_to_look_at_again(digits: tuple[nn.Module, Images]) -> None:
    found = asgt.evaluate(*digits, protocol="pgd", epsilons=[0.5])
    assert not found.outcomes["pgd-40x5"].any()
    verdicts = {check.name: check.verdict for check in run_checks(*digits, found, thorough=True)}
    idle = ("logit scale", "random noise", "square", "doubled effort")
    assert {verdicts[name] for name in idle} == {"NOT RUN"}
    assert verdicts["budget reach"] == "PASS"


def test_checks_are_of_the_images_that_were_evaluated(digits: tuple[nn.Module, Images], healthy: Evaluation) -> None:
    net, images = digits
    with pytest.raises(InputError, match="other images"):
        run_checks(net, images[torch.arange(200).flip(0)], healthy)


# Budget reach and legality.


@pytest.mark.slow
def test_constant_steps_that_cannot_cross_the_ball_fail(digits: tuple[nn.Module, Images]) -> None:
    found = asgt.evaluate(*digits, protocol="paper", epsilons=(0.03, 0.05, 0.3))
    it = check("budget reach", *digits, found)
    assert it.verdict == "FAIL"
    # 10 · 2/255 = 0.0784, and half of it after a random start, which may have to cross the whole ball.
    assert "pgd-constant-rs crosses 0.0392 at most, short of ε = 0.05, 0.3;" in it.evidence
    assert "pgd-constant crosses 0.0784 at most, short of ε = 0.3;" in it.evidence
    assert "relative" not in it.evidence

    within = asgt.evaluate(*digits, protocol="paper", epsilons=(0.03,))
    assert check("budget reach", *digits, within).verdict == "PASS"


@pytest.mark.parametrize(("level", "verdict"), [(0.5, "WARN"), (0.0, "PASS")])
def test_coordinates_that_the_attack_could_use_and_does_not_are_a_warning(level: float, verdict: str) -> None:
    # The score asks 16 of 64 pixels; the others stay where the random start puts them, of which 1 % reach 0.99 ε.
    # Where the image is black, only the pixels that are pushed below it can be stopped by the box.
    images = grey(80, level=level)
    used = torch.zeros(8, 8)
    used[:2] = 1
    if level == 0.0:
        used = used - 1  # 16 indifferent pixels, 48 that the attack makes brighter
    model = Score(lambda x: 10 + (x * used).flatten(1).sum(dim=1))
    it = check("budget reach", model, images, survived(images, PGD(0.0), (0.1,)))
    assert it.verdict == verdict
    share = int(it.evidence.split("uses ")[1].split("%")[0])
    # Of 64 free pixels 16 and 1 % of 48; of about 56 (half of the 16 lie at the box) 48.
    assert share == pytest.approx(25.8 if level else 85.8, abs=2)


def test_coordinates_that_the_box_stops_are_not_held_against_the_attack() -> None:
    # 48 of 64 pixels are black and pushed further down: no ε moves them. The other 16 reach ε.
    images = grey(80)
    images.pixels[:, :, 2:] = 0.0
    images.pixels[:, :, 1] = 0.1  # reaches ε and the box at once
    model = Score(lambda x: 20 + x.flatten(1).sum(dim=1))
    it = check("budget reach", model, images, survived(images, PGD(0.0), (0.1,)))
    assert (it.verdict, "uses 100%" in it.evidence) == ("PASS", True)


@pytest.mark.parametrize(("slope", "verdict", "share"), [(0.1, "PASS", "100%"), (0.0, "WARN", None)])
def test_l2_attacks_should_end_at_the_surface(slope: float, verdict: str, share: str | None) -> None:
    # Without a gradient PGD stays at a point of the ball, of which 1 − 0.99⁴ = 4 % of the volume lies at the surface.
    images = grey(80, size=2)
    model = Score(lambda x: 1 + slope * x.flatten(1).sum(dim=1))
    it = check("budget reach", model, images, survived(images, PGD(0.0, norm="l2"), (0.3,)))
    assert it.verdict == verdict
    if share is None:
        assert int(it.evidence.split(" on ")[1].split("%")[0]) < 15
    else:
        assert f"on {share} of the survivors" in it.evidence


@pytest.mark.slow
def test_outputs_that_left_the_ball_fail_and_are_named(digits: tuple[nn.Module, Images], healthy: Evaluation) -> None:
    illegal = torch.zeros(200, dtype=torch.int64)
    told = replace(healthy, details={"pgd-40x5": healthy.details["pgd-40x5"] | {"illegal": illegal}})
    it = check("legality", *digits, told)
    assert (it.verdict, "n = 200" in it.evidence) == ("PASS", True)

    illegal[[3, 77]] = torch.tensor([1, 4])
    it = check("legality", *digits, told)
    assert (it.verdict, it.samples) == ("FAIL", (3, 77))
    assert it.evidence.startswith("5 outputs of pgd-40x5 on 2 of 200 samples")


# What the model answers.


@pytest.mark.parametrize(
    "after", [lambda logits: F.dropout(logits, 0.3, training=True), lambda z: z + 0.05 * torch.randn_like(z)]
)
def test_a_model_that_answers_by_chance_fails(
    digits: tuple[nn.Module, Images], healthy: Evaluation, after: Callable[[Tensor], Tensor]
) -> None:
    net, images = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        it = check("determinism", Wrapped(net, after=after), images, healthy)
    assert it.verdict == "FAIL"
    assert "EOT" in it.remedy
    assert f"and {len(it.samples)} predictions flip" in it.evidence or len(it.samples) == 16


def test_a_model_whose_answers_depend_on_the_other_images_fails(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    net, images = digits
    model = Wrapped(net, before=lambda x: F.batch_norm(x, None, None, training=True))
    it = check("determinism", model, images, healthy)
    assert (it.verdict, "changes by up to 0 " in it.evidence, "half the size" in it.evidence) == ("FAIL", True, True)


@pytest.mark.slow
def test_probabilities_fail_and_log_probabilities_are_said(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    net, images = digits
    it = check("softmax outputs", Wrapped(net, after=lambda z: z.softmax(dim=1)), images, healthy)
    assert (it.verdict, "return logits" in it.remedy) == ("FAIL", True)
    it = check("softmax outputs", Wrapped(net, after=lambda z: z.log_softmax(dim=1)), images, healthy)
    assert (it.verdict, "log-probabilities" in it.evidence) == ("PASS", True)
    # Outputs that are above zero, but no probabilities.
    assert check("softmax outputs", Wrapped(net, after=torch.relu), images, healthy).verdict == "PASS"


def test_too_few_classes_are_told_where_the_loss_needs_four() -> None:
    images = grey(20)
    model = Score(lambda x: 1 + x.flatten(1).sum(dim=1))
    plain = survived(images, PGD(0.0), (0.1,))
    it = check("classes for DLR", model, images, plain)
    assert (it.verdict, "no attack here uses it" in it.evidence) == ("PASS", True)

    targeted = replace(plain, protocol=alone(APGD(0.0, loss="dlr-targeted")))
    ensemble = replace(plain, protocol=alone(AutoAttack(0.0)))
    for found in (targeted, ensemble):
        assert check("classes for DLR", model, images, found).verdict == "WARN"
    by_ce = replace(plain, protocol=alone(APGD(0.0)))
    assert check("classes for DLR", model, images, by_ce).verdict == "PASS"


@pytest.mark.slow
def test_clean_accuracy_by_chance_fails_and_normalisation_is_named(digits: tuple[nn.Module, Images]) -> None:
    net, images = digits
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = Images(images.pixels, images.labels[order], images.classes)
    found = asgt.evaluate(net, shuffled, protocol="pgd", epsilons=[0.1])
    assert 0 < found.clean.float().mean() < 0.2
    it = check("clean accuracy", net, shuffled, found)
    assert (it.verdict, "--mean" in it.remedy) == ("FAIL", True)


@pytest.mark.parametrize(("right", "verdict"), [(24, "FAIL"), (32, "PASS")])
def test_a_clean_accuracy_must_lie_above_chance_by_more_than_its_interval(right: int, verdict: str) -> None:
    # Of 40 images of two classes, 24 right are [44.6 %, 73.7 %] by Wilson, 32 are [65.2 %, 89.5 %].
    images = Images(torch.full((40, 1, 2, 2), 0.5), torch.arange(40) % 2, ("a", "b"))
    clean = torch.arange(40) < right
    found = made(images, alone(PGD(0.0)), clean, {"alone": clean[None]}, (0.1,))
    it = check("clean accuracy", Score(lambda x: x.flatten(1).sum(dim=1)), images, found)
    assert it.verdict == verdict
    assert ("[44.6%, 73.7%]" if verdict == "FAIL" else "[65.2%, 89.5%]") in it.evidence


# Gradients.


@pytest.mark.slow
def test_gradients_that_are_nan_fail(digits: tuple[nn.Module, Images]) -> None:
    # The root of a black pixel has the slope 1/0, and times nothing that is NaN; the logits stay what they are.
    net, images = digits
    model = Wrapped(net, before=lambda x: x + 0.0 * x.sqrt())
    assert torch.equal(model(images.pixels), net(images.pixels))
    found = asgt.evaluate(model, images, protocol="paper", epsilons=[0.07])
    it = check("gradients at the start", model, images, found)
    assert (it.verdict, "NaN or infinite at 64 of 64" in it.evidence) == ("FAIL", True)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.2)])
def test_only_what_lies_in_the_ball_and_the_box_and_gets_an_answer_breaks(norm: str, eps: float) -> None:
    images = grey(6, size=2)
    images.pixels[3] = 0.95
    everything = torch.ones(6, dtype=torch.bool)
    found = made(images, alone(PGD(0.0)), everything, {"alone": everything[None]}, (eps,), norm=norm)
    # Always wrong, and silent about images that begin with 0.45.
    score = Score(lambda x: torch.where((x[:, 0, 0, 0] - 0.45).abs() < 1e-6, torch.nan, -1.0))
    model = Wrapped(score, after=lambda z: torch.stack([z[:, 0].nan_to_num(), z[:, 1]], dim=1))
    look = SecondLook(model, images, found, thorough=False, batch_size=4)

    samples = look.taken(torch.arange(6))
    x_adv = samples.x + 0.1  # of L2 norm 0.2
    x_adv[1] = samples.x[1] + 0.101
    x_adv[2, 0, 0, 0] = torch.nan
    x_adv[4] = samples.x[4] - 0.05
    assert look.broken(samples, x_adv, eps).tolist() == [True, False, False, False, False, True]


@pytest.mark.slow
def test_no_gradient_fails_and_square_finds_what_it_hides(digits: tuple[nn.Module, Images]) -> None:
    net, images = digits[0], digits[1][:60]
    model = Wrapped(net, before=lambda x: (7 * x).round() / 7)
    found = asgt.evaluate(model, images, protocol="pgd", epsilons=GRID)
    checks = {check.name: check for check in run_checks(model, images, found, thorough=True)}
    it = checks["gradients at the start"]
    count = int(found.clean.sum())
    assert (it.verdict, f"margin are both zero at {count} of {count}" in it.evidence) == ("FAIL", True)

    it = checks["square"]
    assert it.verdict == "FAIL"
    broken, examined = (int(word) for word in it.evidence.split("breaks ")[1].split(" survivors")[0].split(" of "))
    right = found.clean & found.outcomes["pgd-40x5"]
    assert examined == right.sum(dim=1).min(), "all of them: the largest ε is nearest to half"
    assert broken > 0.2 * examined
    assert all(right[-1, row] for row in it.samples)


@pytest.mark.parametrize(("dead", "verdict"), [(1, "PASS"), (2, "FAIL")])
def test_one_image_without_a_gradient_is_no_finding(dead: int, verdict: str) -> None:
    images = grey(64)
    images.pixels[10 : 10 + dead] = 0.9  # where the score no longer rises
    model = Score(lambda x: x.flatten(1).mean(dim=1).clamp(max=0.7))
    it = check("gradients at the start", model, images, survived(images, PGD(0.0), (0.1,)))
    assert (it.verdict, it.samples) == (verdict, (10, 11) if verdict == "FAIL" else ())
    assert f"zero at {dead} of 64" in it.evidence


@pytest.mark.slow
def test_logits_that_drown_the_cross_entropy_hide_what_scaling_finds(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    net, images = digits
    model = Wrapped(net, after=lambda logits: 1e4 * logits)

    # The truth, by a search on the logits as they were, beside what PGD-40 alone makes of it.
    truth = float(healthy.outcomes["pgd-40x5"][2].float().mean())
    alone = float((correct_under_attack(model, images, PGD(0.15, steps=40)) & healthy.clean).float().mean())
    assert alone > truth + 0.2

    found = asgt.evaluate(model, images, protocol="paper", epsilons=(0.07, 0.15))
    checks = {check.name: check for check in run_checks(model, images, found)}
    it = checks["logit scale"]
    assert it.verdict == "FAIL"
    assert float(it.evidence.split(", ")[-1].split(" points")[0]) > 20
    # What it names breaks where the logits are as they were.
    x, y = images.pixels[list(it.samples)], images.labels[list(it.samples)]
    assert bool((net(PGD(0.15, steps=40, restarts=5)(net, x, y)).argmax(dim=1) != y).double().mean() > 0.9)
    it = checks["gradients at the start"]
    assert (it.verdict, "that of the margin is not" in it.evidence) == ("FAIL", True)

    # The search of pgd follows the margin: the number is right, and only the gradients are told.
    worst = asgt.evaluate(model, images, protocol="pgd", epsilons=GRID)
    assert abs(float(worst.outcomes["pgd-40x5"][2].float().mean()) - truth) < 0.05
    assert check("gradients at the start", model, images, worst).verdict == "WARN"


@pytest.mark.slow
@pytest.mark.parametrize(("black", "verdict"), [(30, "FAIL"), (48, "PASS")])
def test_a_model_that_is_right_on_any_image_fails(black: int, verdict: str) -> None:
    # The class is the first pixel, rounded: no gradient. A random start of any size moves it over 1/2 in a quarter of
    # the cases, which leaves three quarters. A constant answer leaves half of the images, or four fifths.
    labels = (torch.arange(60) >= black).long()
    images = Images(labels.float().view(60, 1, 1, 1).repeat(1, 1, 3, 3), labels, ("black", "white"))
    model = Score(lambda x: 1 - 2 * x[:, 0, 0, 0].round())
    found = asgt.evaluate(model, images, protocol="pgd", epsilons=[0.1, 0.3])
    assert found.outcomes["pgd-40x5"].all()
    it = check("full range", model, images, found)
    assert it.verdict == verdict
    left = int(it.evidence.split("full range: ")[1].split(" of 60")[0])
    assert 42 < left < 51
    assert len(it.samples) == (16 if verdict == "FAIL" else 0)

    honest = Score(lambda x: 1 - 2 * x[:, 0, 0, 0])
    assert check("full range", honest, images, asgt.evaluate(honest, images, epsilons=[0.1])).verdict == "PASS"


# What another attack breaks.


def ridge(x: Tensor) -> Tensor:
    """A score that falls with the brightness t, rises again from 0.05 to 0.1, and is below zero from 0.15 on."""

    t = x.flatten(1).mean(dim=1) - 0.5
    return torch.where(t < 0.05, 1 - 4 * t, torch.where(t < 0.1, 0.8 + 2 * (t - 0.05), 0.9 - 19 * (t - 0.1)))


@pytest.mark.slow
def test_what_one_step_breaks_and_many_do_not_fails() -> None:
    images = grey(40)
    found = asgt.evaluate(Score(ridge), images, protocol="paper", epsilons=(0.02, 0.3))
    left = {name: outcomes.sum(dim=1).tolist() for name, outcomes in found.outcomes.items()}
    assert left.pop("fgsm") == [40, 0]
    assert set(map(tuple, left.values())) == {(40, 40)}
    it = check("FGSM against the search", Score(ridge), images, found)
    assert (it.verdict, "breaks 40 that" in it.evidence, "ε = 0.3, 100.0 points" in it.evidence) == ("FAIL", True, True)
    assert it.samples == tuple(range(16))

    no_clean = replace(found, clean=torch.zeros(40, dtype=torch.bool))
    assert check("FGSM against the search", Score(ridge), images, no_clean).verdict == "PASS", (
        "clean errors do not count"
    )

    # A protocol that does not run one step is asked by one.
    search = PGD(0.3, steps=40, restarts=5)
    assert correct_under_attack(Score(ridge), images, search).all()
    several = survived(images, replace(search, eps=0.0), (0.02, 0.3))
    assert check("FGSM against the search", Score(ridge), images, several) == it

    one_step = replace(found.protocol, searches=found.protocol.searches[:1])
    assert (
        check("FGSM against the search", Score(ridge), images, replace(found, protocol=one_step)).verdict == "NOT RUN"
    )


@pytest.mark.parametrize(("near", "verdict"), [(0, "PASS"), (1, "WARN"), (2, "FAIL")])
def test_what_noise_breaks_and_a_misled_search_does_not_is_counted(near: int, verdict: str) -> None:
    # The score is linear of norm one: a corner at ε = 0.1 moves it by 0.1·z, z nearly normal, so that 20 draws cross
    # 0.02 but for one case in 10,000, and never 0.9. The gradient points away from the boundary.
    images = grey(50)
    scores = torch.full((50,), 0.9)
    scores[7 : 7 + near] = 0.02
    weights = torch.where(torch.arange(64) % 3 == 0, 1.0, -1.0).view(8, 8) / 8
    images.pixels.add_(scores.view(50, 1, 1, 1) * weights)
    model = Score(lambda x: ((Backwards.apply(x) - 0.5) * weights).flatten(1).sum(dim=1))

    found = asgt.evaluate(model, images, protocol="paper", epsilons=[0.1])
    assert all(outcomes.all() for outcomes in found.outcomes.values())
    it = check("random noise", model, images, found)
    assert (it.verdict, it.samples) == (verdict, tuple(range(7, 7 + near)))
    assert f"{2 * near}.0 points of the accuracy of 100.0%" in it.evidence


@pytest.mark.parametrize(("low", "high", "share"), [(0.099, 0.2, 1.0), (0.02, 0.08, 0.97)])
def test_noise_comes_from_the_corners_and_from_within(low: float, high: float, share: float) -> None:
    # One pixel. Ten of its corners lie at ±ε, but for one image in 1,000 not all below; of ten draws from within, which
    # fall between 0.02 and 0.08 above with a chance of 0.3, one does so on 1 − 0.7¹⁰ = 97 % of the images.
    images = grey(60, size=1)
    model = Score(
        lambda x: torch.where((x[:, 0, 0, 0] > 0.5 + low) & (x[:, 0, 0, 0] < 0.5 + high), -1.0, 1.0) + 0 * x.sum()
    )
    it = check("random noise", model, images, survived(images, PGD(0.0), (0.1,)))
    broken = int(it.evidence.split("breaks ")[1].split(" of 60")[0])
    assert (it.verdict, broken / 60) == ("FAIL", pytest.approx(share, abs=0.07))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "eps", "alpha"),
    [
        (Search("weak", (MIFGSM(0.0, steps=4, alpha=4 / 255),)), 0.15, 4 / 255),
        (Search("weak", (MIFGSM(0.0, steps=2),), "relative"), 0.25, 2.5 * 0.25 / 4),
    ],
)
def test_a_search_that_twice_the_steps_would_improve_fails(
    digits: tuple[nn.Module, Images], monkeypatch: pytest.MonkeyPatch, search: Search, eps: float, alpha: float
) -> None:
    monkeypatch.setitem(PROTOCOLS, "weak", Protocol("weak", 1, (search,), worst_case=False, claim="none"))
    net, images = digits
    found = asgt.evaluate(net, images, protocol="weak", epsilons=[eps])

    it = check("doubled effort", net, images, found, thorough=True)
    # The same by hand, on all samples that are left.
    [weak] = search.attacks
    steps = 2 * weak.steps
    doubled = MIFGSM(eps, steps=steps, alpha=alpha)(net, images.pixels, images.labels)
    left = found.clean & found.outcomes["weak"][0]
    lost = left & (net(doubled).argmax(dim=1) != images.labels)
    assert it.verdict == "FAIL"
    assert f"MI-FGSM-{steps} (α = {alpha:g}), breaks {int(lost.sum())} of {int(left.sum())} survivors" in it.evidence
    assert f"{lost.sum() / 2:.1f} points of the accuracy of {left.sum() / 2:.1f}%" in it.evidence, "of all 200 samples"
    assert it.samples == tuple(lost.nonzero().squeeze(1).tolist()[:16])

    # What the other checks have run already is told without asking for more.
    it = check("doubled effort", net, images, found)
    assert (it.verdict, "one more restart of PGD-40 breaks" in it.evidence) == ("FAIL", True)
    assert check("logit scale", net, images, found).verdict != "FAIL", "what is at fault is the effort"


def test_each_restart_starts_elsewhere() -> None:
    # No gradient, and a quarter of the starts break an image: of eight, all but 0.75⁸ = 10 % of the images have one.
    images = grey(200, size=1, level=0.0)
    model = Score(lambda x: 0.5 - x[:, 0, 0, 0].round())
    look = SecondLook(model, images, survived(images, PGD(0.0), (1.0,)), thorough=False, batch_size=64)
    broken = look.broken_by(PGD(0.0, steps=1, restarts=8), look.taken(torch.arange(200)), 1.0)
    assert float(broken.double().mean()) == pytest.approx(0.9, abs=0.05)


# What the outcomes say by themselves.


def test_an_accuracy_that_rises_with_eps_fails() -> None:
    images = Images(torch.full((40, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64), ("a", "b"))
    found = asgt.evaluate(Band(), images, protocol="paper", epsilons=(0.1, 0.3))
    assert found.outcomes["fgsm"].sum(dim=1).tolist() == [0, 40]
    it = check("monotonicity", Band(), images, found)
    assert (it.verdict, "under fgsm rises with ε by 100.0 points" in it.evidence) == ("FAIL", True)


@pytest.mark.slow
@pytest.mark.parametrize(("missed", "verdict"), [(0, "PASS"), (1, "PASS"), (2, "WARN")])
def test_what_breaks_below_an_eps_that_it_withstands_is_a_warning(
    digits: tuple[nn.Module, Images], healthy: Evaluation, missed: int, verdict: str
) -> None:
    tested, broke = torch.arange(200) < 100, torch.arange(200) < missed  # above 1 % of 100
    details = {"pgd-40x5": {"tested": 3 * tested.long(), "missed": 2 * broke.long()}}
    it = check("monotonicity", *digits, replace(healthy, details=details))
    assert (it.verdict, it.samples) == (verdict, tuple(range(missed)) if verdict == "WARN" else ())
    assert f"{missed} of 100 under pgd-40x5 (at most {clopper_pearson(missed, 100)[1]:.1%}" in it.evidence


@pytest.mark.slow
def test_where_nothing_was_attacked_below_its_failure_monotonicity_is_not_known(
    digits: tuple[nn.Module, Images], healthy: Evaluation
) -> None:
    untested = {"pgd-40x5": {name: torch.zeros(200, dtype=torch.int64) for name in ("tested", "missed")}}
    it = check("monotonicity", *digits, replace(healthy, details=untested))
    assert (it.verdict, "--exhaustive" in it.remedy) == ("NOT RUN", True)


def marks(*counts: int) -> Tensor:
    return torch.stack([torch.arange(200) < count for count in counts])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fgsm", "half", "rest", "verdict"),
    [
        (180, 150, 20, "WARN"),
        (180, 185, 170, "PASS"),
        (180, 150, 100, "PASS"),
        (120, 150, 20, "PASS"),
        (180, 160, 20, "PASS"),  # robust up to half of it: trained at about that
    ],
)
def test_high_under_one_step_and_low_under_several_is_a_warning(
    digits: tuple[nn.Module, Images], fgsm: int, half: int, rest: int, verdict: str
) -> None:
    searches = PROTOCOLS["paper"].searches
    outcomes = {search.name: marks(half, rest) for search in searches} | {"fgsm": marks(185, fgsm)}
    found = made(digits[1], PROTOCOLS["paper"], marks(190)[0], outcomes, (0.01, 0.02))
    it = check("catastrophic overfitting", *digits, found)
    assert it.verdict == verdict
    assert verdict == "PASS" or "90.0% under one step, 10.0% under several at ε = 0.02 (n = 200)" in it.evidence


@pytest.mark.slow
def test_one_step_is_tried_where_the_protocol_has_none(digits: tuple[nn.Module, Images]) -> None:
    net, images = digits
    clean = correct(net, images)[0]
    outcomes = {"pgd-40x5": marks(100, 20) & clean}
    found = made(images, PROTOCOLS["pgd"], clean, outcomes, (0.005, 0.01))
    it = check("catastrophic overfitting", net, images, found)

    fgsm = float((correct_under_attack(net, images, asgt.FGSM(0.01)) & clean).float().mean())
    pgd = float(outcomes["pgd-40x5"][1].float().mean())
    assert it.verdict == "WARN"
    assert it.evidence == f"{fgsm:.1%} under one step, {pgd:.1%} under several at ε = 0.01 (n = 200)"


# What a check is.


def test_the_words_name_what_failed_and_never_say_that_nothing_is_hidden() -> None:
    passed, failed = Check("a", "PASS", "fine"), Check("b", "FAIL", "not fine", "mend it")
    warned, idle = Check("c", "WARN", "hm", "look"), Check("d", "NOT RUN", "no samples", "more")
    assert checks_text((passed, passed, warned, idle)) == "2 pass, 1 warns, 0 fail, 1 not run: no failure detected"
    assert checks_text((passed, failed, replace(failed, name="e"))) == (
        "1 passes, 0 warn, 2 fail, 0 not run: failed: b, e"
    )
    assert checks_text((idle, idle)) == "no check was run"


def test_a_check_comes_back_from_its_plain_values() -> None:
    it = Check("a", "WARN", "hm", "look", (3, 5))
    values = it.to_dict()
    assert values == {"name": "a", "verdict": "WARN", "evidence": "hm", "remedy": "look", "samples": [3, 5]}
    assert Check.from_dict(values) == it


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "MAYBE"},
        {"name": 3},
        {"evidence": None},
        {"remedy": ["look"]},
        {"samples": "35"},
        {"samples": [True]},
        {"samples": [-1]},
        {"samples": [1.0]},
        {"verdict": ["PASS"]},
        {"more": 1},
    ],
)
def test_values_that_no_check_left_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"check|verdict|samples"):
        Check.from_dict(Check("a", "PASS", "fine").to_dict() | change)


@pytest.mark.parametrize("values", [None, [], {"name": "a"}])
def test_what_is_no_check_at_all_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="not a check"):
        Check.from_dict(values)
