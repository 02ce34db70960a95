"""Every family of images against `transformers`: the same logits after reading, and after writing back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.hugging_face import edit_config
from support.images import CASES, CLASSIFIERS, CONFIGS, SIZES, answer_of, image_oracle, pixel_batches, saved
from transformers import DeiTForImageClassificationWithTeacher

from export.lower import lower
from export.parity import FLOAT_BOUND, compare
from export.target import TARGETS
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, CompressError, Unsupported
from models.families import FAMILIES
from models.shape import HeadShape, LayerShape

cases = pytest.mark.parametrize(("family", "changes"), CASES.values(), ids=CASES)
families = pytest.mark.parametrize("family", CONFIGS)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@cases
def test_logits_are_those_of_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = image_oracle(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path))
    assert checkpoint.shape.family == family
    assert checkpoint.parameters == sum(weight.numel() for weight in model.parameters())
    network = checkpoint.network()
    for batch in pixel_batches(model.config):
        expected = answer_of(model, batch)
        with torch.no_grad():
            torch.testing.assert_close(network(**batch), expected, **CLOSE)
            torch.testing.assert_close(network.features(**batch).logits, expected, **CLOSE)


@cases
def test_what_is_written_back_is_what_transformers_reads(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = image_oracle(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path / "theirs"))
    (tmp_path / "ours").mkdir()
    checkpoint.save_hugging_face(tmp_path / "ours")
    back, report = CLASSIFIERS[family].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for batch in pixel_batches(model.config):
        torch.testing.assert_close(answer_of(back.eval(), batch), answer_of(model, batch), atol=1e-6, rtol=0)
    again = Checkpoint.load(tmp_path / "ours")
    assert (again.shape, again.reader) == (checkpoint.shape, checkpoint.reader)
    assert all(torch.equal(again.weights[name], weight) for name, weight in checkpoint.weights.items())


@cases
def test_the_runtime_computes_the_same(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = image_oracle(family, **changes)
    network = Checkpoint.load(saved(model, tmp_path)).network()
    batches = [{name: value.numpy() for name, value in batch.items()} for batch in pixel_batches(model.config)]
    for target in TARGETS.values():
        compare(network, lower(network, target).SerializeToString(), batches).check(FLOAT_BOUND)


@families
def test_a_bare_encoder_has_the_hidden_states_of_transformers(family: str, tmp_path: Path) -> None:
    model = image_oracle(family, bare=True)
    checkpoint = Checkpoint.load(saved(model, tmp_path))
    assert checkpoint.shape.head is None
    batch = pixel_batches(model.config)[1]
    with torch.no_grad():
        expected = model(**batch, output_hidden_states=True)
        found = checkpoint.network().features(**batch).hidden
    for ours, theirs in zip(found[:-1], expected.hidden_states[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(found[-1], expected.last_hidden_state, **CLOSE)  # normalised, as the head reads it


@families
def test_a_bare_encoder_gets_a_head(family: str, tmp_path: Path) -> None:
    directory = saved(image_oracle(family, bare=True), tmp_path)
    head = HeadShape(("no", "yes", "perhaps"), task="image-classification", dense=False)
    checkpoint = Checkpoint.load(directory, head=head, seed=3)
    assert checkpoint.shape.head == head
    assert checkpoint.weights["head.output.weight"].shape == (3, 24)
    assert checkpoint.weights["head.output.weight"].abs().sum() > 0
    renamed = Checkpoint.load(saved(image_oracle(family), tmp_path / "two"), head=replace(head, labels=("a", "b")))
    assert renamed.shape.labels == ("a", "b")


@families
def test_the_config_goes_both_ways(family: str, tmp_path: Path) -> None:
    names = {0: "cat", 1: "dog", 2: "bat"}
    model = image_oracle(family, id2label=names, label2id={name: number for number, name in names.items()})
    shape = Checkpoint.load(saved(model, tmp_path)).shape
    assert shape.labels == ("cat", "dog", "bat")
    assert shape.head is not None
    assert shape.head.task == ("object-detection" if family == "yolos" else "image-classification")
    record = next(record for record in FAMILIES if record.name == family)
    assert record.shape_of(json.loads(json.dumps(record.config_of(shape)))) == shape


@families
def test_our_own_files_hold_the_same_model(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(image_oracle(family), tmp_path / "theirs"))
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours")
    again = Checkpoint.load(tmp_path / "ours")
    assert (again.shape, again.reader) == (checkpoint.shape, checkpoint.reader)
    assert all(torch.equal(again.weights[name], weight) for name, weight in checkpoint.weights.items())


@families
def test_what_the_format_cannot_say_is_not_written(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(image_oracle(family), tmp_path / "theirs"))
    shape = replace(checkpoint.shape, layers=(LayerShape(3, 8, 40), LayerShape(2, 8, 40)))
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match=f"the {family} format"):
        Checkpoint.new(shape, checkpoint.reader, seed=0).save_hugging_face(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"qkv_bias": False}, Unsupported, "without biases"),
        ({"patch_size": [4, 2]}, Unsupported, "no squares"),
        ({"patch_size": 16}, BadInput, "holds no patch of 16"),
        ({"image_size": 0}, BadInput, "image height is 0"),
        ({"patch_size": 0}, BadInput, "image patch is 0"),
        ({"num_channels": -1}, BadInput, "image channels is -1"),
        ({"image_size": "large"}, BadFile, "wrong type"),
        ({"image_size": 16}, BadFile, r"position\.weight is \(1, 10, 24\), wanted \(17, 24\)"),
        ({"num_channels": 3}, BadFile, r"projection\.weight is \(24, 1, 4, 4\), wanted \(24, 48\)"),
        ({"hidden_act": "mish"}, BadInput, "'mish'"),
        ({"hidden_size": None}, BadFile, "hidden_size"),
        ({"num_attention_heads": 5}, BadInput, "not a multiple of 5 heads"),
        ({"problem_type": "multi_label_classification"}, Unsupported, "multi_label_classification"),
    ],
)
def test_configs_that_are_not_ours(
    change: dict[str, Any], error: type[CompressError], says: str, tmp_path: Path
) -> None:
    directory = saved(image_oracle("vit"), tmp_path)
    edit_config(directory, **change)
    with pytest.raises(error, match=says):
        Checkpoint.load(directory)


def test_a_head_of_the_distillation_token_is_refused(tmp_path: Path) -> None:
    model = DeiTForImageClassificationWithTeacher(CONFIGS["deit"](**SIZES))
    with pytest.raises(Unsupported, match="distillation token"):
        Checkpoint.load(saved(model, tmp_path))


def test_weights_of_other_axes_are_refused(tmp_path: Path) -> None:
    directory = saved(image_oracle("vit"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    name = "vit.embeddings.patch_embeddings.projection.weight"
    save_file({**weights, name: weights[name].reshape(24, 1, 2, 8)}, directory / "model.safetensors")
    with pytest.raises(BadFile, match=r"embeddings\.projection\.weight is \(24, 1, 2, 8\), wanted \(24, 16\)"):
        Checkpoint.load(directory)


def test_a_checkpoint_without_settings_of_its_images_is_refused(tmp_path: Path) -> None:
    directory = saved(image_oracle("vit"), tmp_path)
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(BadFile, match=r"preprocessor_config\.json: there is no such file"):
        Checkpoint.load(directory)


def test_numbers_without_a_name_are_told_apart(tmp_path: Path) -> None:
    names = {0: "N/A", 1: "person", 2: "N/A", 3: "N/A"}
    directory = saved(image_oracle("yolos", id2label=names, label2id={"N/A": 3, "person": 1}), tmp_path)
    assert Checkpoint.load(directory).shape.labels == ("N/A", "person", "N/A (2)", "N/A (3)")


def test_a_detector_learns_other_kinds_with_the_head_that_it_has(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(image_oracle("yolos"), tmp_path))
    assert checkpoint.shape.head is not None
    head = replace(checkpoint.shape.head, labels=("a", "b", "c"))
    again = Checkpoint.load(tmp_path, head=head)
    assert again.shape.head == head
    assert again.weights["head.classes.output.weight"].shape == (4, 24)
    for name in ("head.boxes.output.weight", "head.classes.first.weight"):
        assert torch.equal(again.weights[name], checkpoint.weights[name])
    vit = saved(image_oracle("vit"), tmp_path / "vit")
    with pytest.raises(BadInput, match="reads learned tokens behind an image's patches, and there are none"):
        Checkpoint.load(vit, head=head)


def test_what_a_detector_reads_with(tmp_path: Path) -> None:
    """Published settings keep the shape of an image; a network of one size is given all of it in that size."""
    directory = saved(image_oracle("yolos"), tmp_path)
    path = directory / "preprocessor_config.json"
    own = json.loads(path.read_text())
    expected = Checkpoint.load(directory).reader
    fitted = {"size": {"shortest_edge": 512, "longest_edge": 1333}, "do_pad": True, "do_center_crop": False}
    for changes in (fitted, {"size": 512, "max_size": 1333, "do_center_crop": None}):
        path.write_text(json.dumps({key: value for key, value in (own | changes).items() if value is not None}))
        assert Checkpoint.load(directory).reader == expected
    path.write_text(json.dumps(own | {"size": {"shortest_edge": 12}, "do_center_crop": True}))
    with pytest.raises(BadFile, match="the middle is cut out of images"):
        Checkpoint.load(directory)
