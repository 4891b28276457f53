"""Builds the documentation site into ``build/site``: ``make docs``.

Three steps: the pages are written into ``build/docs``; Zensical makes HTML of them and refuses what is not there; the
HTML is read once more. It must not ask for anything outside of the site, and every link, picture and anchor must exist.
"""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import yaml

import docs_pages

__all__ = ["faults", "main", "stage"]

ROOT = docs_pages.ROOT
STAGED, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"

PROJECT = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's root that are pages of the site."""

_SHIM = re.compile(r'<script src="https://[^"]+/iframe-worker/shim"[^>]*></script>')
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def main() -> int:
    """Builds the site. Returns the exit status, 1 where anything is wrong with it."""

    begun = time.perf_counter()
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    # Zensical takes pages that have not changed from a cache, and says nothing about their links then.
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False)
    if built.returncode != 0:
        print("the site was not built: see above", file=sys.stderr)
        return 1
    _own_shim()
    wrong = [*_outside_of_navigation(), *faults(SITE)]
    for fault in wrong:
        print(fault, file=sys.stderr)
    pages = len([*SITE.rglob("*.html")])
    print(f"{SITE.relative_to(ROOT)}: {pages} pages, {len(wrong)} faults, {time.perf_counter() - begun:.0f} s")
    return 1 if wrong else 0


def stage() -> None:
    """Writes the sources of the site: the pages of ``docs/``, those of the root, and the generated ones."""

    alone = [page for entry in _navigation() for page in entry.values() if isinstance(page, str)]
    shutil.rmtree(STAGED, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGED)
    for name, page in PROJECT.items():
        (STAGED / page).write_text((ROOT / name).read_text())
    for source in sorted(STAGED.rglob("*.md")):
        place = source.relative_to(STAGED).as_posix()
        text = docs_pages.filled(_with_own_links(source.read_text(), place))
        # A page that is a tab by itself has no neighbours to show beside it.
        source.write_text(f"---\nhide: [navigation]\n---\n\n{text}" if place in alone else text)
    for name, text in docs_pages.api_pages().items():
        (STAGED / name).parent.mkdir(parents=True, exist_ok=True)
        (STAGED / name).write_text(text)
    (STAGED.parent / "targets.json").write_text(json.dumps(docs_pages.targets()))


def _with_own_links(text: str, place: str) -> str:
    """A page whose links to files of the repository lead to the page of the site, or are the file's name alone."""

    home = (ROOT if place in PROJECT.values() else ROOT / "docs" / place).parent
    if place in PROJECT.values():
        home = ROOT

    def one(match: re.Match[str]) -> str:
        shown, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or ":" in path:
            return match.group(0)
        file = (home / path).resolve()
        if file.is_relative_to(ROOT / "docs"):
            if home != ROOT:
                return match.group(0)
            target = file.relative_to(ROOT / "docs").as_posix()
        elif file.parent == ROOT and file.name in PROJECT:
            target = "/".join([*[".."] * place.count("/"), PROJECT[file.name]])
        elif file.parent == ROOT and file.name == "README.md":
            target = "/".join([*[".."] * place.count("/"), "index.md"])
            anchor = ""
        elif file.is_relative_to(ROOT) and file.exists():
            return shown if shown.startswith("`") else f"{shown} (`{file.relative_to(ROOT).as_posix()}`)"
        else:
            return match.group(0)  # the strict build names it
        return f"[{shown}]({target}{'#' + anchor if anchor else ''})"

    fenced = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else _LINK.sub(one, part) for number, part in enumerate(fenced))


def _own_shim() -> None:
    """Puts the site's own copy in the place of a script that search from the file system would fetch elsewhere."""

    for page in SITE.rglob("*.html"):
        depth = len(page.relative_to(SITE).parts) - 1
        own = f'<script src="{"../" * depth or "./"}assets/iframe-worker.js"></script>'
        page.write_text(_SHIM.sub(own, page.read_text()))


def _outside_of_navigation() -> Iterator[str]:
    """The pages that no entry of the navigation leads to, and the entries without a page."""

    told = set(_pages_in(_navigation()))
    there = {page.relative_to(STAGED).as_posix() for page in STAGED.rglob("*.md")}
    yield from (f"mkdocs.yml: nav lacks {page}" for page in sorted(there - told))
    yield from (f"mkdocs.yml: nav has {page}, which is not there" for page in sorted(told - there))


def _navigation() -> list[dict[str, object]]:
    """The entries of the navigation, a tab each."""

    # Only they are read: a tag of Python, as the configuration has one, is refused by the safe reader.
    nav: list[dict[str, object]] = yaml.safe_load((ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    return nav


def _pages_in(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, (list, dict)):
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages_in(each)


class _Page(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it fetches."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.fetched = set[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = {name: value or "" for name, value in attrs}
        self.anchors |= {held[name] for name in ("id", "name") if name in held}
        if tag == "a" and "href" in held:
            self.links.append(held["href"])
        elif tag == "link" and held.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.fetched.append(held.get("href", ""))
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "object", "embed"):
            self.fetched += [held[name] for name in ("src", "data", "srcset") if held.get(name)]


def faults(site: Path) -> list[str]:
    """What is wrong with a built site: links and anchors that lead nowhere, and requests to other hosts.

    Args:
        site: its folder of HTML files.
    """

    pages = {page.resolve(): _Page(page.read_text()) for page in sorted(site.rglob("*.html"))}
    wrong = []
    for place, page in pages.items():
        name = place.relative_to(site.resolve()).as_posix()
        if name == "404.html":  # its links are absolute: it is served from any path
            continue
        for address in page.fetched:
            if urllib.parse.urlsplit(address).netloc:
                wrong.append(f"{name}: fetches {address}")
        for address in (*page.links, *page.fetched):
            parts = urllib.parse.urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (place.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else place
            if not target.is_file():
                wrong.append(f"{name}: {address} is not there")
            elif parts.fragment and target in pages and not _has(pages[target], parts.fragment):
                wrong.append(f"{name}: {address} has no such anchor")
    for sheet in sorted(site.rglob("*.css")):
        wrong += [
            f"{sheet.relative_to(site).as_posix()}: fetches {address}"
            for address in re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", sheet.read_text())
        ]
    return wrong


def _has(page: _Page, fragment: str) -> bool:
    return urllib.parse.unquote(fragment) in page.anchors | {"", "__comments"}


if __name__ == "__main__":
    sys.exit(main())
