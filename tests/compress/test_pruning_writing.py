"""Heads and neurons of models that write: scored, cut and made up for; `transformers` is the oracle."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.examples import random_written, tiny_context, writing_checkpoint
from support.hugging_face import saved
from support.writers import CASES, batches, logits_of, writer
from torch import Tensor

from compress.curvature import curvature
from compress.pruning.compensation import compensated
from compress.pruning.importance import score_units
from compress.pruning.plan import Plan
from compress.pruning.search import weight_costs, weights_of_layers
from compress.pruning.surgery import prune
from compress.quantization.schemes import forms_of, quantize
from compress.settings import PruneSettings, RecoverySettings
from compress.stages.prune import PRUNE
from export.graph_file import graph_file
from export.runtime_steps import RuntimeSteps, writer_sessions
from export.target import CPU
from models.checkpoint import Checkpoint
from models.evaluation import evaluate_logits
from models.generation import Steps, generate, starts
from models.native_steps import NativeSteps
from models.shape import ModelShape
from models.sublayers import features, sublayers_of
from models.tasks import task_named

# What reads the units in a family's code: of self-attention, of cross-attention, of the FFN.
BART = {
    "": "model.encoder.layers.{i}.",
    "decoder.": "model.decoder.layers.{i}.",
    "attention": "self_attn.out_proj",
    "cross": "encoder_attn.out_proj",
    "ffn": "fc2",
}
LLAMA = {"": "model.layers.{i}.", "attention": "self_attn.o_proj", "ffn": "mlp.down_proj"}
THEIRS = {
    "t5": {
        "": "encoder.block.{i}.layer.",
        "decoder.": "decoder.block.{i}.layer.",
        "attention": "0.SelfAttention.o",
        "cross": "1.EncDecAttention.o",
        "ffn": "1.DenseReluDense.wo",
        "decoder.ffn": "2.DenseReluDense.wo",
    },
    "bart": BART,
    "marian": BART,
    "pegasus": BART,
    "gpt2": {"": "transformer.h.{i}.", "attention": "attn.c_proj", "ffn": "mlp.c_proj"},
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
}
CUT = ("t5", "t5 gated silu", "bart", "marian of two vocabularies", "pegasus", "gpt2", "llama", "mistral", "qwen2")
cases = pytest.mark.parametrize(("family", "changes"), [CASES[name] for name in CUT], ids=CUT)
shapes = pytest.mark.parametrize("name", ["bart", "t5", "gpt2", "llama"])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def drawn(shape: ModelShape, *, seed: int = 0) -> Plan:
    """Return a plan that keeps some units everywhere, and of one sublayer of each kind none."""
    random, sublayers = np.random.default_rng(seed), sublayers_of(shape)
    kept = {one.path: tuple(np.flatnonzero(random.random(one.units) < 0.6).tolist()) for one in sublayers}
    last = {one.part: one.path for one in sublayers}
    return Plan(kept | dict.fromkeys(last.values(), ()))


def their_reader(model: Any, reader: str) -> Any:
    """Return the module of `transformers` that reads the units which `reader` reads here."""
    stack, index, part = re.match(r"(decoder\.|)layers\.(\d+)\.(\w+)", reader).groups()  # type: ignore[union-attr]
    names = THEIRS[model.config.model_type]
    return model.get_submodule(names[stack].format(i=index) + names.get(stack + part, names[part]))


def mask(model: Any, shape: ModelShape, plan: Plan) -> None:
    """Let nothing be read of the units that a plan removes."""
    for one in sublayers_of(shape):
        reader = their_reader(model, one.reader)
        gone = features([unit for unit in range(one.units) if unit not in plan.kept[one.path]], one.width)
        weight = reader.weight.data if isinstance(reader, torch.nn.Linear) else reader.weight.data.t()
        weight[:, gone] = 0


@cases
def test_what_is_cut_is_the_masked_model_and_writes_the_same_in_the_runtime(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = writer(family, **changes)
    whole = Checkpoint.load(saved(model, tmp_path))
    plan = drawn(whole.shape)
    cut = prune(whole, plan)
    mask(model, whole.shape, plan)
    assert whole.config is not None and cut.config is None  # no family's format has other heads by layer
    network = cut.network()
    for batch in batches(model):
        wrote = batch.get("decoder_input_ids")
        meant = batch["attention_mask"].bool() if wrote is None else torch.ones_like(wrote, dtype=torch.bool)
        with torch.no_grad():
            torch.testing.assert_close(network(**batch)[meant], logits_of(model, batch)[meant], atol=5e-5, rtol=1e-5)
    assert np.mean(texts_alike(cut)) == 1.0
    assert np.mean(texts_alike(quantize(cut, forms_of(cut)))) > 0.9


def texts_alike(checkpoint: Checkpoint) -> list[float]:
    """Return of greedy texts the share of tokens that the network and the emitted graphs write alike."""
    network, graph = checkpoint.network(), graph_file(checkpoint.network(), CPU)
    loaded = writer_sessions(network.shape, graph.data, graph.encoder_data, threads=1)
    assert checkpoint.generation is not None
    how = replace(checkpoint.generation, beams=1, max_tokens=8, min_tokens=8)
    behind = graph.encoder is not None

    def written(steps: Steps, text: list[int]) -> tuple[int, ...]:
        ((best, *_),) = generate(steps, starts(how, 1) if behind else [text], how)
        return best.tokens

    alike = []
    for text in ([5, 9, 14, 3, 22, 41, 8], [30], [7, 7, 12, 45]):
        read = [text] if behind else None
        one, other = written(NativeSteps(network, read), text), written(RuntimeSteps(loaded, read), text)
        alike.append(float(np.equal(one, other).mean()))
    return alike


@shapes
def test_scores_are_gradients_on_masks_row_by_row(name: str) -> None:
    checkpoint = writing_checkpoint(name)
    task = task_named("translation" if checkpoint.shape.decoder else "text-generation")
    data = random_written(3, behind=checkpoint.shape.decoder is not None)
    scores = score_units(checkpoint, data, task, examples=100, seed=0)
    for one in sublayers_of(checkpoint.shape):
        wanted = torch.zeros(one.units)
        for row in range(len(data) if one.units else 0):
            network, batch = checkpoint.network(), data.batch(np.array([row]))
            units = torch.ones(one.units, requires_grad=True)
            mask = units.repeat_interleave(one.width)
            network.get_submodule(one.reader).register_forward_pre_hook(lambda _, given, mask=mask: (given[0] * mask,))
            loss = task.loss(network(**batch.inputs).flatten(0, 1), batch.targets.flatten(0, 1))
            wanted += torch.autograd.grad(loss, units)[0].square()
        np.testing.assert_allclose(scores[one.path], wanted.numpy(), rtol=1e-3, atol=1e-8)


@shapes
def test_costs_in_weights_are_the_weights(name: str) -> None:
    checkpoint = writing_checkpoint(name)
    costs = weight_costs(checkpoint, ffn_multiple=1)
    assert costs.of(checkpoint.shape) == weights_of_layers(checkpoint)
    cut = prune(checkpoint, drawn(checkpoint.shape))
    assert costs.of(cut.shape) == pytest.approx(weights_of_layers(cut))


def test_words_count_by_the_shares_that_they_get() -> None:
    """One token's curvature is the Fisher information of its shares, on average over projections."""
    checkpoint, data = writing_checkpoint("gpt2"), random_written(1, behind=False).drawn(1, seed=0)
    path, draws = "layers.1.ffn.down", 600
    network, batch = checkpoint.network(), data.batch(np.array([0]))
    read: list[Tensor] = []
    moved: list[Tensor] = []

    def shift(_: object, given: tuple[Tensor, ...], written: Tensor) -> Tensor:
        read.append(given[0].detach())
        moved.append(torch.zeros_like(written, requires_grad=True))
        return written + moved[-1]

    network.get_submodule(path).register_forward_hook(shift)
    shares = network(**batch.inputs)[0].softmax(dim=-1)
    fisher = torch.zeros(shares.shape[0])
    for token in range(shares.shape[0]):
        for word in range(shares.shape[1]):
            (slope,) = torch.autograd.grad(shares[token, word].log(), moved[0], retain_graph=True)
            fisher += shares[token, word].detach() * slope[0].square().sum(dim=1)
    rows = torch.cat([read[0][0], torch.ones(len(fisher), 1)], dim=1).double()
    wanted = (rows * fisher.double()[:, None]).t() @ rows
    found = sum(curvature(checkpoint, [path], data, examples=1, seed=seed)[path] for seed in range(draws)) / draws
    assert float((found - wanted).norm() / wanted.norm()) < 0.1


@shapes
def test_what_is_left_makes_up_for_what_was_removed(name: str) -> None:
    checkpoint = writing_checkpoint(name).with_biases()
    data = random_written(300, behind=checkpoint.shape.decoder is not None)
    plan = drawn(checkpoint.shape, seed=1)
    cut = prune(checkpoint, plan)
    paths = [one.reader for one in sublayers_of(checkpoint.shape)]
    mended = compensated(checkpoint, plan, cut, curvature(checkpoint, paths, data, examples=300, seed=0))
    mended.network()  # every size is what the shape says
    wanted = shares_of(checkpoint, data)
    errors = [float((wanted * (wanted.log() - shares_of(one, data).log())).sum()) for one in (cut, mended)]
    assert errors[1] < 0.9 * errors[0]


def shares_of(checkpoint: Checkpoint, data: Any) -> Tensor:
    return torch.from_numpy(evaluate_logits(checkpoint.network(), data)).softmax(dim=-1)


@pytest.mark.parametrize(("name", "task"), [("t5", "translation"), ("llama", "text-generation")])
def test_the_stage_removes_a_share_of_all_layers_and_recovers(name: str, task: str, tmp_path: Path) -> None:
    model = writing_checkpoint(name)
    data = random_written(48, behind=model.shape.decoder is not None)
    recovery = RecoverySettings(epochs=4, batch_size=8, learning_rate=3e-3, losses={"kl": 1.0, "mse": 0.0})
    settings = PruneSettings(sparsity=0.4, rounds=2, examples=16, ffn_multiple=4, round_epochs=0.5, recovery=recovery)
    context = replace(tiny_context(tmp_path, model, train=data), task=task_named(task))
    whole, none = PRUNE.run(model, settings, context), RecoverySettings(epochs=0)
    short = settings.model_copy(update={"recovery": none, "round_epochs": 0.0})
    alone = PRUNE.run(model, short, replace(context, scratch=tmp_path / "other"))
    assert weights_of_layers(whole.product) <= 0.6 * weights_of_layers(model)
    assert len(whole.details["rounds"]) == 2
    told = {key: value for key, value in whole.details.items() if key.endswith(("heads", "ffn"))}
    decoder = whole.product.shape.decoder
    stacks = {"": whole.product.shape.layers, **({"decoder_": decoder.layers} if decoder else {})}
    for stack, layers in stacks.items():
        assert told[f"{stack}heads"] == [layer.heads for layer in layers]
        assert told[f"{stack}ffn"] == [layer.ffn for layer in layers]
    assert ("cross_heads" in told) is (decoder is not None)
    wanted = shares_of(model, data)
    errors = [float((wanted * (wanted.log() - shares_of(one.product, data).log())).sum()) for one in (alone, whole)]
    assert errors[1] < 0.7 * errors[0]
