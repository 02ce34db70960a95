"""Every family against `transformers`: the same logits after reading, and after writing back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.hugging_face import CASES, ROPES, SIZES, WITHOUT_TYPES, answer, copied, edit_config, oracle, saved, tokens
from support.pruning import plan_of
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from compress.pruning.surgery import prune
from compress.quantization.schemes import forms_of, quantize
from export import parity
from export.lower import lower
from export.target import CPU
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, Unsupported
from models.families import FAMILIES
from models.kinds import Activation, Norm, Positions, Reads
from models.shape import HeadShape, LayerShape

cases = pytest.mark.parametrize(("family", "changes"), CASES.values(), ids=CASES)
families = pytest.mark.parametrize("family", SIZES)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # ten times tighter than what is promised


def prefix_of(family: str) -> str:
    return next(record.prefix for record in FAMILIES if record.name == family)


def batches(model: Any) -> list[dict[str, torch.Tensor]]:
    pad = model.config.pad_token_id
    types = getattr(model.config, "type_vocab_size", 0)
    return [
        tokens(pad=pad, types=types),
        tokens(pad=pad, types=types, padded=True),
        tokens(rows=1, time=1, pad=pad, types=types),
        tokens(rows=2, time=model.config.max_position_embeddings - 2, pad=pad, types=types, padded=True),
    ]


def assert_same_logits(model: Any, checkpoint: Checkpoint) -> None:
    network = checkpoint.network()
    for batch in batches(model):
        with torch.no_grad():
            torch.testing.assert_close(network(**batch), answer(model, batch), **CLOSE)


def read_by_transformers(directory: Path) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def written_back(checkpoint: Checkpoint, directory: Path, kind: Any) -> Any:
    """Return the model that `transformers` reads out of what we write, no name missing and none left over."""
    directory.mkdir()
    checkpoint.save_hugging_face(directory)
    back, report = kind.from_pretrained(directory, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return back.eval()


@cases
def test_logits_are_those_of_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = oracle(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path))
    assert checkpoint.shape.family == family
    assert len(checkpoint.shape.labels) == model.config.num_labels
    given = sum(weight.numel() for weight in model.parameters())
    # Every weight of the oracle is drawn; a bias that its config leaves out is zero.
    zero = sum(weight.numel() for weight in checkpoint.weights.values() if not weight.any())
    assert checkpoint.parameters == given + copied(model) + zero
    assert_same_logits(model, checkpoint)


@cases
def test_what_is_written_back_is_what_transformers_reads(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = oracle(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path / "theirs"))
    back = written_back(checkpoint, tmp_path / "ours", AutoModelForSequenceClassification)
    for batch in batches(model):
        torch.testing.assert_close(answer(back, batch), answer(model, batch), atol=1e-6, rtol=0)
    again = Checkpoint.load(tmp_path / "ours")
    assert again.shape == checkpoint.shape
    assert again.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(again.weights[name], weight) for name, weight in checkpoint.weights.items())


@families
@pytest.mark.parametrize(
    ("kind", "task"),
    [
        (AutoModelForTokenClassification, "token-classification"),
        (AutoModelForQuestionAnswering, "question-answering"),
    ],
)
def test_heads_of_tokens_go_both_ways(kind: Any, task: str, family: str, tmp_path: Path) -> None:
    model = oracle(family, kind=kind, num_labels=2)
    checkpoint = Checkpoint.load(saved(model, tmp_path / "theirs"))
    assert checkpoint.shape.head is not None
    assert (checkpoint.shape.head.task, checkpoint.shape.head.tokens) == (task, True)
    network = checkpoint.network()
    for batch in batches(model):
        mask = batch["attention_mask"].bool()  # what stands at padding means nothing
        with torch.no_grad():
            torch.testing.assert_close(network(**batch)[mask], answer(model, batch)[mask], **CLOSE)
    back = written_back(checkpoint, tmp_path / "ours", kind)
    batch = batches(model)[0]
    torch.testing.assert_close(answer(back, batch), answer(model, batch), atol=1e-6, rtol=0)
    assert Checkpoint.load(tmp_path / "ours").shape == checkpoint.shape


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"num_labels": 1, "problem_type": "regression"}, "text-regression"),
        ({"num_labels": 1}, "text-regression"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi-label-classification"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "text-classification"),
        ({"num_labels": 3}, "text-classification"),
    ],
)
def test_the_head_says_what_it_does(changes: dict[str, Any], task: str, tmp_path: Path) -> None:
    shape = Checkpoint.load(saved(oracle("bert", **changes), tmp_path)).shape
    assert shape.head is not None
    assert shape.head.task == task


@families
def test_the_config_goes_both_ways(family: str, tmp_path: Path) -> None:
    names = {0: "bad", 1: "so so", 2: "good"}
    model = oracle(family, id2label=names, label2id={name: number for number, name in names.items()})
    shape = Checkpoint.load(saved(model, tmp_path)).shape
    assert shape.labels == ("bad", "so so", "good")
    record = next(record for record in FAMILIES if record.name == family)
    assert record.shape_of(record.config_of(shape)) == shape
    assert record.shape_of(json.loads(json.dumps(record.config_of(shape)))) == shape


@families
def test_labels_without_names_are_counted(family: str, tmp_path: Path) -> None:
    directory = saved(oracle(family), tmp_path)
    edit_config(directory, id2label=None, label2id=None)
    assert Checkpoint.load(directory).shape.labels == ("LABEL_0", "LABEL_1")


@families
def test_half_precision_is_read_as_float32(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle(family).half(), tmp_path))
    assert {weight.dtype for weight in checkpoint.weights.values()} == {torch.float32}
    assert_same_logits(read_by_transformers(tmp_path), checkpoint)


@families
def test_bfloat16_is_read_as_float32(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle(family).bfloat16(), tmp_path))
    assert {weight.dtype for weight in checkpoint.weights.values()} == {torch.float32}
    assert_same_logits(read_by_transformers(tmp_path), checkpoint)


@families
def test_shards_are_put_together(family: str, tmp_path: Path) -> None:
    model = oracle(family)
    directory = saved(model, tmp_path, max_shard_size="8KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 2
    assert not (directory / "model.safetensors").exists()
    assert_same_logits(model, Checkpoint.load(directory))


@families
def test_a_bare_encoder_gets_a_head(family: str, tmp_path: Path) -> None:
    labels = ("no", "yes", "perhaps")
    directory = saved(oracle(family, kind=AutoModel), tmp_path)
    names = set(load_file(directory / "model.safetensors"))
    assert not any(name.startswith(prefix_of(family)) for name in names)
    checkpoint = Checkpoint.load(directory, head=HeadShape(labels), seed=3)
    assert checkpoint.shape.labels == labels
    assert checkpoint.weights["head.output.weight"].shape == (3, 24)
    assert checkpoint.weights["head.output.weight"].abs().sum() > 0
    again, other = (
        Checkpoint.load(directory, head=HeadShape(labels), seed=3),
        Checkpoint.load(directory, head=HeadShape(labels), seed=4),
    )
    assert torch.equal(again.weights["head.output.weight"], checkpoint.weights["head.output.weight"])
    assert not torch.equal(other.weights["head.output.weight"], checkpoint.weights["head.output.weight"])
    assert checkpoint.network()(**tokens()).shape == (4, 3)


@families
def test_a_bare_encoder_has_the_hidden_states_of_transformers(family: str, tmp_path: Path) -> None:
    model = oracle(family, kind=AutoModel)
    checkpoint = Checkpoint.load(saved(model, tmp_path))
    assert checkpoint.shape.head is None
    batch = tokens(pad=model.config.pad_token_id)
    known = {name: value for name, value in batch.items() if family not in WITHOUT_TYPES or name != "token_type_ids"}
    with torch.no_grad():
        expected = model(**known, output_hidden_states=True).hidden_states
        found = checkpoint.network().features(**batch).hidden
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_berts_pooler_becomes_the_new_head(tmp_path: Path) -> None:
    directory = saved(oracle("bert", kind=AutoModel), tmp_path)
    theirs = load_file(directory / "model.safetensors")
    checkpoint = Checkpoint.load(directory, head=HeadShape(("no", "yes")))
    assert torch.equal(checkpoint.weights["head.dense.weight"], theirs["pooler.dense.weight"])
    assert torch.equal(checkpoint.weights["head.dense.bias"], theirs["pooler.dense.bias"])


@families
def test_a_language_model_is_read_as_an_encoder(family: str, tmp_path: Path) -> None:
    directory = saved(oracle(family, kind=AutoModelForMaskedLM), tmp_path)
    checkpoint = Checkpoint.load(directory, head=HeadShape(("no", "yes")))
    theirs = load_file(directory / "model.safetensors")
    word = next(
        value for name, value in theirs.items() if name.endswith(("word_embeddings.weight", "tok_embeddings.weight"))
    )
    assert torch.equal(checkpoint.weights["embeddings.word.weight"], word)


@families
def test_other_labels_take_another_output_and_keep_the_rest(family: str, tmp_path: Path) -> None:
    directory = saved(oracle(family), tmp_path)
    known = Checkpoint.load(directory)
    wider = Checkpoint.load(directory, head=HeadShape(("a", "b", "c")))
    assert wider.weights["head.output.weight"].shape == (3, 24)
    assert torch.equal(wider.weights["head.dense.weight"], known.weights["head.dense.weight"])
    renamed = Checkpoint.load(directory, head=HeadShape(("no", "yes")))
    assert renamed.shape.labels == ("no", "yes")
    assert torch.equal(renamed.weights["head.output.weight"], known.weights["head.output.weight"])


@families
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (AutoModelForSequenceClassification, HeadShape(("no", "yes"))),
        (AutoModelForTokenClassification, HeadShape(("O", "B-x"), task="token-classification", reads=Reads.EACH)),
        (AutoModelForQuestionAnswering, HeadShape(("start", "end"), task="question-answering", reads=Reads.EACH)),
    ],
    ids=lambda value: getattr(value, "task", ""),
)
def test_a_new_head_is_the_familys_and_can_be_written_back(
    family: str, kind: Any, wanted: HeadShape, tmp_path: Path
) -> None:
    changes = {"dropout": 0.05} if family == "distilbert" else {}
    directory = saved(oracle(family, kind=AutoModel, **changes), tmp_path / "theirs")
    checkpoint = Checkpoint.load(directory, head=wanted)
    assert checkpoint.shape.head is not None
    assert (checkpoint.shape.head.labels, checkpoint.shape.head.task) == (wanted.labels, wanted.task)
    back = written_back(checkpoint, tmp_path / "ours", kind)
    for batch in batches(back):
        shown = batch["attention_mask"].bool() if wanted.tokens else slice(None)
        with torch.no_grad():
            torch.testing.assert_close(checkpoint.network()(**batch)[shown], answer(back, batch)[shown], **CLOSE)
    assert Checkpoint.load(tmp_path / "ours").shape == checkpoint.shape


@families
def test_names_with_and_without_the_prefix(family: str, tmp_path: Path) -> None:
    model = oracle(family)
    directory = saved(model, tmp_path)
    weights = load_file(directory / "model.safetensors")
    assert any(name.startswith(prefix_of(family)) for name in weights)
    save_file(
        {name.removeprefix(prefix_of(family)): value for name, value in weights.items()}, tmp_path / "model.safetensors"
    )
    assert_same_logits(model, Checkpoint.load(directory))


def test_old_buffers_are_passed_over(tmp_path: Path) -> None:
    model = oracle("bert")
    directory = saved(model, tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights["bert.embeddings.position_ids"] = torch.arange(30)[None]
    save_file(weights, directory / "model.safetensors")
    assert_same_logits(model, Checkpoint.load(directory))


@pytest.mark.parametrize(
    "change",
    [
        {"layers": (LayerShape(3, 8, 40), LayerShape(2, 8, 40))},
        {"layers": (LayerShape(2, 8, 40), LayerShape(2, 8, 40))},
        {"layers": ()},
        {"layers": (LayerShape(4, 8, 40, window=3, global_tokens=1),) * 2},
        {"layers": (LayerShape(4, 8, 40, linear=True),) * 2},
        {"norm": Norm.RMS},
        {"pre_norm": True, "positions": Positions.SINUSOIDAL},
    ],
)
@families
def test_what_the_format_cannot_say_is_not_written(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle(family), tmp_path / "theirs"))
    shape = replace(checkpoint.shape, **change)
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match=f"the {family} format"):
        Checkpoint.new(shape, checkpoint.tokenizing, seed=0).save_hugging_face(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@families
def test_a_silu_or_tanh_network_is_refused_where_the_format_has_none(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle(family), tmp_path / "theirs"))
    shape = replace(checkpoint.shape, activation=Activation.TANH)
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported):
        Checkpoint.new(shape, checkpoint.tokenizing, seed=0).save_hugging_face(tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "change", "error", "says"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, Unsupported, "relative_key"),
        ("bert", {"is_decoder": True}, Unsupported, "decoder"),
        ("bert", {"hidden_act": "mish"}, BadInput, "'mish'.*gelu"),
        ("distilbert", {"activation": "mish"}, BadInput, "'mish'.*gelu"),
        ("bert", {"num_attention_heads": 5}, BadInput, "not a multiple of 5 heads"),
        ("roberta", {"num_attention_heads": 0}, BadInput, "0 heads"),
        ("bert", {"hidden_size": None}, BadFile, "hidden_size"),
        ("distilbert", {"dim": None}, BadFile, "dim"),
        ("bert", {"vocab_size": "many"}, BadFile, "wrong type"),
        ("bert", {"num_hidden_layers": [2]}, BadFile, "wrong type"),
        ("bert", {"vocab_size": -3}, BadInput, "vocab_size is -3"),
        ("albert", {"inner_group_num": 2}, Unsupported, "inner_group_num 2"),
        ("albert", {"num_hidden_groups": 0}, BadInput, "num_hidden_groups is 0"),
        ("albert", {"num_hidden_groups": 2}, BadFile, r"lacks layers\.1\."),
        ("mpnet", {"relative_attention_num_buckets": 16}, Unsupported, "16 buckets"),
        ("mpnet", {"pad_token_id": 0}, Unsupported, "padding token 0"),
        ("modernbert", {"layer_types": ["full_attention"]}, BadInput, "layer_types"),
        ("modernbert", {"layer_types": ["full_attention", "other", "full_attention"]}, BadInput, "layer_types"),
        ("modernbert", {"rope_parameters": "long"}, BadInput, "rope_parameters is 'long'"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, Unsupported, "scaled"),
        ("modernbert", {"classifier_pooling": "last"}, BadInput, "'last'.*cls"),
        ("modernbert", {"norm_bias": True}, BadFile, r"lacks embeddings\.norm\.bias"),
        ("modernbert", {"num_attention_heads": 8}, BadInput, "turns pairs of features, and head_size is 3"),
        ("electra", {"embedding_size": 20}, BadFile, r"embeddings\.word\.weight is \(50, 16\), wanted \(50, 20\)"),
        (
            "bert",
            {"model_type": "brt"},
            Unsupported,
            "'brt'.*bert, deit, distilbert, electra, gpt2.*Did you mean 'bert'",
        ),
        ("bert", {"model_type": "xlnet"}, Unsupported, "'xlnet'.*bert, deit, distilbert, electra, gpt2, llama, marian"),
        (
            "bert",
            {"model_type": None},
            Unsupported,
            "mbart, mistral, modernbert, mpnet, mt5, pegasus, qwen2, roberta, t5, vit",
        ),
    ],
)
def test_configs_that_are_not_ours(
    family: str, change: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    directory = saved(oracle(family), tmp_path)
    edit_config(directory, **change)
    with pytest.raises(error, match=says):
        Checkpoint.load(directory)


def with_another(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Return the checkpoint with other numbers in one layer's copy of a weight that layers share."""
    assert torch.equal(checkpoint.weights[name], checkpoint.weights[name.replace("1", "0", 1)])
    return replace(checkpoint, weights={**checkpoint.weights, name: checkpoint.weights[name] + 0.5})


def test_alberts_layers_may_come_to_differ(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle("albert"), tmp_path / "theirs"))
    changed = with_another(checkpoint, "layers.1.ffn.up.bias")
    assert_same_logits(written_back(changed, tmp_path / "ours", AutoModelForSequenceClassification), changed)


def test_alberts_float_graph_holds_shared_weights_once(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle("albert", num_hidden_layers=6), tmp_path))
    apart = Checkpoint.new(checkpoint.shape, checkpoint.tokenizing, seed=0)
    once, each = (lower(one.network(), CPU).ByteSize() for one in (checkpoint, apart))
    layer = sum(value.numel() for name, value in checkpoint.weights.items() if name.startswith("layers.0."))
    assert each - once > 4 * 4 * layer


def test_mpnets_tables_may_come_to_differ_but_not_in_its_format(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle("mpnet"), tmp_path / "theirs"))
    changed = with_another(checkpoint, "layers.1.attention.relative.weight")
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match=r"all layers share mpnet\.encoder\.relative_attention_bias\.weight"):
        changed.save_hugging_face(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    changed.save(tmp_path / "out")
    again = Checkpoint.load(tmp_path / "out")
    assert again.shape == changed.shape
    assert all(torch.equal(again.weights[name], weight) for name, weight in changed.weights.items())


def test_modernberts_config_of_before_transformers_5(tmp_path: Path) -> None:
    model = oracle("modernbert", rope_parameters=ROPES)
    directory = saved(model, tmp_path)
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 500.0, "local_rope_theta": 20.0}
    edit_config(directory, rope_parameters=None, layer_types=None, **old)
    assert_same_logits(model, Checkpoint.load(directory))
    edit_config(directory, local_rope_theta=None)
    assert {layer.rotary for layer in Checkpoint.load(directory).shape.layers} == {500.0, 10_000.0}
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"local_rope_theta": None}))
    assert {layer.rotary for layer in Checkpoint.load(directory).shape.layers} == {500.0}


def test_fused_weights_that_have_no_equal_parts(tmp_path: Path) -> None:
    directory = saved(oracle("modernbert"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.0.attn.Wqkv.weight"] = torch.zeros(71, 24)
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(BadFile, match=r"layers\.0\.attn\.Wqkv.*\(71, 24\) has no 3 equal parts"):
        Checkpoint.load(directory)


@families
def test_a_family_is_pruned_quantized_and_exported(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(oracle(family), tmp_path / "theirs"))
    layers = len(checkpoint.shape.layers)
    heads, neurons = ((0, 2), (1,), (0, 1, 2)), (tuple(range(0, 40, 2)), tuple(range(7)), (3, 4, 39))
    pruned = prune(checkpoint, plan_of(heads[:layers], neurons[:layers]))
    quantized = quantize(pruned, forms_of(pruned))
    assert "embeddings.projection" in quantized.shape.int8_forms or checkpoint.shape.embedding_size is None
    quantized.save(tmp_path)
    batches_of_one = [
        {name: value.numpy() for name, value in tokens(rows=1, time=time).items()} for time in (1, 2, 9, 28)
    ]
    for made, bound in ((pruned, parity.FLOAT_BOUND), (Checkpoint.load(tmp_path), parity.INT8_BOUND)):
        network = made.network()
        parity.compare(network, lower(network, CPU).SerializeToString(), batches_of_one).check(bound)
    with torch.no_grad():
        change = quantized.network()(**tokens()) - pruned.network()(**tokens())
    assert 1e-5 < float(change.abs().max()) < 1.0


@pytest.mark.real
def test_the_real_teacher_on_real_sentences(trained_teacher: Path, sst2: Path) -> None:
    from models.data import read_table

    table = read_table(str(next(sst2.glob("dev*"))))
    checkpoint = Checkpoint.load(trained_teacher)
    model = AutoModelForSequenceClassification.from_pretrained(trained_teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained_teacher)
    network = checkpoint.network()
    for start in range(0, 128, 32):
        texts = table.texts[start : start + 32]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        ours = checkpoint.tokenizing.encode(texts, max_length=checkpoint.shape.usable_positions)
        for row, encoding in enumerate(ours):
            assert encoding.ids == batch["input_ids"][row, : len(encoding.ids)].tolist()
        with torch.no_grad():
            torch.testing.assert_close(network(**batch), model(**batch).logits, atol=1e-4, rtol=0)
            alone = torch.tensor([ours[0].ids])
            torch.testing.assert_close(network(alone), model(alone).logits, atol=1e-4, rtol=0)
