"""One version, and the files that contributors and archives rest on."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import asgt
from support.documented import script
from support.paths import ROOT

release: Any = script("release")

GITHUB = ROOT / ".github"


def test_there_is_one_version() -> None:
    assert asgt.__version__ == version("asgt") == release.project_version(ROOT)
    assert release.disagreements(ROOT, unreleased=True) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_a_release_needs_its_version_everywhere(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text()
    (repository / "pyproject.toml").write_text(text.replace('version = "0.1.0"', 'version = "9.8.7"'))
    cited, changed = release.disagreements(repository)
    assert cited == "CITATION.cff has version 0.1.0, pyproject.toml 9.8.7: set the same in both"
    assert changed == "CHANGELOG.md has no section of version 9.8.7: rename ## Unreleased to ## 9.8.7 - DATE"
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## 9.8.7 - 2030-01-01\n\n- One.\n\n## 9.8.6\n\n- Two.\n")
    assert release.changes(repository, "9.8.7") == "- One."
    assert release.changes(repository, "9.8") == ""
    assert release.disagreements(repository) == [cited]


def test_the_citation_is_complete() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "date-released", "license", "abstract"} <= set(
        cited
    )
    assert cited["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert any("2405.06278" in each["url"] for each in cited["references"])


def test_the_workflow_runs_the_script_of_contributors() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]
    steps = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in steps
    assert "make docs" in steps
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    for python in jobs["test"]["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {python}" in supported


def test_the_targets_that_contributors_read_of_exist() -> None:
    for target in ("test-fast", "test", "lint", "types", "docs", "release"):
        assert f"make {target}" in (ROOT / "CONTRIBUTING.md").read_text() or target == "types"
        ended = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("file", sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.stem)
def test_an_issue_form_has_what_a_forge_needs(file: Path) -> None:
    form = yaml.safe_load(file.read_text())
    if file.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form)
    identities = [each["id"] for each in form["body"] if each["type"] != "markdown"]
    assert len(set(identities)) == len(identities) > 0
    for each in form["body"]:
        assert each["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert each["attributes"].get("label") or each["type"] == "markdown"


def test_the_hooks_run_what_the_environment_has() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    for hook in hooks[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
