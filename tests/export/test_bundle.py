from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file
from support.networks import quantized_network, random_network, tiny_shape

from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.parity import native_logits
from export.target import TARGETS
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.content import Tokens
from models.encoded import Encoded
from models.errors import BadFile, BadInput, CompressError, Mismatch
from models.files import sha256_file
from models.kinds import Int8Form, Reads
from models.network import Network
from models.new_tokenizer import train_byte_level_bpe
from models.sentence_transformers import embedding_head
from models.shape import HeadShape
from models.tokenizing import Tokenizing

EXAMPLES = [
    {"input_ids": np.array([ids]), "token_type_ids": np.array([kinds])}
    for ids, kinds in (([0, 11, 12, 2], [0, 0, 0, 0]), ([0, 20, 2, 30, 2], [0, 0, 0, 1, 1]))
]


@pytest.fixture(scope="module")
def tokenizing() -> Tokenizing:
    return train_byte_level_bpe(["a text about a small thing"] * 3, vocab_size=280, max_length=40)


def contents(tokenizing: Tokenizing, *, target: str = "cpu", network: Network | None = None) -> Contents:
    network = network or random_network(tiny_shape(vocab_size=300))
    return Contents(
        shape=network.shape,
        reader=tokenizing,
        graph=graph_file(network, TARGETS[target]),
        examples=EXAMPLES,
        parameters=sum(weight.numel() for weight in network.parameters()),
        lineage=[{"stage": "teacher"}],
        measurements={"accuracy": 0.5},
        projection=Checkpoint(network.shape, network.state_dict(), tokenizing).projection(),
    )


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, tokenizing: Tokenizing) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    write_bundle(directory, contents(tokenizing))
    return directory


@pytest.fixture
def bundle(tmp_path: Path, sealed: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def restamp(bundle: Path, name: str) -> None:
    """Write the file's true digest into the manifest: what a forger would do."""
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files[name] = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
    edit(bundle / "manifest.json", files=files)


def test_a_bundle_holds_what_the_design_says(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md",
        "config.json",
        "golden.json",
        "manifest.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
        "verify.mjs",
    ]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(path.name for path in bundle.iterdir() if path.name != "manifest.json")
    assert manifest["inputs"][0] == {"name": "input_ids", "dtype": "int64", "shape": ["batch", "time"]}
    assert manifest["outputs"] == [{"name": "logits", "dtype": "float", "shape": ["batch", 3]}]
    assert (manifest["opset"], manifest["target"], manifest["int8"]) == (17, "cpu", {})
    assert manifest["lineage"] == [{"stage": "teacher"}]
    assert manifest["measurements"] == {"accuracy": 0.5}
    config = json.loads((bundle / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert config["max_position_embeddings"] == 40


OF_SENTENCES = (
    HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True),
    HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=12, normalized=True, projected=True),
)


@pytest.mark.parametrize("head", OF_SENTENCES, ids=lambda head: str(head.width))
def test_a_bundle_of_embeddings_is_one_of_sentence_transformers(
    head: HeadShape, tokenizing: Tokenizing, tmp_path: Path
) -> None:
    network = random_network(tiny_shape(vocab_size=300, head=head))
    bundle = write_bundle(tmp_path, contents(tokenizing, network=network))
    verify_bundle(tmp_path)
    assert [port.name for port in bundle.manifest.outputs] == ["sentence_embedding", "last_hidden_state"]
    assert embedding_head(tmp_path, hidden_size=32) == head
    assert "modules.json" in (tmp_path / "README.md").read_text()
    ids = EXAMPLES[0]["input_ids"]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    embedding, states = bundle.session.run(None, given)
    pooled = states.mean(axis=1)  # as sentence-transformers pools what it gets
    if head.projected:
        dense = load_file(tmp_path / "2_Dense" / "model.safetensors")
        pooled = pooled @ dense["linear.weight"].T + dense["linear.bias"]
    assert embedding.shape == (1, head.width)
    np.testing.assert_allclose(embedding, pooled / np.linalg.norm(pooled), atol=1e-6)


def test_a_bundle_verifies_and_says_what_was_checked(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert (report.files, report.examples) == (7, 2)
    assert report.bytes == sum(path.stat().st_size for path in bundle.iterdir()) == Bundle.open(bundle).bytes
    assert report.max_abs <= report.tolerance


def test_an_opened_bundle_knows_its_network(bundle: Path) -> None:
    network = random_network(tiny_shape(vocab_size=300))
    opened = Bundle.open(bundle)
    assert opened.shape == network.shape
    assert opened.parameters == sum(weight.numel() for weight in network.parameters())


def test_a_saved_copy_verifies(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    Bundle.open(bundle).save(copy)
    assert verify_bundle(copy).files == 7


def test_predictions_are_the_networks(bundle: Path, tokenizing: Tokenizing) -> None:
    network = random_network(tiny_shape(vocab_size=300))
    texts = ["a small thing", "text " * 100]
    answers = Bundle.open(bundle).predict(texts)
    for text, answer in zip(texts, answers, strict=True):
        ids = np.array([tokenizing.encode([text], max_length=40)[0].ids])
        logits = native_logits(network, {"input_ids": ids})[0]
        assert answer.values["label"] == "abc"[int(logits.argmax())]
        shares = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(list(answer.values["probabilities"].values()), shares, atol=1e-5)
    assert Bundle.open(bundle).predict([]) == []


def test_a_data_set_is_run_row_by_row(bundle: Path) -> None:
    rows = [[0, 5, 6, 2], [0, 7, 2, 8, 9, 2]]
    data = Encoded(
        content=Tokens(
            np.array([token for row in rows for token in row], dtype=np.int32), np.array([-1, 3], dtype=np.int32)
        ),
        offsets=np.array([0, 4, 10]),
        targets=np.array([0, 1]),
        truncated=0,
        digest="0",
    )
    kinds = [[0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    network = random_network(tiny_shape(vocab_size=300))
    expected = [
        native_logits(network, {"input_ids": np.array([ids]), "token_type_ids": np.array([types])})[0]
        for ids, types in zip(rows, kinds, strict=True)
    ]
    np.testing.assert_allclose(Bundle.open(bundle).logits(data), expected, atol=1e-5)


def test_prediction_needs_no_torch(bundle: Path) -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pathlib import Path\nfrom export.bundle import Bundle\n"
        f"Bundle.open(Path({str(bundle)!r})).predict(['a thing'])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_the_readme_runs(bundle: Path) -> None:
    code = (bundle / "README.md").read_text().split("```python\n")[1].split("```")[0]
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=bundle, check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() in {"a", "b", "c"}


@pytest.mark.parametrize("name", ["README.md", "config.json", "golden.json", "model.onnx", "tokenizer.json"])
def test_a_changed_file_is_caught(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(bytes(data))
    with pytest.raises(BadFile, match=f"{name} does not match its recorded digest"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "model.onnx"])
def test_a_missing_or_longer_file_is_caught(bundle: Path, name: str) -> None:
    with (bundle / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(BadFile, match=f"{name} has .* bytes, recorded"):
        verify_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(BadFile, match=f"{name} is missing"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "a\\b", "c:x", "./model.onnx", ""])
def test_a_path_that_leads_outside_is_refused(bundle: Path, name: str) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    edit(bundle / "manifest.json", files=files | {name: {"sha256": "0" * 64, "bytes": 0}})
    with pytest.raises(BadFile, match="unsafe path"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format"),
        ({"files": {}}, "not among its files"),
        ({"model": "other.onnx"}, "not among its files"),
        ({"surprise": 1}, "surprise"),
        ({"parameters": "many"}, "parameters"),
        ({"outputs": [{"name": "logits", "dtype": "float", "shape": ["batch", 2]}]}, "declares the outputs"),
        ({"inputs": []}, "declares the inputs"),
    ],
)
def test_a_wrong_manifest_is_refused(bundle: Path, changes: dict[str, Any], said: str) -> None:
    edit(bundle / "manifest.json", **changes)
    with pytest.raises(BadFile, match=said):
        verify_bundle(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_a_broken_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadFile):
        verify_bundle(bundle)


def test_other_weights_are_caught_even_when_restamped(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    weight = next(one for one in model.graph.initializer if one.name == "layers.0/ffn/up/weight")
    weight.raw_data = (np.frombuffer(weight.raw_data, dtype=np.float32) * 1.5).tobytes()
    onnx.save(model, bundle / "model.onnx")
    restamp(bundle, "model.onnx")
    with pytest.raises(Mismatch, match="golden example"):
        verify_bundle(bundle)


def test_a_model_that_is_no_model_is_refused(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"hello")
    restamp(bundle, "model.onnx")
    with pytest.raises(BadFile):
        verify_bundle(bundle)


@pytest.mark.parametrize("logits", [[], [0.0], [0.0] * 4])
def test_golden_examples_of_another_size_are_refused(bundle: Path, logits: list[float]) -> None:
    examples = json.loads((bundle / "golden.json").read_text())["examples"]
    examples[0]["logits"] = logits
    edit(bundle / "golden.json", examples=examples)
    restamp(bundle, "golden.json")
    with pytest.raises(BadFile, match="do not fit"):
        verify_bundle(bundle)


def test_a_golden_example_that_the_model_refuses_is_no_crash(bundle: Path) -> None:
    examples = json.loads((bundle / "golden.json").read_text())["examples"]
    examples[0]["input_ids"][1] = 10**9
    edit(bundle / "golden.json", examples=examples)
    restamp(bundle, "golden.json")
    with pytest.raises(CompressError):
        verify_bundle(bundle)


def test_a_directory_that_holds_something_is_not_written_to(tmp_path: Path, tokenizing: Tokenizing) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="empty directory"):
        write_bundle(tmp_path, contents(tokenizing))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_model_that_gives_no_numbers_is_not_written(tmp_path: Path, tokenizing: Tokenizing) -> None:
    network = random_network(tiny_shape(vocab_size=300))
    network.head.output.bias.data.fill_(float("nan"))
    with pytest.raises(Mismatch, match="nan"):
        write_bundle(tmp_path, contents(tokenizing, network=network))


def test_int8_forms_are_recorded(tmp_path: Path, tokenizing: Tokenizing) -> None:
    network = quantized_network(random_network(tiny_shape(vocab_size=300)), Int8Form.DYNAMIC)
    bundle = write_bundle(tmp_path, contents(tokenizing, network=network))
    assert bundle.manifest.int8["layers.0.ffn.up"] == "dynamic"
    assert bundle.manifest.int8["embeddings.word"] == "table"
    assert verify_bundle(tmp_path).tolerance == 0.05


@pytest.mark.parametrize("form", [None, Int8Form.DYNAMIC])
def test_a_mobile_bundle_lists_its_operators(
    tmp_path: Path, tokenizing: Tokenizing, form: Int8Form | None, capfd: pytest.CaptureFixture[str]
) -> None:
    network = random_network(tiny_shape(vocab_size=300))
    network = network if form is None else quantized_network(network, form)
    bundle = write_bundle(tmp_path, contents(tokenizing, target="mobile", network=network))
    assert bundle.model.name == "model.ort"
    assert verify_bundle(tmp_path).files == 8
    listing = (tmp_path / "required_operators_and_types.config").read_text()
    assert "LayerNormalization" in listing
    assert "SkipLayerNormalization" not in listing
    assert ("MatMulInteger" in listing) == (form is not None)
    assert str(tmp_path.parent) not in listing
    assert "/tmp" not in listing
    assert "model.ort" in (tmp_path / "README.md").read_text()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert not any("ort_format_model" in place for place in sys.path)


def test_the_same_contents_give_the_same_files(tmp_path: Path, tokenizing: Tokenizing, sealed: Path) -> None:
    write_bundle(tmp_path, contents(tokenizing))
    for path in sealed.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
