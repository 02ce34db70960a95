"""A stage on its own, and one that several processes carry out together."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.examples import tiny_checkpoint, write_data

from compress.cli import main

ROOT = Path(__file__).parents[2]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent), "CUDA_VISIBLE_DEVICES": ""}
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return the options of a short distillation from a random teacher."""
    (tmp_path / "teacher").mkdir()
    tiny_checkpoint().save(tmp_path / "teacher")
    data = write_data(tmp_path)
    files = ["--teacher", str(tmp_path / "teacher"), "--train", data["train"], "--validation", data["validation"]]
    return [
        *files,
        "--layers",
        "1",
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--learning-rate",
        "0.0005",
        "--dropout",
        "0",
        "--threads",
        "1",
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses(artifact: Path) -> list[float]:
    """Return the mean loss between evaluations of the training that made an artifact."""
    record = json.loads((artifact / "artifact.json").read_text(encoding="utf-8"))
    return [sum(point["losses"].values()) for point in record["details"]["training"]["points"]]


def distil(words: list[str], folder: Path, name: str, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    places = ["--out", str(folder / name), "--cache", str(folder / f"cache-{name}"), "--json"]
    command = [sys.executable, *launcher, "-m", "compress", "distill", *words, *places]
    environment = ENVIRONMENT | {"HOME": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_distil_what_one_does(words: list[str], tmp_path: Path) -> None:
    alone = distil(words, tmp_path, "alone", [])
    assert alone.returncode == 0, alone.stderr
    together = distil(words, tmp_path, "two", [*LAUNCH, *PLAIN, "--main_process_port", str(free_port())])
    assert together.returncode == 0, together.stderr[-4000:]
    # The first process alone speaks.
    one, two = json.loads(alone.stdout), json.loads(together.stdout)
    assert [stage["stage"] for stage in two["stages"]] == [stage["stage"] for stage in one["stages"]]
    # In bfloat16 the sums over half a batch round otherwise, so the losses agree to a few per cent of their fall.
    expected, found = (losses(tmp_path / name) for name in ("alone", "two"))
    fall = expected[0] - expected[-1]
    assert fall > 0
    assert found == pytest.approx(expected, abs=0.05 * fall)
    assert not any((tmp_path / "cache-two" / "single").iterdir())


def test_a_stage_for_one_process_refuses_two(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, *LAUNCH, *PLAIN, "--main_process_port", str(free_port()), "-m", "compress"]
    command += ["export", str(tmp_path / "teacher"), words[4], words[5], "--out", str(tmp_path / "bundle")]
    environment = ENVIRONMENT | {"HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "export runs in one process" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--layers", "9"], "9"),
        (["--train", "missing.csv"], "missing.csv"),
        (["--batch-size", "0"], "batch_size"),
        (["--losses-mse", "0"], "at least one of"),
    ],
)
def test_bad_options_are_named_and_nothing_is_left(
    words: list[str], change: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places: list[Any] = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    with pytest.raises(SystemExit) as stop:
        main(["distill", *words, *change, *map(str, places)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "out").exists()
