"""Several attacks in one search, one attack's own curve, attacks of other libraries, AutoAttack, models that waver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt import APGD, FGSM, PGD, Foreign, Images, InputError, Square
from asgt.attacks import Attack, AutoAttack
from asgt.evaluation.curve import VOTES, evaluate
from asgt.evaluation.engine import smallest_norms
from asgt.evaluation.known import CLEAN, MARGIN, NOTHING
from asgt.evaluation.probing import PROBE_STEPS
from asgt.evaluation.protocols import EARLIER, PROTOCOLS
from asgt.files import read_json
from support.curves import GRID, Band, TwoClasses, band_images, images, smallest_by_hand
from support.edits import rewritten
from support.messages import assert_states

torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is the oracle (make test installs it)")
pyautoattack = pytest.importorskip("pyautoattack", reason="pyautoattack is the oracle (make test installs it)")

Net = tuple[nn.Module, Tensor, Tensor]
WEAK = PGD(0.0, steps=1, alpha=0.03, random_start=False)
STRONG = PGD(0.0, steps=10, random_start=False)


def right_after(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, grid: tuple[float, ...]) -> Tensor:
    """Which samples a plain loop leaves right at each ε, bool (E, N)."""

    clean = net(x).argmax(dim=1) == y
    return torch.stack([(net(replace(attack, eps=eps)(net, x, y)).argmax(dim=1) == y) & clean for eps in grid])


@pytest.mark.slow
def test_a_worst_case_is_no_better_than_each_attack_and_says_who_broke_what(digits_net: Net) -> None:
    net, x, y = (digits_net[0], digits_net[1][:80], digits_net[2][:80])
    data = Images(x, y, tuple("0123456789"))
    grid = (0.03, 0.06, 0.09, 0.12, 0.15)
    found = smallest_norms(net, data, [WEAK, STRONG, APGD(0.0, steps=20), Square(0.0, steps=100)], grid)
    for attack in (WEAK, STRONG):
        assert not (found.correct(5) & ~right_after(attack, net, x, y, grid)).any()

    wrong = net(x).argmax(dim=1) != y
    assert ((found.found_by == CLEAN) == wrong).all()
    assert ((found.found_by == NOTHING) == torch.isinf(found.norms)).all()
    broken = torch.isfinite(found.norms) & ~wrong
    assert {MARGIN} < set(found.found_by[broken].tolist()) <= {MARGIN, 0, 1, 2, 3}
    # Each attack fails once, however many come after it, and what survives them all pays for all of them.
    untouched = found.found_by == NOTHING
    assert untouched.any()
    assert (found.gradients[untouched] == PROBE_STEPS + 1 + 10 + 20).all()
    assert (found.floor[untouched] == 1 + 10 + 20).all()
    assert (found.floor <= found.gradients).all()


def test_an_attacks_own_curve_is_that_of_a_loop_over_the_grid() -> None:
    data = images(150, seed=3)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(1)) / 4
    model = TwoClasses(weight, -float(weight.sum()) / 2)
    x, y = data.pixels / 255, data.labels
    # Linear: what a step does grows with ε, so a loop's outcome falls and one ε* says it all.
    for attack in (FGSM(0.0), WEAK):
        [curve] = evaluate(model, data, protocol=attack, epsilons=GRID, worst_case=False).outcomes.values()
        assert torch.equal(curve, right_after(attack, model, x, y, GRID))
    worst = evaluate(model, data, protocol=WEAK, epsilons=GRID).outcomes["worst-case"]
    own = evaluate(model, data, protocol=WEAK, epsilons=GRID, worst_case=False).outcomes["pgd-1"]
    assert own.sum() > worst.sum(), "the step of 0.03 reaches less far than the probe"


def test_an_own_curve_costs_one_failure_and_one_success() -> None:
    data = replace(images(40, seed=9), labels=torch.ones(40, dtype=torch.int64))
    model = TwoClasses(torch.ones(16) / 16, -0.2)
    exact = smallest_by_hand(model, data)
    found = smallest_norms(model, data, [PGD(0.0, steps=10, random_start=False)], GRID, own=True)
    grid = torch.tensor(GRID, dtype=torch.float64)
    clear = ((exact[:, None] - grid).abs().amin(dim=1) > 1e-3) & (exact > 0.03) & (exact < 0.39)
    assert clear.sum() > 10
    assert torch.equal(found.levels[clear], torch.searchsorted(grid, exact)[clear])
    assert (found.gradients[clear] <= PROBE_STEPS + 20).all()
    assert (found.found_by[clear] == 0).all()


def test_going_up_finds_the_break_that_the_probe_saw_too_low() -> None:
    # One step of 0.03 from a sample whose ε* the probe puts at 0.02 fails at 0.02 and succeeds above it only in the
    # band from 0.05 to 0.11, which it never reaches: the search goes up to the end of the grid and says so.
    found = smallest_norms(Band(), band_images(4), [WEAK], GRID, own=True)
    assert (found.levels == len(GRID)).all()
    far = PGD(0.0, steps=1, alpha=0.06, random_start=False)
    assert (smallest_norms(Band(), band_images(4), [far], (0.02, 0.06, 0.4), own=True).levels == 1).all()


def test_several_attacks_have_no_curve_of_ones_own_together() -> None:
    with pytest.raises(InputError, match="2 attacks"):
        smallest_norms(Band(), band_images(2), [WEAK, STRONG], GRID, own=True)


def test_the_first_version_of_standard_is_what_its_design_fixed() -> None:
    [search] = EARLIER["standard@1"].searches
    assert search.attacks[0] == PROTOCOLS["pgd"].searches[0].attacks[0]
    assert search.attacks[1] == APGD(0.0, steps=100)
    assert search.attacks[-1] == Square(0.0, steps=5000)
    assert [attack.target for attack in search.attacks if getattr(attack, "loss", "") == "dlr-targeted"] == [
        *range(1, 10)
    ]
    for classes, targets in ((2, 1), (3, 2), (5, 4), (10, 9), (100, 9)):
        assert len(search.among(classes).attacks) == 3 + targets
        assert search.among(classes).adapted(classes) == (classes < 4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_standard_runs_with_two_classes(norm: str) -> None:
    data = images(12, seed=3)
    model = TwoClasses(torch.randn(16, generator=torch.Generator().manual_seed(1)) / 4, 0.0)
    short: list[Attack] = [PGD(0.0, steps=5), APGD(0.0, steps=10, loss="dlr-targeted"), Square(0.0, steps=50)]
    attacks = [replace(attack, norm=norm) for attack in short]  # type: ignore[arg-type]
    grid = GRID if norm == "linf" else (0.1, 1.0, 3.0)
    found = evaluate(model, data, protocol=attacks, epsilons=grid, norm=norm)  # type: ignore[arg-type]
    assert found.adapted
    accuracy = found.outcomes["worst-case"].double().mean(dim=1)
    assert accuracy[0] > accuracy[-1]


@pytest.fixture
def steps() -> Callable[[nn.Module], Callable[[float], object]]:
    """torchattacks' PGD without a random start, as a function of ε."""

    def of(net: nn.Module) -> Callable[[float], object]:
        return lambda eps: torchattacks.PGD(net, eps=eps, alpha=2.5 * eps / 10, steps=10, random_start=False)

    return of


@pytest.mark.slow
def test_an_attack_of_another_library_gives_the_curve_of_ours(
    digits_net: Net, steps: Callable[[nn.Module], Callable[[float], object]]
) -> None:
    net, x, y = digits_net[0], digits_net[1][:100], digits_net[2][:100]
    grid = [0.05, 0.1, 0.2]
    theirs = evaluate(
        net, (x, y), protocol=Foreign(0.0, made=steps(net), name="their PGD"), epsilons=grid, worst_case=False
    )
    ours = evaluate(net, (x, y), protocol=STRONG, epsilons=grid, worst_case=False)
    assert torch.equal(theirs.outcomes["their-pgd"], ours.outcomes["pgd-10"])
    assert 0.1 < theirs.outcomes["their-pgd"].double().mean() < 0.9
    # What it asked of the model that it holds itself cannot be counted.
    assert theirs.cost("their-pgd")["floor"] == 0


def test_an_attack_whose_eps_can_be_set_keeps_its_own(digits_net: Net) -> None:
    net, x, y = digits_net[0], digits_net[1][:40], digits_net[2][:40]
    theirs = torchattacks.FGSM(net, eps=0.7)
    found = evaluate(net, (x, y), protocol=theirs, epsilons=[0.05, 0.1], worst_case=False)
    assert theirs.eps == 0.7
    assert torch.equal(found.outcomes["fgsm"], right_after(FGSM(0.0), net, x, y, (0.05, 0.1)))


def test_foreign_noise_is_seeded_and_the_global_generator_left_alone(digits_net: Net) -> None:
    net, x, y = digits_net[0], digits_net[1][:40], digits_net[2][:40]

    def noisy(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    attack = Foreign(0.2, made=noisy)
    one, same, other = (attack(net, x, y, generator=asgt.SampleKeyed(seed, torch.arange(40))) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("answer", "illegal"),
    [
        (lambda x, eps: (x + 3 * eps).clamp(0, 1), True),
        (lambda x, eps: x + 0.9 * eps, True),  # out of the box, where the image is white
        (lambda x, eps: torch.full_like(x, torch.nan), True),
        (lambda x, eps: (x + eps).clamp(0, 1), False),
    ],
)
def test_what_leaves_the_ball_or_the_box_counts_for_nothing(
    answer: Callable[[Tensor, float], Tensor], illegal: bool
) -> None:
    data = Images(torch.full((5, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), ("a", "b"))
    data.pixels[:, :, 0] = 128

    class Brighter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x.flatten(1) - data.pixels[0].flatten() / 255).abs().sum(dim=1) - 1e-3
            return torch.stack([-score, score], dim=1)

    def made(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: answer(x, eps)

    found = evaluate(Brighter(), data, protocol=made, epsilons=[0.1, 0.2], worst_case=False)
    told = found.details["made"]
    assert (found.outcomes["made"] == illegal).all()
    assert (told["illegal"] > 0).all() == illegal


def test_an_attack_that_answers_with_no_images_is_refused() -> None:
    data = images(4)
    for made, told in ((lambda x, y: None, "NoneType"), (lambda x, y: x[:, :, 1:], r"shape \(\d, 1, 3, 4\)")):
        with pytest.raises(InputError, match=told):
            evaluate(Band(), data, protocol=lambda eps, made=made: made, epsilons=[0.1])
    with pytest.raises(InputError) as refused:
        Foreign(0.1, made="pgd")  # type: ignore[arg-type]
    assert_states(refused.value, "images", "labels", "'pgd'")
    with pytest.raises(InputError) as refused:
        AutoAttack(0.1)(Band(), data.pixels / 255, data.labels, init=data.pixels / 255)
    assert_states(refused.value, "init", "remove")


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' FAB and Square with fewer steps: what they take does not change what a step does."""

    for name, steps in (("FABAttack_PT", {"n_iter": 20}), ("SquareAttack", {"n_queries": 500})):
        whole = getattr(pyautoattack.autoattack, name)
        monkeypatch.setattr(
            pyautoattack.autoattack,
            name,
            lambda *given, whole=whole, steps=steps, **named: whole(*given, **named | steps),
        )


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_autoattack_says_what_the_authors_package_says_at_every_eps(
    digits_net: Net, classes: int, short_runs: None, caplog: pytest.LogCaptureFixture
) -> None:
    net, x, y = digits_net
    mine = ((y < classes) & (net(x)[:, :classes].argmax(dim=1) == y)).nonzero().squeeze(1)[:12]
    data = Images(x[mine], y[mine], tuple(str(number) for number in range(classes)))

    class Among(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x)[:, :classes]

    grid = (0.15, 0.3) if classes < 4 else (0.1, 0.2)
    found = evaluate(Among(), data, protocol="autoattack", epsilons=grid)
    assert found.adapted == (classes < 4)
    assert not caplog.records

    columns = []
    for eps in grid:
        dlr = {2: [], 3: ["apgd-dlr"]}.get(classes, ["apgd-t"])
        theirs = pyautoattack.AutoAttack(
            Among(), attacks=["apgd-ce", *dlr, "fab-t", "square"], version="custom", eps=eps, norm="Linf", seed=0
        )
        theirs.apgd.n_restarts = theirs.fab.n_restarts = 1
        theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = classes - 1
        x_adv, _ = theirs.run_standard_evaluation(data.pixels, data.labels, batch_size=12)
        columns.append(Among()(x_adv).argmax(dim=1) == data.labels)
    assert (found.outcomes["autoattack"] == torch.stack(columns)).double().mean() >= 0.95
    assert 0 < found.outcomes["autoattack"].double().mean() < 1


@pytest.mark.slow
def test_square_of_several_eps_in_one_run_is_the_authors_at_each(digits_net: Net, short_runs: None) -> None:
    net, x, y = digits_net
    x, y = x[:12], y[:12]
    # A run's noise depends on how many images there are: theirs is asked about all of them at each ε.
    eps = torch.tensor([0.1, 0.25, 0.4]).repeat(4)
    ours = AutoAttack(0.0, part="square")(net, x, y, eps=eps, generator=torch.Generator().manual_seed(3))
    keys = torch.randint(-(1 << 63), (1 << 63) - 1, (12,), generator=torch.Generator().manual_seed(3))
    seed = int(keys[0]) & 0x7FFFFFFF
    right = net(x).argmax(dim=1) == y
    assert right.sum() >= 10
    assert (net(ours)[right].argmax(dim=1) != y[right]).any()
    for radius in (0.1, 0.25, 0.4):
        theirs = pyautoattack.square.SquareAttack(
            net, p_init=0.8, n_queries=500, eps=radius, norm="Linf", seed=seed, device="cpu", resc_schedule=False
        )
        torch.manual_seed(seed)
        theirs.init_hyperparam(x)
        _, expected = theirs.attack_single_run(x, y)
        mine = right & (eps == radius)
        torch.testing.assert_close(ours[mine], expected[mine], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_once_says_what_the_authors_fab_says_at_every_eps(digits_net: Net, norm: str, short_runs: None) -> None:
    net, x, y = digits_net
    right = (net(x).argmax(dim=1) == y).nonzero().squeeze(1)[:12]
    x, y = x[right], y[right]
    everything = 1.0 if norm == "linf" else 8.0
    nearest = AutoAttack(everything, norm=norm, part="fab-t")(net, x, y)
    moved = (nearest - x).flatten(1)
    length = moved.abs().amax(dim=1) if norm == "linf" else moved.norm(dim=1)
    assert (net(nearest).argmax(dim=1) != y).all()
    for eps in length.quantile(torch.tensor([0.3, 0.7])).tolist():
        theirs = pyautoattack.AutoAttack(
            net, attacks=["fab-t"], version="custom", eps=eps, norm={"linf": "Linf", "l2": "L2"}[norm], seed=0
        )
        theirs.fab.n_restarts = 1
        x_adv, _ = theirs.run_standard_evaluation(x, y, batch_size=12)
        assert torch.equal(net(x_adv).argmax(dim=1) != y, length <= eps)
        # Asked for a smaller radius, what lies beyond it is not an answer.
        within = AutoAttack(eps, norm=norm, part="fab-t")(net, x, y)
        assert torch.equal(within, torch.where((length <= eps)[:, None, None, None], nearest, x))


@pytest.mark.slow
def test_audits_are_counted_by_the_first_attack_that_asks_for_eps(digits_net: Net, short_runs: None) -> None:
    net, x, y = digits_net
    attacks = [AutoAttack(0.0, part="fab-t"), PGD(0.0, steps=3)]
    found = evaluate(net, (x[:40], y[:40]), protocol=attacks, epsilons=[0.001, 0.002, 0.003])
    told = found.details["worst-case"]
    # Nothing breaks at so little, and all that withstand the largest are attacked at a smaller one.
    assert torch.equal(told["tested"] > 0, found.outcomes["worst-case"][2])
    assert found.outcomes["worst-case"][2].sum() >= 30


class Noisy(nn.Module):
    """A linear margin under noise: each image is right with a probability of its own."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(dim=1) - 0.5 + self.noise * torch.randn(len(x))
        return torch.stack([-score, score], dim=1)


@pytest.mark.slow
def test_a_model_that_wavers_answers_by_majority() -> None:
    torch.manual_seed(0)
    pixels = torch.full((60, 1, 4, 4), 168, dtype=torch.uint8)  # 0.659: at 0.1 noise right 94 times of 100
    data = Images(pixels, torch.ones(60, dtype=torch.int64), ("a", "b"))
    found = evaluate(Noisy(0.1), data, protocol=STRONG, epsilons=[0.02, 0.3])
    assert found.votes == VOTES
    # One answer would be wrong for 3 or 4 of 60 images, the majority of nine for one of some 100,000.
    assert found.clean.all()
    # At 0.02 one answer is wrong for 8 in 100, and an attack of many steps meets one sooner or later: a majority not.
    assert found.outcomes["worst-case"][0].all()
    assert not found.outcomes["worst-case"][1].any()
    assert evaluate(Noisy(0.0), data, protocol=STRONG, epsilons=[0.02]).votes == 1


@pytest.mark.slow
def test_a_curve_of_tensors_and_of_a_function_needs_no_files() -> None:
    data = images(20, seed=3)
    x, y = data.pixels / 255, data.labels
    model = TwoClasses(torch.randn(16, generator=torch.Generator().manual_seed(1)) / 4, 0.0)
    grid = [0.01 * number for number in range(1, 51)]
    fine = evaluate(lambda x: model(x), (x, y), protocol=STRONG, epsilons=grid)
    assert fine.model == ""
    assert torch.equal(
        fine.outcomes["worst-case"][9::10],
        evaluate(model, data, protocol=STRONG, epsilons=grid[9::10]).outcomes["worst-case"],
    )


def test_what_cannot_be_meant_is_refused(tmp_path: pytest.TempPathFactory) -> None:
    data = images(4)
    x, y = data.pixels / 255, data.labels
    model = Band()
    for words, facts in (
        ({"protocol": "pgd", "worst_case": False}, ["pgd", "worst case"]),
        ({"protocol": []}, ["no attack"]),
        ({"protocol": PGD(0.0, norm="l2")}, ["l2"]),
        ({"protocol": [PGD(0.0), PGD(0.0)], "worst_case": False}, ["two", "pgd-40"]),
        ({"protocol": "pdg"}, ["pdg", "'pgd'"]),
    ):
        with pytest.raises(InputError) as refused:
            evaluate(model, (x, y), epsilons=[0.1], **words)  # type: ignore[arg-type]
        assert_states(refused.value, *facts)
    with pytest.raises(InputError) as refused:
        evaluate(lambda x: model(x), (x, y), epsilons=[0.1], folder=str(tmp_path))
    assert_states(refused.value, "weights", "nn.Module", "folder")
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        evaluate(model, (255 * x, y), epsilons=[0.1])
    with pytest.raises(InputError) as refused:
        evaluate(model, (x, torch.full_like(y, 7)), epsilons=[0.1])
    assert_states(refused.value, "label 7", "2")
    with pytest.raises(InputError, match=r"shape \(1,\)"):
        evaluate(lambda x: x.flatten(1)[:, 0], (x, y), epsilons=[0.1])


class Table(nn.Module):
    """One pixel that says how bright it is; fooled where the brightness, added to mid-grey, is in one of some bands."""

    def __init__(self, *bands: tuple[float, float]) -> None:
        super().__init__()
        self.bands = bands
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        brighter = x.flatten(1).mean(dim=1) - 128 / 255
        fooled = torch.stack([(low < brighter) & (brighter < high) for low, high in self.bands]).any(dim=0)
        return torch.stack([torch.where(fooled, -1.0, 1.0), torch.zeros_like(brighter)], dim=1)


def brighter_by(values: dict[float, float], name: str) -> Foreign:
    """An attack that moves by what a table says for its ε, and by nothing for any other."""

    def made(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, y: x + next((move for at, move in values.items() if abs(at - eps) < 1e-6), 0.0)

    return Foreign(0.0, made=made, name=name)


def test_exhaustively_each_attack_is_tried_at_every_eps_at_which_it_has_not_failed() -> None:
    # The first attack works at 0.4 and 0.3 alone, the second at 0.2 alone.
    model, data = Table((0.17, 0.19), (0.29, 0.31), (0.39, 0.41)), band_images(4)
    attacks = [brighter_by({0.4: 0.4, 0.3: 0.3}, "a"), brighter_by({0.2: 0.18}, "b")]
    grid = (0.1, 0.2, 0.3, 0.4)
    # Down from above, b is asked at 0.2, right below 0.3, and finds it.
    assert (smallest_norms(model, data, attacks, grid).levels == 1).all()
    # The other way round, b is asked at 0.4 and fails; a then leads to 0.3 and fails at 0.2.
    assert (smallest_norms(model, data, attacks[::-1], grid).levels == 2).all()
    assert (smallest_norms(model, data, attacks[::-1], grid, exhaustive=True).levels == 1).all()


def test_a_foreign_attack_cannot_leave_a_model_in_training_nor_change_it() -> None:
    data = images(30, seed=3)
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 2)).eval()
    data = replace(data, labels=net(data.pixels / 255).argmax(dim=1))

    def lazy(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            nn.functional.cross_entropy(net(x), y).backward()
            net.train()
            return x

        return attack

    found = evaluate(net, data, protocol=lazy, epsilons=[0.1, 0.2], worst_case=False)
    assert found.clean.all()
    assert found.outcomes["lazy"].all()
    assert not any(module.training for module in net.modules())
    assert all(weight.grad is None for weight in net.parameters())

    def careless(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            net.train()
            net(x)
            return x

        return attack

    with pytest.raises(InputError) as refused:
        evaluate(net, data, protocol=careless, epsilons=[0.1])
    assert_states(refused.value, "attack", "weights", "buffers", "BatchNorm")


@pytest.mark.slow
def test_evidence_tells_attacks_and_models_apart_or_is_not_kept(digits_net: Net, tmp_path: Path) -> None:
    net, x, y = digits_net[0], digits_net[1][:30], digits_net[2][:30]

    def curve(attack: object, folder: str, **words: object) -> asgt.Evaluation:
        return evaluate(net, (x, y), protocol=attack, epsilons=[0.1, 0.2], folder=tmp_path / folder, **words)  # type: ignore[arg-type]

    with pytest.raises(InputError) as refused:
        curve(lambda eps: lambda x, y: x, "nameless")
    assert_states(refused.value, "evidence", "Foreign", "name")
    with pytest.raises(InputError) as refused:
        evaluate(Noisy(0.0), (x, y * 0), epsilons=[0.1], folder=tmp_path / "weightless")
    assert_states(refused.value, "evidence", "weights", "nn.Module")

    weak = Foreign(0.0, made=lambda eps: lambda x, y: x, name="a")
    kept = curve([weak], "own", worst_case=False)
    assert torch.equal(curve([weak], "own", worst_case=False, resume=True).outcomes["a"], kept.outcomes["a"])
    with pytest.raises(InputError, match="other settings"):
        curve([STRONG], "own", worst_case=False, resume=True)
    read = asgt.load_evaluation(tmp_path / "own")
    assert (read.protocol.searches[0].title, read.to_dict()) == ("a", kept.to_dict())
    # A result of an earlier version does not say what its attacks were.
    earlier = read_json(tmp_path / "own" / "result.json")
    del earlier["own"]
    rewritten(tmp_path / "own" / "result.json", earlier)
    with pytest.raises(InputError) as refused:
        asgt.load_evaluation(tmp_path / "own")
    assert_states(refused.value, tmp_path / "own" / "result.json", "asgt.evaluate", "own")

    # A search may be called what another's exhaustive part was called: they share no file.
    names = [Foreign(0.0, made=lambda eps: lambda x, y: x, name="corner exhaustive"), replace(weak, name="corner")]
    both = curve(names, "names", worst_case=False)
    assert set(both.outcomes) == {"corner-exhaustive", "corner"}
    assert len(list((tmp_path / "names").glob("corner*.safetensors"))) == 2


@pytest.mark.slow
def test_a_model_that_wavers_is_seen_behind_a_masked_class() -> None:
    torch.manual_seed(0)
    data = Images(torch.full((60, 1, 4, 4), 140, dtype=torch.uint8), torch.ones(60, dtype=torch.int64), ("a", "b", "c"))
    for absent in (-30.0, -1e9, -torch.inf):

        class Masked(Noisy):
            def forward(self, x: Tensor) -> Tensor:
                return torch.cat([super().forward(x), torch.full((len(x), 1), absent)], dim=1)  # noqa: B023

        found = evaluate(Masked(0.1), data, protocol=STRONG, epsilons=[0.02])
        assert found.votes == VOTES
        assert next(check.verdict for check in found.checks if check.name == "determinism") == "FAIL"
        fixed = evaluate(Masked(0.0), data, protocol=STRONG, epsilons=[0.02])
        assert fixed.votes == 1


@pytest.mark.slow
def test_the_clean_image_is_no_witness_however_often_a_wavering_model_is_asked() -> None:
    pixels = torch.full((200, 1, 4, 4), 140, dtype=torch.uint8)  # a margin of 0.3 deviations: nine votes often err
    data = Images(pixels, torch.ones(200, dtype=torch.int64), ("a", "b"))
    nothing = [Foreign(0.0, made=lambda eps: lambda x, y: x, name=str(number)) for number in range(10)]
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    found = evaluate(Noisy(0.15), data, protocol=nothing, epsilons=[0.001])
    assert 0.6 < found.clean.double().mean() < 0.95
    assert (found.details["worst-case"]["norms"][found.clean] > 0).all()
    again = evaluate(Noisy(0.15), data, protocol=nothing, epsilons=[0.001])
    assert torch.equal(found.clean, again.clean), "the global generators are seeded for it"
    assert torch.equal(torch.random.get_rng_state(), before)
    each = evaluate(Noisy(0.15), data, protocol=nothing[:3], epsilons=[0.001], worst_case=False)
    assert torch.equal(each.clean, found.clean)
    assert not any((right & ~each.clean).any() for right in each.outcomes.values())


def test_a_model_without_gradients_is_attacked_by_square_and_said_to_have_none() -> None:
    data = replace(images(20, seed=9), labels=torch.ones(20, dtype=torch.int64))
    model = TwoClasses(torch.ones(16) / 16, -0.45)

    def closed(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x)

    found = evaluate(closed, data, protocol=Square(0.0, steps=60), epsilons=[0.02, 0.1, 0.4], worst_case=False)
    assert found.outcomes["square"][0].sum() > found.outcomes["square"][2].sum()
    assert next(check.verdict for check in found.checks if check.name == "gradients at the start") == "FAIL"


@pytest.mark.slow
def test_curves_are_drawn_under_inference_mode_too(digits_net: Net) -> None:
    net, x, y = digits_net[0], digits_net[1][:40], digits_net[2][:40]
    data = Images(x, y, tuple("0123456789"))
    for protocol in ("paper", "pgd"):
        plain = evaluate(net, data, protocol=protocol, epsilons=[0.1])
        with torch.inference_mode():
            asked = Images(x.clone(), y.clone(), data.classes)
            within = evaluate(net, asked, protocol=protocol, epsilons=[0.1])
        assert all(torch.equal(plain.outcomes[name], within.outcomes[name]) for name in plain.outcomes)


def test_two_attacks_of_one_title_are_counted_together() -> None:
    model, data = Table((0.17, 0.19), (0.39, 0.41)), band_images(4)
    attacks = [brighter_by({0.4: 0.4}, "a"), brighter_by({0.2: 0.18}, "a")]
    found = evaluate(model, data, protocol=attacks, epsilons=[0.2, 0.4])
    assert found.first_to_break("worst-case") == {"a": 4}


def test_images_in_half_precision_and_no_images_a_pass_are_refused() -> None:
    data = images(4)
    with pytest.raises(InputError) as refused:
        evaluate(Band(), ((data.pixels / 255).half(), data.labels), epsilons=[0.1])
    assert_states(refused.value, "half precision", "float32")
    with pytest.raises(InputError) as refused:
        evaluate(Band(), data, epsilons=[0.1], batch_size=0)
    assert_states(refused.value, "batch_size", "0")
    with pytest.raises(InputError, match="float32"):
        evaluate(Band(), (data.pixels / 255, data.labels.float()), epsilons=[0.1])
    with pytest.raises(InputError) as refused:
        evaluate(Band(), data, protocol=APGD(0.0, loss="dlr-targeted", target=5), epsilons=[0.1])
    assert_states(refused.value, "classes", "2")


def test_an_attack_that_is_called_whole_is_audited_in_the_calls_that_are_made_anyway() -> None:
    calls: list[tuple[float, int]] = []
    table = {0.4: 0.4, 0.2: 0.18}

    def made(eps: float) -> Callable[[Tensor, Tensor], Tensor]:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            calls.append((round(eps, 1), len(x)))
            return x + next((move for at, move in table.items() if abs(at - eps) < 1e-6), 0.0)

        return attack

    # All break at 0.4 and withstand 0.3; below that, the attack works at 0.2 and fails at 0.1.
    model, data = Table((0.17, 0.19), (0.39, 0.41)), band_images(6)
    shares = torch.tensor([torch.nan, 0.0, 0.0, 0.5, 0.999, torch.nan])
    attack = [Foreign(0.0, made=made, name="a")]
    found = smallest_norms(model, data, attack, (0.1, 0.2, 0.3, 0.4), audited=shares)
    assert calls == [(0.4, 6), (0.3, 6), (0.2, 2), (0.1, 2)]
    assert found.levels.tolist() == [3, 3, 3, 1, 1, 3]
    assert found.tested.tolist() == [0, 1, 1, 1, 1, 0]
    assert found.missed.tolist() == [0, 0, 0, 1, 1, 0]
