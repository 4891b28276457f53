"""A search in phases and what stands behind it: audits, the full search, and the evidence of both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import hypergeom
from torch import Tensor, nn

from asgt import APGD, PGD, AnnealedPGD, Foreign, Images, InputError, Protocol, Square
from asgt.attacks import Attack, LocalSquare, Norm, State
from asgt.evaluation import audited_search, discard_audit, evaluator, pieces
from asgt.evaluation.checks.discarded import check_discarded_images
from asgt.evaluation.curve import evaluate
from asgt.evaluation.discard_audit import RISKS, SPENT
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.phased import Phase, phased_norms
from asgt.evaluation.protocols import PROTOCOLS, PhasedSearch, Search
from asgt.evaluation.second_look import SecondLook
from asgt.evaluation.shards import load_evaluation
from asgt.files import read_sealed, read_tensors, write_tensors
from asgt.progress import SILENT
from asgt.runs.run import load_run, read_run
from support.curves import Band, Misled, Rows, band_images, rows_images, rows_radius, small_mlp
from support.edits import rewritten
from support.messages import assert_states

SHORT = tuple(AnnealedPGD(0.0, steps=5, loss=loss) for loss in ("margin", "ce"))
PHASES = (
    Phase("short", SHORT),
    Phase("again", SHORT, within=3),
    Phase("Square", (LocalSquare(0.0, steps=30),), within=1, from_best=True),
)
WEAK = (
    Phase("step", (AnnealedPGD(0.0, steps=1),)),
    Phase("again", (AnnealedPGD(0.0, steps=1),), within=0.1),
)
FULL: tuple[Attack, ...] = (PGD(0.0, steps=10), Square(0.0, steps=150))


def phased(phases: Sequence[Phase] = PHASES, *, audited: bool = True, attacks: tuple[Attack, ...] = FULL) -> Protocol:
    search = PhasedSearch("worst-case", attacks, phases=tuple(phases), audited=audited, title="mine")
    return Protocol("mine", 1, (search,), worst_case=True, claim="none")


def phased_in_l2(*phases: Phase) -> Protocol:
    search = PhasedSearch("worst-case", FULL, phases=PHASES, phases_in_l2=phases)
    return Protocol("mine", 1, (search,), worst_case=True, claim="none")


def real(*, audited: bool = True) -> Protocol:
    """The phases of the house, before a full search that takes less time."""

    (search,) = PROTOCOLS["standard"].searches
    assert isinstance(search, PhasedSearch)
    return Protocol("mine", 1, (replace(search, attacks=FULL, audited=audited),), worst_case=True, claim="none")


def alone(attacks: tuple[Attack, ...] = FULL) -> Protocol:
    """The full search as any worst case."""

    return Protocol("alone", 1, (Search("worst-case", attacks),), worst_case=True, claim="none")


def right(evaluation: Evaluation) -> Tensor:
    return evaluation.outcomes["worst-case"]


def check(evaluation: Evaluation) -> Any:
    (said,) = [check for check in evaluation.checks if check.name == "discarded images"]
    return said


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audited search runs on ten images or more."""

    monkeypatch.setattr(audited_search, "SMALLEST", 10)


@pytest.fixture
def wide(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits of few images that do not take all of them: a bound of thirty points will do."""

    monkeypatch.setattr(discard_audit, "POINT", 0.3)


class Noisy(nn.Module):
    """A model under a little noise."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + 0.01 * torch.randn(logits.shape)


class Changed(nn.Module):
    """A net behind or before a function."""

    def __init__(self, net: nn.Module, *, before: Callable[[Tensor], Tensor] | None = None, scale: float = 1) -> None:
        super().__init__()
        self.net, self.before, self.scale = net, before, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x if self.before is None else self.before(x))
        return logits * self.scale


# ---------------------------------------------------------------------------------------------------------------------
# The full search alone
# ---------------------------------------------------------------------------------------------------------------------


def test_of_few_images_the_full_search_runs_alone() -> None:
    model, data = small_mlp(0, 20)
    epsilons = [0.02, 0.05, 0.1]
    ours = evaluate(model, data, protocol=phased(), epsilons=epsilons)
    assert torch.equal(right(ours), right(evaluate(model, data, protocol=alone(), epsilons=epsilons)))
    told = ours.discards["worst-case"]
    assert (told.full, told.rounds, told.bound, told.discarded) == (True, 0, 0.0, 0)
    assert_states(told.reason, "200", "images")
    assert [phase.samples for phase in told.phases[:-1]] == [0] * (len(PHASES) + 2)
    assert told.phases[-1].samples > 0
    assert check(ours).verdict == "PASS"
    assert_states(check(ours).evidence, "20", "200")


def test_where_every_eps_is_asked_for_the_full_search_runs_alone(few: None) -> None:
    model, data = small_mlp(0, 20)
    for audited in (True, False):
        asked = {"epsilons": [0.02, 0.05, 0.1], "exhaustive": True}
        ours = evaluate(model, data, protocol=phased(audited=audited), **asked)  # type: ignore[arg-type]
        theirs = evaluate(model, data, protocol=alone(), **asked)  # type: ignore[arg-type]
        assert torch.equal(right(ours), right(theirs))
        for name in ("norms", "tested", "missed", "gradients", "audit"):
            assert torch.equal(ours.details["worst-case"][name], theirs.details["worst-case"][name]), name
        told = ours.discards["worst-case"]
        assert told.full
        assert_states(told.reason, "ε")
        assert check(ours).verdict == "PASS"


@pytest.mark.slow
def test_a_model_that_is_not_deterministic_is_searched_in_full_or_fails(few: None) -> None:
    honest = Rows(3)
    data = rows_images(honest, 30)
    exact = rows_radius(honest, data, "linf")
    clear = (exact - 0.02).abs() > 2e-3
    ours = evaluate(Noisy(honest), data, protocol=phased(), epsilons=[0.02])
    assert ours.votes > 1
    assert torch.equal(right(ours)[0][clear], (exact > 0.02)[clear])
    assert ours.discards["worst-case"].full
    assert_states(ours.discards["worst-case"].reason, "not deterministic")
    assert not any(phase.samples for phase in ours.discards["worst-case"].phases[:-1])
    assert check(ours).verdict == "WARN"

    quick = evaluate(Noisy(honest), data, protocol=phased(audited=False), epsilons=[0.02])
    assert not quick.discards["worst-case"].full
    assert check(quick).verdict == "FAIL"
    assert_states(check(quick).evidence, "not deterministic")


@pytest.mark.parametrize("smallest", [10, 200])
def test_where_attacks_below_a_failure_succeed_every_image_is_attacked_at_every_eps(
    smallest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audited_search, "SMALLEST", smallest)
    # Always at the ball's corner, and fooled only between 0.05 and 0.11: what going down from above cannot see.
    corner: tuple[Attack, ...] = (PGD(0.0, steps=4, alpha=1.0, random_start=False),)
    data, epsilons = band_images(70), [0.02, 0.06, 0.1, 0.2, 0.4]
    theirs = evaluate(Band(), data, protocol=alone(corner), epsilons=epsilons)
    assert right(theirs).sum(dim=1).tolist() == [70, 0, 0, 0, 0]

    protocol = phased((Phase("corner", corner),), attacks=corner)
    ours = evaluate(Band(), data, protocol=protocol, epsilons=epsilons, folder=tmp_path / "e")
    assert torch.equal(right(ours), right(theirs))
    assert ours.discards["worst-case"].full
    assert load_evaluation(tmp_path / "e").to_dict() == ours.to_dict()
    said = {check.name: check for check in ours.checks}
    assert_states(said["monotonicity"].remedy, "every sample at every ε")

    # Without the full search nothing is attacked at every ε, and nothing says so.
    quick = evaluate(Band(), data, protocol=phased(protocol.searches[0].phases, audited=False), epsilons=epsilons)  # type: ignore[attr-defined]
    assert check(quick).verdict == "FAIL"
    (remedy,) = [check.remedy for check in quick.checks if check.name == "monotonicity"]
    assert_states(remedy, "--protocol standard")


class ZeroBand(nn.Module):
    """No gradient, and fooled only where most pixels are moved by 0.05 to 0.11."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        away = (x - 0.5).abs().flatten(1)
        hit = ((away > 0.05) & (away < 0.11)).float().mean(dim=1) > 0.8
        return self.one * torch.stack([1 - 2 * hit.float(), 0 * hit], dim=1) + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def test_a_full_search_after_the_phases_tests_below_its_failures_too(few: None, tmp_path: Path) -> None:
    data = Images(torch.full((40, 1, 6, 6), 0.5), torch.zeros(40, dtype=torch.int64), ("a", "b"))
    asked: dict[str, Any] = {"epsilons": [0.02, 0.06, 0.1, 0.2, 0.4]}
    theirs = evaluate(ZeroBand(), data, protocol=alone(), **asked)
    assert right(theirs).sum(dim=1).tolist() == [40, 0, 0, 0, 0]
    ours = evaluate(ZeroBand(), data, protocol=phased(), folder=tmp_path / "e", **asked)
    assert torch.equal(right(ours), right(theirs))
    told = ours.discards["worst-case"]
    assert told.full
    assert_states(told.reason, "gradients")
    assert list((tmp_path / "e").glob("worst-case.below-*"))
    read = load_evaluation(tmp_path / "e")
    assert torch.equal(right(read), right(ours))
    assert read.to_dict() == ours.to_dict()


def test_what_too_many_images_of_an_audit_show_is_not_thinned_out_by_the_others() -> None:
    """One of 64 images of the audit breaks below its failure; none of the 64 that the phases tested does."""

    (search,) = PROTOCOLS["standard"].searches
    assert isinstance(search, PhasedSearch)
    count = 800
    calls: list[tuple[str, int, bool]] = []

    def piece(rows: Tensor, missed: int, number: int) -> dict[str, Tensor]:
        outcome = torch.zeros(len(rows), dtype=torch.int64)
        told = {name: outcome.clone() for name in ("gradients", "forwards", "audit", "illegal", "blind", "found_by")}
        told |= {name: torch.zeros(len(search.phases) + 3, len(rows), dtype=torch.int64) for name in pieces.PHASED_ROWS}
        told |= {name: (torch.arange(len(rows)) < n).long() for name, n in (("tested", 64), ("missed", missed))}
        told |= {"rows": rows, "discarded": outcome - 1, "audited": outcome + number, "clean": outcome == 0}
        told["correct"] = torch.ones(2, len(rows), dtype=torch.bool)
        return told | {name: torch.full((len(rows),), torch.inf) for name in ("norms", "distance")}

    def in_full(stem: str, rows: Tensor, known: Any, number: int, everywhere: bool) -> dict[str, Tensor]:
        calls.append((stem, len(rows), everywhere))
        return piece(rows, 1 if number == 1 else 0, number)

    asked = audited_search.Request(
        protocol=PROTOCOLS["standard"], norm="linf", epsilons=(0.1, 0.2), seed=0, model="", data="", classes=10
    )
    making = (lambda stem, rows, known, number: piece(rows, 0, 0)), in_full, (lambda line: None)
    _, told = audited_search.AuditedSearch(search, asked, count, *making).spent()
    assert told.full
    assert_states(told.reason, "1 of 64", "smaller ε")
    nearest, audit, rest = calls
    assert not nearest[2]
    assert not audit[2]
    assert audit[1] > nearest[1] == 12  # of 800
    assert rest[1:] == (count, True)


def test_of_two_searches_the_check_says_the_worse() -> None:
    data, model = Images(torch.full((40, 1, 6, 6), 0.5), torch.zeros(40, dtype=torch.int64), ("a", "b")), ZeroBand()
    evaluation = evaluate(model, data, protocol=phased(audited=False), epsilons=[0.02])
    worse = evaluation.discards["worst-case"]
    assert worse.reason
    better = replace(worse, reason="")
    for discards in ({"a": worse, "b": better}, {"a": better, "b": worse}):
        found = check_discarded_images(SecondLook(model, data, replace(evaluation, discards=discards), False, 40))
        assert found is not None
        assert found.verdict == "FAIL"


# ---------------------------------------------------------------------------------------------------------------------
# Gradients that mislead
# ---------------------------------------------------------------------------------------------------------------------


def trained(data: Images, eps: float, before: Callable[[Tensor], Tensor] | None) -> nn.Module:
    """A small net that knows its images, by adversarial training; the attack sees through what stands before it."""

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, len(data.classes)))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        x = data.pixels / 255
        for _ in range(80):
            images = PGD(eps, steps=2)(net, x, data.labels) if eps else x
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images if before is None else before(images)), data.labels).backward()
            optimizer.step()
    return Changed(net.eval(), before=before)


def rounded(x: Tensor) -> Tensor:
    return torch.round(x * 7) / 7


def with_nan_gradient(x: Tensor) -> Tensor:
    return x + (x - x.detach()).square().sqrt()


def two_blobs(count: int) -> Images:
    """Images whose left or right half is brighter by a quarter, under noise."""

    draw = torch.Generator().manual_seed(7)
    labels = torch.arange(count) % 2
    pixels = 0.35 + 0.3 * torch.rand(count, 1, 6, 6, generator=draw)
    pixels[labels == 0, :, :, :3] += 0.12
    pixels[labels == 1, :, :, 3:] += 0.12
    return Images((pixels * 255).byte(), labels, ("left", "right"))


MISLEADING: dict[str, Callable[[Images], nn.Module]] = {
    "rounding": lambda data: trained(data, 0.0, rounded),
    "adversarially trained, rounding": lambda data: trained(data, 0.03, rounded),
    "large logits": lambda data: Changed(trained(data, 0.0, None), scale=1e4),
    "noise": lambda data: Noisy(trained(data, 0.0, None)),
    "NaN gradient": lambda data: trained(data, 0.0, with_nan_gradient),
    "backwards": lambda data: Misled(trained(data, 0.0, None)),
}


REASONS = {
    "large logits": ("gradients", "zero"),
    "noise": ("not deterministic",),
    "backwards": ("Square", "gradients did not"),
}


# In L2 the phases are others.
IN_L2 = ("adversarially trained, rounding", "large logits", "noise", "backwards")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "eps"), [*((name, "linf", 0.08) for name in MISLEADING), *((name, "l2", 0.4) for name in IN_L2)]
)
def test_where_gradients_mislead_the_full_search_runs_or_a_check_fails(
    few: None, name: str, norm: Norm, eps: float
) -> None:
    data = two_blobs(40)
    model = MISLEADING[name](data)
    reason = REASONS.get(name, ("100%", "gradients", "zero"))
    audited = evaluate(model, data, protocol=real().in_norm(norm), epsilons=[eps], norm=norm)
    told = audited.discards["worst-case"]
    assert (told.full, told.bound, told.discarded) == (True, 0.0, 0)
    assert_states(told.reason, *reason)
    assert check(audited).verdict == "WARN"
    assert_states(check(audited).evidence, "40", *reason)
    if name != "noise":
        full = evaluate(model, data, protocol=alone().in_norm(norm), epsilons=[eps], norm=norm)
        assert (right(audited) <= right(full)).all()

    quick = evaluate(model, data, protocol=real(audited=False).in_norm(norm), epsilons=[eps], norm=norm)
    assert (right(quick) >= right(audited)).all() or name == "noise"
    assert not quick.discards["worst-case"].full
    assert quick.discards["worst-case"].bound is None
    assert check(quick).verdict == "FAIL"
    assert_states(check(quick).evidence, *reason)
    assert_states(check(quick).remedy, "--protocol standard")


@pytest.mark.slow
def test_tiny_logits_change_nothing(few: None) -> None:
    data = two_blobs(24)
    net = trained(data, 0.0, None)
    asked: dict[str, Any] = {"protocol": real(), "epsilons": [0.03, 0.05]}
    plain, tiny = (evaluate(model, data, **asked) for model in (net, Changed(net, scale=1e-30)))
    assert 0 < right(plain).sum() < right(plain).numel()
    assert tiny.discards["worst-case"].full or torch.equal(right(tiny), right(plain))


# ---------------------------------------------------------------------------------------------------------------------
# Audits
# ---------------------------------------------------------------------------------------------------------------------


def square_only(steps: int = 300) -> tuple[Attack, ...]:
    return (Square(0.0, steps=steps),)


def test_an_audited_image_that_breaks_counts_as_broken(few: None) -> None:
    honest = Rows(2)
    model, data = Misled(honest), rows_images(honest, 32)
    ours = evaluate(model, data, protocol=phased(WEAK, attacks=square_only()), epsilons=[0.05])
    theirs = evaluate(model, data, protocol=alone(square_only()), epsilons=[0.05])
    told, details = ours.discards["worst-case"], ours.details["worst-case"]
    # Of so few images the audit takes all survivors, near ones too, and so leaves no doubt.
    assert (told.full, told.rounds, told.bound) == (False, 1, 0.0)
    assert told.audited == told.survivors >= told.discarded > 20
    broken = details["audited"] == -1
    assert told.broke == broken.sum() > 5
    assert not right(ours)[0][broken].any()
    assert (details["found_by"][broken] == 2).all()  # after the two attacks of the phases
    assert ours.first_to_break("worst-case")["Square"] == told.broke + told.nearest[1]
    drawn = details["audited"] != 0
    assert torch.equal(right(ours)[0][drawn], right(theirs)[0][drawn])
    # The number is right, but so many say that margins mislead.
    assert check(ours).verdict == "WARN"
    assert_states(check(ours).evidence, f"{told.broke} of {told.audited}", "0.00 points", "5%")


@pytest.mark.slow
def test_a_search_that_is_too_weak_is_widened_and_at_last_replaced(wide: None, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[tuple[int, float | None]] = []

    def noted(model: Any, images: Any, phases: Sequence[Phase], grid: Any, **words: Any) -> Any:
        searches.append((words["again"], phases[1].within))
        return phased_norms(model, images, phases, grid, **words)

    monkeypatch.setattr(evaluator, "phased_norms", noted)
    honest = Rows(2)
    model, data = Misled(honest), rows_images(honest, 80)
    said: list[str] = []

    class Heard(type(SILENT)):  # type: ignore[misc]
        def say(self, message: str) -> None:
            said.append(message)

    weak = (WEAK[0], replace(WEAK[1], within=2.0))
    protocol = phased(weak, attacks=square_only())
    ours = evaluate(model, data, protocol=protocol, epsilons=[0.02, 0.05], progress=Heard())
    theirs = evaluate(model, data, protocol=alone(square_only()), epsilons=[0.02, 0.05])
    told, audited = ours.discards["worst-case"], ours.details["worst-case"]["audited"]
    assert (told.full, told.rounds, told.bound, told.discarded) == (True, 2, 0.0, 0)
    assert_states(told.reason, "2 audits", "too many for a bound of 1 point")
    steps = [message.split(": ")[1] for message in said if "step" in message or "searched again" in message]
    (again,) = [place for place, step in enumerate(steps) if "broke" in step]
    assert steps[:again] == [f"audit 1, step {step}" for step in range(1, again + 1)]
    assert steps[again + 1 :] == [f"audit 2, step {step}" for step in range(1, len(steps) - again)]
    assert 0 < again < len(steps) - 1
    assert searches == [(0, 2.0), (1, 3.0)]
    # Each audit draws from what no other one attacked in full.
    sizes = [int((audited.abs() == number).sum()) for number in (1, 2)]
    assert min(sizes) > 0
    assert sum(sizes) < 80
    assert (audited < 0).any()
    assert (right(ours) <= right(theirs)).all()
    assert right(theirs).sum() > 0
    assert check(ours).verdict == "WARN"


@pytest.mark.slow
def test_an_audit_of_its_real_size_bounds_what_a_sound_search_overlooks() -> None:
    honest = Rows(3)
    data = rows_images(honest, 400)
    exact = rows_radius(honest, data, "linf")
    ours = evaluate(honest, data, protocol=phased(attacks=(PGD(0.0, steps=5),)), epsilons=[0.01, 0.02])
    told = ours.discards["worst-case"]
    assert not told.full
    assert told.discarded > told.audited > 0
    assert (told.broke, told.rounds) == (0, 1)
    assert told.bound is not None
    assert 0 < told.bound <= 0.01
    assert_states(check(ours).evidence, f"{100 * told.bound:.2f} points", f"{told.discarded} of 400")
    assert check(ours).verdict == "PASS"
    for row, eps in enumerate((0.01, 0.02)):
        too_high = int(right(ours)[row].sum()) - int((exact > eps).sum())
        assert 0 <= too_high <= 0.01 * 400


def stubbed(
    breaks_more: int, audit_breaks: Callable[[int, int], int]
) -> tuple[list[str], dict[str, Tensor], discard_audit.Discards]:
    """A search of 100 images of which 60 are discarded, and 40 were near and did not break.

    Args:
        breaks_more: how many of the samples that it attacks again a wider search breaks.
        audit_breaks: how many of the samples of an audit break, by its number and its step; of the nearest, step 0.
    """

    def piece(rows: Tensor, discarded: Tensor, audited: Tensor, broken: Tensor) -> dict[str, Tensor]:
        count = len(rows)
        nothing = torch.zeros(count, dtype=torch.int64)
        names = ("gradients", "forwards", "audit", "tested", "missed", "illegal", "blind", "found_by")
        return (
            dict.fromkeys(names, nothing)
            | dict.fromkeys(pieces.PHASED_ROWS, torch.zeros(5, count, dtype=torch.int64))
            | {"rows": rows, "discarded": discarded, "audited": audited}
            | {"distance": torch.full((count,), 1.0), "norms": torch.full((count,), torch.inf)}
            | {"correct": ~broken[None], "clean": torch.ones(count, dtype=torch.bool)}
        )

    (search,) = phased(WEAK).searches
    assert isinstance(search, PhasedSearch)
    made: list[str] = []

    def by_phases(stem: str, part: Tensor, known: Any, number: int) -> dict[str, Tensor]:
        made.append(stem)
        nothing = torch.zeros_like(part)
        if known is None:
            return piece(part, torch.where(part < 60, 1, -1), nothing, nothing.bool())
        return piece(part, nothing - 1, nothing, torch.arange(len(part)) < breaks_more)

    def in_full(stem: str, part: Tensor, known: Any, number: int, everywhere: bool) -> dict[str, Tensor]:
        made.append(stem)
        broken = torch.arange(len(part)) < (
            audit_breaks(number, int("0" if "nearest" in stem else stem[-1])) if number else len(part)
        )
        discarded = known["discarded"][part] if number else torch.full_like(part, -1)
        return piece(part, discarded, torch.where(broken, -number, number), broken)

    class Asked:
        exhaustive, votes, seed = False, 1, 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discard_audit, "POINT", 0.1)
        patch.setattr(audited_search, "WIDER", 1e3)
        backed = audited_search.AuditedSearch(search, Asked(), 100, by_phases, in_full, lambda _: None)  # type: ignore[arg-type]
        known, told = backed.spent()
    return made, known, told


def test_an_audit_in_which_images_break_is_not_settled_by_calling_the_others_near(few: None) -> None:
    # Of the first audit all break. The wider search breaks none of the others, which are near now: still no evidence.
    made, known, told = stubbed(0, lambda number, step: 100)
    assert made[:4] == ["worst-case", "worst-case.nearest", "worst-case.audit-1-1", "worst-case.wider-2"]
    assert made[-1] == "worst-case.full"
    assert told.full
    assert_states(told.reason, "2 audits", "too many for a bound of 1 point")
    assert not known["correct"].any()


def test_whoever_was_near_from_the_start_is_audited_too(few: None) -> None:
    made, known, told = stubbed(0, lambda number, step: 0)
    assert made == ["worst-case", "worst-case.nearest", "worst-case.audit-1-1"]
    assert (told.full, told.rounds, told.survivors, told.discarded, told.audited) == (False, 1, 98, 60, 27)
    assert told.nearest == (2, 0)
    assert (known["audited"][60:] > 0).any()
    assert (known["audited"][:60] > 0).any()
    # A tenth may break: with eleven of the 98, it is improbable that none of 27 does.
    assert told.bound == 0.1
    assert hypergeom.cdf(0, 98, 11, 27) <= SPENT[0] * RISKS[0] < hypergeom.cdf(0, 98, 11, 26)


def test_an_audit_in_which_an_image_breaks_goes_on_with_more(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # One of the two nearest breaks, one of the first step, one of the second, and none of the third.
    made, known, told = stubbed(60, lambda number, step: int(step < 3))
    assert made == ["worst-case", "worst-case.nearest", *(f"worst-case.audit-1-{step}" for step in (1, 2, 3))]
    assert (told.full, told.rounds, told.earlier, told.broke, told.survivors) == (False, 1, (), 2, 98)
    assert told.nearest == (2, 1)
    monkeypatch.setattr(discard_audit, "POINT", 0.1)
    assert told.audited == discard_audit.audit_sizes(98, 100, RISKS[0])[2]
    assert told.bound == 0.1
    # None is attacked twice, and a break of the first step is not forgotten.
    assert int((known["audited"] != 0).sum()) == told.audited + 2
    assert int((~known["correct"]).sum()) == 3
    assert_states(told.told(100), "1 of the 2 nearest", f"2 of {told.audited} random ones of 98 others")


def test_a_wider_search_and_a_fresh_audit_settle_what_the_first_one_did_not(few: None) -> None:
    # Eight of the first audit break; the wider search breaks all others that were discarded; of the second none breaks.
    made, known, told = stubbed(60, lambda number, step: 8 if number == 1 else 0)
    assert made == [
        "worst-case",
        "worst-case.nearest",
        "worst-case.audit-1-1",
        "worst-case.wider-2",
        "worst-case.audit-2-1",
    ]
    assert (told.full, told.rounds, told.earlier, told.broke) == (False, 2, ((27, 8),), 0)
    left = int(pieces.unaudited(known).sum())
    assert told.survivors == left + told.audited
    # So many that none of them breaks with a probability of 0.3 %, if more than a tenth of all would.
    assert told.audited < told.survivors
    assert hypergeom.cdf(0, told.survivors, 11, told.audited) <= SPENT[0] * RISKS[1]
    assert hypergeom.cdf(0, told.survivors, 11, told.audited - 1) > SPENT[0] * RISKS[1]
    assert_states(told.told(100), "8 of 27", "earlier audit", f"0 of {told.audited}", f"{told.survivors} others")


# ---------------------------------------------------------------------------------------------------------------------
# Evidence
# ---------------------------------------------------------------------------------------------------------------------


class Case:
    """An evaluation into a folder that leaves evidence of every kind."""

    def __init__(self, kind: str) -> None:
        honest = Rows(2)
        self.model, self.data = Misled(honest), rows_images(honest, 80)
        self.protocol = phased((WEAK[0], replace(WEAK[1], within=2.0)), attacks=square_only(60))
        self.asked: dict[str, Any] = {"epsilons": [0.02, 0.05], "seed": 1}
        if kind == "alone":
            self.asked["exhaustive"] = True
        if kind == "quick":
            rounds = replace(PHASES[2], rounds=((10, 0.5), (20, 0.5)))
            self.protocol = phased((*WEAK, rounds), audited=False, attacks=square_only(60))

    def made(self, folder: Path | None, **words: Any) -> Evaluation:
        return evaluate(self.model, self.data, protocol=self.protocol, folder=folder, **self.asked, **words)


def same(first: Evaluation, second: Evaluation) -> None:
    assert torch.equal(first.clean, second.clean)
    for ours, theirs in (
        (first.outcomes, second.outcomes),
        *((told, second.details[name]) for name, told in first.details.items()),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, equal_nan=True)
    one, other = first.to_dict(), second.to_dict()
    for told in (one, other):
        told.pop("seconds")
    assert one == other


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".safetensors")}


KINDS = {
    "audits": {
        "",
        ".nearest",
        ".audit-1-1",
        ".audit-1-2",
        ".wider-2",
        *(f".audit-2-{step}" for step in range(1, 6)),
        ".full",
    },
    "alone": {".full"},
    "quick": {""},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_is_what_was_found_and_a_finished_evaluation_stays(
    kind: str, tmp_path: Path, wide: None
) -> None:
    case = Case(kind)
    found = case.made(tmp_path / "e")
    stems = {file.name.rsplit("-", 1)[0] for file in (tmp_path / "e").glob("*-*.safetensors")}
    assert stems == {f"worst-case{ending}" for ending in KINDS[kind]}
    read = load_evaluation(tmp_path / "e")
    same(read, found)
    assert read.to_dict() == found.to_dict()
    assert read.discards == found.discards
    assert str(read) == str(found)
    before = contents(tmp_path / "e")
    again = case.made(tmp_path / "e", resume=True)
    assert again.to_dict() == found.to_dict()
    assert contents(tmp_path / "e") == before
    same(case.made(None), found)  # and without a folder


@pytest.mark.slow
def test_whatever_a_kill_leaves_the_end_is_the_same(
    tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "SHARD", 64)  # 32 images of a search, and 8 of an audit or of the full search
    case = Case("audits")
    found = case.made(tmp_path / "e")
    kept = contents(tmp_path / "e")
    evidence = sorted(name for name in kept if name.endswith(".safetensors") and name != "labels.safetensors")
    assert {name.rsplit("-", 1)[0] for name in evidence} == {f"worst-case{ending}" for ending in KINDS["audits"]}
    assert len(evidence) > 9, "several shards of a piece"

    draws = torch.Generator().manual_seed(0)
    subsets = [[name] for name in (evidence[0], evidence[-1])]
    subsets += [[name for name in evidence if torch.rand(1, generator=draws) < share] for share in (0.3, 0.7)]
    for lost in subsets:
        for name in ["result.json", *lost]:
            (tmp_path / "e" / name).unlink()
        same(case.made(tmp_path / "e", resume=True), found)
        now = {name: data for name, data in contents(tmp_path / "e").items() if name in evidence}
        assert now.keys() == set(evidence)
        # What was not lost was not written again.
        assert {name for name, data in now.items() if data != kept[name]} <= set(lost)
        same(load_evaluation(tmp_path / "e"), found)
        kept = contents(tmp_path / "e")


@pytest.mark.slow
def test_stopped_after_any_image_it_goes_on_to_the_same_end(
    tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "SHARD", 64)
    case = Case("audits")
    found = case.made(None)

    class Stops(type(SILENT)):  # type: ignore[misc]
        def __init__(self, calls: int) -> None:
            self.left = calls

        def advance(self, parts: int = 1, **values: float) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    stops = 0
    for calls in itertools.chain((0, 1, 4), itertools.count(12, 12)):
        try:
            ended = case.made(tmp_path / "e", resume=True, progress=Stops(calls))
            break
        except KeyboardInterrupt:
            stops += 1
            assert not (tmp_path / "e" / "result.json").exists()
    assert stops > 4
    same(ended, found)
    same(load_evaluation(tmp_path / "e"), found)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", ".nearest", ".audit-1-1", ".audit-2-2", ".wider-2", ".full"])
def test_a_damaged_piece_is_made_anew_with_a_warning(ending: str, tmp_path: Path, wide: None) -> None:
    case = Case("audits")
    found = case.made(tmp_path / "e")
    file = tmp_path / "e" / f"worst-case{ending}-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged"):
        load_evaluation(tmp_path / "e")
    warned: list[str] = []

    class Heard(type(SILENT)):  # type: ignore[misc]
        def warn(self, message: str) -> None:
            warned.append(message)

    same(case.made(tmp_path / "e", resume=True, progress=Heard()), found)
    (said,) = warned
    assert_states(said, file, "attacked again")
    same(load_evaluation(tmp_path / "e"), found)


@pytest.mark.parametrize("ending", ["", ".nearest", ".audit-1-1", ".audit-2-2", ".wider-2", ".full"])
def test_evidence_of_other_images_is_refused(ending: str, tmp_path: Path, wide: None) -> None:
    case = Case("audits")
    case.made(tmp_path / "e")
    for name in ("manifest.json", "result.json"):
        (tmp_path / "e" / name).unlink()
    file = tmp_path / "e" / f"worst-case{ending}-00000.safetensors"
    tensors, metadata = read_tensors(file)
    others = sorted(set(range(80)) - set(tensors["rows"].tolist()))
    tensors["rows"][0] = others[-1] if others else 1
    write_tensors(file, tensors, metadata)
    with pytest.raises(InputError) as refused:
        case.made(tmp_path / "e", resume=True)
    assert_states(refused.value, file, "other images", "--out")


# ---------------------------------------------------------------------------------------------------------------------
# Without the audit, and of one's own
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_quick_protocol_claims_nothing() -> None:
    model = Rows(3)
    data = rows_images(model, 40)
    quick = evaluate(model, data, protocol="standard-quick", epsilons=[0.02])
    told = quick.discards["worst-case"]
    assert (told.full, told.audited, told.rounds, told.bound, told.reason) == (False, 0, 0, None, "")
    assert told.discarded > 0
    assert_states(str(quick.to_dict()["claim"]), "not a robustness claim", "audit")
    assert_states(str(quick), "not a robustness claim", f"{told.discarded} of 40", "none was audited")
    assert check(quick).verdict == "NOT RUN"
    assert_states(check(quick).evidence, f"{told.discarded} of 40", "none")
    assert_states(check(quick).remedy, "--protocol standard")
    # On a linear model nothing is overlooked all the same.
    exact = rows_radius(model, data, "linf")
    assert torch.equal(right(quick)[0], exact > 0.02)


@pytest.mark.parametrize("name", ["mine", "own"])
@pytest.mark.parametrize("kind", ["audits", "quick"])
def test_a_search_in_phases_of_ones_own_is_read_back_without_its_attacks(
    name: str, kind: str, tmp_path: Path, wide: None
) -> None:
    case = Case(kind)
    case.protocol = replace(case.protocol, name=name, version=3)
    found = case.made(tmp_path / "e")
    read = load_evaluation(tmp_path / "e")
    assert read.to_dict() == found.to_dict()
    assert (read.protocol.name, read.protocol.version, read.protocol.claim) == (name, 3, "none")
    (ours,), (theirs,) = case.protocol.searches, read.protocol.searches
    assert isinstance(theirs, PhasedSearch)
    assert isinstance(ours, PhasedSearch)
    assert theirs.described() == ours.among(2).described()
    assert [attack.title for attack in theirs.finders] == [attack.title for attack in ours.finders]
    assert [(p.name, p.within, p.from_best, p.if_breaking, p.rounds) for p in theirs.phases] == [
        (p.name, p.within, p.from_best, p.if_breaking, p.rounds) for p in ours.phases
    ]
    assert theirs.audited is ours.audited
    assert repr(read.protocol) == repr(case.protocol)
    assert read.first_to_break("worst-case") == found.first_to_break("worst-case")
    with pytest.raises(InputError) as refused:
        evaluate(case.model, case.data, protocol=read.protocol, **case.asked)
    assert_states(refused.value, "record", "asgt.evaluate")

    # It is taken up by the same definition, and by no other one.
    same(case.made(tmp_path / "e", resume=True), found)
    (search,) = case.protocol.searches
    assert isinstance(search, PhasedSearch)
    weaker = (search.phases[0], replace(search.phases[1], within=0.5))
    case.protocol = replace(case.protocol, searches=(replace(search, phases=weaker),))
    with pytest.raises(InputError) as refused:
        case.made(tmp_path / "e", resume=True)
    assert_states(refused.value, tmp_path / "e" / "result.json", "other settings", "--out")
    (tmp_path / "e" / "result.json").unlink()
    with pytest.raises(InputError, match="other settings"):
        case.made(tmp_path / "e", resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda search: search.pop("audited"),
        lambda search: search["phases"].clear(),
        lambda search: search["phases"][1].update(within="near"),
        lambda search: search["phases"][0].pop("attacks"),
        lambda search: search["phases"].pop(),
        lambda search: search.pop("phases"),
    ],
)
def test_a_damaged_record_of_phases_is_refused(
    damage: Callable[[dict[str, Any]], object], tmp_path: Path, wide: None
) -> None:
    Case("quick").made(tmp_path / "e")
    path = tmp_path / "e" / "result.json"
    result = read_sealed(path)[0]
    damage(result["own"]["searches"][0])
    rewritten(path, result)
    with pytest.raises(InputError) as refused:
        load_evaluation(tmp_path / "e")
    assert_states(refused.value, tmp_path / "e", "damaged")


def test_a_record_that_denies_the_full_search_is_refused(tmp_path: Path, wide: None) -> None:
    """Its audits broke too many for a bound, so there is none to compute."""

    Case("audits").made(tmp_path / "e")
    path = tmp_path / "e" / "result.json"
    result = read_sealed(path)[0]
    assert result["discards"]["worst-case"]["full"]
    result["discards"]["worst-case"]["full"] = False
    rewritten(path, result)
    with pytest.raises(InputError) as refused:
        load_evaluation(tmp_path / "e")
    assert_states(refused.value, tmp_path / "e", "damaged")


def test_a_run_folder_holds_a_search_in_phases_of_ones_own(finished_run: Path, few: None) -> None:
    model, splits, _, _ = load_run(finished_run)
    data = splits.test[torch.arange(20)]
    protocol = replace(phased(WEAK, attacks=(PGD(0.0, steps=2),)), name="own")
    place = finished_run / "evaluation" / "own"
    found = evaluate(model, data, protocol=protocol, epsilons=[0.05], folder=place)
    run = read_run(finished_run)
    assert run.evaluations["own"].to_dict() == found.to_dict()
    assert run.evaluations["own"].discards == found.discards


class Whole(Foreign):
    """Another library's attack, which is called whole."""


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda: phased(()), ("no phase", "without attacks")),
        (lambda: phased((Phase("empty", ()),)), ("phase", "without attacks")),
        (lambda: phased((replace(PHASES[0], within=3.0),)), ("phase short", "first", "all")),
        (lambda: phased((replace(PHASES[0], from_best=True),)), ("phase short", "first")),
        (lambda: phased((replace(PHASES[0], if_breaking=0.5),)), ("phase short", "first")),
        (lambda: phased((replace(PHASES[0], rounds=((5, 0.5),)),)), ("phase short", "first")),
        *(
            (lambda rounds=rounds: phased((PHASES[0], replace(PHASES[2], rounds=rounds))), ("phase Square", "below 30"))
            for rounds in (((30, 0.5),), ((0, 0.5),), ((5, 0.5), (5, 0.5)), ((5, 0.0),), ((5, 1.5),))
        ),
        (
            lambda: phased((PHASES[0], Phase("again", (PGD(0.0, steps=5),), rounds=((2, 0.5),)))),
            ("phase again", "PGD", "rounds", "AnnealedPGD and Square"),
        ),
        (lambda: phased((Phase("often", (PGD(0.0, restarts=5),)),)), ("phase often", "5 restarts", "once")),
        (
            lambda: phased((*PHASES, Phase("whole", (Whole(0.0, made=lambda eps: lambda x, y: x, name="theirs"),)))),
            ("theirs", "phase whole", "step by step"),
        ),
        (lambda: replace(phased(attacks=FULL[:1]), worst_case=False), ("worst-case", "phases")),
        (
            lambda: phased_in_l2(Phase("again", SHORT, within=3)),
            ("phase again", "in L2", "first"),
        ),
        *(
            (lambda ending=ending: replace(phased(), searches=(Search(f"a.{ending}", FULL),)), (f"'a.{ending}'",))
            for ending in ("exhaustive", "full", "nearest", "audit-1-1", "wider-12")
        ),
    ],
)
def test_a_search_in_phases_that_cannot_run_is_refused(change: Callable[[], Protocol], facts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as refused:
        change()
    assert_states(refused.value, *facts)


def test_in_l2_the_phases_are_those_for_it_and_in_linf_they_leave_no_trace() -> None:
    other = (PHASES[0], Phase("towards", (AnnealedPGD(0.0, steps=5, loss="margin-targeted", target=1),), within=2))
    (plain,) = phased().searches
    both = replace(phased(), searches=(replace(plain, phases_in_l2=other),))
    assert (both, both.identity) == (phased(), phased().identity)

    (search,) = both.in_norm("l2").searches
    assert [phase.name for phase in search.phases] == ["short", "towards"]
    assert {attack.norm for attack in search.finders} == {"l2"}
    assert "target=1" in both.in_norm("l2").identity
    assert both.in_norm("l2").identity != phased().in_norm("l2").identity
    assert both.in_norm("l2").in_norm("l2") == both.in_norm("l2")
    # Whoever changes the phases in L2 gets those.
    fewer = replace(both.in_norm("l2"), searches=(replace(search, phases=search.phases[:1]),))
    assert fewer.in_norm("l2") == fewer
    (same,) = phased().in_norm("l2").searches
    assert [phase.name for phase in same.phases] == [phase.name for phase in PHASES]
    for key in ("standard", "standard-quick"):
        assert PROTOCOLS[key].in_norm("l2").is_house
        assert "runs towards four classes" in str(PROTOCOLS[key].in_norm("l2").searches)


def test_of_few_classes_targets_that_there_are_not_are_left_out_of_the_phases_too(few: None) -> None:
    model = Rows(3)
    data = rows_images(model, 30)
    targets = tuple(APGD(0.0, steps=5, loss="dlr-targeted", target=target) for target in range(1, 10))
    protocol = phased((Phase("targets", (AnnealedPGD(0.0, steps=5), *targets)),), attacks=targets)
    found = evaluate(model, data, protocol=protocol, epsilons=[0.02])
    exact = rows_radius(model, data, "linf")
    assert torch.equal(right(found)[0], exact > 0.02)
    assert found.discards["worst-case"].full is False


def test_phases_that_aim_at_classes_that_there_are_not_are_refused() -> None:
    far = Phase("far", (APGD(0.0, loss="dlr-targeted", target=5),))
    model = Rows(3)
    with pytest.raises(InputError) as refused:
        evaluate(model, rows_images(model, 20), protocol=phased((far,)), epsilons=[0.02])
    assert_states(refused.value, "mine", "3", "classes")


@pytest.mark.parametrize("place", [0, 1])
def test_an_attack_of_somebody_else_is_at_fault_for_what_it_does_in_a_phase(place: int, few: None) -> None:
    model = Rows(3)
    data = rows_images(model, 30)

    def searched(attack: Attack) -> Evaluation:
        phases = [Phase("short", SHORT), Phase("theirs", (attack,))]
        return evaluate(model, data, protocol=phased(phases if place else phases[::-1]), epsilons=[0.02])

    # NaN that an attack makes of an image is no NaN of the model, and breaks nothing.
    found = searched(NotANumber(0.0, steps=2))
    assert torch.equal(right(found)[0], rows_radius(model, data, "linf") > 0.02)
    with pytest.raises(InputError) as refused:
        searched(Raises(0.0, steps=2))
    assert_states(refused.value, "Raises", "ValueError", "no such thing")


@dataclass(frozen=True)
class NotANumber(Attack):
    """Leaves the numbers."""

    def step(self, state: State) -> State:
        return replace(state, x_adv=state.x_adv * torch.nan, iteration=state.iteration + 1)


@dataclass(frozen=True)
class Raises(Attack):
    """Fails."""

    def step(self, state: State) -> State:
        raise ValueError("no such thing")


def test_the_dlr_loss_of_a_phase_is_adapted_to_few_classes_too(few: None) -> None:
    for classes, verdict in ((3, "WARN"), (4, "PASS")):
        model = Rows(classes)
        protocol = phased((Phase("dlr", (AnnealedPGD(0.0, steps=5, loss="dlr-targeted"),)),), attacks=FULL[:1])
        found = evaluate(model, rows_images(model, 12), protocol=protocol, epsilons=[0.02])
        assert found.adapted is (classes == 3)
        (said,) = [check for check in found.checks if check.name == "classes for DLR"]
        assert said.verdict == verdict
