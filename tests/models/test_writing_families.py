"""Every family that writes against `transformers`: the same logits after reading, step by step, and written back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.hugging_face import edit_config, saved
from support.writers import CASES, SIZES, UNTIED, batches, logits_of, writer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from compress.quantization.schemes import forms_of, quantize
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, CompressError, Unsupported
from models.families import FAMILIES
from models.network import Network

cases = pytest.mark.parametrize(("family", "changes"), CASES.values(), ids=CASES)
families = pytest.mark.parametrize("family", SIZES)
CLOSE = {"atol": 3e-5, "rtol": 1e-5}  # three times tighter than what is promised


def tokens_of(batch: dict[str, Tensor]) -> Tensor:
    """Return which answers mean something: not those at padding of what writes itself."""
    wrote = batch.get("decoder_input_ids")
    return batch["attention_mask"].bool() if wrote is None else torch.ones_like(wrote, dtype=torch.bool)


def assert_same_logits(model: Any, network: Network) -> None:
    for batch in batches(model):
        mask = tokens_of(batch)
        with torch.no_grad():
            torch.testing.assert_close(network(**batch)[mask], logits_of(model, batch)[mask], **CLOSE)


@cases
def test_logits_are_those_of_transformers(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = writer(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path))
    assert checkpoint.shape.family == family
    assert_same_logits(model, checkpoint.network())


@cases
def test_what_is_written_back_is_what_transformers_reads(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = writer(family, **changes)
    checkpoint = Checkpoint.load(saved(model, tmp_path / "theirs"))
    (tmp_path / "ours").mkdir()
    checkpoint.save_hugging_face(tmp_path / "ours")
    kind = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    back, report = kind.from_pretrained(tmp_path / "ours", attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for batch in batches(model):
        torch.testing.assert_close(logits_of(back.eval(), batch), logits_of(model, batch), atol=1e-6, rtol=0)
    again = Checkpoint.load(tmp_path / "ours")
    assert again.shape == checkpoint.shape
    assert again.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(again.weights[name], weight) for name, weight in checkpoint.weights.items())


@cases
def test_step_by_step_is_all_at_once(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = writer(family, **changes)
    network = Checkpoint.load(saved(model, tmp_path)).network()
    for batch, first in zip(batches(model), (1, 3, 1, 3), strict=True):
        with torch.no_grad():
            whole, mask = network(**batch), tokens_of(batch)
            torch.testing.assert_close(stepped(network, batch, first=first)[mask], whole[mask], **CLOSE)


def stepped(network: Network, batch: dict[str, Tensor], *, first: int) -> Tensor:
    """Return the logits of a first piece of the tokens, and then of one at a time."""
    behind = "decoder_input_ids" in batch
    ids, mask = batch["decoder_input_ids" if behind else "input_ids"], batch["attention_mask"]
    states = network.encode(batch["input_ids"], mask) if behind else None
    logits, cache, done = list[Tensor](), None, 0
    while done < ids.shape[1]:
        until = done + (1 if done else first)
        seen = mask if behind else mask[:, :until]
        some, cache = network.decode(ids[:, done:until], None if cache else states, seen, cache)
        logits.append(some)
        done = until
    assert cache is not None
    assert len(cache) == len(network.shape.writing_layers)
    for layer, kept in zip(network.shape.writing_layers, cache, strict=True):
        assert kept.own.key.shape == (len(ids), layer.key_heads, ids.shape[1], layer.head_size)
        assert (kept.cross is None) == (layer.cross_heads is None)
        if kept.cross is not None:
            assert kept.cross.value.shape == (len(ids), layer.cross_heads, mask.shape[1], layer.head_size)
    return torch.cat(logits, dim=1)


@families
def test_our_own_directory_goes_both_ways(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(writer(family), tmp_path / "theirs"))
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours")
    again = Checkpoint.load(tmp_path / "ours")
    assert again.shape == checkpoint.shape
    batch = batches(writer(family))[0]
    with torch.no_grad():
        assert torch.equal(again.network()(**batch), checkpoint.network()(**batch))


@pytest.mark.parametrize("family", ["t5", "llama", "qwen2", "bart"])
def test_biases_of_zero_change_nothing(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(writer(family), tmp_path))
    biased, decoder = checkpoint.with_biases(), checkpoint.shape.decoder
    endings = (".output.bias", ".down.bias", ".up.bias", ".query.bias")
    names = {name for name in biased.weights if name.endswith(endings)}
    reading, writing = len(checkpoint.shape.layers), len(decoder.layers) if decoder else 0
    assert len(names) == 4 * reading + 6 * writing
    batch = batches(writer(family))[0]
    with torch.no_grad():
        torch.testing.assert_close(biased.network()(**batch), checkpoint.network()(**batch), **CLOSE)


@families
def test_how_it_writes_travels(family: str, tmp_path: Path) -> None:
    model = writer(family)
    checkpoint = Checkpoint.load(saved(model, tmp_path / "theirs"))
    assert checkpoint.generation is not None
    assert checkpoint.generation.end == (model.config.eos_token_id,)
    behind = model.config.is_encoder_decoder
    assert checkpoint.generation.start == (model.config.decoder_start_token_id if behind else None)
    (tmp_path / "ours").mkdir()
    checkpoint.save(tmp_path / "ours")
    assert Checkpoint.load(tmp_path / "ours").generation == checkpoint.generation
    settings = replace(checkpoint.generation, beams=3, max_tokens=21, length_penalty=0.5)
    (tmp_path / "back").mkdir()
    replace(checkpoint, generation=settings).save_hugging_face(tmp_path / "back")
    assert Checkpoint.load(tmp_path / "back").generation == settings
    assert GenerationConfig.from_pretrained(tmp_path / "back").num_beams == 3
    edit_config(tmp_path / "back", num_beams=7)
    assert Checkpoint.load(tmp_path / "back").generation == settings
    (tmp_path / "back" / "generation_config.json").unlink()
    old = Checkpoint.load(tmp_path / "back").generation
    assert old is not None
    assert (old.beams, old.end, old.start) == (7, settings.end, settings.start)


@families
def test_the_config_goes_both_ways(family: str, tmp_path: Path) -> None:
    shape = Checkpoint.load(saved(writer(family), tmp_path)).shape
    record = next(record for record in FAMILIES if record.name == family)
    assert record.shape_of(json.loads(json.dumps(record.config_of(shape)))) == shape


@families
def test_features_are_the_hidden_states_of_transformers(family: str, tmp_path: Path) -> None:
    model = writer(family)
    network = Checkpoint.load(saved(model, tmp_path)).network()
    batch = batches(model)[0]
    with torch.no_grad():
        expected, found = model(**batch, output_hidden_states=True), network.features(**batch)
    torch.testing.assert_close(found.logits, expected.logits, **CLOSE)
    keys = {"encoder_hidden_states": found.hidden, "decoder_hidden_states": found.written}
    for name, ours in keys.items() if model.config.is_encoder_decoder else [("hidden_states", found.hidden)]:
        theirs = expected[name]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("case", UNTIED)
def test_the_weights_say_whether_words_are_written_by_the_table(case: str, tmp_path: Path) -> None:
    family, changes = CASES[case]
    directory = saved(writer(family, **changes), tmp_path)
    assert Checkpoint.load(directory).weights.keys() >= {"output.projection.weight"}
    edit_config(directory, tie_word_embeddings=True)
    again = Checkpoint.load(directory)
    assert again.shape.output is not None
    assert not again.shape.output.tied
    weights = load_file(directory / "model.safetensors")
    table = next(
        value
        for name, value in weights.items()
        if name.endswith(("shared.weight", "wte.weight", "embed_tokens.weight"))
    )
    save_file({**weights, "lm_head.weight": table.clone()}, directory / "model.safetensors")
    tied = Checkpoint.load(directory)
    assert tied.shape.output is not None
    assert tied.shape.output.tied
    assert "output.projection.weight" not in tied.weights


@pytest.mark.parametrize("padding", ["left", "right", "both"])
def test_a_prompt_may_be_padded_on_either_side(padding: str, tmp_path: Path) -> None:
    model = writer("gpt2")
    network = Checkpoint.load(saved(model, tmp_path)).network()
    ids = torch.arange(2, 8)[None]
    side = torch.full((1, 3), 1)
    parts = {"left": [side, ids], "right": [ids, side], "both": [side, ids, side]}[padding]
    padded = torch.cat(parts, dim=1)
    mask = (padded != 1).long()
    with torch.no_grad():
        last, cache = network.decode(padded, mask=mask)
        after = torch.cat([mask, torch.ones(1, 1, dtype=torch.int64)], dim=1)
        next_one, _ = network.decode(torch.tensor([[9]]), mask=after, cache=cache)
        alone = network(torch.cat([ids, torch.tensor([[9]])], dim=1))
    torch.testing.assert_close(last[mask.bool()], alone[0, :-1], **CLOSE)
    torch.testing.assert_close(next_one[0, 0], alone[0, -1], **CLOSE)


@pytest.mark.parametrize(
    ("family", "change", "error", "says"),
    [
        ("t5", {"architectures": ["T5ForSequenceClassification"]}, Unsupported, "T5ForSequenceClassification"),
        ("t5", {"feed_forward_proj": "twice-gelu"}, BadInput, "twice-gelu"),
        ("t5", {"feed_forward_proj": "mish"}, BadInput, "'mish'.*relu"),
        ("t5", {"num_layers": 5000}, BadInput, "5000 layers"),
        ("t5", {"num_decoder_layers": 2}, BadFile, r"not of this configuration: decoder\.block\.2"),
        ("t5", {"num_layers": 3}, BadFile, r"lacks layers\.2\."),
        ("t5", {"d_model": None}, BadFile, "d_model"),
        ("t5", {"relative_attention_max_distance": 4}, BadInput, "8 buckets for relative distances up to 4"),
        ("gpt2", {"n_head": 5}, BadInput, "not a multiple of 5 heads"),
        ("gpt2", {"add_cross_attention": True}, Unsupported, "add_cross_attention"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, Unsupported, "inverse_layer_idx"),
        ("gpt2", {"n_embd": 48}, BadFile, "wanted"),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, Unsupported, "BartForSequenceClassification"),
        ("bart", {"decoder_attention_heads": 5}, BadInput, "not a multiple of 5 heads"),
        ("marian", {"activation_function": "mish"}, BadInput, "'mish'.*swish"),
        ("marian", {"share_encoder_decoder_embeddings": False}, BadFile, r"lacks decoder\.embeddings\.word\.weight"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, Unsupported, "scaled .'llama3'.*rope_type"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, Unsupported, "scaled .'linear'"),
        ("llama", {"rope_parameters": "long"}, BadInput, "rope_parameters is 'long'"),
        ("llama", {"num_key_value_heads": 4}, BadInput, "6 heads for 4 of keys and values"),
        ("llama", {"attention_bias": True}, BadFile, r"lacks layers\.0\.attention\.key\.bias"),
        ("qwen2", {"use_sliding_window": True}, Unsupported, "window"),
    ],
)
def test_configs_that_are_not_ours(
    family: str, change: dict[str, Any], error: type[CompressError], says: str, tmp_path: Path
) -> None:
    directory = saved(writer(family), tmp_path)
    edit_config(directory, **change)
    with pytest.raises(error, match=says):
        Checkpoint.load(directory)


def test_a_decoder_is_given_what_it_wrote(tmp_path: Path) -> None:
    network = Checkpoint.load(saved(writer("t5"), tmp_path)).network()
    with pytest.raises(BadInput, match="needs the tokens that it wrote"):
        network(torch.tensor([[2, 3]]))


def test_a_shared_table_that_differs_is_refused(tmp_path: Path) -> None:
    directory = saved(writer("t5"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    other = {"decoder.embed_tokens.weight": weights["shared.weight"] + 1}
    save_file({**weights, **other}, directory / "model.safetensors")
    with pytest.raises(BadFile, match="differs from what it is shared with"):
        Checkpoint.load(directory)


def test_a_shared_table_beside_an_output_of_its_own_is_not_written_as_bart(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(writer("bart"), tmp_path / "theirs"))
    assert checkpoint.shape.output is not None
    shape = replace(checkpoint.shape, output=replace(checkpoint.shape.output, tied=False))
    (tmp_path / "out").mkdir()
    with pytest.raises(Unsupported, match="the bart format"):
        Checkpoint.new(shape, checkpoint.tokenizing, seed=0).save_hugging_face(tmp_path / "out")


def test_a_bias_of_the_words_may_be_absent(tmp_path: Path) -> None:
    directory = saved(writer("bart"), tmp_path)
    weights = load_file(directory / "model.safetensors")
    assert weights.pop("final_logits_bias").any()
    save_file(weights, directory / "model.safetensors")
    assert not Checkpoint.load(directory).weights["output.bias"].any()


@families
@pytest.mark.parametrize("embeddings", ["int8", "int4", "float"])
def test_a_writer_in_int8_stays_near(family: str, embeddings: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(saved(writer(family), tmp_path / "theirs"))
    quantized = quantize(checkpoint, forms_of(checkpoint, embeddings=embeddings))
    (tmp_path / "ours").mkdir()
    quantized.save(tmp_path / "ours")
    network = Checkpoint.load(tmp_path / "ours").network()
    batch = batches(writer(family))[0]
    with torch.no_grad():
        error = (network(**batch) - checkpoint.network()(**batch)).abs().max()
        stepwise = stepped(network, batch, first=3)
        assert float((stepwise - network(**batch)).abs().max()) < 1.5  # ranges are those of a step
    assert 1e-5 < float(error) < 1.5
