from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.networks import random_network, tiny_shape

from export import latency
from export.latency import Call
from export.latency_worker import serve
from export.lower import lower
from export.target import CPU
from models.errors import BadFile, BadInput
from models.shape import LayerShape


def call(*ids: int) -> Call:
    return Call(len(ids), {"input_ids": np.array([ids], dtype=np.int64)})


TEXTS = [call(*range(length)) for length in (3, 9, 3, 5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("models")
    large = tiny_shape((LayerShape(4, 8, 48),) * 3)
    for name, shape in (("large", large), ("small", tiny_shape((LayerShape(1, 8, 8),)))):
        (directory / name).write_bytes(lower(random_network(shape), CPU).SerializeToString())
    return directory / "large", directory / "small"


def test_two_models_are_timed_in_rounds(models: tuple[Path, Path]) -> None:
    seen: list[tuple[str, int, int]] = []
    found = latency.compare(
        *models, TEXTS, rounds=5, progress=lambda label: lambda done, total: seen.append((label, done, total))
    )
    assert found.lengths == (3, 9, 3, 5)
    assert found.threads == 1
    for side in (found.baseline, found.candidate):
        assert [len(passes) for passes in side.rounds] == [2] * 5
        medians = [value for passes in side.rounds for value in passes]
        assert 0 < min(medians) <= side.p95_ms
        assert 0 < side.p50_ms <= side.p95_ms
    assert found.speedup == found.baseline.p50_ms / found.candidate.p50_ms
    assert seen == [("Timing", done, 5) for done in range(1, 6)]


def test_each_model_may_read_the_texts_its_own_way(models: tuple[Path, Path]) -> None:
    own = [call(*range(length)) for length in (2, 4, 2, 3)]
    found = latency.compare(*models, own, baseline_calls=TEXTS, rounds=1)
    assert found.lengths == (2, 4, 2, 3)
    assert found.baseline_lengths == (3, 9, 3, 5)
    with pytest.raises(BadInput, match="4 calls for the baseline and 3 for the candidate"):
        latency.compare(*models, own[:3], baseline_calls=TEXTS, rounds=1)


def test_one_model_is_timed_alone(models: tuple[Path, Path]) -> None:
    found = latency.measure(models[0], TEXTS, rounds=2)
    assert [len(passes) for passes in found.rounds] == [2, 2]


def test_passes_are_interleaved_and_the_first_model_alternates(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    one_pass = latency._Worker.one_pass

    def noted(worker: latency._Worker) -> list[int]:
        order.append(worker.model.name[0])
        return one_pass(worker)

    monkeypatch.setattr(latency._Worker, "one_pass", noted)
    latency.compare(*models, TEXTS, rounds=2)
    assert "".join(order) == "lssl" + "slls"


def test_launches_are_repeated(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    popen = subprocess.Popen

    def noted(*arguments: object, **settings: object) -> object:
        started.append(arguments)
        return popen(*arguments, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", noted)
    latency.compare(*models, TEXTS[:1], rounds=latency.ROUNDS_PER_LAUNCH + 1)
    assert len(started) == 4


def test_a_model_that_does_not_load_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(BadFile, match=r"broken\.onnx.*ended with code 2.*does not read it"):
        latency.compare(models[0], broken, TEXTS)


def test_a_worker_that_dies_is_said_with_its_last_words(models: tuple[Path, Path]) -> None:
    with pytest.raises(BadFile, match="ended with code 1: .*indices element out of data bounds"):
        latency.measure(models[0], [call(10_000)])


@pytest.mark.parametrize(
    ("texts", "settings"), [([], {}), ([call()], {}), (TEXTS, {"rounds": 0}), (TEXTS, {"threads": 0})]
)
def test_bad_settings_are_refused(models: tuple[Path, Path], texts: list[Call], settings: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        latency.measure(models[0], texts, **settings)


def test_the_worker_answers_line_by_line(models: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "calls.npz", **{"0/input_ids": np.array([[1, 2]]), "1/input_ids": np.array([[3]])})
    order = {"model": str(models[0]), "threads": 1, "warm_up": 1, "calls": str(tmp_path / "calls.npz")}
    incoming = io.StringIO("\n".join(json.dumps(line) for line in (order, {"pass": True}, {"pass": True})) + "\n")
    outgoing = io.StringIO()
    serve(incoming, outgoing)
    ready, *passes = [json.loads(line) for line in outgoing.getvalue().splitlines()]
    assert ready == {"ready": ["input_ids", "attention_mask", "token_type_ids"]}
    assert [len(line["ns"]) for line in passes] == [2, 2]


def test_what_a_model_costs_alone(models: tuple[Path, Path]) -> None:
    found = latency.profile(models[1], TEXTS, passes=3)
    assert [len(times) for times in found.times_ms] == [3] * len(TEXTS)
    assert min(min(times) for times in found.times_ms) > 0
    assert found.load_ms > 0
    if sys.platform == "linux":  # a Python with the runtime, and not what the tests hold
        assert found.before_bytes is not None and found.peak_bytes is not None
        assert 10e6 < found.before_bytes <= found.peak_bytes < 400e6


def test_the_worker_does_not_load_torch() -> None:
    code = "import sys, export.latency_worker; print(sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    path = json.dumps(sys.path)
    said = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {path}; {code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[]"


def test_a_folder_with_its_own_export_is_no_trap(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "export.py").write_text("raise SystemExit(9)")
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert latency.measure(models[1], TEXTS, rounds=1).p50_ms > 0
