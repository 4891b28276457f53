"""The page in a browser, and the process that serves it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.browser import Browser
from support.command import plain_environment
from support.messages import assert_states
from support.paths import ROOT, RUNS

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the page needs gradio: pip install 'asgt[app]'")
SLOW_FIXTURES = ("served", "page")

ABOUT = "document.querySelector('.asgt-about').innerText"
STATUS = "document.querySelector('#asgt-status').innerText"
HOSTILE = "<img src=x onerror=alert(1)>&{{value}}${1+1}"


class Served:
    """A running ``asgt app``."""

    def __init__(self, process: subprocess.Popen[str], address: str, scratch: Path) -> None:
        self.process, self.address, self.scratch = process, address, scratch

    def answer(self, path: str, **headers: str) -> tuple[int, Any, str]:
        asked = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, ""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two runs on a free port."""

    scratch = tmp_path_factory.mktemp("scratch")
    with subprocess.Popen(
        [sys.executable, "-m", "asgt", "app", str(RUNS / "at-fgsm-0"), str(RUNS / "asgt-pgd-0")],
        env=plain_environment() | {"TMPDIR": str(scratch), "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        yield Served(process, address, scratch)
        process.kill()


@pytest.fixture
def page(served: Served, browser: Browser) -> Callable[..., Browser]:
    """The page in the browser, once it shows something."""

    def shown(width: int = 1280, scheme: str = "light") -> Browser:
        browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.cdp("Emulation.setEmulatedMedia", media="", features=features)
        # What a page that is left says of its broken connection is not what the next one says.
        browser.driver.get("about:blank")
        browser.requests()
        browser.messages()
        browser.driver.get(served.address)
        until(browser, "document.querySelector('.asgt-model') && document.querySelector('.asgt-panel svg')")
        return browser

    return shown


def until(browser: Browser, condition: str) -> None:
    """Waits until an expression is true."""

    end = time.monotonic() + 20
    while not browser.run(f"return !!({condition})"):
        assert time.monotonic() < end, (condition, browser.run(f"return {STATUS}"))
        time.sleep(0.02)


def find(browser: Browser, selector: str) -> Any:
    return browser.driver.find_element("css selector", selector)


def choose(browser: Browser, field: str, word: str) -> None:
    """Chooses from a list."""

    until(browser, f"document.querySelector('{field} input')")
    find(browser, f"{field} input").click()
    until(browser, f"document.querySelector('{field} [role=option]')")
    options = browser.driver.find_elements("css selector", f"{field} [role=option]")
    next(option for option in options if option.text.replace("✓", "").strip() == word).click()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_nothing_leaves_the_machine_and_it_fits(page: Callable[..., Browser], width: int, scheme: str) -> None:
    browser = page(width, scheme)

    asked = browser.requests() + browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert {url.split("/")[2].split(":")[0] for url in asked if url.startswith(("http", "ws"))} == {"127.0.0.1"}
    assert [each for each in browser.messages() if each["level"] == "SEVERE"] == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return getComputedStyle(document.querySelector('#asgt-eps')).fontFamily").startswith(
        "system-ui"
    )
    dark = browser.run("return document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")


def test_everything_that_can_be_used_has_a_name(page: Callable[..., Browser]) -> None:
    browser = page()
    browser.cdp("Accessibility.enable")
    nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]

    def value(node: dict[str, Any], name: str) -> Any:
        return node.get(name, {}).get("value")

    def is_focusable(node: dict[str, Any]) -> bool:
        return any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", []))

    used = [
        node for node in nodes if not node["ignored"] and is_focusable(node) and value(node, "role") != "RootWebArea"
    ]
    assert len(used) > 40
    assert [value(node, "role") for node in used if not value(node, "name")] == []
    named = "[...document.querySelectorAll('#asgt-seen img, #asgt-seen [role=img], #asgt-curves [role=img], canvas')]"
    assert browser.run(f"return {named}.length") > 14
    assert browser.run(f"return {named}.filter(e => !e.alt && !e.ariaLabel).length") == 0


def test_image_eps_mask_and_attack_change_what_is_seen(page: Callable[..., Browser]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = page()
    before = browser.run("return document.querySelector('#asgt-seen').innerHTML")
    thumb = find(browser, "button[data-row='5']")
    thumb.send_keys(Keys.ENTER)
    until(browser, f"{ABOUT}.includes('image 5')")
    assert browser.run("return document.querySelector('#asgt-row input').value") == "5"
    assert browser.run("return document.querySelector('#asgt-seen').innerHTML") != before

    pictures = "return [...document.querySelectorAll('.asgt-pictures img')].map(e => e.src)"
    first = browser.run(pictures)
    find(browser, "#asgt-eps input[type=range]").send_keys(Keys.ARROW_RIGHT)
    until(browser, f"{ABOUT}.includes('ε = 0.105')")
    second = browser.run(pictures)
    # The image and its map stay; the attacked image, its map and the curve's line do not.
    assert (first[:3], len(first)) == (second[:3], 14)
    assert first[3] != second[3]
    until(browser, "document.querySelector('.asgt-panel figcaption').innerText.includes('0.105')")

    find(browser, "#asgt-k input[type=range]").send_keys(*[Keys.ARROW_RIGHT] * 3)
    until(browser, "document.querySelector('#asgt-seen').innerText.includes('k = 0.13')")

    field = find(browser, "#asgt-eps input[type=number]")
    typed = "arguments[0].value = '5'; arguments[0].dispatchEvent(new Event('input', { bubbles: true }))"
    browser.run(typed, field)
    until(browser, f"{STATUS}.includes('5/255')")
    assert browser.run("return document.body.innerText").count("Traceback") == 0

    page()
    choose(browser, "#asgt-attack", "FGSM")
    until(browser, f"{ABOUT}.includes('FGSM')")
    choose(browser, "#asgt-attack", "Square")
    until(browser, f"{STATUS}.includes('Working') || {ABOUT}.includes('Square')")
    for _ in range(5):  # on a busy machine a click may come after the end of the work
        find(browser, "#asgt-eps input[type=range]").send_keys(Keys.ARROW_RIGHT)
        find(browser, "#asgt-stop").click()
        time.sleep(0.5)
        if browser.run(f"return {STATUS}.includes('Stopped')"):
            break
    until(browser, f"{STATUS}.includes('Stopped')")
    choose(browser, "#asgt-attack", "PGD")
    find(browser, "#asgt-more button").click()
    choose(browser, "#asgt-target", "2")
    until(browser, f"{ABOUT}.includes('towards class 2')")
    assert [each for each in browser.messages() if each["level"] == "SEVERE"] == []


def test_a_drawing_and_an_upload_are_prepared_and_seen(page: Callable[..., Browser], tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = page()
    sources = browser.driver.find_elements("css selector", "#asgt-source input")
    sources[1].click()
    until(browser, f"{STATUS}.includes('nothing is drawn')")
    canvas = find(browser, "#asgt-pad canvas")
    drawn = ActionChains(browser.driver).move_to_element_with_offset(canvas, 0, -90).click_and_hold()
    drawn.move_by_offset(0, 90).move_by_offset(0, 80).release().perform()
    until(browser, f"{ABOUT}.includes('280 × 280')")
    once = browser.run("return document.querySelector('.asgt-pictures img').src")
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_LEFT] * 6)
    until(browser, f"document.querySelector('.asgt-pictures img').src != '{once}'")

    sources[2].click()
    until(browser, f"{STATUS}.includes('no picture')")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{HOSTILE}.png")
    find(browser, "#asgt-upload input[type=file]").send_keys(str(tmp_path / f"{HOSTILE}.png"))
    until(browser, f"{ABOUT}.includes('40 × 30')")
    assert_states(browser.run(f"return {ABOUT}"), "transparency", "grey", "30 to 8")

    browser.run("document.querySelector('#asgt-upload button[aria-label]').click()")
    until(browser, "document.querySelector('#asgt-upload input[type=file]')")
    (tmp_path / "bad<b>.png").write_bytes(b"nothing")
    find(browser, "#asgt-upload input[type=file]").send_keys(str(tmp_path / "bad<b>.png"))
    until(browser, f"{STATUS}.includes('not an image')")
    assert browser.run("return document.querySelectorAll('#asgt-status b, [onerror]').length") == 0
    assert [each for each in browser.messages() if each["level"] == "SEVERE"] == []


def test_it_answers_this_machine_alone_and_has_a_policy(served: Served) -> None:
    status, headers, _ = served.answer("/")
    assert status == 200
    assert_states(headers["content-security-policy"], "default-src 'self'", "connect-src 'self'")
    # A name of somebody else that leads to this machine.
    assert served.answer("/", Host="evil.example")[0] == 403
    assert served.answer("/", Origin="http://evil.example")[0] == 403
    assert served.answer("/", Origin=served.address)[0] == 200
    # There is nothing for programs to call, and no file to read but the page's own.
    assert json.loads(served.answer("/gradio_api/info")[2]) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert served.answer(f"/gradio_api/file={RUNS / 'st-0/config.yaml'}")[0] == 403
    assert [served.answer(path)[0] for path in ("/docs", "/gradio_api/docs", "/gradio_api/runs")] == [404] * 3

    port = int(served.address.rpartition(":")[2])
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }
    assert {place for place in listening if place.endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}


def test_a_taken_port_is_refused_in_a_line(cli: Callable) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = cli("app", RUNS / "st-0", "--port", port)
    assert_states(answer.refusal(), f"127.0.0.1:{port}", "another port")


def test_it_stops_at_a_signal_and_leaves_nothing(served: Served) -> None:
    assert [path for path in served.scratch.iterdir() if path.name.startswith("asgt-app-")] != []

    served.process.send_signal(signal.SIGINT)
    _, err = served.process.communicate(timeout=30)

    assert (served.process.returncode, err.splitlines()[-1]) == (130, "asgt: interrupted")
    assert "Traceback" not in err
    assert [path for path in served.scratch.iterdir() if path.name.startswith("asgt-app-")] == []
    # gradio writes a file beside each class that extends one of its own.
    assert list((ROOT / "src/asgt/app").glob("*.pyi")) == []
