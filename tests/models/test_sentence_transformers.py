"""Directories of sentence-transformers: what is read gives the embeddings that `transformers` and the pooling give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.examples import tiny_checkpoint
from support.hugging_face import WITHOUT_TYPES, oracle, saved, tokens
from torch import Tensor
from transformers import AutoModel

from compress.sources import tree_digest
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, Unsupported
from models.kinds import Reads
from models.shape import HeadShape

MEAN, FIRST = "pooling_mode_mean_tokens", "pooling_mode_cls_token"
KINDS = ["Transformer", "Pooling", "Normalize"]
DENSE = ["Transformer", "Pooling", "Dense", "Normalize"]
IDENTITY = "torch.nn.modules.linear.Identity"


def directory_of(
    folder: Path,
    *,
    mode: str = MEAN,
    kinds: list[str] = KINDS,
    encoder: str = "",
    family: str = "bert",
    **settings: Any,
) -> Path:
    """Write a bare encoder and the files that sentence-transformers puts beside it."""
    saved(oracle(family, kind=AutoModel), folder / encoder)
    paths = [encoder, *(f"{place}_{kind}" for place, kind in enumerate(kinds[1:], start=1))]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(zip(paths, kinds, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {one: one == mode for one in (MEAN, FIRST, "pooling_mode_max_tokens")} | settings
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **modes}))
    return folder


def add_dense(folder: Path, *, activation: str = IDENTITY, bias: bool = True, width: Any = 10) -> dict[str, Tensor]:
    """Write the files of a Dense behind the pooling and return its weights."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"linear.weight": (10, 24), **({"linear.bias": (10,)} if bias else {})}
    weights = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    (folder / "2_Dense").mkdir()
    config = {"in_features": 24, "out_features": width, "bias": bias, "activation_function": activation}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    return weights


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kinds", [DENSE, DENSE[:3]])
def test_a_linear_layer_behind_the_pooling(kinds: list[str], *, bias: bool, tmp_path: Path) -> None:
    plain = Checkpoint.load(directory_of(tmp_path / "plain", kinds=KINDS[:2]))
    folder = directory_of(tmp_path / "theirs", kinds=kinds)
    weights = add_dense(folder, bias=bias)
    checkpoint = Checkpoint.load(folder)
    batch = tokens(rows=3, time=7, types=2, pad=0, padded=True)
    with torch.no_grad():
        expected = plain.network()(**batch) @ weights["linear.weight"].T + weights.get("linear.bias", torch.zeros(10))
        expected = expected / expected.norm(dim=1, keepdim=True) if "Normalize" in kinds else expected
        torch.testing.assert_close(checkpoint.network()(**batch), expected, atol=1e-5, rtol=0)
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours")
    assert Checkpoint.load(tmp_path / "ours").shape == checkpoint.shape
    before = tree_digest(folder)
    save_file({name: 2 * value for name, value in weights.items()}, folder / "2_Dense" / "model.safetensors")
    assert tree_digest(folder) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "torch.nn.modules.activation.Tanh"}, r"a Dense that ends in torch.*Tanh"),
        ({"width": "10"}, "out_features is '10'"),
        ({"width": 11}, r"head.projection.weight is \(10, 24\), wanted \(11, 24\)"),
    ],
)
def test_other_linear_layers_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = directory_of(tmp_path / "theirs", kinds=DENSE)
    add_dense(folder, **changes)
    with pytest.raises((Unsupported, BadFile), match=message):
        Checkpoint.load(folder)


@pytest.mark.parametrize("encoder", ["", "0_Transformer"])
@pytest.mark.parametrize("mode", [MEAN, FIRST])
@pytest.mark.parametrize("kinds", [KINDS, KINDS[:2]])
@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_embeddings_are_those_of_the_encoder_pooled(
    mode: str, kinds: list[str], encoder: str, family: str, tmp_path: Path
) -> None:
    folder = directory_of(tmp_path / "theirs", mode=mode, kinds=kinds, encoder=encoder, family=family)
    model = AutoModel.from_pretrained(folder / encoder, attn_implementation="eager").eval()
    checkpoint = Checkpoint.load(folder)
    batch = tokens(
        rows=3, time=7, types=0 if family in WITHOUT_TYPES else 2, pad=model.config.pad_token_id, padded=True
    )
    known = {name: value for name, value in batch.items() if name != "token_type_ids" or family not in WITHOUT_TYPES}
    with torch.no_grad():
        hidden = model(**known).last_hidden_state
        mask = batch["attention_mask"][..., None]
        pooled = hidden[:, 0] if mode == FIRST else (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        expected = pooled / pooled.norm(dim=1, keepdim=True) if "Normalize" in kinds else pooled
        torch.testing.assert_close(checkpoint.network()(**batch), expected, atol=1e-5, rtol=0)
        first = slice(0, 1), slice(0, int(batch["attention_mask"][0].sum()))
        alone = checkpoint.network()(batch["input_ids"][first], None, batch["token_type_ids"][first])
        torch.testing.assert_close(alone, expected[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("reads", [Reads.MEAN, Reads.FIRST])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("width", [32, 12])
def test_what_is_written_is_read_back(reads: Reads, width: int, *, normalized: bool, tmp_path: Path) -> None:
    head = HeadShape(
        (), task="sentence-embedding", reads=reads, width=width, normalized=normalized, projected=width != 32
    )
    checkpoint = tiny_checkpoint(head=head)
    checkpoint.save_hugging_face(tmp_path)
    back = Checkpoint.load(tmp_path)
    assert back.shape == checkpoint.shape
    assert all(torch.equal(back.weights[name], weight) for name, weight in checkpoint.weights.items())


@pytest.mark.parametrize(("mode", "reads"), [("mean", Reads.MEAN), ("cls", Reads.FIRST)])
def test_pooling_as_later_versions_write_it(mode: str, reads: Reads, tmp_path: Path) -> None:
    folder = directory_of(tmp_path / "theirs")
    text = json.dumps({"embedding_dimension": 24, "pooling_mode": mode, "include_prompt": True})
    (folder / "1_Pooling" / "config.json").write_text(text)
    head = Checkpoint.load(folder).shape.head
    assert head is not None
    assert head.reads is reads
    (folder / "1_Pooling" / "config.json").write_text(text.replace(mode, "lasttoken"))
    with pytest.raises(Unsupported, match="pooling by pooling_mode lasttoken"):
        Checkpoint.load(folder)


def test_a_classifier_starts_from_an_encoder_of_sentences(tmp_path: Path) -> None:
    wanted = HeadShape(("no", "yes"))
    checkpoint = Checkpoint.load(directory_of(tmp_path / "theirs"), head=wanted)
    assert checkpoint.shape.head == wanted
    assert checkpoint.weights["head.output.weight"].shape == (2, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["Pooling"]}, "first module is a Pooling, not a Transformer"),
        ({"kinds": ["Transformer", "Pooling", "Normalize", "Dense"]}, r"are Pooling, Normalize, Dense.*in this order"),
        ({"kinds": ["Transformer"]}, "behind the encoder are none"),
        ({"mode": "pooling_mode_max_tokens"}, r"pooling by pooling_mode_max_tokens.*pooling_mode_mean_tokens"),
        ({"mode": "none"}, "pooling by nothing"),
        ({FIRST: True}, "pooling by pooling_mode_mean_tokens and pooling_mode_cls_token"),
    ],
)
def test_other_modules_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=message):
        Checkpoint.load(directory_of(tmp_path / "theirs", **changes))


@pytest.mark.parametrize("text", ["[]", "{", '[{"type": "x"}]', "[3]", '{"a": 1}'])
def test_broken_lists_of_modules(text: str, tmp_path: Path) -> None:
    folder = directory_of(tmp_path / "theirs")
    (folder / "modules.json").write_text(text)
    with pytest.raises(BadFile, match="modules.json"):
        Checkpoint.load(folder)


def test_modules_lie_inside(tmp_path: Path) -> None:
    folder = directory_of(tmp_path / "theirs")
    text = (folder / "modules.json").read_text().replace("1_Pooling", "../elsewhere")
    (folder / "modules.json").write_text(text)
    with pytest.raises((BadFile, BadInput), match="elsewhere"):
        Checkpoint.load(folder)
