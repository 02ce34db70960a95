"""A stage on its own, and one that several processes carry out together."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.examples import tiny_checkpoint, write_data

from compress.cli import main

ROOT = Path(__file__).parents[2]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": str(Path(sys.executable).parent), "CUDA_VISIBLE_DEVICES": ""}
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no"]


# What the processes that are launched together carry out one after another: loading everything takes longest. Each
# tells its errors in a file of its own, since what two write to one is mixed.
CALLS = """
import json, os, sys
os.dup2(os.open("errors-" + os.environ["RANK"], os.O_WRONLY | os.O_CREAT), 2)
from compress.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as stop:
        print("ended with", stop.code, file=sys.stderr)
"""


def words_in(folder: Path) -> list[str]:
    """Return the options of a short distillation from a random teacher."""
    (folder / "teacher").mkdir()
    tiny_checkpoint().save(folder / "teacher")
    data = write_data(folder)
    files = ["--teacher", str(folder / "teacher"), "--train", data["train"], "--validation", data["validation"]]
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


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return words_in(tmp_path)


class Together(NamedTuple):
    """What two processes did in `folder`, asked for an export and for the distillation of `words`."""

    folder: Path
    words: list[str]
    done: subprocess.CompletedProcess[str]

    def errors(self, rank: int) -> str:
        """Return what one of the processes told of its errors."""
        return (self.folder / f"errors-{rank}").read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def losses(artifact: Path) -> list[float]:
    """Return the mean loss between evaluations of the training that made an artifact."""
    record = json.loads((artifact / "artifact.json").read_text(encoding="utf-8"))
    return [sum(point["losses"].values()) for point in record["details"]["training"]["points"]]


def places(folder: Path, name: str) -> list[str]:
    return ["--out", str(folder / name), "--cache", str(folder / f"cache-{name}"), "--json"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    words = words_in(folder)
    export = ["export", str(folder / "teacher"), words[4], words[5], "--out", str(folder / "bundle")]
    (folder / "calls.py").write_text(CALLS)
    command = [sys.executable, *LAUNCH, *PLAIN, "--main_process_port", str(free_port()), str(folder / "calls.py")]
    command += [json.dumps([export, ["distill", *words, *places(folder, "two")]])]
    environment = ENVIRONMENT | {"HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return Together(folder, words, done)


@pytest.mark.usefixtures("timed_by_size")
def test_two_processes_distil_what_one_does(together: Together, capsys: pytest.CaptureFixture[str]) -> None:
    folder, words, done = together
    assert done.returncode == 0, done.stderr[-4000:] + together.errors(0)[-4000:]
    with pytest.raises(SystemExit) as stop:
        main(["distill", *words, *places(folder, "alone")])
    assert stop.value.code == 0
    # The first process alone speaks.
    one, two = json.loads(capsys.readouterr().out), json.loads(done.stdout)
    assert [stage["stage"] for stage in two["stages"]] == [stage["stage"] for stage in one["stages"]]
    # In bfloat16 the sums over half a batch round otherwise, so the losses agree to a few per cent of their fall.
    expected, found = (losses(folder / name) for name in ("alone", "two"))
    fall = expected[0] - expected[-1]
    assert fall > 0
    assert found == pytest.approx(expected, abs=0.05 * fall)
    assert not any((folder / "cache-two" / "single").iterdir())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stage_for_one_process_refuses_two(together: Together, rank: int) -> None:
    errors = together.errors(rank)
    assert errors.count("export runs in one process") == 1
    assert "ended with 2\n" in errors
    assert not (together.folder / "bundle").exists()


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
