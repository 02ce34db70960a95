"""What runs for every word that is written in blocks: what that may be, when it is chosen, and its graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.examples import random_rows, random_written, tiny_checkpoint, tiny_context, writing_checkpoint
from support.writing_shapes import SHAPES

from compress.pruning import latency_table
from compress.pruning.writing_table import TextClock
from compress.quantization.rounding import round_to_four_bits_in_blocks
from compress.quantization.schemes import choices_in_blocks, forms_of, quantize
from compress.recipe import make_recipe
from compress.refusals import check_written
from compress.settings import ExportSettings, QuantizeSettings
from compress.stage import Context
from compress.stages import EXPORT, QUANTIZE
from export.graph_file import graph_file, search_file
from export.graph_search import GraphSearch
from export.runtime_steps import RuntimeSteps, writer_sessions
from export.target import CPU, TARGETS
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.errors import BadInput, Unsupported
from models.generation import Steps, generate, starts
from models.generation_settings import Generation
from models.kinds import BLOCKS, Int8Form
from models.layers.blocked import round_to_blocks, unpack_blocks
from models.native_steps import NativeSteps
from models.shape import ModelShape
from models.tasks import task_named

IN_BLOCKS = QuantizeSettings(weights="int4_blocks", calibration_examples=8, sensitivity=False)
FINE = BLOCKS[Int8Form.BLOCKS32]
TEXTS = ([5, 9, 14, 3], [30], [7, 7, 12, 45, 8, 21])


def blocked(
    name: str, form: Int8Form = Int8Form.BLOCKS32, *, choice: str = "all", seed: int = 3, **changes: object
) -> Checkpoint:
    checkpoint = replace(writing_checkpoint(name, seed=seed), **changes)  # type: ignore[arg-type]
    forms = choices_in_blocks(checkpoint.shape, forms_of(checkpoint), form)[choice]
    return quantize(checkpoint, forms)


def written(
    steps: Callable[[list[list[int]] | None], Steps], how: Generation, *, behind: bool
) -> list[list[tuple[int, ...]]]:
    found = []
    for text in TEXTS:
        texts = generate(steps([text] if behind else None), starts(how, 1) if behind else [text], how)
        found.append([one.tokens for one in texts[0]])
    return found


@pytest.mark.parametrize(("beams", "form"), [(1, Int8Form.BLOCKS32), (3, Int8Form.BLOCKS32), (1, Int8Form.BYTES128)])
@pytest.mark.parametrize("name", SHAPES)
def test_the_graphs_write_what_the_network_writes(name: str, beams: int, form: Int8Form) -> None:
    how = Generation(start=1, end=(2,), max_tokens=7, min_tokens=7, beams=beams)
    checkpoint = blocked(name, form, generation=how)
    network, behind = checkpoint.network(), checkpoint.shape.decoder is not None
    graph = graph_file(network, CPU)
    loaded = writer_sessions(network.shape, graph.data, graph.encoder_data, threads=1)
    stepped = written(lambda sources: RuntimeSteps(loaded, sources), how, behind=behind)
    assert stepped == written(lambda sources: NativeSteps(network, sources), how, behind=behind)
    search = GraphSearch.open(network.shape, how, search_file(network, how, CPU).data, threads=1)
    assert [[one.tokens for one in search.write(list(text), max_tokens=7)] for text in TEXTS] == stepped
    assert len({texts[0] for texts in stepped}) > 1


@pytest.mark.parametrize("name", ["bart", "marian", "llama"])
def test_what_runs_once_for_a_text_and_what_is_only_looked_up_stays_as_it_was(name: str) -> None:
    checkpoint = writing_checkpoint(name)
    plain = forms_of(checkpoint)
    choices = choices_in_blocks(checkpoint.shape, plain, Int8Form.BLOCKS64)
    assert list(choices) == ["all", "words", "int8"]
    assert choices["int8"] == plain
    changed = {path for path, form in choices["all"].items() if form is Int8Form.BLOCKS64}
    assert {path: form for path, form in choices["all"].items() if path not in changed} == {
        path: form for path, form in plain.items() if path not in changed
    }
    words = {path for path, form in choices["words"].items() if form is Int8Form.BLOCKS64}
    if name == "llama":
        assert words == {"output.projection"} < changed
        assert changed == {path for path, form in plain.items() if form is Int8Form.DYNAMIC}
    else:
        assert words == {"decoder.embeddings.word" if name == "marian" else "embeddings.word"} < changed
        layers = {path for path in plain if path.startswith("decoder.layers.")}
        assert changed - words == {path for path in layers if not path.endswith(("cross.key", "cross.value"))}


def test_what_is_asked_for_otherwise_stays_so() -> None:
    checkpoint = writing_checkpoint("gpt2")
    some = forms_of(checkpoint, keep_float=("layers.0.*",), embeddings="int4")
    choices = choices_in_blocks(checkpoint.shape, some, Int8Form.BLOCKS32)
    assert list(choices) == ["all", "int8"]
    assert choices["all"]["embeddings.word"] is Int8Form.TABLE4
    assert not any(path.startswith("layers.0.") for path in choices["all"])
    with pytest.raises(BadInput, match="no layer in int8 runs for every word"):
        choices_in_blocks(checkpoint.shape, forms_of(checkpoint, keep_float=("*",)), Int8Form.BLOCKS32)


@pytest.mark.parametrize("name", ["bart", "t5", "llama"])
@pytest.mark.parametrize("form", [Int8Form.BLOCKS32, Int8Form.BLOCKS128, Int8Form.BYTES128])
def test_saved_and_loaded_it_is_the_same_model(name: str, form: Int8Form, tmp_path: Path) -> None:
    checkpoint = blocked(name, form)
    checkpoint.save(tmp_path)
    loaded = Checkpoint.load(tmp_path)
    assert loaded.shape == checkpoint.shape
    assert loaded.parameters == writing_checkpoint(name).parameters
    ids = torch.tensor([TEXTS[0]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if checkpoint.shape.decoder else {})
    assert torch.equal(loaded.network()(**inputs), checkpoint.network()(**inputs))


def context_of(model: Checkpoint, folder: Path) -> Context:
    behind = model.shape.decoder is not None
    task = task_named("translation" if behind else "text-generation")
    data = random_written(24, behind=behind)
    return replace(tiny_context(folder, model, train=data, validation=data), task=task)


def takes(patch: pytest.MonkeyPatch, **times: float) -> None:
    """Let a word by each choice take so long; the real times of tiny models are all alike."""

    def words(self: TextClock, shapes: Mapping[str, ModelShape]) -> dict[str, float]:
        assert set(shapes) == set(times)
        return times

    patch.setattr(TextClock, "words", words)


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"all": 1.0, "words": 1.5, "int8": 2.0}, "all"),
        ({"all": 2.5, "words": 1.5, "int8": 2.0}, "words"),
        ({"all": 2.5, "words": 2.1, "int8": 2.0}, "int8"),
        ({"all": 2.0, "words": 2.0, "int8": 2.0}, "all"),
    ],
)
def test_the_quickest_is_taken_and_int8_where_blocks_are_slower(
    times: dict[str, float], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, **times)
    model = writing_checkpoint("bart")
    made = QUANTIZE.run(model, IN_BLOCKS, context_of(model, tmp_path))
    assert made.details["blocks"] == {"inputs": 32, "bits": 4, "chosen": chosen, "word_ms": times}
    expected = choices_in_blocks(model.shape, forms_of(model), Int8Form.BLOCKS32)[chosen]
    assert made.product.shape.int8_forms == expected
    assert made.details["forms"] == {path: form.value for path, form in expected.items()}
    plain = QUANTIZE.run(model, QuantizeSettings(sensitivity=False), context_of(model, tmp_path)).product
    for path, form in expected.items():  # what is not in blocks has all of its 8 bits
        alike = torch.equal(made.product.weights[f"{path}.weight"], plain.weights[f"{path}.weight"])
        assert alike == (form is not Int8Form.BLOCKS32), path


@pytest.mark.parametrize(("name", "search"), [("bart", "host"), ("bart", "graph"), ("gpt2", "host")])
def test_a_bundle_of_blocks_is_verified(
    name: str, search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, all=1.0, words=2.0, int8=3.0)
    model = replace(writing_checkpoint(name, seed=3), generation=Generation(start=1, end=(12, 2), max_tokens=5))
    model = replace(model, shape=replace(model.shape, family=name))
    context = context_of(model, tmp_path)
    product = QUANTIZE.run(model, IN_BLOCKS.model_copy(update={"block_size": 64}), context).product
    assert Int8Form.BLOCKS64 in product.shape.int8_forms.values()
    made = EXPORT.run(product, ExportSettings(golden=2, search=search), context)
    assert made.details["parity"]["same_top"] == 1.0
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").examples == 2


@pytest.mark.parametrize("choice", ["all", "words"])
@pytest.mark.parametrize("target", ["mobile", "web"])
def test_a_target_that_multiplies_none_is_refused(target: str, choice: str) -> None:
    network = blocked("bart", choice=choice).network()
    with pytest.raises(Unsupported, match=f"the target {target} multiplies no weights in blocks.*int4 or int8"):
        graph_file(network, TARGETS[target])


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("translation", "mobile", "the target mobile multiplies no weights in blocks"),
        ("translation", "web", "the target web multiplies no weights in blocks"),
        ("text-classification", "cpu", "those of text-classification do not"),
    ],
)
def test_a_recipe_is_refused_before_it_runs(task: str, target: str, message: str) -> None:
    recipe = make_recipe({"quantize": {"weights": "int4_blocks"}, "export": {"target": target}}, where="recipe")
    with pytest.raises(BadInput, match=rf"quantize\.weights: .*{message}.*Give int4 or int8"):
        check_written(recipe, task_named(task))
    for weights in ("int4_blocks", "int8_blocks"):
        check_written(make_recipe({"quantize": {"weights": weights}}, where="recipe"), task_named("translation"))


def test_a_word_is_timed_by_graphs_of_every_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "ROUNDS", 3)
    model = writing_checkpoint("t5")
    context = context_of(model, tmp_path)
    told = QUANTIZE.run(model, IN_BLOCKS, context).details["blocks"]
    assert set(told["word_ms"]) == {"all", "words", "int8"}
    assert told["word_ms"][told["chosen"]] == min(told["word_ms"].values()) > 0
    again = QUANTIZE.run(model, IN_BLOCKS, context).details["blocks"]
    assert again == told  # it is remembered


def test_static_ranges_are_only_for_what_is_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    takes(monkeypatch, all=1.0, words=2.0, int8=3.0)
    model = writing_checkpoint("bart")
    settings = IN_BLOCKS.model_copy(update={"activations": "static"})
    forms = QUANTIZE.run(model, settings, context_of(model, tmp_path)).product.shape.int8_forms
    assert forms["layers.0.ffn.up"] is forms["decoder.layers.0.cross.key"] is Int8Form.STATIC
    assert forms["decoder.layers.0.cross.query"] is Int8Form.BLOCKS32


def test_rounding_by_curvature_loses_less_where_it_counts() -> None:
    random = np.random.default_rng(0)
    read = torch.from_numpy(random.standard_normal((400, 96)) @ random.standard_normal((96, 96))).float()
    weight, bias = torch.from_numpy(random.standard_normal((20, 96))).float(), torch.zeros(20)
    seen = torch.cat([read, torch.ones(400, 1)], dim=1).double()
    levels, scale, moved = round_to_four_bits_in_blocks(weight, bias, seen.t() @ seen, FINE)
    nearest, near_scale = round_to_blocks(weight, FINE)
    assert torch.equal(scale, near_scale)
    errors = [
        float((read @ (unpack_blocks(codes, scale, 96, 4) - weight).t() + added).square().mean())
        for codes, added in ((levels, moved), (nearest, bias))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_sensitivity_is_told_of_blocks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    takes(monkeypatch, all=1.0, words=2.0, int8=3.0)
    model = writing_checkpoint("gpt2")
    settings = IN_BLOCKS.model_copy(update={"sensitivity": True})
    details = QUANTIZE.run(model, settings, context_of(model, tmp_path)).details
    assert {row["name"] for row in details["sensitivity"]} == set(details["forms"])


def test_milder_blocks_are_smaller_and_then_there_are_none() -> None:
    details = {"sensitivity": [], "forms": {"layers.0.ffn.up": "blocks128"}, "float": [], "linear": 9}
    wide = IN_BLOCKS.model_copy(update={"block_size": 128})
    smaller = QUANTIZE.milder(wide, details)
    assert smaller == IN_BLOCKS.model_copy(update={"block_size": 32})
    assert QUANTIZE.milder(smaller, details) == QuantizeSettings(calibration_examples=8, sensitivity=False)


def test_blocks_of_8_bits_are_not_milder_without_blocks() -> None:
    forms = {"decoder.embeddings.word": "bytes128", "embeddings.word": "table", "layers.0.ffn.up": "dynamic"}
    rows = [{"name": name} for name in forms]
    settings = IN_BLOCKS.model_copy(update={"weights": "int8_blocks"})
    found = QUANTIZE.milder(settings, {"sensitivity": rows, "forms": forms, "float": [], "linear": 9})
    assert found == settings.model_copy(update={"keep_float": ("layers.0.ffn.up",)})


def test_bad_settings_and_models_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="block_size needs weights: int4_blocks"):
        QuantizeSettings(block_size=64)
    with pytest.raises(ValidationError, match="a block has 32, 64 or 128 inputs"):
        QuantizeSettings(weights="int4_blocks", block_size=48)
    reads = tiny_checkpoint()
    with pytest.raises(BadInput, match=r"quantize\.weights: no layer in int8 runs for every word.*int4"):
        QUANTIZE.run(reads, IN_BLOCKS, tiny_context(tmp_path, reads, train=random_rows(8)))
    writes = replace(writing_checkpoint("gpt2"), generation=None)
    with pytest.raises(BadInput, match="how the model writes"):
        QUANTIZE.run(writes, IN_BLOCKS, context_of(writes, tmp_path))
    with pytest.raises(BadInput, match=r"data\.train"):
        QUANTIZE.run(writing_checkpoint("gpt2"), IN_BLOCKS, tiny_context(tmp_path, writes))
