"""The section of traces: its numbers against a trace made by hand, and its figures in a browser."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import cast

import pytest
import torch

from asgt.comparison.comparing import Comparison, compare
from asgt.comparison.map_evidence import MapEvidence
from asgt.comparison.summary import Summary
from asgt.evaluation.protocols import protocol_named
from asgt.evaluation.trace import Trace
from asgt.report.page import write_report
from asgt.report.sections.traces_section import TRACES
from asgt.report.trace_charts import traced_runs
from support.browser import Browser
from support.paths import RUNS

pytestmark = pytest.mark.draws

STEPS = 50
LOSS = torch.linspace(0.1, 0.5, STEPS + 1)


def by_hand(spread: float = 1.0) -> Trace:
    """Three survivors whose loss rises evenly, and two broken images of a constant loss."""

    loss = torch.stack([LOSS, 2 * LOSS, 3 * LOSS, torch.full_like(LOSS, spread), torch.full_like(LOSS, 3.0 * spread)])
    survived = torch.tensor([True, True, True, False, False])
    return Trace(
        asked=5,
        search="pgd-40x5",
        attack="PGD-50 <b>",
        eps=0.1,
        norm="linf",
        final=False,
        rows=torch.arange(5),
        survived=survived,
        loss=loss,
        margin=-loss,
        distance=loss,
        gradient=loss,
        fooled=~survived[:, None].expand_as(loss),
    )


def with_traces(comparison: Comparison, trace: Trace) -> Comparison:
    """The same comparison, as if ``pgd`` had traced the second method."""

    (run,) = comparison.methods[1].runs
    run.evaluations["pgd"] = dataclasses.replace(run.evaluations["pgd"], trace=trace)
    return comparison


@pytest.fixture
def comparison() -> Comparison:
    return compare([RUNS / name for name in ("st-0", "at-fgsm-0")])


def page_of(comparison: Comparison, out: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("asgt.report.page.SECTIONS", (TRACES,))
    summary = Summary(comparison, (), (), (), (), cast(MapEvidence, None), ())
    return write_report(summary, out).read_text()


@pytest.mark.slow
def test_a_trace_is_drawn_and_told(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = by_hand()

    page = page_of(with_traces(comparison, trace), tmp_path / "page", monkeypatch)

    (section,) = re.findall(r'<section id="traces">.*?</section>', page, re.DOTALL)
    (row,) = re.findall(r"<tbody>\s*<tr>(.*?)</tr>\s*</tbody>", section, re.DOTALL)
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
    assert cells == ["AT-FGSM, seed 0", "pgd v3", "PGD-50 <b>", "0.1", "3", "2", "10.0 %", "0"]
    for fact in ("Flat at the end", "Still rising", "PGD-50 &lt;b&gt;", "10.0 % of the survivors"):
        assert fact in section
    assert "PGD-50 <b>" not in page
    # A thin line for each image, in the colours of the page.
    for number, count in enumerate((3, 2)):
        threads = re.findall(rf'<g id="trace-pgd-1-thread\d-band-{number}">(.*?)</g>', section, re.DOTALL)
        assert len(threads) == count
        assert all(f"var(--line-{number})" in thread for thread in threads)
        assert f'id="trace-pgd-1-curve-{number}"' in section
    assert 'aria-label="AT-FGSM, seed 0, pgd v3' in section
    told = json.loads(page.split('id="figure-data">')[1].split("</script>")[0])["trace-pgd-1"]
    assert [line["name"] for line in told["lines"]] == ["survivors", "broken"]
    assert told["lines"][0]["x"][-1] == str(STEPS)
    assert told["lines"][0]["y"] == pytest.approx([2 * float(LOSS[int(x)]) for x in told["lines"][0]["x"]])
    assert told["lines"][1]["text"][0] == "2"
    for suffix in ("png", "pdf"):
        assert (tmp_path / "page" / "figures" / f"traces.{suffix}").stat().st_size > 5000


@pytest.mark.slow
def test_a_trace_by_an_earlier_version_is_drawn_too(comparison: Comparison) -> None:
    for method in comparison.methods:
        for run in method.runs:
            run.evaluations["standard@1"] = dataclasses.replace(
                run.evaluations["pgd"], protocol=protocol_named("standard@1"), trace=by_hand()
            )
    earlier = dataclasses.replace(comparison, epsilons={"standard@1": comparison.epsilons["pgd"]})
    keys = [each.chart.key for each in traced_runs(earlier)]
    assert len(set(keys)) == len(keys) == len(comparison.methods)
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_without_a_trace_there_is_no_section(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figures").mkdir()
    for suffix in ("png", "pdf"):
        (tmp_path / "figures" / f"traces.{suffix}").write_bytes(b"of another time")

    assert 'id="traces"' not in page_of(comparison, tmp_path, monkeypatch)
    assert not list((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(("spread", "scale"), [(1.0, "linear"), (50.0, "log")])
def test_losses_of_different_sizes_share_a_logarithmic_axis(spread: float, scale: str, comparison: Comparison) -> None:
    from asgt.report.trace_charts import traced_runs

    (traced,) = traced_runs(with_traces(comparison, by_hand(spread)))
    assert traced.chart.y_scale == scale


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_its_figures_fit_the_window_and_tell_their_numbers(
    width: int, browser: Browser, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_of(with_traces(comparison, by_hand()), tmp_path, monkeypatch)
    for scheme in ("light", "dark"):
        browser.open(tmp_path, width=width, scheme=scheme)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        x, y, wide = browser.run(
            "const mark = document.querySelector('#trace-pgd-1-curve-0 use'); mark.scrollIntoView({block: 'center'});"
            "const box = mark.getBoundingClientRect(), svg = mark.ownerSVGElement.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2, svg.width]"
        )
        assert wide > 300
        browser.mouse(x, y)
        told = browser.run("return document.getElementById('tip').textContent")
        assert told.startswith("step = 0")
        assert "survivors  0.2" in told
