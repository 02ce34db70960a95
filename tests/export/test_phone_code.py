"""The code for phones on a bundle's page: complete, and with the bundle's own names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.examples import tiny_tokenizing, writing_checkpoint
from support.images import image_checkpoint
from support.networks import random_network, tiny_shape

from export.contents import Contents, write_bundle
from export.graph_file import graph_file
from export.target import CPU, MOBILE, Target
from models.checkpoint import Checkpoint
from models.kinds import Reads
from models.shape import HeadShape

BLOCKS = re.compile(r"```(kotlin|swift)\n(.*?)```", re.DOTALL)


def page(directory: Path, checkpoint: Checkpoint, target: Target = MOBILE) -> str:
    examples = (
        []
        if checkpoint.shape.image
        else [dict(one.inputs) for one in checkpoint.tokenizing.encode(["w3 w4"], max_length=9)]
    )
    write_bundle(directory, Contents.of(checkpoint, graph_file(checkpoint.network(), target), examples))
    return (directory / "README.md").read_text(encoding="utf-8")


CLASSES = HeadShape(("good", "bad"))


def checkpoint_of(head: HeadShape = CLASSES, **changes: object) -> Checkpoint:
    network = random_network(tiny_shape(head=head, **changes))
    return Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)


def code_of(text: str) -> dict[str, str]:
    return dict(BLOCKS.findall(text))


def assert_whole(code: str) -> None:
    """Every bracket is closed outside of quotes, and no gap of a template is left."""
    assert "run(" in code
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', re.sub(r"//.*", "", code))
    for left, right in ("()", "{}", "[]"):
        assert bare.count(left) == bare.count(right)
    assert "{{" not in code
    assert not re.search(r"\{[a-z]+\}", code)


def test_the_code_has_the_models_names(tmp_path: Path) -> None:
    text = page(tmp_path, checkpoint_of())
    assert "| input | `token_type_ids` | int64 | batch x time |" in text
    assert "| output | `logits` | float | batch x 2 |" in text
    code = code_of(text)
    assert set(code) == {"kotlin", "swift"}
    for one in code.values():
        assert_whole(one)
        for name in ("input_ids", "attention_mask", "token_type_ids", "logits", "good", "bad", "model.ort"):
            assert name in one
    assert 'val labels = listOf("good", "bad")\n// The answer is labels[' in code["kotlin"]
    assert "fun run(ids: LongArray, kinds: LongArray)" in code["kotlin"]
    assert "func run(ids: [Int64], kinds: [Int64])" in code["swift"]


def test_inputs_that_a_model_lacks_are_not_named(tmp_path: Path) -> None:
    code = code_of(page(tmp_path, checkpoint_of(type_vocab_size=0)))
    assert all("kinds" not in one for one in code.values())


def test_lengths_are_fixed_when_a_session_is_opened(tmp_path: Path) -> None:
    text = page(tmp_path, checkpoint_of(), MOBILE.at_lengths((4, 8, 16)))
    assert "Texts are filled up to 4, 8 or 16 tokens" in text
    kotlin, swift = code_of(text)["kotlin"], code_of(text)["swift"]
    assert 'options.setSymbolicDimensionValue("time", length.toLong())' in kotlin
    assert "listOf(4, 8, 16)" in kotlin
    assert "[4, 8, 16].first { $0 >= ids.count }!" in swift
    assert_whole(kotlin)
    assert_whole(swift)


def test_an_answer_for_each_token_is_not_one_label(tmp_path: Path) -> None:
    head = HeadShape(("O", "B"), task="token-classification", reads=Reads.EACH)
    text = page(tmp_path, checkpoint_of(head))
    assert "`logits`, batch x time x 2" in text
    assert "The answer is" not in text


def test_labels_are_quoted(tmp_path: Path) -> None:
    text = page(tmp_path, checkpoint_of(HeadShape(('a "b"', "c$d", "e\\f"))))
    assert r'listOf("a \"b\"", "c\$d", "e\\f")' in text
    assert r'let labels = ["a \"b\"", "c$d", "e\\f"]' in text


def test_what_writes_has_its_names_and_no_code(tmp_path: Path) -> None:
    text = page(tmp_path, writing_checkpoint("llama"))
    assert "| input | `past_key_values.0.key` |" in text
    assert "A text is written in steps" in text
    assert code_of(text) == {}


def test_other_targets_say_nothing_of_phones(tmp_path: Path) -> None:
    text = page(tmp_path, checkpoint_of(), CPU)
    assert "On a phone" not in text
    assert code_of(text) == {}


@pytest.mark.parametrize("kind", ["kotlin", "swift"])
def test_images_are_pixels(kind: str, tmp_path: Path) -> None:
    checkpoint = image_checkpoint()
    code = code_of(page(tmp_path, checkpoint))[kind]
    assert_whole(code)
    assert "pixel_values" in code
    assert "input_ids" not in code
