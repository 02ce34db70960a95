from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.examples import random_rows, tiny_checkpoint, tiny_context, writing_checkpoint
from support.pruning import plan_of
from torch import nn

from compress.pruning.surgery import prune
from compress.quantization import sensitivity
from compress.quantization.calibration import calibrate
from compress.quantization.schemes import Range, forms_of, linear_paths, quantize, table_paths
from compress.quantization.sensitivity import affordable, sensitivities
from compress.settings import Calibration, QuantizeSettings
from compress.stages.quantize import QUANTIZE
from models.checkpoint import Checkpoint
from models.encoded import Encoded
from models.errors import BadInput
from models.evaluation import evaluate_logits
from models.kinds import Int8Form, Positions
from models.layers.packed import PackedEmbedding, TwoBitEmbedding
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear, quantize_weight
from models.tasks.text_classification import TextClassification

ROWS = random_rows(24)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def answers(checkpoint: Checkpoint, data: Encoded = ROWS) -> np.ndarray:
    return evaluate_logits(checkpoint.network(), data)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.floats(1e-6, 1e6))
def test_a_weight_is_within_half_a_scale(seed: int, rows: int, columns: int, size: float) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed % 2**31)) * size
    levels, scale = quantize_weight(weight)
    assert levels.dtype is torch.int8
    error = (levels.float() * scale[:, None] - weight).abs()
    assert bool((error <= scale[:, None] * 0.5001).all())


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0, 1))
def test_an_activation_in_its_range_is_within_half_a_scale(one: float, other: float, place: float) -> None:
    found = Range.around(min(one, other), max(one, other))
    assert found.low <= 0 <= found.high
    value = found.low + place * (found.high - found.low)
    level = min(255, max(0, round(value / found.scale) + found.zero_point))
    # The zero point is rounded too, so the ends may be half a level further away.
    assert abs((level - found.zero_point) * found.scale - value) <= found.scale * 1.0001
    assert (round(0.0) + found.zero_point - found.zero_point) * found.scale == 0.0


def test_every_linear_layer_and_table_is_quantized_by_default() -> None:
    checkpoint = tiny_checkpoint()
    forms = forms_of(checkpoint)
    quantized = quantize(checkpoint, forms)
    network = quantized.network()
    assert not [path for path, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))]
    assert sum(isinstance(module, QuantizedLinear) for module in network.modules()) == 2 * 6 + 2
    assert sum(isinstance(module, QuantizedEmbedding) for module in network.modules()) == 3
    assert quantized.shape.int8_forms == forms
    assert checkpoint.shape.int8 == ()  # the parent is as it was


@pytest.mark.parametrize("width", [None, 13])
@pytest.mark.parametrize(("bits", "kind"), [("int4", PackedEmbedding), ("int2", TwoBitEmbedding)])
def test_the_word_table_may_be_in_few_bits(
    tmp_path: Path, bits: Literal["int4", "int2"], kind: type, width: int | None
) -> None:
    checkpoint = tiny_checkpoint(embedding_size=width)
    quantized = quantize(checkpoint, forms_of(checkpoint, embeddings=bits))
    network = quantized.network()
    assert isinstance(network.embeddings.word, kind)
    assert isinstance(network.embeddings.position, QuantizedEmbedding)
    assert quantized.parameters == quantize(checkpoint, forms_of(checkpoint)).parameters == checkpoint.parameters
    quantized.save(tmp_path)
    again = Checkpoint.load(tmp_path)
    ids = torch.arange(2, 12)[None]
    assert torch.equal(again.network()(ids), network(ids))
    found = sensitivities(checkpoint, quantized, random_rows(40, labels=0), TextClassification())
    costs = {one.name: one.mse for one in found}
    assert costs["embeddings.word"] > 10 * costs["embeddings.position"]


@pytest.mark.parametrize(
    ("name", "written"), [("bert", None), ("gpt2", "embeddings.word"), ("marian", "decoder.embeddings.word")]
)
def test_in_a_reduced_range_only_what_is_multiplied_has_fewer_levels(
    name: str, written: str | None, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint() if written is None else writing_checkpoint(name)
    context = tiny_context(tmp_path, checkpoint, train=random_rows(8))
    settings = QuantizeSettings(reduced_range=True, sensitivity=False)
    product = QUANTIZE.run(checkpoint, settings, context).product
    highest = {path: int(product.weights[f"{path}.weight"].abs().max()) for path in product.shape.int8_forms}
    multiplied = {*linear_paths(checkpoint.shape), *([] if written is None else [written])}
    assert {highest[path] for path in multiplied} == {64}
    assert {highest[path] for path in set(highest) - multiplied} == {127}


def test_weights_in_4_bits_have_16_levels_and_the_same_form(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    context = tiny_context(tmp_path, checkpoint, train=random_rows(200))
    settings = QuantizeSettings(weights="int4", keep_float=("layers.0.ffn.up",), sensitivity=False)
    product = QUANTIZE.run(checkpoint, settings, context).product
    assert product.shape == quantize(checkpoint, forms_of(checkpoint, keep_float=settings.keep_float)).shape
    for path in linear_paths(checkpoint.shape):
        levels = product.weights[f"{path}.weight"]
        if path == "layers.0.ffn.up":
            assert torch.equal(levels, checkpoint.weights[f"{path}.weight"])
        else:
            assert levels.dtype is torch.int8
            assert -8 <= int(levels.min()) < 0 < int(levels.max()) <= 7
    assert np.abs(answers(product) - answers(checkpoint)).max() < 1.0


def test_milder_gives_weights_their_8_bits_back() -> None:
    details = {"sensitivity": [{"name": "head.dense"}], "forms": {"head.dense": "dynamic"}, "float": [], "linear": 9}
    milder = QUANTIZE.milder(QuantizeSettings(weights="int4"), details)
    assert milder == QuantizeSettings()
    assert QUANTIZE.milder(milder, details) == QuantizeSettings(keep_float=("head.dense",))
    unmeasured = {"sensitivity": [], "forms": {}, "float": [], "linear": 9}
    assert QUANTIZE.milder(QuantizeSettings(weights="int4"), unmeasured) == QuantizeSettings()


def test_milder_does_not_try_again_what_was_int8_already() -> None:
    details = {"sensitivity": [{"name": "layers.0.ffn.up"}], "float": [], "linear": 9}
    asked = QuantizeSettings(weights="int4_blocks", block_size=64)
    in_blocks, quicker = ({**details, "forms": {"layers.0.ffn.up": form}} for form in ("blocks64", "dynamic"))
    assert QUANTIZE.milder(asked, in_blocks) == QuantizeSettings(weights="int4_blocks", block_size=32)
    assert QUANTIZE.milder(asked, quicker) == QuantizeSettings(keep_float=("layers.0.ffn.up",))


def test_milder_doubles_the_bits_of_a_sensitive_table() -> None:
    details = {"sensitivity": [{"name": "embeddings.word"}], "forms": {"embeddings.word": "table2"}}
    assert QUANTIZE.milder(QuantizeSettings(embeddings="int2"), details) == QuantizeSettings(embeddings="int4")


def test_milder_gives_a_sensitive_table_its_8_bits_back() -> None:
    details = {
        "sensitivity": [{"name": "embeddings.word"}, {"name": "head.dense"}],
        "forms": {"embeddings.word": "table4", "head.dense": "dynamic"},
        "float": [],
        "linear": 9,
    }
    milder = QUANTIZE.milder(QuantizeSettings(embeddings="int4"), details)
    assert milder is not None
    assert milder.embeddings == "int8"
    assert milder.keep_float == ()
    details["forms"] = {"embeddings.word": "table", "head.dense": "dynamic"}
    again = QUANTIZE.milder(milder, details)
    assert again is not None
    assert again.keep_float == ("head.dense",)


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    paths = linear_paths(checkpoint.shape)
    static = dict.fromkeys(paths[:5], Int8Form.STATIC) | dict.fromkeys(paths[5:], Int8Form.DYNAMIC)
    ranges = calibrate(checkpoint, paths[:5], ROWS, method=Calibration.MINMAX)
    for forms in (forms_of(checkpoint), static):
        quantized = quantize(checkpoint, forms, ranges)
        folder = tmp_path / str(len(forms))
        folder.mkdir()
        quantized.save(folder)
        loaded = Checkpoint.load(folder)
        assert loaded.shape == quantized.shape
        np.testing.assert_array_equal(answers(loaded), answers(quantized))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_int8_stays_near_float(activations: str) -> None:
    checkpoint = tiny_checkpoint()
    forms = forms_of(checkpoint, activations=activations)
    static = [path for path, form in forms.items() if form is Int8Form.STATIC]
    ranges = calibrate(checkpoint, static, ROWS, method=Calibration.MINMAX)
    error = np.abs(answers(quantize(checkpoint, forms, ranges)) - answers(checkpoint))
    assert 0 < error.max() < 0.1 * answers(checkpoint).std() + 0.05


def test_what_is_kept_in_float_is_untouched() -> None:
    checkpoint = tiny_checkpoint()
    forms = forms_of(checkpoint, keep_float=("layers.0.*", "head.output"), embeddings="float")
    assert sorted(forms) == sorted(
        [*(p for p in linear_paths(checkpoint.shape) if p.startswith("layers.1.")), "head.dense"]
    )
    network = quantize(checkpoint, forms).network()
    assert isinstance(network.layers[0].ffn.up, nn.Linear)
    assert torch.equal(network.layers[0].ffn.up.weight, checkpoint.weights["layers.0.ffn.up.weight"])
    everything = forms_of(checkpoint, keep_float=("*",))
    assert everything == {}
    np.testing.assert_array_equal(answers(quantize(checkpoint, everything)), answers(checkpoint))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"'layers\.0\.ffn\.upp'.*Did you mean 'layers\.0\.ffn\.up'"):
        forms_of(tiny_checkpoint(), keep_float=("layers.0.ffn.upp",))
    with pytest.raises(BadInput, match="fits no linear layer"):
        forms_of(tiny_checkpoint(), keep_float=("encoder.*",))


def test_what_cannot_be_quantized_is_refused() -> None:
    checkpoint = tiny_checkpoint()
    with pytest.raises(BadInput, match="already"):
        forms_of(quantize(checkpoint, forms_of(checkpoint)))
    with pytest.raises(BadInput, match=r"no calibrated range for layers\.0\.ffn\.up"):
        quantize(checkpoint, {"layers.0.ffn.up": Int8Form.STATIC})


def test_a_pruned_model_with_emptied_sublayers_is_quantized() -> None:
    checkpoint = tiny_checkpoint()
    pruned = prune(checkpoint, plan_of(((), (0, 3)), (tuple(range(9)), ())))
    forms = forms_of(pruned)
    assert not [path for path in forms if path.startswith(("layers.0.attention", "layers.1.ffn"))]
    assert np.abs(answers(quantize(pruned, forms)) - answers(pruned)).max() < 0.2


def test_tables_are_those_that_are_learned() -> None:
    shape = tiny_checkpoint(positions=Positions.SINUSOIDAL, type_vocab_size=0).shape
    assert table_paths(shape) == ["embeddings.word"]
    quantized = quantize(
        checkpoint := tiny_checkpoint(positions=Positions.SINUSOIDAL, type_vocab_size=0), forms_of(checkpoint)
    )
    assert np.isfinite(answers(quantized)).all()


def test_sensitivity_is_the_cost_of_one_module_alone() -> None:
    for pre_norm in (False, True):
        checkpoint = tiny_checkpoint(pre_norm=pre_norm)
        forms = forms_of(checkpoint)
        found = sensitivities(checkpoint, quantize(checkpoint, forms), ROWS, TextClassification())
        assert {one.name for one in found} == set(forms)
        assert [one.kl for one in found] == sorted((one.kl for one in found), reverse=True)
        right = TextClassification().statistics(answers(checkpoint), ROWS, ())[:, 0].mean()
        for one in found:
            alone = answers(quantize(checkpoint, {one.name: forms[one.name]}))
            assert one.mse == pytest.approx(float(np.square(alone - answers(checkpoint)).mean()), rel=1e-3, abs=1e-12)
            score = TextClassification().statistics(alone, ROWS, ())[:, 0].mean()
            assert one.score_change == pytest.approx(score - right)
            assert one.kl >= -1e-7


def test_a_spoilt_layer_is_the_most_sensitive() -> None:
    checkpoint = tiny_checkpoint()
    weights = dict(checkpoint.weights)
    spoilt = weights["layers.1.ffn.down.weight"].clone()
    spoilt[:, 0] = 40.0  # one column so large that the others fall into few levels
    weights["layers.1.ffn.down.weight"] = spoilt
    spoilt_checkpoint = replace(checkpoint, weights=weights)
    forms = dict.fromkeys(linear_paths(checkpoint.shape), Int8Form.DYNAMIC)
    quantized = quantize(spoilt_checkpoint, forms)
    found = sensitivities(spoilt_checkpoint, quantized, random_rows(24, labels=0), TextClassification())
    assert found[0].name == "layers.1.ffn.down"
    assert found[0].score_change is None


def test_what_is_affordable_shrinks_with_the_model_and_never_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tiny_checkpoint()
    assert affordable(small, 17, ROWS) == len(ROWS)
    assert affordable(small, 10**12, ROWS) == 1
    assert affordable(small, 17, random_rows(0)) == 0
    weights = sum(value.numel() for name, value in small.weights.items() if not name.startswith("embeddings."))
    monkeypatch.setattr(sensitivity, "WORK", weights * float(ROWS.lengths.mean()) * 5 * 10.001)
    assert affordable(small, 10, ROWS) == 10
    assert affordable(small, 20, ROWS) == 5


def test_the_stage_tells_what_it_did(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    context = tiny_context(tmp_path, checkpoint, train=random_rows(40))
    settings = QuantizeSettings(activations="static", keep_float=("layers.0.ffn.*",), calibration_examples=16)
    output = QUANTIZE.run(checkpoint, settings, context)
    details = output.details
    assert details["linear"] == 14
    assert details["float"] == ["layers.0.ffn.up", "layers.0.ffn.down"]
    assert {row["name"] for row in details["sensitivity"]} == set(details["forms"])
    assert details["sensitivity_examples"] == 16
    assert details["forms"]["embeddings.word"] == "table"
    assert output.product.shape.int8_forms["head.dense"] is Int8Form.STATIC
    assert np.abs(answers(output.product) - answers(checkpoint)).max() < 0.5


def test_the_dynamic_stage_needs_no_examples(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    output = QUANTIZE.run(checkpoint, QuantizeSettings(sensitivity=False), tiny_context(tmp_path, checkpoint))
    assert output.details["sensitivity"] == []
    with pytest.raises(BadInput, match="Give --train"):
        QUANTIZE.run(checkpoint, QuantizeSettings(), tiny_context(tmp_path, checkpoint))


def test_milder_leaves_the_most_sensitive_in_float_up_to_half(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    context = tiny_context(tmp_path, checkpoint, train=random_rows(20))
    settings: QuantizeSettings | None = QuantizeSettings(calibration_examples=20)
    counts = []
    while settings is not None:
        details = QUANTIZE.run(checkpoint, settings, context).details
        counts.append(len(details["float"]))
        linear = [row["name"] for row in details["sensitivity"] if details["forms"][row["name"]] != "table"]
        settings = QUANTIZE.milder(settings, details)
        if settings is not None:
            assert settings.keep_float[-2:] == tuple(linear[:2])
    assert counts == [0, 2, 4, 6]
    assert QUANTIZE.milder(QuantizeSettings(), {"sensitivity": [], "forms": {}, "float": [], "linear": 4}) is None
