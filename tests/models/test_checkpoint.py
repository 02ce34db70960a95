"""Checkpoints as files: our own format both ways, and every way in which a directory can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from support.examples import WORDS, tiny_checkpoint, tiny_tokenizing
from support.hugging_face import oracle, saved, tokens
from support.networks import EVEN, PRUNED, quantized_network, random_network, tiny_shape

from models import hub
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, CompressError, Unsupported
from models.hub import local_directory
from models.kinds import Int8Form, Norm, Positions
from models.shape import HeadShape, ModelShape

SHAPES: dict[str, ModelShape] = {
    "even": tiny_shape(EVEN),
    "pruned": tiny_shape(PRUNED),
    "pruned pre-norm": tiny_shape(PRUNED, pre_norm=True, norm=Norm.RMS),
    "no layer": tiny_shape(()),
    "no head": tiny_shape(PRUNED, head=None),
    "sinusoidal": tiny_shape(positions=Positions.SINUSOIDAL),
    "no token types": tiny_shape(type_vocab_size=0),
}


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.shape == expected.shape
    assert found.tokenizing == expected.tokenizing
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        assert found.weights[name].dtype == weight.dtype
        assert torch.equal(found.weights[name], weight), name


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_our_format_goes_both_ways(shape: ModelShape, tmp_path: Path) -> None:
    checkpoint = Checkpoint(shape, {}, tiny_tokenizing()).of(random_network(shape))
    checkpoint.save(tmp_path)
    back = Checkpoint.load(tmp_path)
    assert_equal(back, checkpoint)
    batch = tokens(padded=True)
    with torch.no_grad():
        assert torch.equal(back.network()(**batch), checkpoint.network()(**batch))


@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC])
@pytest.mark.parametrize("layers", [EVEN, PRUNED], ids=["even", "pruned"])
def test_int8_goes_both_ways(form: Int8Form, layers: Any, tmp_path: Path) -> None:
    network = quantized_network(random_network(tiny_shape(layers)), form)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)
    checkpoint.save(tmp_path)
    back = Checkpoint.load(tmp_path)
    assert_equal(back, checkpoint)
    assert back.weights["embeddings.word.weight"].dtype == torch.int8
    batch = tokens()
    with torch.no_grad():
        assert torch.equal(back.network()(**batch), network(**batch))
    (tmp_path / "theirs").mkdir()
    with pytest.raises(Unsupported, match="cannot say what this model is"):
        back.save_hugging_face(tmp_path / "theirs")


def test_a_network_is_fresh_and_in_evaluation_mode() -> None:
    checkpoint = tiny_checkpoint()
    before = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    network = checkpoint.network()
    assert not network.training
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    assert all(torch.equal(checkpoint.weights[name], weight) for name, weight in before.items())
    assert torch.equal(checkpoint.network().state_dict()["embeddings.word.weight"], before["embeddings.word.weight"])


def test_a_checkpoint_of_a_network_does_not_follow_it() -> None:
    checkpoint = tiny_checkpoint()
    network = checkpoint.network()
    taken = checkpoint.of(network)
    with torch.no_grad():
        network.embeddings.word.weight.zero_()
    assert taken.weights["embeddings.word.weight"].abs().sum() > 0


def test_new_weights_are_drawn_from_the_seed_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = Checkpoint.new(tiny_shape(), tiny_tokenizing(), seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert_equal(Checkpoint.new(tiny_shape(), tiny_tokenizing(), seed=1), first)
    other = Checkpoint.new(tiny_shape(), tiny_tokenizing(), seed=2)
    assert not torch.equal(other.weights["embeddings.word.weight"], first.weights["embeddings.word.weight"])


def test_parameters_leave_scales_out() -> None:
    checkpoint = tiny_checkpoint()
    network = quantized_network(checkpoint.network(), Int8Form.DYNAMIC)
    assert checkpoint.parameters == sum(weight.numel() for weight in checkpoint.network().parameters())
    assert checkpoint.of(network).parameters == checkpoint.parameters


def test_our_format_takes_other_labels(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.save(tmp_path)
    labels = ("one", "two", "three", "four")
    back = Checkpoint.load(tmp_path, head=HeadShape(labels))
    assert back.shape == replace(checkpoint.shape, head=replace(checkpoint.shape.head, labels=labels))
    assert back.weights["head.output.weight"].shape == (4, 32)
    assert torch.equal(back.weights["head.dense.weight"], checkpoint.weights["head.dense.weight"])


# What is wrong with a directory.


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return saved(oracle("bert"), tmp_path / "theirs")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    directory = tmp_path / "ours"
    directory.mkdir()
    tiny_checkpoint().save(directory)
    return directory


def rewrite(directory: Path, change: dict[str, Any], *, drop: tuple[str, ...] = ()) -> None:
    file = directory / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if name not in drop}
    save_file(weights | change, file)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"])
def test_pickled_weights_are_refused_unread(name: str, theirs: Path) -> None:
    (theirs / "model.safetensors").unlink()
    (theirs / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/unpickled'\ntR.")
    with pytest.raises(Unsupported, match=rf"only as {name}.*safetensors.*save_pretrained"):
        Checkpoint.load(theirs)


def test_no_weights_at_all(theirs: Path) -> None:
    (theirs / "model.safetensors").unlink()
    with pytest.raises(BadFile, match=r"model\.safetensors: there is no such file"):
        Checkpoint.load(theirs)


@pytest.mark.parametrize("left", [0, 7, 8, 100, 0.5, -1])
@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_truncated_weights(kind: str, left: float, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(kind)
    file = directory / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * left) if 0 < left < 1 else int(left)])
    with pytest.raises(BadFile, match="not a whole safetensors file"):
        Checkpoint.load(directory)


def test_missing_and_unknown_names_are_told_together(theirs: Path) -> None:
    drop = ("bert.encoder.layer.1.output.dense.bias", "bert.embeddings.LayerNorm.weight")
    rewrite(theirs, {"bert.encoder.layer.0.adapter.weight": torch.ones(2), "other.bias": torch.ones(2)}, drop=drop)
    with pytest.raises(BadFile) as caught:
        Checkpoint.load(theirs)
    for name in (
        "layers.1.ffn.down.bias",
        "embeddings.norm.weight",
        "bert.encoder.layer.0.adapter.weight",
        "other.bias",
    ):
        assert name in str(caught.value)


def test_a_layer_more_than_the_config_says(theirs: Path) -> None:
    weights = load_file(theirs / "model.safetensors")
    more = {name.replace("layer.1", "layer.2"): value.clone() for name, value in weights.items() if "layer.1." in name}
    rewrite(theirs, more)
    with pytest.raises(BadFile, match=r"not of this configuration.*layer\.2"):
        Checkpoint.load(theirs)


def test_weights_of_another_size(theirs: Path) -> None:
    rewrite(theirs, {"bert.encoder.layer.0.intermediate.dense.weight": torch.ones(41, 24)})
    with pytest.raises(BadFile, match=r"layers\.0\.ffn\.up\.weight is \(41, 24\), wanted \(40, 24\).*configuration"):
        Checkpoint.load(theirs)


def test_our_weights_missing_and_unknown_together(ours: Path) -> None:
    rewrite(ours, {"layers.0.gate.weight": torch.ones(2)}, drop=("layers.1.ffn.up.bias",))
    with pytest.raises(BadFile) as caught:
        Checkpoint.load(ours)
    assert "layers.1.ffn.up.bias is missing" in str(caught.value)
    assert "layers.0.gate.weight is not part of this model" in str(caught.value)


def test_a_classifier_without_its_head_is_not_guessed(theirs: Path) -> None:
    rewrite(theirs, {}, drop=("classifier.weight", "classifier.bias"))
    with pytest.raises(BadFile, match=r"head\.output\.weight is missing"):
        Checkpoint.load(theirs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(value: float, theirs: Path) -> None:
    name = "bert.encoder.layer.1.attention.self.key.weight"
    weights = load_file(theirs / "model.safetensors")[name]
    weights[3, 4] = value
    rewrite(theirs, {name: weights})
    with pytest.raises(BadFile, match=rf"{name}.*not finite"):
        Checkpoint.load(theirs)


def test_whole_numbers_where_floats_belong(ours: Path) -> None:
    rewrite(ours, {"embeddings.word.weight": torch.ones(WORDS, 32, dtype=torch.int8)})
    with pytest.raises(BadFile, match=r"embeddings\.word\.weight"):
        Checkpoint.load(ours)


def test_a_tokenizer_of_another_model(theirs: Path) -> None:
    value = json.loads((theirs / "tokenizer.json").read_text())
    value["model"]["vocab"]["beyond"] = WORDS + 7
    (theirs / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(BadFile, match=rf"ids up to {WORDS + 7}, the model's table has {WORDS} rows"):
        Checkpoint.load(theirs)


def test_no_tokenizer(theirs: Path) -> None:
    (theirs / "tokenizer.json").unlink()
    with pytest.raises(BadFile, match=r"tokenizer\.json: there is no such file"):
        Checkpoint.load(theirs)


@pytest.mark.parametrize("text", ["", "{", "[]", "nul", "\x00", "[" * 100_000])
@pytest.mark.parametrize(("kind", "name"), [("theirs", "config.json"), ("ours", "model.json")])
def test_a_config_that_is_no_object(kind: str, name: str, text: str, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(kind)
    (directory / name).write_text(text)
    with pytest.raises(BadFile, match=name.replace(".", r"\.")):
        Checkpoint.load(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"shape": None},
        {"shape": []},
        {"shape": {}},
    ],
)
def test_a_model_description_of_another_format(change: dict[str, Any], ours: Path) -> None:
    path = ours / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadFile, match=r"model\.json"):
        Checkpoint.load(ours)


def test_a_family_of_a_later_version(ours: Path) -> None:
    path = ours / "model.json"
    path.write_text(path.read_text().replace('"bert"', '"deberta"'))
    with pytest.raises(Unsupported, match="'deberta' is not supported.*bert.*distilbert.*roberta"):
        Checkpoint.load(ours)


@pytest.mark.parametrize("path", ["layers.9.ffn.up", "nowhere", "layers.0.ffn.up.weight", "layers.0", ""])
def test_int8_of_a_module_that_is_not_there(path: str, ours: Path) -> None:
    file = ours / "model.json"
    value = json.loads(file.read_text())
    value["shape"]["int8"] = [[path, "dynamic"]]
    file.write_text(json.dumps(value))
    with pytest.raises(CompressError):
        Checkpoint.load(ours)


# Shards.


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return saved(oracle("bert"), tmp_path / "shards", max_shard_size="8KB")


def edit_index(directory: Path, weight_map: Any) -> None:
    path = directory / "model.safetensors.index.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"weight_map": weight_map}))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "a\\b", "c:d", "", "./x"])
def test_a_shard_outside_the_directory(name: str, shards: Path) -> None:
    edit_index(shards, {"bert.embeddings.LayerNorm.bias": name})
    with pytest.raises(BadFile, match="unsafe path"):
        Checkpoint.load(shards)


@pytest.mark.parametrize("weight_map", [None, [], 3, {"a": 3}, {"a": None}, {"a": ["b"]}, {}])
def test_an_index_that_is_none(weight_map: Any, shards: Path) -> None:
    edit_index(shards, weight_map)
    with pytest.raises(BadFile):
        Checkpoint.load(shards)


def test_a_shard_that_is_missing(shards: Path) -> None:
    name = sorted(shards.glob("model-*.safetensors"))[1]
    name.unlink()
    with pytest.raises(BadFile, match=rf"{name.name}: there is no such file"):
        Checkpoint.load(shards)


# Hub names.


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    """Forget what was fetched: a process asks the hub once for a model."""
    hub._fetch.cache_clear()
    yield
    hub._fetch.cache_clear()


def test_a_hub_name_fetches_config_tokenizer_and_safetensors_only(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def fetch(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(theirs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    checkpoint = Checkpoint.load("some-org/some-model")
    assert checkpoint.shape.family == "bert"
    ((name, options),) = calls
    assert name == "some-org/some-model"
    assert set(options["allow_patterns"]) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "modules.json",  # of sentence-transformers, whose encoder may lie in a directory of its own
        "*/config.json",
        "*/tokenizer.json",
        "*/tokenizer_config.json",
    }


def test_the_hub_is_asked_once_and_the_checkpoint_keeps_its_name(
    theirs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(theirs))
    assert local_directory("some-org/some-model") == theirs
    checkpoint = Checkpoint.load("some-org/some-model")
    assert asked == ["some-org/some-model"]
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours")
    assert Checkpoint.load(tmp_path / "ours").source.name == "some-org/some-model"


@pytest.mark.parametrize("error", [OSError("no network\nat all"), LocalEntryNotFoundError("not in the cache")])
def test_a_hub_that_does_not_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BadInput, match=r"some-org/some-model: neither a directory here nor a model.*Check the name"):
        Checkpoint.load("some-org/some-model")


@pytest.mark.parametrize("source", ["/no/such/place", "./nothing", "~/no-such-model", "a/b/c", "a/", "../x"])
def test_a_path_is_never_taken_for_a_hub_name(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(BadInput, match="there is no such directory"):
        local_directory(source)


def test_a_file_is_no_checkpoint(theirs: Path) -> None:
    with pytest.raises(BadInput, match="this is a file"):
        Checkpoint.load(theirs / "config.json")


def test_loading_does_not_load_the_compiler(theirs: Path) -> None:
    # Drawing weights on the meta device would import torch._dynamo: two seconds at the start of every command.
    code = (
        "import sys; from models.checkpoint import Checkpoint; Checkpoint.load(sys.argv[1]);"
        "print('torch._dynamo' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(theirs)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
