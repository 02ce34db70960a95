from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from teacher_student.compute import Compute
from teacher_student.processes import Processes

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "train_together.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return where two processes and one wrote what they had trained. `compress` in two processes of `accelerate
    launch` is in tests/compress/test_single.py.
    """
    places = {name: tmp_path_factory.mktemp(name) for name in ("two", "alone")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, places.values())],
        cwd=places["alone"],
        env={"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return places


@pytest.mark.parametrize("student", ["narrow", "cut"])
def test_two_processes_give_the_result_of_one(results, student):
    alone = load_file(results["alone"] / f"{student}-0-of-1.safetensors")
    first, second = (load_file(results["two"] / f"{student}-{number}-of-2.safetensors") for number in (0, 1))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: name + text)
    losses = json.loads((results["alone"] / f"{student}-0-of-1.json").read_text())
    shared = json.loads((results["two"] / f"{student}-0-of-2.json").read_text())
    for expected_point, point in zip(losses, shared, strict=True):
        assert point == pytest.approx(expected_point, rel=1e-3)


def test_only_the_first_process_writes_states(results):
    assert [place.name for place in (results["two"] / "scratch-cut").iterdir()] == ["step-000000015"]
    kept = [sorted(entry.name for entry in (results[who] / "cache").iterdir()) for who in ("alone", "two")]
    assert len(kept[0]) == 2 and kept[0] == kept[1]


def test_alone_nothing_is_set_up():
    processes = Processes.join(Compute())
    assert (processes.number, processes.count, processes.first) == (0, 1, True)
    assert not torch.distributed.is_initialized()
