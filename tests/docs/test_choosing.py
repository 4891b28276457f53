"""The numbers of ``docs/how-to-choose.md`` against the committed results."""

from __future__ import annotations

import json
import re
from statistics import mean

import numpy as np
import pytest

from support.paths import ROOT

PAGE = (ROOT / "docs" / "how-to-choose.md").read_text()
RESULTS = ROOT / "results" / "mnist-laptop"


def saved(name: str, seed: int) -> dict[str, object]:
    return json.loads((RESULTS / f"{name}-{seed}.json").read_text())  # type: ignore[no-any-return]


def share(packed: str, samples: int) -> float:
    """The share of the bits of a saved outcome that are set."""

    import base64

    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8), count=samples)
    return float(bits.mean())


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("`st`", "st"),
        ("`at` with `--attack pgd`", "at-pgd"),
        ("`asgt` with `--attack pgd`", "asgt-pgd"),
        ("`sgt`", "sgt-k-0.3"),
        ("`sga`", "sga"),
        ("not `--attack fgsm` at large ε", "at-fgsm"),
    ],
)
def test_the_methods_costs_and_accuracies_are_those_of_the_results(row: str, name: str) -> None:
    (line,) = [line for line in PAGE.splitlines() if f"| {row} |" in line and line.count("|") == 8]
    clean, robust, passes, seconds = (float(re.sub(r"[^\d.]", "", cell)) for cell in line.split("|")[4:8])
    runs = [saved(name, seed) for seed in range(3)]
    held = [run["evaluations"]["standard"] for run in runs]  # type: ignore[index]
    place = held[0]["epsilons"].index(0.3)
    assert clean == pytest.approx(100 * mean(share(each["clean"], each["samples"]) for each in held), abs=0.051)
    assert robust == pytest.approx(
        100 * mean(share(each["outcomes"]["worst-case"][place], each["samples"]) for each in held), abs=0.051
    )
    assert passes == runs[0]["training"]["speed"]["passes_per_step"]  # type: ignore[index]
    assert seconds == round(runs[0]["training"]["seconds"])  # type: ignore[index]


@pytest.mark.parametrize(("attack", "name"), [("pgd", "asgt-pgd"), ("fgsm", "asgt-fgsm")])
def test_the_passes_of_an_attack_are_those_of_the_results(attack: str, name: str) -> None:
    told = re.search(rf"^\| `{attack}`.*\| (\d+) \|$", PAGE, re.MULTILINE)
    assert told
    assert int(told.group(1)) == saved(name, 0)["training"]["speed"]["passes_per_step"]  # type: ignore[index]


@pytest.mark.parametrize(("protocol", "stored"), [("pgd", "pgd"), ("standard@1", "standard"), ("paper", "paper")])
def test_the_times_of_the_protocols_are_those_of_the_results(protocol: str, stored: str) -> None:
    told = re.search(rf"^\| [^|]+ \| `{protocol}` \| (\d+) s \|", PAGE, re.MULTILINE)
    assert told
    seconds = saved("at-pgd", 0)["evaluations"][stored]["seconds"]  # type: ignore[index]
    assert int(told.group(1)) == round(sum(seconds.values()))


def test_the_costs_at_one_eps_are_those_of_the_page_on_performance() -> None:
    performance = (ROOT / "docs" / "performance.md").read_text()
    (line,) = [line for line in performance.splitlines() if line.startswith("| mnist-at | 3 |")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    seconds = [each.strip() for each in cells[-1].split("/")]
    for protocol, time, cost in zip(
        ("standard-quick", "standard@1", "autoattack"), seconds, (cells[3], cells[4], cells[5]), strict=True
    ):
        (row,) = [each for each in PAGE.splitlines() if f"| `{protocol}` |" in each and each.count("|") == 7]
        assert f"{int(time):,} s" in row
        assert f" {cost} " in row


def test_the_cost_of_a_claim_has_its_audit() -> None:
    kept = json.loads((ROOT / "benchmarks" / "claims" / "mnist-at-0-single-500-v2-audited.json").read_text())
    (row,) = [line for line in PAGE.splitlines() if "| `standard` |" in line]
    assert f"| {kept['seconds']:.0f} s | {(3 * kept['gradients'] + kept['forwards']) / 500:,.0f} |" in row
