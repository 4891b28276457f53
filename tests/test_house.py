"""The house as a whole: a light front door, and the README and the examples as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def shell(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


def asgt(line: str) -> list[str]:
    """A command line of the README, run by this interpreter."""

    words = shlex.split(line, comments=True)
    assert words[0] == "asgt"
    return [sys.executable, "-m", *words]


@pytest.mark.parametrize("line", ["asgt --help", "asgt train --help", "asgt evaluate --help", "asgt --version"])
def test_help_imports_nothing_heavy(line: str, tmp_path: Path) -> None:
    script = (
        "import sys; from asgt.cli import main\n"
        f"try: main({shlex.split(line)[1:]!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'matplotlib', 'sklearn', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = shell([sys.executable, "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: asgt", "asgt 0."))


def test_every_public_name_exists() -> None:
    import asgt

    assert [name for name in asgt.__all__ if getattr(asgt, name, None) is None] == []
    assert set(asgt.__all__) <= set(dir(asgt))
    with pytest.raises(AttributeError):
        asgt.nothing  # noqa: B018


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    lines = [
        line
        for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("asgt ")
    ]
    assert len(lines) >= 3
    for line in lines:
        done = shell(asgt(line), tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "protocol paper v1 (not a robustness claim)" in done.stdout


def test_the_readmes_mnist_commands_run_at_a_small_scale(tmp_path: Path, mnist: Path) -> None:
    lines = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ asgt ")
    ]
    assert any("--method asgt" in line for line in lines)
    for line in lines:
        small = " --limit 200 --epochs 1" if "train" in line else " --samples 20 --epsilons 0.3"
        done = shell(asgt(line + small), tmp_path, ASGT_DATA=str(mnist.parent))
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_readmes_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_targets_that_the_readme_names_exist() -> None:
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert shell(["make", "-n", target], ROOT).returncode == 0


def test_own_loop_runs_and_learns() -> None:
    done = shell([sys.executable, "examples/own_loop.py"], ROOT)
    assert done.returncode == 0, done.stderr
    clean = float(re.search(r"clean: ([\d.]+)%", done.stdout).group(1))  # type: ignore[union-attr]
    assert clean > 80, done.stdout


def test_the_demo_ends_with_a_table_and_a_picture(tmp_path: Path) -> None:
    words = [
        sys.executable,
        str(ROOT / "examples" / "compare_methods.py"),
        "--out",
        "demo",
        "--epochs",
        "2",
        "--samples",
        "40",
    ]
    done = shell(words, tmp_path)
    assert done.returncode == 0, done.stderr
    for method in ("ST", "AT", "SGT", "SGA", "ASGT"):
        assert re.search(rf"^ *{method} +[\d.]+ \[", done.stdout, re.MULTILINE), done.stdout
    from PIL import Image

    with Image.open(tmp_path / "demo" / "robustness.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50, "an empty picture has few colours"


@pytest.mark.parametrize("method", ["st", "at", "trades", "sgt", "sga", "asgt"])
def test_a_share_of_cifar10_goes_through_every_method_with_resnet18(
    method: str, tmp_path: Path, cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asgt.cli import main

    monkeypatch.setenv("ASGT_DATA", str(cifar10.parent))
    monkeypatch.chdir(tmp_path)
    steps = [] if method in ("st", "sgt") else ["--steps", "2"]
    words = ["--data", "cifar10", "--model", "resnet18", "--width", "0.25", "--limit", "80", "--batch-size", "16"]
    assert main(["train", *words, "--method", method, "--epochs", "1", *steps, "--out", "run"]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
