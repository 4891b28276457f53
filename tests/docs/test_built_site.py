"""The built site in a browser, from the file system: it asks nobody for anything, and its search finds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.browser import Browser
from support.paths import ROOT

pytest.importorskip("zensical", reason="the docs extra is not installed: make docs does it")

SLOW_FIXTURES = ("built", "browser")

DEEP = """
const all = root => [...root.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
return all(document).filter(e => e.tagName === 'A' && /budget reach/i.test(e.textContent)).map(e => e.href);
"""


@pytest.fixture(scope="module")
def built() -> Path:
    ended = subprocess.run(
        [sys.executable, "scripts/docs_site.py"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 faults" in ended.stdout
    return ROOT / "build" / "site"


@pytest.mark.parametrize("page", ["index.html", "reference/api/attacks.html", "how-to-choose.html"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_page_asks_nobody_and_fits_its_window(
    page: str, width: int, scheme: str, built: Path, browser: Browser
) -> None:
    browser.driver.get("about:blank")
    browser.messages(), browser.requests()
    browser.show(built / page, width=width, scheme=scheme)
    asked = browser.requests()
    assert len(asked) > 2
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert [entry for entry in browser.messages() if entry["level"] == "SEVERE"] == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    dark = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128")
    assert dark == (scheme == "dark")


def test_the_search_finds_a_check(built: Path, browser: Browser) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.show(built / "index.html")
    browser.driver.find_element(By.CSS_SELECTOR, ".md-search__button").click()
    time.sleep(1)
    ActionChains(browser.driver).send_keys("budget reach").perform()
    found: list[str] = []
    for _ in range(40):
        if found := browser.run(DEEP):
            break
        time.sleep(0.25)
    assert found
    assert "troubleshooting.html" in found[0]
    assert found[0].endswith("#budget-reach")
