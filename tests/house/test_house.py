"""The house as a whole: a light front door, and README, pages and examples as they stand."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support.command import Answer
from support.paths import ROOT

README = (ROOT / "README.md").read_text()
VERBS = ("train", "evaluate", "explain", "compare", "reproduce", "profile", "verify", "export", "app")
FEWER = {"train": " --limit 300", "evaluate": " --samples 60", "explain": " --samples 16"}
SMALL = {"train": " --limit 200 --epochs 1", "evaluate": " --samples 20 --epsilons 0.3", "reproduce": " --dry-run"}


def shell(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def words_of(line: str) -> list[str]:
    """What follows ``asgt`` in a command line of a page."""

    name, *words = shlex.split(line, comments=True)
    assert name == "asgt"
    return words


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "--version", *(f"{verb} --help" for verb in VERBS)])
def test_help_imports_nothing_heavy(words: str, tmp_path: Path) -> None:
    script = (
        "import sys; from asgt.cli import main\n"
        f"try: main({words.split()!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'matplotlib', 'sklearn', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = shell([sys.executable, "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: asgt", "asgt 0."))


def test_every_package_is_there_without_a_call_before_it(tmp_path: Path) -> None:
    ours = {each.parent.name for each in (ROOT / "src" / "asgt").glob("*/__init__.py")} - {"app", "cli", "study"}
    code = f"import asgt\nfor name in {sorted(ours)}: assert getattr(asgt, name).__name__ == f'asgt.{{name}}'"
    done = shell([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists() -> None:
    import asgt

    assert [name for name in asgt.__all__ if getattr(asgt, name, None) is None] == []
    assert set(asgt.__all__) <= set(dir(asgt))
    with pytest.raises(AttributeError):
        asgt.nothing  # noqa: B018


@pytest.mark.slow
def test_the_commands_of_the_pages_run(warm: Callable[..., Answer], tmp_path: Path) -> None:
    lines = {
        page: [
            line.partition("#")[0].strip()
            for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
            for line in block.splitlines()
            if line.startswith("asgt ")
        ]
        for page in ("README.md", "docs/tour.md")
    }
    assert all(len(those) >= 3 for those in lines.values())
    said = ""
    for line in dict.fromkeys(line for those in lines.values() for line in those):  # what both say runs once
        # On fewer images.
        shorter = line + FEWER.get(line.split()[1], "")
        answer = warm(*words_of(shorter))
        assert answer.status == 0, f"{line}\n{answer.err}"
        said += answer.out
    assert "protocol pgd v3 (not yet a robustness claim)" in said
    for report in ("page", "comparison"):
        assert f"report: {report}/report.html" in said
        assert (tmp_path / report / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/mnist.md", "docs/repeat-the-paper.md"])
def test_the_mnist_commands_of_the_pages_run_at_a_small_scale(
    page: str, warm: Callable[..., Answer], mnist: Path
) -> None:
    lines = [
        line.removeprefix("$ ")
        for block in re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ asgt ")
    ]
    assert any("reproduce mnist --scale laptop" in line for line in lines)
    for line in lines:
        answer = warm(*words_of(line + SMALL[line.split()[1]]), environment={"ASGT_DATA": str(mnist.parent)})
        assert answer.status == 0, f"{line}\n{answer.err}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{name}.md"
            for name in ("evaluation", "index", "methods", "saliency", "share-a-model", "shortcuts", "tour")
        ),
    ],
)
def test_the_python_of_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_targets_that_the_readme_names_exist() -> None:
    for target in ("demo", "test"):
        assert f"make {target}" in README
        assert shell(["make", "-n", target], ROOT).returncode == 0


def test_the_demo_is_the_quick_grid_of_the_digits() -> None:
    plan = shell(["make", "-n", "-o", ".venv/.ready", "demo"], ROOT).stdout
    assert "asgt reproduce digits --scale quick --out demo" in plan

    from asgt import load_preset

    grid = load_preset("digits", "quick")
    assert (len(grid.methods), grid.seeds, grid.protocols) == (7, 3, ("paper", "pgd"))


@pytest.mark.slow
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


# The structure of the package, read from its syntax trees -------------------------------------------------------------


PACKAGE = ROOT / "src" / "asgt"
TREES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def module_of(path: Path) -> str:
    """``attacks.pgd`` of a file below the package; of an ``__init__`` the package's own name."""

    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{module_of(path)}.{node.name}", node


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it: lazily, and for types alone, too."""

    modules, own = {module_of(other) for other in TREES}, module_of(path)
    package = (own.split(".") if own else [])[: None if path.name == "__init__.py" else -1]
    imported = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for name in node.names:
                whole = ".".join([*base, name.name])
                imported.add(whole if whole in modules else ".".join(base))
    return imported - {own}


@pytest.mark.slow
def test_no_function_is_longer_than_80_lines() -> None:
    def lines(node: ast.FunctionDef) -> int:
        first = node.body[0]
        documented = ast.get_docstring(node) is not None
        return node.end_lineno - node.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)  # type: ignore[operator]

    assert {name: count for name, node in functions() if (count := lines(node)) > 80} == {}


@pytest.mark.slow
def test_no_function_takes_more_than_six_arguments_by_position() -> None:
    def positional(node: ast.FunctionDef) -> int:
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        return len([name for name in names if name not in ("self", "cls")])

    assert {name: count for name, node in functions() if (count := positional(node)) > 6} == {}


@pytest.mark.slow
def test_no_call_hands_over_more_than_six_arguments_by_position() -> None:
    calls = [
        f"{module_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        # A sequence of layers, as nn.Sequential takes them, is one argument in parts.
        if isinstance(node, ast.Call) and len([a for a in node.args if not isinstance(a, ast.Call)]) > 6
    ]
    assert calls == []


def test_no_two_modules_share_a_name() -> None:
    stems = Counter(path.stem for path in TREES if not path.stem.startswith("__"))
    assert [name for name, count in stems.items() if count > 1] == []


def test_no_package_hides_a_module_behind_a_name_of_its_own() -> None:
    hidden = []
    for path, tree in TREES.items():
        if path.name != "__init__.py":
            continue
        modules = {other.stem for other in path.parent.glob("*.py")}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                hidden += [
                    f"{module_of(path)}.{name.asname or name.name}"
                    for name in node.names
                    if name.name in modules and node.module
                ]
    assert hidden == []


@pytest.mark.slow
def test_files_import_each_other_in_no_circle() -> None:
    arrows = {module_of(path): imports(path) for path in TREES}
    order = TopologicalSorter(arrows)
    order.prepare()  # it raises a CycleError that names the circle


@pytest.mark.slow
def test_nobody_outside_the_attacks_asks_for_the_type_of_an_attack() -> None:
    import asgt.attacks
    from asgt.attacks import Attack

    names = {
        name for name, value in vars(asgt.attacks).items() if isinstance(value, type) and issubclass(value, Attack)
    }
    asked = [
        f"{module_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        if not module_of(path).startswith("attacks")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("isinstance", "issubclass")
        and names & {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
    ]
    assert asked == []
