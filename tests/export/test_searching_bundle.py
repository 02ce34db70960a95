"""Bundles whose graph searches by itself: one file, which writes what the search on a host writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.examples import random_written, tiny_tokenizing
from support.networks import random_network
from support.writing_shapes import SHAPES

from compress.cli import main
from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.generator import Generator
from export.graph_file import graph_file, search_file
from export.outputs import outputs_of
from export.target import CPU, TARGETS
from export.timed_writing import text_writer
from export.verify import verify_bundle
from models.errors import BadFile, BadInput, Mismatch
from models.files import sha256_file
from models.generation_settings import Generation, Sampling
from models.targets import Writes

TEXTS = ["w5 w9 w14 w3", "w30", "w7 w7 w12 w45 w8"]
HOW = {
    "bart": Generation(start=1, end=(12, 2), max_tokens=8, min_tokens=2, beams=2),
    "llama": Generation(end=(2,), max_tokens=6),
}


def contents(name: str, *, target: str = "cpu", on_host: bool = False) -> Contents:
    network = random_network(SHAPES[name], seed=3)
    graph = graph_file(network, CPU) if on_host else search_file(network, HOW[name], TARGETS[target])
    return Contents(
        shape=network.shape,
        reader=tiny_tokenizing(),
        graph=graph,
        examples=[{"input_ids": np.array([[5, 9, 14, 3]])}, {"input_ids": np.array([[30]])}],
        parameters=1,
        generation=HOW[name],
    )


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp("bundle") for name in HOW}
    for name, directory in found.items():
        write_bundle(directory, contents(name))
    return found


@pytest.fixture(params=HOW)
def bundle(request: pytest.FixtureRequest, tmp_path: Path, sealed: dict[str, Path]) -> Path:
    return Path(shutil.copytree(sealed[request.param], tmp_path / request.param))


def edit(bundle: Path, name: str, change: Any) -> None:
    """Change a JSON file and write its true digest into the manifest."""
    value = json.loads((bundle / name).read_text())
    change(value)
    (bundle / name).write_text(json.dumps(value))
    if name != "manifest.json":
        entry = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
        edit(bundle, "manifest.json", lambda manifest: manifest["files"].update({name: entry}))


def test_it_has_one_graph_and_is_verified(bundle: Path) -> None:
    assert [path.name for path in bundle.iterdir() if path.suffix == ".onnx"] == ["model.onnx"]
    manifest = Bundle.open(bundle).manifest
    behind = bundle.name == "bart"
    assert [port.name for port in manifest.inputs] == ["input_ids", "attention_mask"][: 1 + behind]
    assert [port.name for port in manifest.outputs] == ["sequences", "scores"][: 1 + behind]
    report = verify_bundle(bundle)
    assert (report.examples, report.max_abs) == (2, 0.0)


def test_no_class_of_other_libraries_is_named_to_load_it(tmp_path: Path) -> None:
    named = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
    pages = []
    for on_host in (True, False):
        folder = tmp_path / str(on_host)
        folder.mkdir()
        given = contents("bart", on_host=on_host)
        assert given.shape.output is not None
        shape = replace(given.shape, output=replace(given.shape.output, task="translation"))
        write_bundle(folder, replace(given, shape=shape, config=named))
        told = json.loads((folder / "config.json").read_text())
        assert told["architectures"] == (named["architectures"] if on_host else [])
        pages.append((folder / "README.md").read_text())
    host, alone = pages
    assert "ORTModelForSeq2SeqLM" in host
    assert not any(name in alone for name in ("ORTModel", "optimum", "transformers.js", "library_name: transformers"))


def test_it_writes_what_the_host_writes(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    host = Generator.open(write_bundle(tmp_path / "host", contents(bundle.name, on_host=True)).directory)
    generator = Generator.open(bundle)
    found = generator.write(TEXTS)
    assert found == host.write(TEXTS)
    assert len(set(found)) > 1
    less = replace(HOW[bundle.name], max_tokens=3)
    assert generator.write(TEXTS, less) == host.write(TEXTS, less) != found


def test_what_it_cannot_do_is_told(bundle: Path) -> None:
    generator, how = Generator.open(bundle), HOW[bundle.name]
    with pytest.raises(BadInput, match="has its own beams, length_penalty.*host"):
        generator.write(TEXTS, replace(how, beams=3, length_penalty=2.0))
    with pytest.raises(BadInput, match="its own"):
        generator.write(TEXTS, replace(how, beams=1, sampling=Sampling()))
    with pytest.raises(BadInput, match="gives whole texts"):
        next(generator.stream(TEXTS[0]))
    with pytest.raises(BadInput, match="takes no steps"):
        Bundle.open(bundle).writer()
    with pytest.raises(BadInput, match="text 1 is empty"):
        generator.write([""])
    with pytest.raises(BadInput, match="text 1 has 41 tokens"):
        generator.write(["w3 " * 41])
    if bundle.name == "llama":
        with pytest.raises(BadInput, match="room for 40"):
            generator.write(["w3 " * 40])


def test_other_words_are_caught(bundle: Path) -> None:
    edit(bundle, "golden.json", lambda golden: golden["examples"][0]["written"].__setitem__(-1, 4))
    with pytest.raises(Mismatch, match="golden example 0"):
        verify_bundle(bundle)
    edit(bundle, "golden.json", lambda golden: golden["examples"][0]["logits"].append(4.0))
    with pytest.raises(BadFile, match="do not fit"):
        verify_bundle(bundle)


def test_other_scores_are_caught(tmp_path: Path, sealed: dict[str, Path]) -> None:
    bundle = Path(shutil.copytree(sealed["bart"], tmp_path / "bart"))
    edit(bundle, "golden.json", lambda golden: golden["examples"][1]["logits"].__setitem__(0, -0.01))
    with pytest.raises(Mismatch, match="golden example 1 differs by"):
        verify_bundle(bundle)


def test_a_phone_s_reduced_build_has_a_loop(tmp_path: Path, sealed: dict[str, Path]) -> None:
    write_bundle(tmp_path, contents("bart", target="mobile"))
    assert verify_bundle(tmp_path).examples == 2
    assert "Loop" in (tmp_path / "required_operators_and_types.config").read_text()
    assert Generator.open(tmp_path).write(TEXTS) == Generator.open(sealed["bart"]).write(TEXTS)


def test_it_is_judged_by_what_it_writes(tmp_path: Path, sealed: dict[str, Path]) -> None:
    data = random_written(6, behind=True)
    found = outputs_of(Bundle.open(sealed["bart"]), data, Writes.BEHIND_SOURCE)
    host = write_bundle(tmp_path, contents("bart", on_host=True))
    np.testing.assert_array_equal(found, outputs_of(host, data, Writes.BEHIND_SOURCE))
    with pytest.raises(BadInput, match="takes no steps"):
        outputs_of(Bundle.open(sealed["llama"]), random_written(2, behind=False), Writes.ON)


def test_a_whole_text_is_timed(sealed: dict[str, Path]) -> None:
    write = text_writer(sealed["bart"], threads=1)
    (best, *_) = write({"input_ids": np.array([[5, 9, 14, 3]])})
    assert best == Bundle.open(sealed["bart"]).search().write([5, 9, 14, 3], max_tokens=8)[0]
    (half,) = text_writer(sealed["llama"], threads=1)({"input_ids": np.array([[5, 9, 14, 3, 7]])})
    assert half == Bundle.open(sealed["llama"]).search().write([5, 9, 14], max_tokens=2)[0]


def test_the_readme_writes_without_the_package(bundle: Path) -> None:
    code = (bundle / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "compress" not in code
    said = subprocess.run([sys.executable, "-c", code], cwd=bundle, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == Generator.open(bundle).write(["What do you make of this?"])[0].strip()


def test_the_command_writes(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(bundle), *TEXTS, *words])
        assert stop.value.code == code
        said = capsys.readouterr()
        return said.out or said.err

    generator = Generator.open(bundle)
    assert told() == "\n".join(generator.write(TEXTS)) + "\n"
    less = replace(HOW[bundle.name], max_tokens=3)
    assert told("--max-tokens", "3") == "\n".join(generator.write(TEXTS, less)) + "\n"
    assert "the search is in the graph" in told("--beams", "5", code=2)
