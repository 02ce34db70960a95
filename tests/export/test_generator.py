"""Bundles that write: what they hold, that they are verified, and that they write what the network writes."""

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
from support.examples import tiny_tokenizing
from support.networks import random_network
from support.writing_shapes import SHAPES
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from compress.cli import main
from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.generator import Generator
from export.graph_file import graph_file
from export.target import TARGETS
from export.verify import verify_bundle
from models.errors import BadFile, BadInput, Mismatch
from models.files import sha256_file
from models.generation import generate, starts
from models.generation_settings import Generation, Sampling
from models.native_steps import NativeSteps
from models.network import Network

NAMES = ("bart", "llama")
TEXTS = ["w5 w9 w14 w3", "w30", "w7 w7 w12 w45 w8"]
HOW = Generation(start=1, end=(2,), max_tokens=8)
EXAMPLES = [{"input_ids": np.array([[5, 9, 14, 3]])}, {"input_ids": np.array([[30]])}]


def network_of(name: str) -> Network:
    return random_network(SHAPES[name], seed=3)


def contents(name: str, *, target: str = "cpu", **changes: Any) -> Contents:
    network = network_of(name)
    made = Contents(
        shape=network.shape,
        reader=tiny_tokenizing(),
        graph=graph_file(network, TARGETS[target]),
        examples=EXAMPLES,
        parameters=1,
        generation=HOW,
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp("bundle") for name in NAMES}
    for name, directory in found.items():
        write_bundle(directory, contents(name))
    return found


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest, tmp_path: Path, sealed: dict[str, Path]) -> Path:
    return Path(shutil.copytree(sealed[request.param], tmp_path / request.param))


@pytest.fixture
def translator(tmp_path: Path, sealed: dict[str, Path]) -> Path:
    return Path(shutil.copytree(sealed["bart"], tmp_path / "translator"))


def edit(bundle: Path, name: str, change: Any) -> None:
    """Change a JSON file and write its true digest into the manifest."""
    value = json.loads((bundle / name).read_text())
    change(value)
    (bundle / name).write_text(json.dumps(value))
    if name != "manifest.json":
        entry = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
        edit(bundle, "manifest.json", lambda manifest: manifest["files"].update({name: entry}))


def test_it_holds_its_graphs_and_how_it_writes(translator: Path) -> None:
    assert {path.name for path in translator.iterdir()} == {
        *("README.md", "config.json", "golden.json", "manifest.json", "tokenizer.json", "tokenizer_config.json"),
        *("decoder_model_merged.onnx", "encoder_model.onnx", "generation.json", "generation_config.json"),
        "verify.mjs",
    }
    manifest = Bundle.open(translator).manifest
    assert (manifest.model, manifest.encoder) == ("decoder_model_merged.onnx", "encoder_model.onnx")
    assert json.loads((translator / "generation_config.json").read_text())["decoder_start_token_id"] == 1
    assert Bundle.open(translator).generation == HOW
    golden = json.loads((translator / "golden.json").read_text())["examples"]
    assert [len(example["written"]) for example in golden] == [12, 12]


def test_what_goes_on_has_one_graph(sealed: dict[str, Path]) -> None:
    assert "model.onnx" in {path.name for path in sealed["llama"].iterdir()}
    assert Bundle.open(sealed["llama"]).manifest.encoder is None


def test_it_is_verified(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert report.examples == 2
    assert report.max_abs < 1e-4


def test_it_writes_what_the_network_writes(bundle: Path) -> None:
    network, tokenizing = network_of(bundle.name), tiny_tokenizing()
    ids = [one.ids for one in tokenizing.encode(TEXTS, max_length=30)]
    expected = []
    for one in ids:
        steps = NativeSteps(network, None if network.decoder is None else [one])
        ((best, *_),) = generate(steps, [one] if network.decoder is None else starts(HOW, 1), HOW)
        expected.append(tokenizing.decoded([best.tokens])[0])
    generator = Generator.open(bundle)
    found = generator.write(TEXTS)
    assert [text.strip() for text in found] == expected
    assert len(set(expected)) > 1
    assert generator.write(TEXTS, batch=3) == found
    assert ["".join(generator.stream(text)) for text in TEXTS] == found


def test_a_call_has_its_own_settings(bundle: Path) -> None:
    generator = Generator.open(bundle)
    assert generator.write(TEXTS, Generation(max_tokens=2)) == [
        " ".join(text.split(" ")[: 2 + text.startswith(" ")]) for text in generator.write(TEXTS)
    ]
    drawn = replace(HOW, sampling=Sampling(temperature=3.0), min_tokens=8)
    first = generator.write(TEXTS, drawn, seed=1)
    assert first == generator.write(TEXTS, drawn, seed=1)
    assert first != generator.write(TEXTS, drawn, seed=2)
    assert len(generator.write(TEXTS, replace(HOW, beams=3))) == 3


def test_bad_input_is_told(bundle: Path) -> None:
    generator = Generator.open(bundle)
    behind = generator.sessions.encoder is not None
    with pytest.raises(BadInput, match="text 1 is empty"):
        generator.write([""])
    with pytest.raises(BadInput, match="text 1 has 41 tokens"):
        generator.write(["w3 " * 41])
    if not behind:
        with pytest.raises(BadInput, match="room for 40"):
            generator.write(["w3 " * 40])
    with pytest.raises(BadInput, match="the tokenizer has no token 50"):
        generator.write(TEXTS, replace(HOW, end=(50,)))
    with pytest.raises(BadInput, match="51 beams are more than the 50 words"):
        generator.write(TEXTS, replace(HOW, beams=51))
    with pytest.raises(BadInput, match="several|end alone"):
        list(generator.stream(TEXTS[0], replace(HOW, beams=2)))


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_end_alone_is_nothing_to_read(empty: str, sealed: dict[str, Path], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(sealed["bart"], tmp_path / "bart"))
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ending = ("w3", tokenizer.token_to_id("w3"))
    tokenizer.post_processor = TemplateProcessing(single="$A w3", special_tokens=[ending])
    tokenizer.save(str(bundle / "tokenizer.json"))
    with pytest.raises(BadInput, match="text 2 is empty"):
        Generator.open(bundle).write([TEXTS[0], empty])


def test_a_reader_may_stop(bundle: Path) -> None:
    pieces = Generator.open(bundle).stream(TEXTS[0], replace(HOW, min_tokens=8))
    first = next(pieces)
    pieces.close()
    assert Generator.open(bundle).write(TEXTS[:1], replace(HOW, min_tokens=8))[0].startswith(first)


def test_other_words_are_caught(bundle: Path) -> None:
    edit(bundle, "golden.json", lambda golden: golden["examples"][0]["written"].__setitem__(-1, 4))
    with pytest.raises(Mismatch, match="golden example 0"):
        verify_bundle(bundle)
    edit(bundle, "golden.json", lambda golden: golden["examples"][0]["written"].append(4))
    with pytest.raises(BadFile, match="do not fit"):
        verify_bundle(bundle)


def test_an_encoder_that_is_missing_is_told(translator: Path) -> None:
    edit(translator, "manifest.json", lambda manifest: manifest.pop("encoder"))
    with pytest.raises(BadFile, match="encoder and the model's shape"):
        Generator.open(translator)
    edit(translator, "manifest.json", lambda manifest: manifest.update(encoder="other.onnx"))
    with pytest.raises(BadFile, match="'other.onnx' is not among its files"):
        Bundle.open(translator)


def test_what_writes_gives_no_answers(bundle: Path) -> None:
    with pytest.raises(BadInput, match="no head to answer with"):
        Bundle.open(bundle).predict(TEXTS)


def test_a_bundle_says_how_it_writes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing says how the model writes"):
        write_bundle(tmp_path, contents("llama", generation=None))


def test_for_a_phone_there_are_two_files_and_one_list(tmp_path: Path) -> None:
    write_bundle(tmp_path, contents("bart", target="mobile"))
    assert {"decoder_model_merged.ort", "encoder_model.ort", "required_operators_and_types.config"} <= {
        path.name for path in tmp_path.iterdir()
    }
    verify_bundle(tmp_path)
    assert "If" in (tmp_path / "required_operators_and_types.config").read_text()
    assert len(Generator.open(tmp_path).write(TEXTS)) == 3


def test_writing_needs_no_torch(translator: Path) -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pathlib import Path\nfrom export.generator import Generator\n"
        f"Generator.open(Path({str(translator)!r})).write(['w5'])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_the_readme_writes(translator: Path) -> None:
    code = (translator / "README.md").read_text().split("```python\n")[1].split("```")[0]
    said = subprocess.run([sys.executable, "-c", code], cwd=translator, check=True, capture_output=True, text=True)
    assert said.stdout.split()[0].startswith("w")


def test_the_command_writes(translator: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = Generator.open(translator).write(TEXTS)
    for options, expected in (([], "\n".join(written) + "\n"), (["--json"], [{"text": text} for text in written])):
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(translator), *TEXTS, *options])
        assert stop.value.code == 0
        said = capsys.readouterr().out
        assert (json.loads(said) if options else said) == expected


def test_whoever_interrupts_is_told(
    translator: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **options: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "write", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(translator), *TEXTS])
    assert stop.value.code == 130
    assert capsys.readouterr() == ("", "Interrupted. What was finished is kept; run the same command again to go on.\n")
