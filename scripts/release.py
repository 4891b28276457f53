"""Builds the archives of a release into ``dist/`` and checks them: ``make release``.

The version is that of ``pyproject.toml``. ``CITATION.cff`` and a section of ``CHANGELOG.md`` must have it too. Nothing
is uploaded and nothing is tagged.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

__all__ = ["changes", "disagreements", "main"]

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Checks, builds, checks what was built. Returns the exit status."""

    parser = argparse.ArgumentParser(description="Builds and checks the archives of a release.")
    parser.add_argument("--check", action="store_true", help="only compare the versions")
    asked = parser.parse_args(arguments)

    version = project_version(ROOT)
    wrong = disagreements(ROOT, unreleased=asked.check)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong or asked.check:
        return 1 if wrong else 0

    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run("build", "--outdir", str(dist), str(ROOT))
    archives = sorted(map(str, dist.iterdir()))
    run("twine", "check", "--strict", *archives)
    print(f"version {version}:\n{changes(ROOT, version)}\n")
    print(*archives, f"next: git tag v{version}, and twine upload dist/*", sep="\n")
    return 0


def run(module: str, *words: str) -> None:
    """Runs a module of this Python.

    Raises:
        SystemExit: it failed; it has said why.
    """

    if subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False).returncode != 0:  # noqa: S603
        raise SystemExit(f"python -m {module} failed: see above")


def project_version(root: Path) -> str:
    """The version in ``pyproject.toml``."""

    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def disagreements(root: Path, *, unreleased: bool = False) -> list[str]:
    """What does not have the version of ``pyproject.toml``, a line each.

    Args:
        root: the repository.
        unreleased: whether a section of unreleased changes is enough in ``CHANGELOG.md``.
    """

    version, wrong = project_version(root), []
    cited = str(yaml.safe_load((root / "CITATION.cff").read_text()).get("version"))
    if cited != version:
        wrong.append(f"CITATION.cff has version {cited}, pyproject.toml {version}: set the same in both")
    if not changes(root, version) and not (unreleased and changes(root, "Unreleased")):
        wrong.append(f"CHANGELOG.md has no section of version {version}: rename ## Unreleased to ## {version} - DATE")
    return wrong


def changes(root: Path, version: str) -> str:
    """The section of ``CHANGELOG.md`` of a version, without its title; empty where there is none."""

    text = (root / "CHANGELOG.md").read_text()
    section = re.search(
        rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return section.group(1).strip() if section else ""


if __name__ == "__main__":
    sys.exit(main())
