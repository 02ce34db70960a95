from __future__ import annotations

import json
import socket
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def together(directory: Path, processes: int) -> None:
    """Run the script as `accelerate launch` does; --multi_gpu stands for several processes, gloo where no GPU is."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), str(SCRIPT), str(directory)]
    path = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=directory, env={**path, "HOME": str(directory)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    places = {}
    alone = tmp_path_factory.mktemp("alone")
    subprocess.run(
        [sys.executable, str(SCRIPT), str(alone)], cwd=alone, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=300
    )
    places["alone"] = alone
    places["two"] = tmp_path_factory.mktemp("two")
    together(places["two"], 2)
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
