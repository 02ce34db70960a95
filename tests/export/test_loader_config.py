"""What a bundle's files say for other libraries: classes, labels, inputs and outputs by names that these ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.examples import tiny_tokenizing
from support.networks import PRUNED, random_network, tiny_shape
from support.writers import writer
from support.writing_tokenizers import byte_level

from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.target import CPU
from models.checkpoint import Checkpoint
from models.kinds import Reads
from models.shape import HeadShape, LayerShape
from models.tokenizing import Tokenizing

VECTOR = HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32)
SPANS = HeadShape(("start", "end"), task="question-answering", reads=Reads.EACH)


def bundle_of(directory: Path, tokenizing: Tokenizing | None = None, **changes: Any) -> Bundle:
    network = random_network(tiny_shape(**changes))
    checkpoint = Checkpoint(network.shape, {}, tokenizing or tiny_tokenizing()).of(network)
    return write_bundle(directory, Contents.of(checkpoint, graph_file(network, CPU), []))


def told(directory: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, "BertForSequenceClassification"),
        ({"layers": PRUNED}, "BertForSequenceClassification"),
        ({"layers": (LayerShape(0, 8, 0),)}, "BertForSequenceClassification"),
        ({"head": None}, "BertModel"),
        ({"head": VECTOR}, "BertModel"),
        ({"head": SPANS}, "BertForQuestionAnswering"),
    ],
)
def test_the_class_of_transformers_is_named(changes: dict[str, Any], architecture: str, tmp_path: Path) -> None:
    bundle_of(tmp_path, **changes)
    config = told(tmp_path, "config.json")
    assert config["model_type"] == "bert"
    assert config["architectures"] == [architecture]
    assert config["transformers.js_config"] == {"dtype": "fp32"}
    assert ("id2label" in config) is (architecture != "BertModel")


@pytest.mark.parametrize(("family", "kind"), [("pegasus", "mbart"), ("bart", "bart")])
def test_a_family_that_transformers_js_lacks_is_told_as_another(family: str, kind: str, tmp_path: Path) -> None:
    writer(family, vocab_size=360).save_pretrained(tmp_path)
    byte_level().save(tmp_path)
    checkpoint = Checkpoint.load(tmp_path)
    config = checkpoint.loader_config
    assert checkpoint.config is not None
    assert config is not None
    assert checkpoint.config["model_type"] == family
    assert config["model_type"] == kind
    assert config["decoder_layers"] == 3


def test_the_tokenizers_settings_are_those_of_every_version(tmp_path: Path) -> None:
    given = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["w3"], "pad_token": "[PAD]"}
    bundle_of(tmp_path, Tokenizing(tiny_tokenizing().json, given), type_vocab_size=0)
    assert told(tmp_path, "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["w3"],
        "pad_token": "[PAD]",
        "model_input_names": ["input_ids", "attention_mask"],
    }


def test_settings_that_all_read_stay(tmp_path: Path) -> None:
    given = {"tokenizer_class": "BertTokenizer", "extra_special_tokens": {"image_token": "w3"}, "pad_token": "[PAD]"}
    bundle_of(tmp_path, Tokenizing(tiny_tokenizing().json, given))
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    assert told(tmp_path, "tokenizer_config.json") == given | names


def test_the_ends_of_a_span_are_outputs_of_their_own(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, head=SPANS)
    ids = np.array([[5, 9, 14]])
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    both, start, end = bundle.session.run(None, given)
    assert [port.name for port in bundle.manifest.outputs] == ["logits", "start_logits", "end_logits"]
    np.testing.assert_array_equal(both, np.stack([start, end], axis=-1))
