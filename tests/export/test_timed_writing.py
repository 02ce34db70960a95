"""Whole texts as the calls that are timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import tiny_translator
from support.examples import tiny_tokenizing
from support.networks import random_network
from support.writing_shapes import SHAPES

from export import latency, timed_writing
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.latency import Call
from export.target import CPU
from models.generation_settings import Generation

HOW = Generation(start=1, end=(2,), max_tokens=4, beams=3)
TEXTS = [Call(len(ids), {"input_ids": np.array([ids])}) for ids in ([5, 9, 14, 3, 22], [30])]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name in ("bart", "llama"):
        network, found[name] = random_network(SHAPES[name], seed=3), tmp_path_factory.mktemp(name)
        write_bundle(
            found[name],
            Contents(network.shape, tiny_tokenizing(), graph_file(network, CPU), [], parameters=1, generation=HOW),
        )
    found["in the graph"] = tiny_translator(tmp_path_factory.mktemp("searching"), in_graph=True).directory
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what is noted of every text that is written: prompts and settings."""
    noted: list[tuple[Any, ...]] = []
    generate = timed_writing.generate

    def noting(steps: Any, prompts: Any, settings: Generation) -> Any:
        noted.append((prompts, settings))
        return generate(steps, prompts, settings)

    monkeypatch.setattr(timed_writing, "generate", noting)
    return noted


def test_a_text_is_written_as_the_bundle_writes(bundles: dict[str, Path], asked: list[tuple[Any, ...]]) -> None:
    write = timed_writing.text_writer(bundles["bart"], threads=1)
    for call in TEXTS:
        ((best, *_),) = write(call.arrays)  # type: ignore[misc]
        assert best.tokens
    assert asked == [([[1]], HOW), ([[1]], HOW)]


def test_what_goes_on_writes_as_much_as_any_other(bundles: dict[str, Path], asked: list[tuple[Any, ...]]) -> None:
    write = timed_writing.text_writer(bundles["llama"], threads=1)
    lengths = [len(write(call.arrays)[0][0].tokens) for call in TEXTS]  # type: ignore[index]
    assert lengths == [2, 1]
    assert [prompts for prompts, _ in asked] == [[[5, 9, 14]], [[30]]]
    assert {settings.beams for _, settings in asked} == {3}


@pytest.mark.parametrize("name", ["bart", "in the graph"])
def test_a_bundle_is_timed_by_its_mean_text(
    name: str, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    one_pass = latency._Worker.one_pass

    def noted(worker: latency._Worker) -> list[int]:
        passes.append(one_pass(worker))
        return passes[-1]

    monkeypatch.setattr(latency._Worker, "one_pass", noted)
    found = latency.measure(bundles[name], [*TEXTS, TEXTS[0]], rounds=1)
    assert [len(times) for times in passes] == [3, 3]
    assert found.rounds[0] == pytest.approx([np.mean(times) / 1e6 for times in passes])


def test_what_writes_is_timed_without_torch(bundles: dict[str, Path]) -> None:
    code = f"""
import sys; sys.path[:] = {json.dumps(sys.path)}
from pathlib import Path
from export.timed_writing import text_writer
import numpy
text_writer(Path({str(bundles["bart"])!r}), threads=1)({{"input_ids": numpy.array([[5, 9]])}})
print(sorted({{"torch", "onnx", "transformers"}} & set(sys.modules)))"""
    said = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"
