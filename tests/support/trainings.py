"""What a training leaves in its run folder, read back and held against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open


def step_of(run: Path) -> int:
    """The steps that a run's checkpoint knows; 0 before there is one."""

    path = run / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["standing"])["step"]


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of the metrics, without the figures that tell the time."""

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") >= 0 and line.pop("speed")["samples_per_second"] > 0 for line in lines)
    return lines


def assert_same(run: Path, other: Path) -> None:
    """Two finished runs are the same, bit for bit."""

    assert rows(run) == rows(other)
    for name in ("model.safetensors", "split.safetensors"):
        assert (run / name).exists() == (other / name).exists(), name
        if (other / name).exists():
            assert (run / name).read_bytes() == (other / name).read_bytes(), name
    one, two = (json.loads((folder / "training.json").read_text()) for folder in (run, other))
    for figure in ("seconds", "folder", "speed", "sha256"):
        one.pop(figure), two.pop(figure)
    assert one == two
