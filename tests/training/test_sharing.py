"""Forward passes that serve twice: the same loss, gradients and logits as the plain algorithm, for fewer passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from asgt.attacks import FGSM, MIFGSM, PGD
from asgt.models import build_model
from asgt.passes import Shared, modes_agree
from asgt.randomness import Generators
from asgt.saliency import SaliencyMask
from asgt.training.counting import bare_passes, replay, step_passes
from asgt.training.objectives import ASGT, AT, SGA, SGT, ST, TRADES, Objective

EPS = 0.06


def net(*between: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), *between, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten()
        )
        made.append(nn.Linear(4 * 16, 3))
    return made.double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(7, 2, 6, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 1])


class Flops(TorchDispatchMode):
    """The floating-point operations of convolutions and matrix products, as PyTorch counts them for each kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def streams() -> Generators:
    return Generators(attack=torch.Generator().manual_seed(5), mask=torch.Generator().manual_seed(6))


# ---------------------------------------------------------------------------------------------------------------------
# The plain algorithms: a forward pass for every question
# ---------------------------------------------------------------------------------------------------------------------


def plain_gradient(model: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """A whole backward pass in evaluation mode, of which the weights' part is thrown away."""

    mine = copy.deepcopy(model).eval()
    leaf = x.clone().requires_grad_()
    score(mine(leaf)).backward()
    assert leaf.grad is not None
    return leaf.grad


def plain_mask(model: nn.Module, x: Tensor, y: Tensor, target: str, noise: Tensor) -> Tensor:
    def score(logits: Tensor) -> Tensor:
        values = logits.log_softmax(dim=1) if target == "log_prob" else logits
        return sum((values[i, y[i]] for i in range(len(y))), start=torch.zeros((), dtype=x.dtype))

    size = plain_gradient(model, x, score).abs().mean(dim=1)
    masked = x.clone()
    for i in range(len(x)):
        order = size[i].flatten().argsort()[: int(0.25 * size[i].numel())]
        for rank, place in enumerate(order.tolist()):
            row, column = divmod(place, x.shape[3])
            low, high = x[i].amin(dim=(1, 2)), x[i].amax(dim=(1, 2))
            masked[i, :, row, column] = low + (high - low) * noise[i, :, rank]
    return masked


def plain_attack(model: nn.Module, x: Tensor, y: Tensor, steps: int, alpha: float) -> Tensor:
    x_adv = x
    for _ in range(steps):
        slope = plain_gradient(model, x_adv, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
        x_adv = (x + (x_adv + alpha * slope.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    return x_adv


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(dim=1).mean()


def noise_like(x: Tensor) -> Tensor:
    """Noise for a quarter of the pixels, from the least salient up."""

    pixels = int(0.25 * x[0, 0].numel())
    return torch.rand(*x.shape[:2], pixels, dtype=x.dtype, generator=torch.Generator().manual_seed(6))


Plain = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def plain_at(steps: int, alpha: float, clean_weight: float) -> Plain:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = {"adversarial": model(plain_attack(model, x, y, steps, alpha))}
        total = F.cross_entropy(logits["adversarial"], y)
        if clean_weight:
            logits["clean"] = model(x)
            total = total + clean_weight * F.cross_entropy(logits["clean"], y)
        return total, logits

    return loss


def plain_sgt(target: str, detach: bool) -> Plain:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        view = plain_mask(model, x, y, target, noise_like(x))
        clean, masked = model(x), model(view)
        total = F.cross_entropy(clean, y) + 1.7 * divergence(masked, clean.detach() if detach else clean)
        return total, {"clean": clean, "masked": masked}

    return loss


def plain_sga(target: str, detach: bool) -> Plain:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        masked = plain_attack(model, plain_mask(model, x, y, target, noise_like(x)), y, 1, EPS)
        clean, hidden = model(x), model(masked)
        total = F.cross_entropy(clean, y) + 1.7 * divergence(hidden, clean.detach() if detach else clean)
        return total, {"clean": clean, "masked": hidden}

    return loss


def plain_asgt(target: str, detach: bool, steps: int, alpha: float) -> Plain:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x_adv = plain_attack(model, x, y, steps, alpha)
        views = {"clean": x, "adversarial": x_adv, "masked": plain_mask(model, x_adv, y, target, noise_like(x))}
        logits = {name: model(view) for name, view in views.items()}
        clean = logits["clean"].detach() if detach else logits["clean"]
        total = F.cross_entropy(logits["clean"], y) + F.cross_entropy(logits["adversarial"], y)
        return total + 1.7 * divergence(logits["masked"], clean), logits

    return loss


def plain_trades(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    held = copy.deepcopy(model).eval()(x).softmax(dim=1).detach()
    x_adv = x + 0.001 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    x_adv = (x + (x_adv - x).clamp(-EPS, EPS)).clamp(0, 1)
    for _ in range(2):
        slope = plain_gradient(model, x_adv, lambda logits: (-held * logits.log_softmax(1)).sum())
        x_adv = (x + (x_adv + 0.03 * slope.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    clean, adversarial = model(x), model(x_adv)
    return F.cross_entropy(clean, y) + 6 * divergence(clean, adversarial), {"clean": clean, "adversarial": adversarial}


FAST, SLOW = FGSM(EPS), PGD(EPS, steps=3, alpha=0.03, random_start=False)


def mask(target: str) -> SaliencyMask:
    return SaliencyMask(0.25, target=target)  # type: ignore[arg-type]


# Passes where modes are apart, and where they agree. F = 1, to the images alone 1, to the weights as well 2; naive
# ASGT-FGSM is 3 (F + B) for the views and 2 (F + B) for attack and saliency, 15.
CASES: list[Any] = [
    pytest.param(ST(), None, 3, 3, id="st"),
    pytest.param(AT(FAST), plain_at(1, EPS, 0.0), 5, 5, id="at-fgsm"),
    pytest.param(AT(FAST, clean_weight=0.5), plain_at(1, EPS, 0.5), 8, 6, id="at-fgsm-clean"),
    pytest.param(AT(SLOW, clean_weight=0.5), plain_at(3, 0.03, 0.5), 12, 10, id="at-pgd-clean"),
    pytest.param(TRADES(PGD(EPS, steps=2, alpha=0.03)), plain_trades, 11, 10, id="trades"),
    pytest.param(SGT(mask=mask("logit"), weight=1.7), plain_sgt("logit", False), 8, 7, id="sgt"),
    pytest.param(SGT(mask=mask("log_prob"), weight=1.7), plain_sgt("log_prob", False), 8, 7, id="sgt-log_prob"),
    pytest.param(
        SGT(mask=mask("log_prob"), weight=1.7, detach_clean=True),
        plain_sgt("log_prob", True),
        *(8, 6),
        id="sgt-log_prob-detached",
    ),
    pytest.param(SGA(attack=FAST, mask=mask("logit"), weight=1.7), plain_sga("logit", False), 10, 9, id="sga-fgsm"),
    pytest.param(
        SGA(attack=FAST, mask=mask("log_prob"), weight=1.7, detach_clean=True),
        plain_sga("log_prob", True),
        *(10, 8),
        id="sga-fgsm-log_prob-detached",
    ),
    *[
        pytest.param(
            ASGT(attack=FAST, mask=mask(target), weight=1.7, detach_clean=detach),
            plain_asgt(target, detach, 1, EPS),
            *(13, shared),
            id=f"asgt-fgsm-{target}{'-detached' * detach}",
        )
        for target, detach, shared in [
            ("logit", False, 11),
            ("log_prob", False, 10),
            ("logit", True, 10),
            ("log_prob", True, 9),
        ]
    ],
    pytest.param(
        ASGT(attack=SLOW, mask=mask("logit"), weight=1.7), plain_asgt("logit", False, 3, 0.03), 17, 15, id="asgt-pgd"
    ),
]


@pytest.mark.parametrize("between", [(), (nn.BatchNorm2d(6),), (nn.Dropout(0.0),)], ids=["plain", "norm", "no-drop"])
@pytest.mark.parametrize(("objective", "plain", "apart", "shared"), CASES)
def test_shared_passes_change_no_loss_no_gradient_and_no_logits(
    objective: Objective, plain: Plain | None, apart: int, shared: int, between: tuple[nn.Module, ...]
) -> None:
    if plain is None:
        pytest.skip("nothing to share")
    model, (x, y) = net(*copy.deepcopy(between)), batch()
    theirs = copy.deepcopy(model)

    out = objective(model, x, y, generator=streams())
    out.loss.backward()
    loss, logits = plain(theirs, x, y)
    loss.backward()

    assert modes_agree(model) != any(isinstance(layer, nn.BatchNorm2d) for layer in between)
    torch.testing.assert_close(out.loss, loss, rtol=0, atol=1e-12)
    for name, mine in out.logits.items():
        torch.testing.assert_close(mine, logits[name], rtol=0, atol=1e-12)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-12)
    assert max(float(weight.grad.abs().max()) for weight in theirs.parameters()) > 1e-2  # type: ignore[union-attr]
    for mine, other in zip(model.buffers(), theirs.buffers(), strict=True):
        assert mine.sub(other).abs().max() < 1e-12


@pytest.mark.parametrize(("objective", "plain", "apart", "shared"), CASES)
def test_the_counting_model_counts_what_sharing_leaves(
    objective: Objective, plain: Plain | None, apart: int, shared: int
) -> None:
    assert step_passes(objective) == apart
    assert step_passes(objective, modes_agree=True) == shared


@pytest.mark.slow
@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize(("objective", "plain", "apart", "shared"), CASES)
def test_a_real_net_computes_no_more_than_was_counted(
    objective: Objective, plain: Plain | None, apart: int, shared: int, agree: bool
) -> None:
    """PyTorch's own count of floating-point operations, layer by layer, against the passes times those of a forward.

    The first layer gets no gradient to the images from a loss, so that the count is less by at most its share.
    """

    model, (x, y) = net(nn.Dropout(0.0 if agree else 0.3)), batch()
    first = Flops()
    with first, torch.no_grad():
        model(x)
    forward, stem = first.total, 2 * x[:, 0].numel() * model[0].weight.numel()

    step = Flops()
    with step:
        objective(model, x, y, generator=streams()).loss.backward()

    passes = shared if agree else apart
    # What no gradient to the images is computed for, of one stem each: every whole backward pass that came of the loss.
    views = len(objective(model, x, y, generator=streams()).logits)
    assert passes * forward - views * stem <= step.total <= passes * forward


def test_a_loss_goes_back_to_the_weights_alone() -> None:
    model, (x, y) = net(), batch()

    out = SGT(mask=mask("logit"))(model, x, y)
    counted, plain = Flops(), Flops()
    with counted:
        out.loss.backward()
    loss = model(x).sum() + model(x).sum()
    with plain:
        loss.backward()

    assert counted.total == plain.total


def test_images_that_want_a_gradient_get_it() -> None:
    """What makes the images may be trained as well."""

    model, (x, y) = net(), batch()
    x.requires_grad_()
    theirs = x.detach().clone().requires_grad_()

    AT(FAST, clean_weight=0.5)(model, x, y).loss.backward()
    (0.5 * F.cross_entropy(model(theirs), y)).backward()

    assert x.grad is not None
    torch.testing.assert_close(x.grad, theirs.grad, rtol=0, atol=1e-12)


def test_a_wrapper_of_lower_precision_loses_nothing_by_sharing() -> None:
    """Under autocast the pass itself is the same; its cross-entropy is summed in float32."""

    model, (x, y) = net().float(), batch()
    x = x.float()
    theirs = copy.deepcopy(model)
    objective = SGT(mask=mask("log_prob"), detach_clean=True)

    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, x, y, generator=streams()).loss
        x.requires_grad_()  # every question is asked anew
        plain = objective(theirs, x, y, generator=streams()).loss
    loss.backward()
    plain.backward()

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-6)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0.02, atol=1e-3)


def test_weights_that_are_frozen_stay_without_gradients() -> None:
    model, (x, y) = net(), batch()
    model[0].requires_grad_(False)
    theirs = copy.deepcopy(model)

    ASGT(attack=FAST, mask=mask("log_prob"), weight=1.7, detach_clean=True)(
        model, x, y, generator=streams()
    ).loss.backward()
    plain_asgt("log_prob", True, 1, EPS)(theirs, x, y)[0].backward()

    assert model[0].weight.grad is None
    for mine, other in zip(list(model.parameters())[2:], list(theirs.parameters())[2:], strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-12)


def test_terms_may_go_back_one_by_one_and_twice() -> None:
    model, (x, y) = net(), batch()
    weights = list(model.parameters())
    out = ASGT(attack=FAST, mask=mask("log_prob"), detach_clean=True)(model, x, y, generator=streams())

    parts = [torch.autograd.grad(term, weights, retain_graph=True) for term in out.terms.values()]
    whole = torch.autograd.grad(out.loss, weights, retain_graph=True)
    out.loss.backward()

    for *each, total, weight in zip(*parts, whole, weights, strict=True):
        torch.testing.assert_close(sum(each), total, rtol=0, atol=1e-12)
        torch.testing.assert_close(weight.grad, total, rtol=0, atol=1e-12)


def test_what_the_loss_goes_forward_through_may_be_a_wrapper() -> None:
    model, (x, y) = net(), batch()
    seen: list[Tensor] = []

    def wrapped(images: Tensor) -> Tensor:
        seen.append(images.detach().clone())
        return model(images)

    def loss(**options: Any) -> Tensor:
        objective = ASGT(attack=PGD(EPS, steps=3), mask=mask("logit"))
        return objective(model, x, y, generator=streams(), **options).loss

    assert torch.equal(loss(forward=wrapped), loss())
    # The three views, and none of the attack's iterates.
    assert len(seen) == 3
    assert any(torch.equal(images, x) for images in seen)


def test_another_terms_of_the_same_logits_gets_its_own_gradient() -> None:
    """A method of one's own that makes more of the logits than their cross-entropy is not cheated of it."""

    class Own(ASGT):
        def terms(self, logits: Any, y: Tensor) -> dict[str, Tensor]:
            return super().terms(logits, y) | {"size": logits["adversarial"].square().mean()}

    model, (x, y) = net(), batch()
    theirs = copy.deepcopy(model)

    Own(attack=FAST, mask=mask("log_prob"), weight=1.7)(model, x, y, generator=streams()).loss.backward()
    loss, logits = plain_asgt("log_prob", False, 1, EPS)(theirs, x, y)
    (loss + logits["adversarial"].square().mean()).backward()

    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-12)


def test_images_that_changed_meanwhile_are_asked_about_anew() -> None:
    model, (x, _) = net(), batch()
    shared = Shared(model, model, x, alone=False)
    with torch.no_grad():
        before = shared(x)
        x.add_(0.1)
        assert not torch.equal(shared(x), before)
        assert torch.equal(shared.logits(x), model(x))


# ---------------------------------------------------------------------------------------------------------------------
# Where modes agree
# ---------------------------------------------------------------------------------------------------------------------


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Quiet(Own):
    same_in_both_modes = True


@pytest.mark.parametrize(
    ("model", "agree"),
    [
        (net(), True),
        (net(nn.BatchNorm2d(6)), False),
        (net(nn.BatchNorm2d(6)).eval(), True),
        (net(nn.BatchNorm2d(6).eval()), False),  # Sequential.double() leaves it frozen; see below
        (net(nn.GroupNorm(2, 6)), True),
        (net(nn.Dropout(0.1)), False),
        (net(nn.Dropout(0.0)), True),
        (net(Own()), False),
        (net(Quiet()), True),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)), False),
        (nn.utils.spectral_norm(nn.Linear(3, 3)), False),
        (lambda x: x.flatten(1), False),
        (build_model("small_cnn", (1, 8, 8), 10, mean=[0.5], std=[0.5]), True),
        (build_model("alexnet", (1, 28, 28), 10, width=0.05), False),
        (build_model("alexnet", (1, 28, 28), 10, width=0.05, dropout=0.0), True),
        (build_model("resnet18", (3, 8, 8), 10, width=0.05), False),
    ],
)
def test_modes_agree_only_where_that_is_sure(model: Any, agree: bool) -> None:
    if isinstance(model, nn.Sequential) and any(isinstance(m, nn.BatchNorm2d) and not m.training for m in model):
        agree = True  # frozen: the same statistics in both modes
    assert modes_agree(model) == agree


@pytest.mark.parametrize(
    ("made", "asks"),
    [
        (lambda *batch: SLOW(*batch), 3),
        (lambda *batch: FAST(*batch), 1),
        (lambda *batch: mask("logit")(*batch), 1),
        (lambda *batch: mask("log_prob")(*batch), 1),
    ],
    ids=["pgd", "fgsm", "logit", "log_prob"],
)
def test_attacks_and_saliency_compute_no_gradient_of_a_weight(made: Callable[..., Tensor], asks: int) -> None:
    model, (x, y) = net(), batch()
    forward, counted = Flops(), Flops()
    with forward, torch.no_grad():
        model(x)

    with counted:
        made(model, x, y)

    assert counted.total == 2 * asks * forward.total
    assert all(weight.grad is None for weight in model.parameters())


def test_a_momentum_attack_uses_the_clean_forward_for_its_first_step() -> None:
    objective = AT(MIFGSM(EPS, steps=2), clean_weight=1.0)
    # 2 · (F + B) + 2 · (F + Bx) apart; the clean pass serves the first step, and its gradients come at once.
    assert (step_passes(objective), step_passes(objective, modes_agree=True)) == (10, 8)


# ---------------------------------------------------------------------------------------------------------------------
# Passes by themselves
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agree", [True, False])
@pytest.mark.parametrize(("objective", "plain", "apart", "shared"), CASES)
def test_a_replay_makes_the_passes_of_a_step(
    objective: Objective, plain: Plain | None, apart: int, shared: int, agree: bool
) -> None:
    model, (x, y) = net(nn.Dropout(0.0 if agree else 0.3)), batch()
    step, again = Flops(), Flops()
    with step:
        objective(model, x, y, generator=streams()).loss.backward()
    with again:
        replay(bare_passes(objective, modes_agree=agree), model, x)

    assert again.total == step.total
